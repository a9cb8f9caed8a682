"""Tests ids that contain any characters.

Where a path cannot hold an id, the body or the query does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from shortlist.batch import publish
from shortlist.batch.progress import ProgressReporter
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.store.records import ItemRecord, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store

KEY = "a-key-of-the-tests-own"
IDS = ["acme/42", "acme/", "/acme", "a?b=c&d", "a#b", "100%", "a%2Fb", "a%252Fb", ".", "..", "../x"]
IDS += ["a b", "a+b", "ü", "delete", "block"]
PAIRS = {
    "GET /v1/users/{user_id}/recommendations": "GET /v1/user/recommendations",
    "DELETE /v1/users/{user_id}": "POST /v1/user/delete",
    "GET /v1/items/{item_id}": "GET /v1/item",
    "GET /v1/items/{item_id}/similar": "GET /v1/item/similar",
    "POST /v1/items/{item_id}/block": "POST /v1/item/block",
    "POST /v1/items/{item_id}/unblock": "POST /v1/item/unblock",
}


@pytest.fixture(scope="module")
def world(published) -> Iterator[tuple[TestClient, RedisStore]]:
    """The API with an admin key, over a copy of the release that the test may change."""
    settings = replace(published.settings, namespace="any-ids", admin_key=KEY)
    publish.publish(
        published.work / "bundle", published.work / "lists", settings, ProgressReporter()
    )
    store = open_store(settings.redis_url, "any-ids", 2000)
    client = TestClient(
        create_app(settings, store, LivePath(settings)),
        headers={"X-Shortlist-Admin-Key": KEY},
        follow_redirects=False,
    )
    yield client, store
    store.close()


def test_every_path_id_has_another_form(world) -> None:
    """All documented operations do, except a release's, whose version has no such characters."""
    paths = world[0].get("/openapi.json").json()["paths"]
    operations = [
        f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
    ]
    with_ids = {name for name in operations if "{user_id}" in name or "{item_id}" in name}
    assert with_ids == set(PAIRS)
    assert set(PAIRS.values()) <= set(operations)


@pytest.mark.parametrize("user", IDS)
def test_user_of_any_id(world, user) -> None:
    """A user of any id is served and deleted by body and query, and no other user is."""
    client, store = world
    known = UserRecord(("1", "2"), (1, 2), (None, None), 2)
    neighbour = f"{user}-neighbour"
    store.merge_users([(user, known), (neighbour, known)], 0)
    answers = [
        client.get("/v1/user/recommendations", params={"user_id": user, "k": 3}).json(),
        client.post("/v1/recommend", json={"user_id": user, "k": 3}).json(),
    ]
    assert [(a["user_id"], a["source"], len(a["recommendations"])) for a in answers] == [
        (user, "live", 3)
    ] * 2
    assert client.post("/v1/user/delete", json={"user_id": user}).json() == {
        "user_id": user,
        "existed": True,
    }
    assert store.user_record(user) is None
    assert store.user_record(neighbour) is not None


@pytest.mark.parametrize("item", IDS)
def test_item_of_any_id(world, published, item) -> None:
    """An item in Redis is read, compared, blocked and unblocked by the same id."""
    client, store = world
    row = 1000 + IDS.index(item)
    stored = ItemRecord(item, "A title", ("A genre",), available=True)
    store.write_items(published.version, [(row, stored)])
    fresh = {"item_id": item, "title": "A title", "categories": ["A genre"]}
    fresh |= {"genres": ["A genre"], "attributes": {}, "available": True}
    assert client.get("/v1/item", params={"item_id": item}).json() == fresh
    assert client.post("/v1/item/block", json={"item_id": item}).json() == {
        "item_id": item,
        "blocked": True,
    }
    assert client.get("/v1/item", params={"item_id": item}).json() == fresh | {"available": False}
    assert client.post("/v1/item/unblock", json={"item_id": item}).json() == {
        "item_id": item,
        "blocked": False,
    }


def test_similar_items_by_either_form(world, published) -> None:
    """Both forms give the same items, and the 404 has an unknown id."""
    client, _ = world
    item = published.dataset.catalogue.ids[3]
    by_path = client.get(f"/v1/items/{item}/similar", params={"k": 5}).json()
    assert client.get("/v1/item/similar", params={"item_id": item, "k": 5}).json() == by_path
    unknown = client.get("/v1/item/similar", params={"item_id": "no/such"})
    assert (unknown.status_code, "no/such" in unknown.json()["error"]["message"]) == (404, True)


@pytest.mark.parametrize("pair", PAIRS.values())
def test_the_id_must_be_given(world, pair) -> None:
    """A path that lost its id, as with a client that folds dots, is a 422 and changes nothing."""
    client, _ = world
    method, path = pair.split()
    response = client.request(method, path, json={} if method == "POST" else None)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/users/acme/"),
        ("DELETE", "/v1/users/acme%2F"),
        ("GET", "/v1/items/1/"),
        ("GET", "/v1/users/1/recommendations/"),
        ("POST", "/v1/items/1/block/"),
        ("POST", "/recommend/"),
        ("GET", "/health/"),
        ("GET", "/docs/"),
    ],
)
def test_nobody_is_redirected(world, method, path) -> None:
    """404, and no word of the Host that the caller sent."""
    client, store = world
    store.merge_users([("acme", UserRecord(("1",), (1,), (None,), 1))], 0)
    response = client.request(
        method, path, headers={"Host": "evil.example"}, json={} if method == "POST" else None
    )
    assert (response.status_code, response.headers.get("location")) == (404, None)
    assert "evil.example" not in response.text
    assert store.user_record("acme") is not None
