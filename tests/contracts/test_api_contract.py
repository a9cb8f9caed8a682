"""Tests the HTTP API: sources of answers, exclusions, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from mangum import Mangum
from starlette.testclient import TestClient

from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.watermark import position_at

FIELDS = {
    "user_id",
    "recommendations",
    "latency_ms",
    "cache_hit",
    "n_candidates",
    "source",
    "model_version",
    "list_age_s",
    "degraded",
    "unknown_items",
    "unknown_values",
    "recommendation_id",
}

LATER = 1_000_000
"""The token of a lease after that of the release."""


@pytest.fixture
def store(published) -> Iterator[RedisStore]:
    """The store of the published release, left as it was."""
    opened = open_store(published.settings.redis_url, "published", 500)
    yield opened
    opened.redis.delete(opened.keys.blocked())
    for key in opened.redis.scan_iter("published:live:*"):
        opened.redis.delete(key)
    opened.close()


@pytest.fixture
def client(published, store) -> TestClient:
    """The API over the published release."""
    return TestClient(create_app(published.settings, store, LivePath(published.settings)))


@pytest.fixture
def known(published) -> str:
    """A user with many events."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


@pytest.fixture
def seen(published) -> Callable[[str], set[str]]:
    """The ids of what a user had."""
    events, ids = published.dataset.events, published.dataset.catalogue.ids

    def had(user: str) -> set[str]:
        row = published.dataset.user_ids.index(user)
        return {ids[item] for item in events.item[events.user == row]}

    return had


def ask(client: TestClient, **body: object) -> dict:
    """The answer to a recommendation request, which must be 200."""
    response = client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def ids_of(answer: dict) -> list[str]:
    """The recommended ids, in order."""
    return [r["item_id"] for r in answer["recommendations"]]


def test_known_user_gets_cached_list(client, published, known, seen) -> None:
    """The answer has every field of the contract, k items in order, and none that the user had."""
    answer = ask(client, user_id=known, k=10)
    assert set(answer) == FIELDS
    assert (answer["source"], answer["cache_hit"], answer["degraded"]) == ("batch", True, False)
    assert answer["model_version"] == published.version
    assert [r["rank"] for r in answer["recommendations"]] == list(range(1, 11))
    assert set(answer["recommendations"][0]) == {
        "item_id",
        "title",
        "score",
        "rank",
        "retrieval_score",
        "categories",
        "genres",
        "attributes",
    }
    assert seen(known).isdisjoint(ids_of(answer))


def test_versioned_path(client, known) -> None:
    """/v1/recommend and /recommend are one route."""
    versioned = client.post("/v1/recommend", json={"user_id": known, "k": 5}).json()
    assert ids_of(versioned) == ids_of(ask(client, user_id=known, k=5))


def test_answer_without_the_cache(client, known) -> None:
    """use_cache=false computes the answer, which equals the precomputed list."""
    live = ask(client, user_id=known, k=20, use_cache=False)
    assert (live["source"], live["cache_hit"], live["list_age_s"]) == ("live", False, None)
    assert ids_of(live) == ids_of(ask(client, user_id=known, k=20))


def test_live_cache(client, store, published, known) -> None:
    """A lost list is computed live; the same request again is a hit, another one is not."""
    key = store.keys.list(published.version, known)
    packed = store.redis.get(key)
    store.redis.delete(key)
    try:
        first, second = ask(client, user_id=known, k=7), ask(client, user_id=known, k=7)
        other = ask(client, user_id=known, k=8)
    finally:
        store.redis.set(key, packed)
    assert (first["source"], first["cache_hit"]) == ("live", False)
    assert (second["source"], second["cache_hit"]) == ("live", True)
    assert ids_of(first) == ids_of(second)
    assert other["cache_hit"] is False


def test_newer_events_replace_the_precomputed_list(client, store, published, known) -> None:
    """An event beyond the list's watermark makes the answer live, without its item."""
    cached = ask(client, user_id=known, k=10)
    key = store.keys.user(known)
    before = store.redis.hgetall(key)
    events = published.dataset.events
    mine = events.item[events.user == published.dataset.user_ids.index(known)]
    items = [*(published.dataset.catalogue.ids[row] for row in mine[-50:]), ids_of(cached)[0]]
    record = UserRecord(tuple(items), tuple(range(len(items))), (None,) * len(items), 10_000)
    try:
        assert store.merge_users([(known, record)], 0, LATER) == 1
        store.redis.hset(key, "s", position_at(4e9))
        answer = ask(client, user_id=known, k=10)
    finally:
        store.redis.hset(key, mapping=before)
    assert answer["source"] == "live"
    assert ids_of(cached)[0] not in ids_of(answer)


def test_history_in_the_request(client, published) -> None:
    """Known items of the history shape the answer and are not in it; unknown ones are counted."""
    ids = published.dataset.catalogue.ids
    history = [ids[3], {"item_id": ids[5], "timestamp": 10, "weight": 4.0}, "no-such-item"]
    answer = ask(client, user_id="fresh", k=10, history=history)
    assert (answer["source"], answer["unknown_items"]) == ("session", 1)
    assert len(ids_of(answer)) == 10
    assert {ids[3], ids[5]}.isdisjoint(ids_of(answer))


def test_another_history_gives_another_answer(client, published) -> None:
    """A single event already personalises."""
    ids, events = published.dataset.catalogue.ids, published.dataset.events
    common = sorted(set(events.item.tolist()), key=lambda row: -int((events.item == row).sum()))[:8]
    answers = {
        tuple(ids_of(ask(client, user_id="fresh", k=10, history=[ids[row]]))) for row in common
    }
    assert len(answers) > 4


def test_unknown_user_gets_popular_items(client) -> None:
    """200, and flagged as what it is."""
    answer = ask(client, user_id="nobody", k=12)
    assert (answer["source"], answer["degraded"], len(ids_of(answer))) == ("popular", False, 12)


@pytest.mark.parametrize("more", [{}, {"use_cache": False}])
def test_filters_hold_for_known_users(client, store, published, known, more) -> None:
    """Excluded and blocked items and other categories never appear, and the list is full."""
    first = ids_of(ask(client, user_id=known, k=10))
    store.redis.sadd(store.keys.blocked(), first[1])
    answer = ask(client, user_id=known, k=10, exclude=[first[0]], **more)
    assert {first[0], first[1]}.isdisjoint(ids_of(answer))
    assert len(ids_of(answer)) == 10
    category = published.dataset.catalogue.category_names[0]
    narrowed = ask(client, user_id=known, k=5, categories=[category], **more)
    assert all(category in r["genres"] for r in narrowed["recommendations"])
    assert len(ids_of(narrowed)) == 5


@pytest.mark.parametrize("body", [{"user_id": "fresh", "history": ["1"]}, {"user_id": "nobody"}])
def test_filters_without_a_list(client, store, published, body) -> None:
    """Sessions and popular lists have no blocked or excluded items, and no other categories."""
    first = ids_of(ask(client, k=10, **body))
    store.redis.sadd(store.keys.blocked(), first[1])
    assert {first[0], first[1]}.isdisjoint(ids_of(ask(client, k=10, exclude=[first[0]], **body)))
    category = published.dataset.catalogue.category_names[0]
    narrowed = ask(client, k=5, categories=[category], **body)
    assert all(category in r["genres"] for r in narrowed["recommendations"])


def test_integer_ids(client, known) -> None:
    """A user id may be a number, and the answer has it as it was sent."""
    assert ask(client, user_id=int(known), k=3)["user_id"] == int(known)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"k": None}, "k"),
        ({"user_id": "1", "k": 0}, "k"),
        ({"user_id": "1", "k": 101}, "k"),
        ({"user_id": "1", "k": "5"}, "k"),
        ({"user_id": True}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "1", "diversty": 1}, "diversty"),
        ({"user_id": "1", "history": [{"timestamp": 3}]}, "history"),
        ({"user_id": "1", "use_cache": "no"}, "use_cache"),
    ],
)
def test_bad_input(client, body, field) -> None:
    """It is a 422 with the field and the rule; nothing is coerced."""
    response = client.post("/recommend", json=body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert set(error) == {"type", "code", "message", "request_id"}
    assert error["message"].startswith(field)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/popular", "GET, HEAD"),
        ("GET", "/recommend", "POST"),
        ("PATCH", "/v1/users/1", "DELETE"),
        ("DELETE", "/v1/admin/rules", "GET, HEAD, PUT"),
        ("PUT", "/v1/releases/1/canary", "POST"),
    ],
)
def test_method_not_allowed(client, method, path, allowed) -> None:
    """405, and the header Allow."""
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_allow_names_every_method(client) -> None:
    """Of each path: those that its routes have together, and HEAD beside GET."""
    methods: dict[str, set[str]] = {}
    for route in client.app.routes:
        more = {"HEAD"} if "GET" in route.methods else set()
        methods.setdefault(route.path, set()).update(route.methods, more)
    assert len(methods) > 30
    for path, expected in methods.items():
        response = client.request("PATCH", path.replace("{version}", "1").replace("{", "x"))
        assert response.status_code == 405, path
        assert set(response.headers["allow"].split(", ")) == expected, path


def test_item_route(client, published) -> None:
    """An item has its title, categories and attributes; an unknown one is a 404 in the envelope."""
    catalogue = published.dataset.catalogue
    item = client.get(f"/v1/items/{catalogue.ids[4]}").json()
    assert item == {
        "item_id": catalogue.ids[4],
        "title": catalogue.titles[4],
        "categories": list(catalogue.categories[4]),
        "genres": list(catalogue.categories[4]),
        "attributes": {"year": int(catalogue.year[4])},
        "available": True,
    }
    missing = client.get("/v1/items/no-such-item")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_the_model_tells_of_itself(client, published) -> None:
    """Release, index, ten most important features at most, offline figures."""
    info = client.get("/model/info").json()
    assert info["version"] == published.version
    assert info["index"]["recall"] == 1.0
    assert 0 < len(info["importances"]) <= 10
    assert {"popularity", "retriever", "two_stage"} <= set(info["metrics"])


def test_health_and_metrics_count_what_happened(client, known) -> None:
    """Exact counts of what was driven, by route template and by source."""
    ask(client, user_id=known, k=3)
    ask(client, user_id="nobody", k=3)
    client.get("/v1/items/no-such-item")
    assert client.get("/health").json()["status"] == "ok"
    lines = client.get("/metrics").text.splitlines()
    assert 'shortlist_requests_total{route="/recommend",status="200"} 2.0' in lines
    assert 'shortlist_requests_total{route="/v1/items/{item_id}",status="404"} 1.0' in lines
    assert 'shortlist_answers_total{source="batch"} 1.0' in lines
    assert 'shortlist_answers_total{source="popular"} 1.0' in lines
    assert "shortlist_recommend_seconds_count 2.0" in lines


class Gone(RedisStore):
    """A store whose server can be taken away."""

    def __init__(self, url: str, namespace: str) -> None:
        inner = open_store(url, namespace, 500)
        super().__init__(inner._connect, namespace)

    def leave(self) -> None:
        """Every later command meets a server that is not there."""
        dead = open_store("unix:///nonexistent/valkey.sock", self.keys.namespace, 200)
        self.close()
        self._connect = dead._connect


def test_redis_goes_away(published, known) -> None:
    """Known users get popular items and sessions full answers, both flagged as degraded."""
    store = Gone(published.settings.redis_url, "published")
    client = TestClient(create_app(published.settings, store, LivePath(published.settings)))
    ask(client, user_id=known, k=3)
    store.leave()
    known_answer = ask(client, user_id=known, k=10)
    session = ask(client, user_id="fresh", k=10, history=[published.dataset.catalogue.ids[0]])
    assert (known_answer["source"], known_answer["degraded"], len(ids_of(known_answer))) == (
        "popular",
        True,
        10,
    )
    assert (session["source"], session["degraded"], len(ids_of(session))) == ("session", True, 10)
    assert 'shortlist_degraded_total{kind="StoreUnavailable"}' in client.get("/metrics").text
    store.close()


def test_redis_was_never_there(published, tmp_path) -> None:
    """It is a 503 with Retry-After and the envelope, as nothing can be answered."""
    store = open_store("unix:///nonexistent/valkey.sock", "published", 200)
    settings = replace(published.settings, bundle_dir=tmp_path)
    client = TestClient(create_app(settings, store, LivePath(settings)))
    response = client.post("/recommend", json={"user_id": "1"})
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.json()["error"]["code"] == "unavailable"


def test_stale_list_without_a_bundle(published, store, known, tmp_path) -> None:
    """Without the live path a known user gets the outdated list, flagged as stale."""
    lost = replace(published.settings, artefacts=str(tmp_path / "nothing"))
    client = TestClient(create_app(lost, store, LivePath(lost)))
    key = store.keys.user(known)
    latest = store.redis.hget(key, "s")
    store.redis.hset(key, "s", position_at(4e9))
    try:
        answer = ask(client, user_id=known, k=10)
    finally:
        store.redis.hset(key, "s", latest)
    assert (answer["source"], answer["degraded"], len(ids_of(answer))) == ("stale", True, 10)
    fresh = ask(client, user_id="fresh", k=10, history=[published.dataset.catalogue.ids[0]])
    assert (fresh["source"], fresh["degraded"]) == ("popular", True)


def test_a_poisoned_list_is_not_served(client, store, published, known) -> None:
    """Bytes that are no list are as good as no list: the answer is live."""
    key = store.keys.list(published.version, known)
    packed = store.redis.get(key)
    store.redis.set(key, json.dumps({"rows": [1, 2]}))
    try:
        assert ask(client, user_id=known, k=5)["source"] == "live"
    finally:
        store.redis.set(key, packed)


@pytest.mark.parametrize("path", ["/recommend", "/v1/rank", "/v1/events"])
def test_large_body_in_a_lambda(published, path) -> None:
    """A body of more than a mebibyte is a 413 before it is parsed.

    API Gateway takes ten times more.
    """
    store = open_store(published.settings.redis_url, "published", 500)
    handler = Mangum(
        create_app(published.settings, store, LivePath(published.settings)), lifespan="off"
    )
    event = http_event("POST", path, {"user_id": "x" * 1_048_576})
    answer = handler(event, None)  # type: ignore[arg-type]
    error = json.loads(answer["body"])["error"]
    assert (answer["statusCode"], error["code"]) == (413, "body_too_large")
    store.close()
