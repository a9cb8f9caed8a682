"""Tests publishing on a real Valkey: flip, crashes, rollback.

It also covers verification and promotion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import redis

from shortlist.batch import parity
from shortlist.batch.precompute import read_shards
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.publish import promote, publish, retire_superseded, rollback
from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.errors import (
    CorruptArtefact,
    InvalidInput,
    ReleaseNotFound,
    ReleaseRefused,
    StoreUnavailable,
)
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import ReleasePointer, UserRecord, unpack_list, unpack_user
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_facts import ReleaseFacts, unpack_facts
from shortlist.recsys.store.release_files import build_manifest, verify
from shortlist.recsys.where import AttributeKind

Release = Callable[[str], tuple[Path, Path]]


@pytest.fixture
def settings(published, namespace: str, tmp_path: Path) -> Settings:
    """Settings under which nothing is published yet."""
    return replace(published.settings, namespace=namespace, artefacts=str(tmp_path / "artefacts"))


@pytest.fixture
def store(settings: Settings) -> Iterator[RedisStore]:
    """The store that these settings name."""
    opened = open_store(settings.redis_url, settings.namespace, 1000)
    yield opened
    opened.close()


def _break_off(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_published(
    published, release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """A published release serves: bundle, items, popular items, all lists and records exist."""
    bundle, lists = release("v1")
    assert publish(bundle, lists, settings, reporter) == "v1"
    assert store.release() == ReleasePointer("v1")
    assert open_artefacts(settings.artefacts).versions() == ["v1"]
    users = list(read_shards(lists, "v1"))
    assert store.lists("v1", [u.user_id for u in users]) == [u.packed for u in users]
    assert all(
        unpack_user(store.user_record(u.user_id)).n_events == u.record.n_events for u in users
    )
    popular = unpack_list(store.popular("v1"))
    first = store.items("v1", popular.rows[:1])[0]
    assert store.rows_of("v1", [first.id]) == ([popular.rows[0]], True)
    assert list(popular.scores) == sorted(popular.scores, reverse=True)
    categories = frozenset(chain.from_iterable(published.dataset.catalogue.categories))
    assert unpack_facts(store.facts("v1")) == ReleaseFacts(
        has_clock_times=True,
        attributes={"year": AttributeKind.NUMBER},
        labels={"categories": categories},
    )


def test_larger_than_a_function_holds(
    published,
    release: Release,
    settings: Settings,
    reporter: ProgressReporter,
    store: RedisStore,
    bucket: str,
) -> None:
    """A bundle too large for the function's disk is refused before anything is written."""
    bundle, lists = release("v1")
    (bundle / "report.html").write_bytes(b" " * (3 << 20))
    fields = {
        name: value for name, value in verify(published.work / "bundle").items() if name != "files"
    }
    build_manifest(bundle, **fields | {"version": "v1"})
    small = replace(settings, artefacts=f"s3://{bucket}/releases", bundle_max_mb=2)
    with pytest.raises(ReleaseRefused, match="SHORTLIST_BUNDLE_MAX_MB"):
        publish(bundle, lists, small, reporter)
    assert (open_artefacts(small.artefacts).versions(), store.release()) == ([], None)


def test_only_what_is_superseded_expires(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """Superseded releases expire; the serving one and the one before never do."""
    for version in ("v1", "v2"):
        publish(*release(version), replace(settings, list_ttl_seconds=900), reporter)
    assert {store.redis.ttl(key) for key in store.redis.scan_iter(f"{settings.namespace}:*")} == {
        -1
    }
    publish(*release("v3"), replace(settings, list_ttl_seconds=900), reporter)
    for key in store.redis.scan_iter(f"{settings.namespace}:*"):
        superseded = key.startswith(f"{settings.namespace}:v1:".encode())
        assert 0 < store.redis.ttl(key) <= 900 if superseded else store.redis.ttl(key) == -1


def test_second_release(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """The pointer remembers the release before, and publishing the same again forgets nothing."""
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    assert store.release() == ReleasePointer("v2", "v1")
    made = Path(settings.artefacts).parent / "v2"
    publish(made / "bundle", made / "lists", settings, reporter)
    assert store.release() == ReleasePointer("v2", "v1")


@pytest.mark.parametrize("change", ["another value", "gone"])
def test_changed_list(
    release: Release,
    settings: Settings,
    reporter: ProgressReporter,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """One list that reads back otherwise refuses the release; a second run publishes it."""
    publish(*release("v1"), settings, reporter)
    bundle, lists = release("v2")
    victim = store.keys.list("v2", next(read_shards(lists, "v2")).user_id)
    write = RedisStore.merge_users

    def tampered(self: RedisStore, records: Iterator[tuple[str, UserRecord]], *more: int) -> int:
        store.redis.delete(victim)
        if change == "another value":
            store.redis.set(victim, b"another value")
        return write(self, records, *more)

    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "merge_users", tampered)
        with pytest.raises(
            ReleaseRefused,
            match=r"release v2: 1 of 150 lists read back otherwise .* old release goes on",
        ):
            publish(bundle, lists, settings, reporter)
    assert store.release() == ReleasePointer("v1")
    publish(bundle, lists, settings, reporter)
    assert store.release() == ReleasePointer("v2", "v1")


@pytest.mark.parametrize("lost", ["popular", "items", "rows"])
def test_lost_items(
    release: Release,
    settings: Settings,
    reporter: ProgressReporter,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """A release without its items or popular list is refused: its lists could not be shown."""
    publish(*release("v1"), settings, reporter)
    write = RedisStore.merge_users

    def tampered(self: RedisStore, records: Iterator[tuple[str, UserRecord]], *more: int) -> int:
        store.redis.delete(getattr(store.keys, lost)("v2"))
        return write(self, records, *more)

    monkeypatch.setattr(RedisStore, "merge_users", tampered)
    with pytest.raises(ReleaseRefused, match=r"release v2: .* old release goes on serving"):
        publish(*release("v2"), settings, reporter)
    assert store.release() == ReleasePointer("v1")


@pytest.mark.parametrize("policy", ["allkeys-lru", "noeviction"])
def test_redis_that_is_full(
    release: Release, settings: Settings, reporter: ProgressReporter, policy: str
) -> None:
    """A Redis without room, whether it evicts or refuses, keeps the release from serving."""
    bundle, lists = release("v1")
    with redis_url({}) as url:
        store = open_store(url, settings.namespace, 1000)
        client: redis.Redis = store.redis
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
        with pytest.raises((ReleaseRefused, StoreUnavailable)):
            publish(bundle, lists, replace(settings, redis_url=url), reporter)
        assert store.release() is None
        store.close()


@pytest.mark.parametrize(
    "at", ["write_items", "write_lists", "merge_users", "lists", "set_release"]
)
def test_crash(
    release: Release,
    settings: Settings,
    reporter: ProgressReporter,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
) -> None:
    """A crash before the flip leaves the old release serving, and a second run completes."""
    publish(*release("v1"), settings, reporter)
    bundle, lists = release("v2")
    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, at, _break_off)
        with pytest.raises(KeyboardInterrupt):
            publish(bundle, lists, settings, reporter)
    assert open_artefacts(settings.artefacts).versions() == ["v1", "v2"]
    assert store.release() == ReleasePointer("v1")
    publish(bundle, lists, settings, reporter)
    assert store.release() == ReleasePointer("v2", "v1")


def test_corrupt_bundle(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """A bundle unlike its manifest is not published, and nothing of it is written."""
    bundle, lists = release("v1")
    (bundle / "ranker.txt").write_text("another")
    with pytest.raises(CorruptArtefact, match=r"ranker\.txt"):
        publish(bundle, lists, settings, reporter)
    assert open_artefacts(settings.artefacts).versions() == []
    assert list(store.redis.scan_iter(f"{settings.namespace}:*")) == []


def test_no_redis(release: Release, settings: Settings, reporter: ProgressReporter) -> None:
    """Without Redis nothing is uploaded either."""
    with pytest.raises(StoreUnavailable):
        publish(*release("v1"), replace(settings, redis_url="redis://127.0.0.1:1"), reporter)
    assert open_artefacts(settings.artefacts).versions() == []


def test_promote_and_roll_back(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """Any release that is whole can serve again, and a rollback is undone by another."""
    for version in ("v1", "v2", "v3"):
        publish(*release(version), settings, reporter)
    assert promote(settings, "v1") == store.release() == ReleasePointer("v1", "v3")
    assert promote(settings, "v1") == store.release() == ReleasePointer("v1", "v3")
    assert rollback(settings) == store.release() == ReleasePointer("v3", "v1")
    assert rollback(settings) == store.release() == ReleasePointer("v1", "v3")


def test_nothing_to_roll_back_to(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """Before the second release there is none to go back to."""
    with pytest.raises(InvalidInput, match="nothing to roll back to"):
        rollback(settings)
    publish(*release("v1"), settings, reporter)
    with pytest.raises(InvalidInput, match="nothing to roll back to"):
        rollback(settings)
    assert store.release() == ReleasePointer("v1")


def test_unknown_release(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """A version that was never published is an error, and the pointer stays."""
    publish(*release("v1"), settings, reporter)
    with pytest.raises(ReleaseNotFound, match="release v9 is not in"):
        promote(settings, "v9")
    assert store.release() == ReleasePointer("v1")


def test_expired_release(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """A release whose lists have expired cannot serve until it is published again."""
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    store.redis.delete(*store.redis.scan_iter(f"{settings.namespace}:v1:*"))
    for ask in (lambda: promote(settings, "v1"), lambda: rollback(settings)):
        with pytest.raises(InvalidInput, match="release v1 is no longer whole in Redis"):
            ask()
    assert store.release() == ReleasePointer("v2", "v1")


def test_serving_releases_are_never_retired(
    release: Release,
    settings: Settings,
    reporter: ProgressReporter,
    store: RedisStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither when its second publication is refused, nor when it is promoted meanwhile."""
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    again = Path(settings.artefacts).parent / "v2"

    def refuses(*_: object) -> str:
        raise ReleaseRefused("another answer")

    with monkeypatch.context() as patch:
        patch.setattr(parity, "check", refuses)
        with pytest.raises(ReleaseRefused):
            publish(again / "bundle", again / "lists", settings, reporter)
    assert not store.is_retiring("v2")
    honest = RedisStore.retire

    def promoted_meanwhile(self: RedisStore, version: str, ttl: int) -> int:
        monkeypatch.setattr(RedisStore, "retire", honest)
        releases.flip(self, version)
        return honest(self, version, ttl)

    monkeypatch.setattr(RedisStore, "retire", promoted_meanwhile)
    publish(*release("v3"), settings, reporter)
    serving = store.release()
    assert serving.current == "v1"
    assert {
        store.redis.ttl(key) for key in store.redis.scan_iter(f"{settings.namespace}:v1:*")
    } == {-1}


def test_unreadable_pointers_retire_nothing(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """Nobody knows then what serves."""
    for version in ("v1", "v2"):
        publish(*release(version), settings, reporter)
    for value in (b"\xc1", None):
        store.redis.delete(store.keys.release()) if value is None else store.redis.set(
            store.keys.release(), value
        )
        assert retire_superseded(store, 60, lambda: None) == []
    assert {store.redis.ttl(key) for key in store.redis.scan_iter(f"{settings.namespace}:*")} == {
        -1
    }


def test_an_overtaken_batch_writes_nothing(
    release: Release, settings: Settings, reporter: ProgressReporter, store: RedisStore
) -> None:
    """It is refused as another release serves than when it read its data."""
    publish(*release("v1"), settings, reporter)
    with pytest.raises(ReleaseRefused, match="v2"):
        publish(*release("v2"), settings, reporter, replaces="v0")
    assert store.popular("v2") is None
