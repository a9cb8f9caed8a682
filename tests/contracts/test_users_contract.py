"""Tests that `DELETE /v1/users/{id}` removes all data for good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgpack
import polars as pl
import pytest
from starlette.testclient import TestClient

from shortlist.batch import job as job_module
from shortlist.batch import publish
from shortlist.batch.drain import drain
from shortlist.batch.job import Job
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, ReleasePointer, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.smallest import smallest

NAME = "zebra-77-quagga"
SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "20",
    "LGBM_N_ESTIMATORS": "10",
    "SHORTLIST_THREADS": "1",
}


def everything(store: RedisStore) -> dict[bytes, bytes]:
    """Every key of the server's database with all that is in it, of whatever kind."""
    readers = {
        b"string": store.redis.get,
        b"hash": lambda key: repr(store.redis.hgetall(key)).encode(),
        b"set": lambda key: repr(store.redis.smembers(key)).encode(),
        b"stream": lambda key: repr(store.redis.xrange(key)).encode(),
    }
    return {
        key: readers[store.redis.type(key)](key)
        for key in store.redis.scan_iter(f"{store.keys.namespace}:*")
    }


def holding(store: RedisStore, text: str) -> list[bytes]:
    """The keys that name the text, or hold it."""
    encoded = text.encode()
    return [key for key, value in everything(store).items() if encoded in key or encoded in value]


@pytest.fixture
def client(own) -> TestClient:
    """The API over a release of the test's own."""
    settings, store = own
    return TestClient(create_app(settings, store, LivePath(settings)))


def test_redis_after_a_deletion(client, own, published) -> None:
    """Of a deleted user only a digest is left: no list, history, live result, event or id."""
    _, store = own
    items = published.dataset.catalogue.ids
    for version in (published.version, "older"):
        store.write_lists(version, [(NAME, b"list")])
    AdminStore(store).note_release(publish.ReleaseNote("older", 1, None))
    events = [
        {"event_id": f"e{n}", "user_id": NAME, "item_id": items[n], "timestamp": 10 + n}
        for n in range(3)
    ]
    client.post("/v1/events", json={"events": [*events, {**events[0], "user_id": "other"}]})
    client.post("/recommend", json={"user_id": NAME})
    assert len(holding(store, NAME)) >= 5
    response = client.delete(f"/v1/users/{NAME}")
    assert (response.status_code, response.json()) == (200, {"user_id": NAME, "existed": True})
    assert holding(store, NAME) == []
    assert store.is_deleted()(NAME)
    assert EventLog(store).length() == 1
    assert client.delete(f"/v1/users/{NAME}").json() == {"user_id": NAME, "existed": False}


def test_deleted_user_is_unknown(client, published) -> None:
    """The id gets popular items, and each of its events a code."""
    user = published.dataset.user_ids[0]
    assert client.delete(f"/v1/users/{user}").json()["existed"] is True
    assert client.post("/recommend", json={"user_id": user}).json()["source"] == "popular"
    event = {
        "event_id": "e",
        "user_id": user,
        "item_id": published.dataset.catalogue.ids[0],
        "timestamp": 1,
    }
    answer = client.post("/v1/events", json={"events": [event]}).json()
    assert (answer["accepted"], answer["rejected"][0]["code"]) == (0, "deleted_user")


def test_deletion_during_the_first_event(own, published, monkeypatch) -> None:
    """The event that was checked before the deletion and written after it is deleted again."""
    settings, store = own
    client = TestClient(create_app(settings, store, LivePath(settings)))
    honest = EventLog.commit

    def late(self: EventLog, changes, *more: int) -> list[bool]:
        AdminStore(store).delete_user(NAME, 1)
        return honest(self, changes, *more)

    monkeypatch.setattr(EventLog, "commit", late)
    event = {
        "event_id": "e",
        "user_id": NAME,
        "item_id": published.dataset.catalogue.ids[0],
        "timestamp": 1,
    }
    assert client.post("/v1/events", json={"events": [event]}).status_code == 200
    assert holding(store, NAME) == []


@pytest.mark.parametrize("when", ["before the lists", "while they are written"])
def test_deletion_during_a_batch(own, published, reporter, monkeypatch, when) -> None:
    """Its lists were computed before the deletion; neither list nor record is there afterwards."""
    settings, store = own
    user = published.dataset.user_ids[3]
    if when == "before the lists":
        AdminStore(store).delete_user(user, 1)
    honest = RedisStore.merge_users

    def late(self: RedisStore, records, *more: int) -> int:
        written = honest(self, records, *more)
        AdminStore(store).delete_user(user, 1)
        honest(self, [(user, UserRecord())], *more)
        return written

    if when == "while they are written":
        monkeypatch.setattr(RedisStore, "merge_users", late)
    publish.publish(published.work / "bundle", published.work / "lists", settings, reporter)
    assert store.read_user(published.version, user) == (None, None)
    assert store.read_user(published.version, published.dataset.user_ids[4])[0] is not None


def test_deletion_during_a_killed_batch(own, published, reporter, monkeypatch) -> None:
    """What it wrote of a user who was deleted at that moment is gone when it has run again."""
    settings, store = own
    user = published.dataset.user_ids[3]
    honest = RedisStore.merge_users

    def killed(self: RedisStore, records, *more: int) -> int:
        AdminStore(store).delete_user(user, 1)
        self.write_lists(published.version, [(user, b"list")])
        honest(self, records, *more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RedisStore, "merge_users", killed)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(published.work / "bundle", published.work / "lists", settings, reporter)
    assert store.read_user(published.version, user)[0] == b"list"
    publish.publish(published.work / "bundle", published.work / "lists", settings, reporter)
    assert store.read_user(published.version, user) == (None, None)


def test_release_being_written(own, release, reporter, monkeypatch) -> None:
    """`GET /v1/releases` omits it but keeps its note, so that a deletion finds its lists."""
    settings, store = own
    honest = RedisStore.write_items

    def list_releases(self: RedisStore, version: str, items) -> None:
        AdminStore(store).releases()
        assert version in AdminStore(store).versions()
        honest(self, version, items)

    monkeypatch.setattr(RedisStore, "write_items", list_releases)
    publish.publish(*release("v9"), settings, reporter)
    assert "v9" in {note.version for note in AdminStore(store).releases()}


@pytest.fixture
def named_tables(tables, tmp_path) -> Path:
    """The small world, one of whose users has a name that can be searched for."""
    directory = tmp_path / "named"
    directory.mkdir()
    for name in ("interactions", "users"):
        frame = pl.read_parquet(tables / f"{name}.parquet")
        someone = pl.read_parquet(tables / "interactions.parquet")["user_id"].cast(pl.String)[0]
        column = pl.col("user_id").cast(pl.String)
        frame.with_columns(
            pl.when(column == someone).then(pl.lit(NAME)).otherwise(column).alias("user_id")
        ).write_parquet(directory / f"{name}.parquet")
    return directory


def files_holding(text: str, *directories: Path) -> list[str]:
    """The files that hold the text, plain or in a Parquet table."""
    files = []
    for path in sorted(p for directory in directories for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(
                pl.read_parquet(path).to_dict(as_series=False), default=str
            ).encode()
        if path.suffix == ".npz":
            content = b""  # numbers only: rows and times
        if text.encode() in content:
            files.append(path.name)
    return files


@pytest.fixture
def named(
    named_tables, tables, tmp_path, valkey_url, namespace, reporter
) -> Iterator[tuple[Job, RedisStore]]:
    """A job on tables that name NAME, and the store that it publishes to."""
    environ = SMALL | {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": namespace}
    settings = Settings.from_env(
        environ | {"SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"), "SHORTLIST_GATE": "off"}
    )
    paths = [
        str(named_tables / "interactions.parquet"),
        str(tables / "items.parquet"),
        str(named_tables / "users.parquet"),
    ]
    with closing(open_store(valkey_url, namespace, 1000)) as store:
        params = smallest(settings)
        yield Job(*paths, tmp_path / "work", settings, reporter, config=params), store


def test_training_after_a_deletion(named, tables, tmp_path) -> None:
    """It uses neither old interactions nor drained events.

    No key and no file of the run has the id.
    """
    job, store = named
    events = tmp_path / "events"
    item = str(pl.read_parquet(tables / "items.parquet")["item_id"][0])
    EventLog(store).append(
        [EventRecord("e1", NAME, item, 1_900_000_000), EventRecord("e2", "2", item, 1_900_000_000)]
    )
    drain(EventLog(store), open_event_files(str(events)))
    assert len(files_holding(NAME, events)) == 1
    AdminStore(store).delete_user(NAME, 1)
    EventLog(store).append([EventRecord("e3", NAME, item, 1_900_000_001)])
    drain(EventLog(store), open_event_files(str(events)))
    job_module.run(replace(job, events=str(events)))
    users = msgpack.unpackb((job.work / "dataset.msgpack").read_bytes())["user_ids"]
    assert len(users) == 149
    assert holding(store, NAME) == []
    assert files_holding(NAME, job.work, events, tmp_path / "artefacts") == []
    assert "2" in users


def test_deletion_between_two_stages(named, tmp_path) -> None:
    """No list, history or name in the bundle has the user, nor does the next run read of them."""
    job, store = named
    late = {"features": NAME, "evaluate": "2", "precompute": "3"}
    for stage in job_module.STAGES:
        job_module.run_stage(job, stage)
        if stage in late:
            AdminStore(store).delete_user(late[stage], 1)
    version = store.release().current
    assert {user: store.read_user(version, user) for user in late.values()} == dict.fromkeys(
        late.values(), (None, None)
    )
    assert store.read_user(version, "4")[0] is not None
    assert (holding(store, NAME), files_holding(NAME, tmp_path / "artefacts")) == ([], [])
    job_module.run_stage(replace(job, work=tmp_path / "next"), "features")
    users = msgpack.unpackb((tmp_path / "next" / "dataset.msgpack").read_bytes())["user_ids"]
    assert (len(users), set(users) & set(late.values())) == (147, set())


def test_rollback_after_a_deletion(own, published) -> None:
    """The lists of the previous release were deleted as well."""
    settings, store = own
    user = published.dataset.user_ids[0]
    store.write_lists("before", [(user, b"list")])
    store.set_release(ReleasePointer(published.version, "before"))
    AdminStore(store).delete_user(user, 1)
    releases.flip(store, "before")
    assert store.read_user("before", user) == (None, None)
    assert settings.namespace == store.keys.namespace


def test_deletions_outlive_an_emptied_redis(own, published, reporter) -> None:
    """The next refresh restores deletions and blocks without ids.

    An unblocked item stays unblocked.
    """
    settings, store = own
    user, items = published.dataset.user_ids[0], published.dataset.catalogue.ids
    AdminStore(store).delete_user(user, 1)
    for item in items[:2]:
        AdminStore(store).block(item)
    made = (published.work / "bundle", published.work / "lists", settings, reporter)
    publish.publish(*made)
    AdminStore(store).unblock(items[1])
    publish.publish(*made)
    assert store.blocked() == {items[0]}
    store.redis.delete(*store.redis.scan_iter(f"{settings.namespace}:*"))
    assert not store.is_deleted()(user)
    publish.publish(*made)
    assert (store.is_deleted()(user), store.blocked()) == (True, {items[0]})
    assert store.read_user(published.version, user) == (None, None)
    note = msgpack.unpackb(
        (Path(settings.artefacts) / "notes" / f"{settings.namespace}.msgpack").read_bytes()
    )
    assert note == [[[store.keys.digest(user).encode(), b"1"]], [items[0]], None]
