"""Tests the promote route's errors for missing and broken releases.

A release that is not there is a 404; one that is broken is a 503.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.store.release_files import MANIFEST, build_manifest

KEY = "a-key-of-the-tests-own"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An artefact directory with the release v1."""
    directory = tmp_path / "artefacts" / "v1"
    directory.mkdir(parents=True)
    (directory / "a.txt").write_text("hello")
    build_manifest(directory, version="v1")
    return directory.parent


@pytest.fixture
def client(own, place: Path) -> TestClient:
    """An operator of an API over that directory."""
    settings, store = own
    settings = replace(settings, admin_key=KEY, artefacts=str(place))
    app = create_app(settings, store, LivePath(settings))
    return TestClient(app, headers={"X-Shortlist-Admin-Key": KEY})


def refused(client: TestClient, version: str) -> tuple[int, str]:
    """The status and code of a refused promotion."""
    response = client.post(f"/v1/releases/{version}/promote")
    return response.status_code, response.json()["error"]["code"]


def test_unknown_release(client) -> None:
    """A version that is not among the artefacts is not found."""
    assert refused(client, "v9") == (404, "not_found")


def test_corrupt_release(client, place: Path) -> None:
    """A manifest that cannot be read is a fault of the service, and not a wrong version."""
    (place / "v1" / MANIFEST).write_text("[]")
    assert refused(client, "v1") == (503, "unavailable")


def test_missing_artefacts(client, place: Path) -> None:
    """A directory that is away says nothing about a release."""
    place.rename(place.with_name("away"))
    assert refused(client, "v1") == (503, "unavailable")


def test_expired_lists(client) -> None:
    """A release whose lists are gone from Redis breaks a rule, as before."""
    assert refused(client, "v1") == (422, "invalid_request")
