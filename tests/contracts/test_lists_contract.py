"""Tests lists, ranking, diversity and reasons on a real release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.models import bundle
from shortlist.recsys.models.diversity import diversified
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.models.reasons import RankedRows, contributions
from shortlist.recsys.models.similar import similar
from shortlist.recsys.store.records import UserRecord


@pytest.fixture
def client(own) -> TestClient:
    """The API over a release of the test's own."""
    settings, store = own
    return TestClient(create_app(settings, store, LivePath(settings)))


@pytest.fixture
def user(published) -> str:
    """A user with many events."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


@pytest.fixture
def history(published, user) -> list[str]:
    """The ids of what that user had."""
    events = published.dataset.events
    mine = events.item[events.user == published.dataset.user_ids.index(user)]
    return [published.dataset.catalogue.ids[item] for item in mine]


@pytest.fixture
def category(published) -> str:
    """A category that enough items have."""
    catalogue = published.dataset.catalogue
    return catalogue.category_names[int(catalogue.membership.sum(axis=0).argmax())]


def ids_of(answer: dict[str, Any]) -> list[str]:
    """The ids of an answer, in order."""
    return [item["item_id"] for item in answer.get("recommendations", answer.get("items"))]


def test_get_equals_post(client, user, category) -> None:
    """GET gives the list of POST, with and without filters; parameters may be repeated."""
    first = client.get(f"/v1/users/{user}/recommendations", params={"k": 7}).json()
    posted = client.post("/recommend", json={"user_id": user, "k": 7}).json()
    assert (ids_of(first), first["source"]) == (ids_of(posted), "batch")
    query = {"k": 5, "category": [category], "exclude": ids_of(first)[:2]}
    narrowed = client.get(f"/v1/users/{user}/recommendations", params=query).json()
    body = {"user_id": user, "k": 5, "categories": [category], "exclude": ids_of(first)[:2]}
    assert ids_of(narrowed) == ids_of(client.post("/recommend", json=body).json())
    assert set(ids_of(narrowed)).isdisjoint(ids_of(first)[:2])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/{user}/recommendations",
        "/v1/items/{item}",
        "/v1/items/{item}/similar",
        "/v1/popular",
        "/v1/trending",
    ],
)
def test_unchanged_list_is_304(client, published, user, path) -> None:
    """304 and no body for the tag that was given; HEAD has the same headers and no body."""
    path = path.format(user=user, item=published.dataset.catalogue.ids[3])
    first = client.get(path)
    tag = first.headers["ETag"]
    again = client.get(path, headers={"If-None-Match": f'"other", {tag}'})
    head = client.head(path)
    assert (first.status_code, again.status_code, again.content, again.headers["ETag"]) == (
        200,
        304,
        b"",
        tag,
    )
    assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_tag_changes_with_the_list(client, user) -> None:
    """After an event the old tag no longer holds."""
    path = f"/v1/users/{user}/recommendations"
    first = client.get(path)
    event = {
        "event_id": "e",
        "user_id": user,
        "item_id": ids_of(first.json())[0],
        "timestamp": 1_700_000_000,
    }
    assert client.post("/v1/events", json={"events": [event]}).json()["accepted"] == 1
    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users/1/recommendations?k=0", "k"),
        ("/v1/users/1/recommendations?k=many", "k"),
        ("/v1/users/1/recommendations?diversty=1", "diversty"),
        ("/v1/users/1/recommendations?exclude=", "exclude.0"),
        (f"/v1/users/{'x' * 257}/recommendations", "user_id"),
        ("/v1/popular?k=101", "k"),
        ("/v1/trending?category=", "category.0"),
        ("/v1/items/1/similar?k=-1", "k"),
    ],
)
def test_bad_query(client, path, field) -> None:
    """A bad query is a 422 in the envelope with the field."""
    response = client.get(path)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")
    assert response.json()["error"]["message"].startswith(f"{field}:")


def test_origins_are_closed_unless_opened(own) -> None:
    """No CORS header by default; the configured origin and no other one where there is one."""
    settings, store = own
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    closed = TestClient(create_app(settings, store, LivePath(settings)))
    assert "access-control-allow-origin" not in closed.get("/v1/popular", headers=asking).headers
    settings = replace(settings, cors_origins=("https://shop.example",))
    opened = TestClient(create_app(settings, store, LivePath(settings)))
    assert (
        opened.options("/recommend", headers=asking).headers["access-control-allow-origin"]
        == "https://shop.example"
    )
    for name in (
        "authorization",
        "x-api-key",
        "x-amz-date,x-amz-security-token",
    ):  # as an authorizer needs them
        response = opened.options(
            "/recommend", headers=asking | {"Access-Control-Request-Headers": name}
        )
        assert response.status_code == 200
    other = opened.get("/v1/popular", headers=asking | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_similar_items(client, published) -> None:
    """Items near in vectors and in histories, best first, without the item itself."""
    catalogue, model = published.dataset.catalogue, bundle.load(published.work / "bundle").model
    vectors = model.towers.items[:, :-1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    others = np.delete(np.arange(len(unit), dtype=np.int32), 3)
    expected, _ = similar(unit, model.table.neighbours, 3, others)
    answer = client.get(f"/v1/items/{catalogue.ids[3]}/similar", params={"k": 8}).json()
    assert ids_of(answer) == [catalogue.ids[row] for row in expected[:8]]
    assert [item["rank"] for item in answer["items"]] == list(range(1, 9))
    missing = client.get("/v1/items/no-such-item/similar")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_popular_and_trending(client, published) -> None:
    """The items with the most events over all time, and over the last tenth of it."""
    catalogue, events = published.dataset.catalogue, published.dataset.events
    counts = np.bincount(events.item, minlength=len(catalogue.ids))
    expected = [catalogue.ids[row] for row in np.argsort(-counts, kind="stable")[:10]]
    assert ids_of(client.get("/v1/popular", params={"k": 10}).json()) == expected
    trending = bundle.load(published.work / "bundle").model.trending[:10]
    assert ids_of(client.get("/v1/trending", params={"k": 10}).json()) == [
        catalogue.ids[row] for row in trending
    ]


@pytest.mark.parametrize("path", ["/v1/popular", "/v1/trending", "/v1/items/{item}/similar"])
def test_filters_hold_for_lists(client, own, published, category, path) -> None:
    """Only the requested category, and no blocked item."""
    _, store = own
    path = path.format(item=published.dataset.catalogue.ids[3])
    first = client.get(path, params={"k": 10, "category": category}).json()
    assert all(category in item["genres"] for item in first["items"])
    store.redis.sadd(store.keys.blocked(), ids_of(first)[0])
    second = client.get(path, params={"k": 10, "category": category}).json()
    assert ids_of(second)[:9] == ids_of(first)[1:10]
    assert len(ids_of(second)) == 10


def test_rank_has_the_requested_items(client, own, published, user, history) -> None:
    """The same for a stored and a sent history.

    Unknown items are counted, blocked ones left out.
    """
    ids = published.dataset.catalogue.ids
    items = [*ids[:10], "no-such-item", ids[0]]
    stored = client.post("/v1/rank", json={"user_id": user, "items": items}).json()
    assert (stored["source"], stored["unknown_items"], sorted(ids_of(stored))) == (
        "live",
        1,
        sorted(ids[:10]),
    )
    scores = [item["score"] for item in stored["items"]]
    assert scores == sorted(scores, reverse=True)
    session = client.post("/v1/rank", json={"history": history, "items": items}).json()
    assert session["source"] == "session"
    assert sorted(ids_of(session)) == sorted(ids[:10])
    nobody = client.post("/v1/rank", json={"user_id": "nobody", "items": items}).json()
    assert nobody["source"] == "popular"
    _, store = own
    store.redis.sadd(store.keys.blocked(), ids[0])
    assert ids[0] not in ids_of(
        client.post("/v1/rank", json={"user_id": user, "items": items}).json()
    )
    assert client.post("/v1/rank", json={"items": ["1"]}).status_code == 422


def test_rank_of_the_candidates(client, published, user) -> None:
    """The best of a list keep its order, except where a rank within the candidates is a feature."""
    listed = ids_of(
        client.post("/recommend", json={"user_id": user, "k": 60, "use_cache": False}).json()
    )
    ranked = ids_of(client.post("/v1/rank", json={"user_id": user, "items": listed}).json())
    assert sorted(ranked) == sorted(listed)
    assert len(set(ranked[:20]) & set(listed[:20])) >= 15


def test_diversity_makes_a_list_more_various(client, published, user) -> None:
    """The mean likeness within the list falls as diversity grows; 0 is the list as it was."""
    unit = bundle.load(published.work / "bundle").model.towers.items[:, :-1]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    row_of = {item: row for row, item in enumerate(published.dataset.catalogue.ids)}

    def likeness(diversity: float) -> float:
        answer = client.post(
            "/recommend", json={"user_id": user, "k": 10, "diversity": diversity}
        ).json()
        assert (len(ids_of(answer)), answer["source"]) == (10, "live" if diversity else "batch")
        rows = [row_of[item] for item in ids_of(answer)]
        return float((unit[rows] @ unit[rows].T).mean())

    plain, half, full = likeness(0), likeness(0.5), likeness(1)
    assert plain > half > full
    body = {
        "user_id": user,
        "k": 10,
        "diversity": 1,
        "exclude": [published.dataset.catalogue.ids[0]],
    }
    assert published.dataset.catalogue.ids[0] not in ids_of(
        client.post("/recommend", json=body).json()
    )


def test_marginal_relevance_against_a_known_answer() -> None:
    """The twin of the best comes last once diversity counts, and second while it does not."""
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], np.float32)
    scores = np.array([3, 2.9, 1], np.float32)
    assert diversified(vectors, scores, 3, 0.0).tolist() == [0, 1, 2]
    assert diversified(vectors, scores, 3, 0.6).tolist() == [0, 2, 1]
    assert diversified(vectors[:0], scores[:0], 3, 0.6).tolist() == []


@pytest.mark.parametrize("diversity", [0.2, 0.7, 1.0])
def test_diversity_is_maximal_marginal_relevance(diversity) -> None:
    """Each next item has the highest value by the definition, computed over all pairs."""
    rng = np.random.default_rng(3)
    vectors, scores = rng.normal(size=(40, 8)).astype(np.float32), rng.random(40).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    chosen: list[int] = []
    while len(chosen) < 12:
        worth = {
            item: (1 - diversity) * relevance[item]
            - diversity * max((unit[item] @ unit[c] for c in chosen), default=0)
            for item in range(40)
            if item not in chosen
        }
        chosen.append(max(worth, key=lambda item: worth[item]))
    assert diversified(unit, scores, 12, diversity).tolist() == chosen


def test_every_item_has_a_reason(client, user, history) -> None:
    """A reason has the strongest items of the history with shares, and the strongest features."""
    answer = client.post("/recommend", json={"user_id": user, "k": 10, "explain": True}).json()
    plain = client.post("/recommend", json={"user_id": user, "k": 10}).json()
    assert (answer["source"], ids_of(answer)) == ("live", ids_of(plain))
    assert "reason" not in plain["recommendations"][0]
    for item in answer["recommendations"]:
        because = item["reason"]["because"]
        shares = [cause["share"] for cause in because]
        assert {cause["item_id"] for cause in because} <= set(history)
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1.001
        assert item["reason"]["text"] == "because of " + " and ".join(
            cause["title"] for cause in because[:2]
        )
    assert any(item["reason"]["features"] for item in answer["recommendations"])
    again = client.post("/recommend", json={"user_id": user, "k": 10, "explain": True}).json()
    assert (again["cache_hit"], again["recommendations"]) == (True, answer["recommendations"])


def test_the_only_event_is_the_reason(client, published) -> None:
    """A session of one item can have no other cause."""
    item = published.dataset.catalogue.ids[3]
    answer = client.post(
        "/recommend", json={"user_id": "new", "k": 5, "history": [item], "explain": True}
    ).json()
    causes = {
        cause["item_id"] for row in answer["recommendations"] for cause in row["reason"]["because"]
    }
    assert causes == {item}


@pytest.fixture
def loaded(published) -> bundle.Bundle:
    """The bundle of the release."""
    return bundle.load(published.work / "bundle")


def test_contributions_sum_to_the_score(loaded, published, history) -> None:
    """With the base, the features' contributions add up to the ranker's score."""
    n = len(history)
    state, _ = bundle.state_of(loaded, UserRecord(tuple(history), tuple(range(n)), (None,) * n, n))
    seen: list[RankedRows] = []
    model = replace(loaded.model, exploration_share=0.0)
    recommended = recommend(
        model, state, 10, sample=lambda candidates, rows: seen.append((candidates, rows))
    )
    parts = contributions(loaded.model, state, recommended.items[0], seen[0])
    np.testing.assert_allclose(parts.features.sum(axis=1), recommended.scores[0], atol=1e-4)


def test_reasons_without_a_history(loaded) -> None:
    """Without a history there are no causes, and no division by zero."""
    state, _ = bundle.state_of(loaded, UserRecord())
    parts = contributions(loaded.model, state, np.arange(4, dtype=np.int32), None)
    assert not parts.history.any()
    assert np.isnan(parts.features).all()


def test_more_items_than_candidates(own, published, user) -> None:
    """K above TOP_K_CANDIDATES is still filled while the catalogue has so many unseen items."""
    settings, store = own
    live = LivePath(settings)
    client = TestClient(create_app(settings, store, live))
    loaded_bundle = live._bundle(published.version)
    small = replace(loaded_bundle.bundle.model, n_candidates=10)
    live._loaded[published.version] = replace(
        loaded_bundle, bundle=replace(loaded_bundle.bundle, model=small)
    )
    answer = client.post("/recommend", json={"user_id": user, "k": 50, "use_cache": False}).json()
    assert len(ids_of(answer)) == 50
