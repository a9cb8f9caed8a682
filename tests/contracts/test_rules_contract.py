"""Tests business rules on every source of answers, and the routes that set them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.errors import RulesChanged
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.rules_reading import unpack_rules

SOURCES = ("batch", "live", "session", "popular", "trending", "similar", "unknown user")
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def store(shop: Settings) -> Iterator[RedisStore]:
    """The shop's store, whose rules and blocked items go with the test."""
    opened = open_store(shop.redis_url, shop.namespace, 2000)
    yield opened
    opened.redis.delete(opened.keys.rules(), opened.keys.blocked())
    opened.close()


@pytest.fixture
def lines() -> list[str]:
    """The lines of the log."""
    return []


@pytest.fixture(scope="module")
def live(shop: Settings) -> LivePath:
    return LivePath(shop)


@pytest.fixture
def client(shop: Settings, store: RedisStore, live: LivePath, lines: list[str]) -> TestClient:
    app = create_app(shop, store, live, say=lines.append)
    return TestClient(app, headers={"X-Shortlist-Admin-Key": "the-key-of-the-shop"})


@pytest.fixture
def user(published) -> str:
    """A user with many events."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


@pytest.fixture
def had(published, user) -> str:
    """An item that the user had, and that is available."""
    events, ids = published.dataset.events, published.dataset.catalogue.ids
    row = published.dataset.user_ids.index(user)
    return next(ids[i] for i in events.item[events.user == row] if int(ids[i]) % 10)


@pytest.fixture
def ask(client: TestClient, user: str) -> Ask:
    """Asks one source for items; gives the rows."""

    def asked(source: str, k: int = 10, **more: Any) -> list[dict[str, Any]]:
        body = {"user_id": user, "k": k, **more}
        calls: dict[str, Callable[[], Any]] = {
            "batch": lambda: client.post("/v1/recommend", json=body),
            "live": lambda: client.post("/v1/recommend", json=body | {"use_cache": False}),
            "session": lambda: client.post("/v1/recommend", json=body | {"history": ["3"]}),
            "popular": lambda: client.get("/v1/popular", params={"k": k}),
            "trending": lambda: client.get("/v1/trending", params={"k": k}),
            "similar": lambda: client.get("/v1/items/3/similar", params={"k": k}),
            "unknown user": lambda: client.post("/v1/recommend", json=body | {"user_id": "nobody"}),
        }
        response = calls[source]()
        assert response.status_code == 200, response.text
        answer = response.json()
        if source in ("batch", "live", "session"):
            assert answer["source"] == source
        return answer["recommendations"] if "recommendations" in answer else answer["items"]

    return asked


@pytest.fixture
def put(client: TestClient) -> Callable[..., Any]:
    """Puts rules; gives the answer, which must be 200."""

    def replaced(**rules: Any) -> Any:
        version = client.get("/v1/admin/rules").json()["version"]
        response = client.put("/v1/admin/rules", json={"version": version, "rules": rules})
        assert response.status_code == 200, response.text
        return response.json()

    return replaced


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["item_id"] for row in rows]


@pytest.mark.parametrize("source", SOURCES)
def test_rules_change_every_source(ask: Ask, put, source: str) -> None:
    """The third item is pinned to the first place, and the first is buried."""
    first, second, third, *rest = ids(ask(source))
    put(pin=[{"name": "gift", "item": third, "place": 1}], bury=[{"item": first}])
    rows = ask(source)
    assert ids(rows)[: len(rest) + 2] == [third, second, *rest]
    assert first not in ids(rows)
    assert rows[0]["rules"] == ["gift"]
    assert all("rules" not in row for row in rows[1:])


@pytest.mark.parametrize("source", SOURCES)
def test_unavailable_items_are_nowhere(ask: Ask, put, source: str) -> None:
    """Nor does a pin bring one back."""
    first = ids(ask(source))[0]
    put(availability=[{"item": first, "available": False}], pin=[{"item": first}])
    rows = ask(source)
    assert len(rows) == 10
    assert first not in ids(rows)


@pytest.mark.parametrize("source", SOURCES)
def test_limits_hold_on_every_source(ask: Ask, put, source: str) -> None:
    """Two of each of three brands are a list of six."""
    put(limit=[{"attribute": "brand", "at_most": 2}])
    brands = [row["attributes"]["brand"] for row in ask(source, k=6)]
    assert sorted(brands) == ["acme", "acme", "bruna", "bruna", "kestrel", "kestrel"]


@pytest.mark.parametrize("source", SOURCES)
def test_columns_say_what_is_available(ask: Ask, source: str) -> None:
    """Every tenth item of the table is not available, and is shown nowhere."""
    assert all(row["attributes"]["available"] for row in ask(source, k=30))


@pytest.mark.parametrize("source", SOURCES)
def test_blocked_items_win_over_pins(client, ask: Ask, put, source: str) -> None:
    """A pinned item that is blocked is not shown."""
    put(pin=[{"item": "41", "place": 1}])
    assert ids(ask(source))[0] == "41"
    assert client.post("/v1/items/41/block").status_code == 200
    assert "41" not in ids(ask(source))


@pytest.mark.parametrize("source", ["batch", "live", "session"])
def test_own_items_win_over_pins(ask: Ask, put, had: str, source: str) -> None:
    """What the user had is not offered, pinned or not; strangers see it."""
    put(pin=[{"item": had, "place": 1}])
    assert had not in ids(ask(source))
    assert ids(ask("unknown user"))[0] == had


@pytest.mark.parametrize("source", ["batch", "live", "unknown user"])
def test_filters_win_over_pins(ask: Ask, put, source: str) -> None:
    """A pin is left out where the request excludes it or asks for another brand."""
    put(pin=[{"item": "41", "place": 1}])  # a kestrel
    assert "41" not in ids(ask(source, exclude=["41"]))
    body = {"where": {"brand": "acme"}}
    if source == "batch":  # few of one brand are left in a cached list
        body["k"] = 3
    assert "41" not in ids(ask(source, **body))


def test_cached_list_serves_with_rules(client, put, user) -> None:
    """Rules cost no live answer; the rows keep their scores and number their new places."""
    body = {"user_id": user, "k": 10}
    before = client.post("/v1/recommend", json=body).json()["recommendations"]
    put(boost=[{"item": before[9]["item_id"]}])
    answer = client.post("/v1/recommend", json=body).json()
    assert (answer["source"], answer["cache_hit"]) == ("batch", True)
    expected = [before[9] | {"rules": ["boost 1"]}, *before[:9]]
    renumbered = [row | {"rank": rank} for rank, row in enumerate(expected, 1)]
    assert answer["recommendations"] == renumbered


def test_explanations_name_rules(client, put, user) -> None:
    """The text ends with the rule that moved the item."""
    body = {"user_id": user, "k": 5, "explain": True}
    rows = client.post("/v1/recommend", json=body).json()["recommendations"]
    put(boost=[{"name": "spring", "item": rows[4]["item_id"]}])
    first = client.post("/v1/recommend", json=body).json()["recommendations"][0]
    assert first["item_id"] == rows[4]["item_id"]
    assert first["reason"]["text"] == f"{rows[4]['reason']['text']}; moved by spring"
    assert first["reason"]["features"] == rows[4]["reason"]["features"]


def test_item_is_not_like_itself(ask: Ask, put) -> None:
    """A pin of an item does not put it among those that are similar to it."""
    put(pin=[{"item": "3", "place": 1}])
    assert "3" not in ids(ask("similar"))
    assert ids(ask("popular"))[0] == "3"


def test_rank_knows_availability_alone(client, put, user) -> None:
    """The order of given items is the ranker's; what is not available is left out."""
    body = {"user_id": user, "items": ["41", "42", "43"]}
    before = ids(client.post("/v1/rank", json=body).json()["items"])
    put(
        pin=[{"item": "1", "place": 1}],
        boost=[{"item": before[2]}],
        availability=[{"item": before[0], "available": False}],
    )
    assert ids(client.post("/v1/rank", json=body).json()["items"]) == before[1:]


def test_rules_outlive_lost_lists(client, store, put, ask: Ask, shop, published) -> None:
    """An outdated list without its models is arranged as well."""
    put(pin=[{"item": "41", "place": 2}])
    broken = create_app(shop, store, _NoModels())
    body = {"user_id": "1", "k": 5, "use_cache": False}
    store.redis.hset(store.keys.user("1"), "s", 2**62)  # newer than any list
    answer = TestClient(broken).post("/v1/recommend", json=body).json()
    store.redis.hset(store.keys.user("1"), "s", 0)
    assert (answer["source"], answer["degraded"]) == ("stale", True)
    assert ids(answer["recommendations"])[1] == "41"


def test_lost_models_leave_a_short_list(store, ask: Ask, shop, user) -> None:
    """What is left of an outdated list is an answer, although nothing can fill it up."""
    broken = TestClient(create_app(shop, store, _NoModels()))
    listed = ids(ask("batch", k=50))
    popular, key = store.keys.popular(store.release().current), store.keys.user(user)
    kept = store.redis.dump(popular)
    store.redis.delete(popular)
    store.redis.hset(key, "s", 2**62)  # newer than any list
    try:
        body = {"user_id": user, "k": 10, "exclude": listed[3:]}
        answer = broken.post("/v1/recommend", json=body).json()
    finally:
        store.redis.hset(key, "s", 0)
        store.redis.restore(popular, 0, kept)
    assert (answer["source"], answer["degraded"]) == ("stale", True)
    shown = ids(answer["recommendations"])
    assert (shown[:3], len(shown) < 10) == (listed[:3], True)


def test_unreadable_record_drops_pins(client, store, put, user, had) -> None:
    """Whether the user had a pinned item is unknown: it is not shown, and the answer says so."""
    put(pin=[{"item": had, "place": 1}])
    key = store.keys.user(user)
    record = store.redis.hget(key, "h")
    store.redis.hset(key, "h", b"\xc1")
    try:
        answer = client.post("/v1/recommend", json={"user_id": user, "k": 5}).json()
    finally:
        store.redis.hset(key, "h", record)
    assert had not in ids(answer["recommendations"])
    assert (answer["source"], answer["degraded"]) == ("batch", True)


class _NoModels:
    """A live path whose bundle cannot be had."""

    def __getattr__(self, name: str) -> Any:
        from shortlist.recsys.errors import ArtefactsUnavailable

        raise ArtefactsUnavailable("no bundle")


def test_rules_have_versions(client, put) -> None:
    """Who replaces an older version than the present is refused, and nothing changes."""
    assert client.get("/v1/admin/rules").json() == {
        "version": 0,
        "rules": {},
        "by": "",
        "at": 0,
        "notes": [],
    }
    answer = put(pin=[{"item": "41"}])
    assert (answer["version"], answer["by"], answer["notes"]) == (1, "an operator", [])
    late = client.put("/v1/admin/rules", json={"version": 0, "rules": {}})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")
    assert "there is version 1 by now" in late.json()["error"]["message"]
    assert client.get("/v1/admin/rules").json()["rules"] == {"pin": [{"item": "41"}]}


def test_changes_are_in_the_log(put, lines: list[str]) -> None:
    """One line says who changed what."""
    put(pin=[{"item": "41"}])
    put(bury=[{"item": "41"}])
    logged = [json.loads(line) for line in lines if '"event":"rules"' in line]
    assert [(each["version"], each["by"]) for each in logged] == [
        (1, "an operator"),
        (2, "an operator"),
    ]
    assert logged[1]["changes"] == {
        "pin": {"added": [], "removed": [{"item": "41"}]},
        "bury": {"added": [{"item": "41"}], "removed": []},
    }


def test_rules_that_change_nothing(put) -> None:
    """The answer notes rules about what the serving release lacks."""
    answer = put(pin=[{"item": "none"}], boost=[{"name": "red", "where": {"colour": "red"}}])
    assert len(answer["notes"]) == 2
    assert answer["notes"][0].startswith("rule 'red': there is no attribute 'colour'")
    assert "has no item 'none'" in answer["notes"][1]


@pytest.mark.parametrize(
    ("section", "rule", "note"),
    [
        ("boost", {"item": ["41", "none"]}, "the release has no item 'none'"),
        ("bury", {"category": "nowhere"}, "no item has categories 'nowhere'"),
        ("boost", {"where": {"brand": ["none"]}}, "no item has brand 'none'"),
        ("limit", {"attribute": "brand", "at_most": 1, "values": ["none"]}, "no item has brand"),
        ("pin", {"item": "41", "end": "2020-01-01"}, "it is over: its end has passed"),
    ],
)
def test_vain_rules_are_noted(put, section: str, rule: dict[str, Any], note: str) -> None:
    """A misspelt id, category or value changes nothing, and neither does what is over."""
    (found,) = put(**{section: [rule]})["notes"]
    assert found.startswith(f"rule '{section} 1': {note}")


def test_items_say_whether_available(client, put) -> None:
    """An item that a rule or its own columns hide says that it is not available."""
    put(availability=[{"item": "41", "available": False}, {"item": "42", "end": "2020-01-01"}])
    shown = {
        item: client.get(f"/v1/items/{item}").json()["available"] for item in ("41", "42", "3")
    }
    assert shown == {"41": False, "42": False, "3": True}


def test_bad_rules_are_422(client) -> None:
    """The message names the rule."""
    body = {"version": 0, "rules": {"pin": [{"place": 1}]}}
    response = client.put("/v1/admin/rules", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["message"].startswith("rules: pin 1: item is missing")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_rules_need_the_admin_key(client, method: str) -> None:
    """Callers without it may neither read nor change them."""
    refused = client.request(
        method,
        "/v1/admin/rules",
        json={"version": 0, "rules": {}},
        headers={"X-Shortlist-Admin-Key": "another"},
    )
    assert refused.status_code == 403


def test_unreadable_rules_are_none(client, store, ask: Ask) -> None:
    """Answers go on without them, and they can be put again."""
    store.redis.set(store.keys.rules(), b"\xc1")
    assert ask("batch")
    assert client.get("/v1/admin/rules").json()["version"] == 0
    body = {"version": 0, "rules": {"pin": [{"item": "41"}]}}
    assert client.put("/v1/admin/rules", json=body).status_code == 200


def test_two_writers_at_once(store, monkeypatch) -> None:
    """The slower one of two who read the same version is refused."""
    admin = AdminStore(store)
    honest = store.packed_rules
    admin.write_rules({}, "first", 1, 0)

    def late() -> bytes | None:
        packed = honest()
        monkeypatch.setattr(store, "packed_rules", honest)
        AdminStore(store).write_rules({"pin": [{"item": "41"}]}, "faster", 2, 1)
        return packed

    monkeypatch.setattr(store, "packed_rules", late)
    with pytest.raises(RulesChanged, match="there is version 2 by now, of faster"):
        admin.write_rules({}, "slower", 3, 1)
    assert unpack_rules(store.packed_rules())[0].by == "faster"
