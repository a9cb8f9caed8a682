"""Tests how a process learns the facts of a release."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_facts import ReleaseFacts, pack_facts
from shortlist.recsys.where import AttributeKind

NOTED = ReleaseFacts(repeats="allow", labels={"brand": frozenset({"acme"})})
STATED = ReleaseFacts(has_clock_times=True, attributes={"year": AttributeKind.NUMBER})
"""What the published bundle's manifest says."""


@pytest.fixture
def opened(own) -> Callable[..., ServingRelease]:
    """Opens a new process's view of the release."""
    settings, store = own

    def made(store: RedisStore = store) -> ServingRelease:
        return ServingRelease(settings, store, None, Metrics(), time.time)

    return made


def test_facts_are_read_once(own, opened, published) -> None:
    """A process that knows them does not ask again."""
    _, store = own
    store.write_facts(published.version, pack_facts(NOTED))
    serving = opened()
    assert serving.facts(published.version) == NOTED
    store.redis.delete(store.keys.facts(published.version))
    assert serving.facts(published.version) == NOTED


@pytest.mark.parametrize("stored", [None, b"\xc1"])
def test_lost_facts_are_in_the_manifest(own, opened, published, stored: bytes | None) -> None:
    """That Redis has none, or none that can be read, says nothing about the release."""
    _, store = own
    store.redis.delete(store.keys.facts(published.version))
    if stored is not None:
        store.write_facts(published.version, stored)
    assert opened().facts(published.version) == STATED


def test_facts_without_redis(own, opened, published) -> None:
    """While Redis is away the manifest answers, and afterwards Redis again."""
    _, store = own
    store.write_facts(published.version, pack_facts(NOTED))
    away = open_store("redis://127.0.0.1:1", "own", 50)
    with pytest.raises(StoreUnavailable):
        away.facts(published.version)
    serving = opened(away)
    assert serving.facts(published.version) == STATED
    serving._store = store
    assert serving.facts(published.version) == NOTED
