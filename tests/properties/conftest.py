"""Provides an API that property tests may change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from shortlist.batch import publish
from shortlist.batch.progress import ProgressReporter
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.store.redis import open_store

ADMIN_KEY = "the-properties-key"


@pytest.fixture(scope="module")
def api(published) -> Iterator[TestClient]:
    """The API over a copy of the release, which deletions and events may change."""
    own = f"properties-{uuid.uuid4().hex[:8]}"
    changed = replace(
        published.settings, namespace=own, admin_key=ADMIN_KEY, release_cache_seconds=60.0
    )
    publish.publish(
        published.work / "bundle", published.work / "lists", changed, ProgressReporter()
    )
    store = open_store(changed.redis_url, changed.namespace, 2000)
    yield TestClient(create_app(changed, store, LivePath(changed)), raise_server_exceptions=False)
    store.close()
