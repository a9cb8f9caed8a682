"""Tests filters by attributes and categories on every route."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import RedisStore, open_store

BRANDS = ("acme", "bruna", "kestrel")


def brand(item: str) -> str:
    return BRANDS[int(item) % 3]


@pytest.fixture(scope="module")
def store(shop: Settings) -> Iterator[RedisStore]:
    opened = open_store(shop.redis_url, shop.namespace, 2000)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(shop: Settings, store: RedisStore) -> TestClient:
    return TestClient(create_app(shop, store, LivePath(shop)))


@pytest.fixture(scope="module")
def user(published) -> str:
    """A user with many events."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


@pytest.fixture(scope="module")
def item(published) -> str:
    return published.dataset.catalogue.ids[3]


WHERE = {"brand": ["acme", "kestrel"], "price": {"lte": 20}, "in_stock": True}


def is_admitted(row: dict[str, Any]) -> bool:
    """Whether a row of an answer fulfils WHERE."""
    own = row["attributes"]
    return own["brand"] != "bruna" and own["price"] <= 20 and own["in_stock"]


@pytest.fixture
def asked(client: TestClient, user: str, item: str) -> Callable[[str, Any], Any]:
    """Sends one condition to a route; gives the response."""

    def ask(route: str, where: Any, **more: Any) -> Any:
        parameters = {"where": json.dumps(where), "k": 5, **more}
        body = {"user_id": user, "k": 5, "where": where, **more}
        calls: dict[str, Callable[[], Any]] = {
            "recommend": lambda: client.post("/v1/recommend", json=body),
            "live": lambda: client.post("/v1/recommend", json=body | {"use_cache": False}),
            "session": lambda: client.post("/v1/recommend", json=body | {"history": [item]}),
            "unknown user": lambda: client.post("/v1/recommend", json=body | {"user_id": "nobody"}),
            "get": lambda: client.get(f"/v1/users/{user}/recommendations", params=parameters),
            "popular": lambda: client.get("/v1/popular", params=parameters),
            "trending": lambda: client.get("/v1/trending", params=parameters),
            "similar": lambda: client.get(f"/v1/items/{item}/similar", params=parameters),
            "rank": lambda: client.post(
                "/v1/rank",
                json={"user_id": user, "items": [str(n) for n in range(1, 100)], "where": where},
            ),
        }
        return calls[route]()

    return ask


ROUTES = (
    "recommend",
    "live",
    "session",
    "unknown user",
    "get",
    "popular",
    "trending",
    "similar",
    "rank",
)


def rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return answer["recommendations"] if "recommendations" in answer else answer["items"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_filters(asked, route: str) -> None:
    """Every item fulfils every condition, and there are some."""
    answer = asked(route, WHERE).json()
    assert rows(answer)
    assert all(map(is_admitted, rows(answer)))
    assert answer["unknown_values"] == {}


def test_wide_filter_is_a_hit(asked) -> None:
    """A filter that leaves enough of the cached list needs no model."""
    answer = asked("recommend", {"brand": list(BRANDS)}).json()
    assert (answer["source"], answer["cache_hit"]) == ("batch", True)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            {"colour": "red"},
            "no attribute 'colour' to filter by: known are available, brand, categories, in_stock",
        ),
        ({"price": "cheap"}, "price is a number, and 'cheap' is not: give one"),
        ({"price": {"gte": 3, "lte": 2}}, "price has a range from 3 to 2, which holds nothing"),
    ],
)
def test_bad_conditions_are_422(asked, route: str, where: Any, message: str) -> None:
    """The message names the attribute, the rule and what is known."""
    response = asked(route, where)
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]


def test_parameter_must_be_json(client, user) -> None:
    """A query parameter that is no JSON says how to write it."""
    response = client.get(f"/v1/users/{user}/recommendations", params={"where": "brand=acme"})
    assert response.status_code == 422
    assert "is no JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize("route", ROUTES)
def test_unknown_values_are_told(asked, route: str) -> None:
    """A brand that no item has is distinguished from items that are sold out or seen."""
    answer = asked(route, {"brand": ["amce", "acme"], "categories": ["Gardening"]}).json()
    assert rows(answer) == []
    assert answer["unknown_values"] == {"brand": ["amce"], "categories": ["Gardening"]}


def test_unknown_category_is_told(client, user) -> None:
    """The same for the filter by categories."""
    answer = client.post("/v1/recommend", json={"user_id": user, "categories": ["none"]}).json()
    assert (answer["recommendations"], answer["unknown_values"]) == ([], {"categories": ["none"]})


def test_empty_result_is_no_unknown_value(asked) -> None:
    """Conditions that no item fulfils together have values that items have."""
    answer = asked("recommend", {"brand": "acme", "price": {"gt": 1000}}).json()
    assert (answer["recommendations"], answer["unknown_values"]) == ([], {})


@pytest.mark.parametrize("route", ROUTES)
def test_attributes_are_shown(asked, route: str) -> None:
    """Every row has the item's own columns and categories; `genres` stays."""
    first = rows(asked(route, {}).json())[0]
    assert set(first["attributes"]) == {"brand", "price", "in_stock", "note", "year", "available"}
    assert first["attributes"]["brand"] == brand(first["item_id"])
    assert first["categories"] == first["genres"]


def test_live_result_is_cached_by_conditions(client, user) -> None:
    """Two conditions are two live results."""
    bodies = [{"user_id": user, "k": 3, "where": {"price": n + 0.5}} for n in (2, 3)]
    answers = [client.post("/v1/recommend", json=body).json() for body in bodies]
    assert [answer["source"] for answer in answers] == ["live", "live"]
    again = client.post("/v1/recommend", json=bodies[0]).json()
    assert (again["cache_hit"], again["recommendations"]) == (True, answers[0]["recommendations"])
    assert answers[0]["recommendations"] != answers[1]["recommendations"]
