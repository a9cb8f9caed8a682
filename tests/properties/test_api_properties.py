"""Tests requests that the OpenAPI document does not lead to.

They are valid requests about items and users of the release, and bytes that are no JSON.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.testclient import TestClient

from shortlist.lambda_handler import schemas
from shortlist.recsys import values
from shortlist.recsys.errors import InvalidInput

ITEMS = [str(n) for n in range(1, 30)]
TEXT = st.text(max_size=20) | st.sampled_from(
    ["", " ", "}", "{x}", "é", "\x00", "a/b", "..", "%", "x" * 300, "\U0001f600"]
)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JUNK = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ID = (
    st.sampled_from(ITEMS)
    | TEXT.filter(lambda text: 0 < len(text) <= 256)
    | st.integers(-(10**19) + 1, 10**19 - 1)
)
NUMBER = st.integers(0, 10) | st.floats(0, 5, allow_nan=False)
HISTORY = st.lists(
    ID
    | st.fixed_dictionaries(
        {"item_id": ID}, optional={"timestamp": st.integers(0, 2**53), "weight": NUMBER}
    )
)
EVENT = st.fixed_dictionaries(
    {"event_id": TEXT, "user_id": ID, "item_id": ID, "timestamp": st.integers(0, 2**53)},
    optional={"weight": NUMBER},
)
QUERY = st.dictionaries(
    st.sampled_from(["k", "category", "exclude", "more"]), TEXT | st.integers(1, 100)
)
BODIES: dict[str, st.SearchStrategy[Any]] = {
    "/v1/recommend": st.fixed_dictionaries(
        {"user_id": ID},
        optional={
            "k": st.integers(1, 100),
            "history": HISTORY,
            "use_cache": st.booleans(),
            "exclude": st.lists(ID, max_size=5),
            "categories": st.lists(TEXT, max_size=3),
            "attributes": st.dictionaries(TEXT, SCALAR, max_size=3),
            "diversity": st.floats(0, 1),
            "explain": st.booleans(),
        },
    ),
    "/v1/rank": st.fixed_dictionaries(
        {"items": st.lists(ID, min_size=1, max_size=30)},
        optional={"user_id": ID, "history": HISTORY},
    ),
    "/v1/events": st.fixed_dictionaries({"events": st.lists(EVENT | JUNK, min_size=1, max_size=5)}),
}
ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/recommend": schemas.RecommendAnswer,
    "/v1/rank": schemas.RankAnswer,
    "/v1/events": schemas.EventsAnswer,
    "/v1/users/{user_id}/recommendations": schemas.RecommendAnswer,
    "/v1/users/{user_id}": schemas.DeletedAnswer,
    "/v1/items/{item_id}": schemas.ItemAnswer,
    "/v1/items/{item_id}/similar": schemas.ListAnswer,
    "/v1/popular": schemas.ListAnswer,
}
many = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def is_id(text: str) -> bool:
    """Whether the rules take it."""
    try:
        values.id_of(text)
    except InvalidInput:
        return False
    return True


def checked(api: TestClient, method: str, route: str, path: str, **how: Any) -> int:
    """Sends a request, and checks that its answer is as documented; returns the status."""
    response = api.request(method, path, **how)
    assert response.status_code < 500, (path, how, response.text)
    document = api.app.openapi()  # type: ignore[attr-defined]
    documented = document["paths"][route][method.lower()]["responses"]
    if response.status_code == 200:
        ANSWERS[route].model_validate(response.json())
    elif response.status_code != 304:
        schemas.ErrorAnswer.model_validate(response.json(), strict=True)
        assert str(response.status_code) in documented, (path, how, response.text)
    return response.status_code


@pytest.mark.parametrize("route", BODIES)
def test_any_sound_body_is_answered(api, route) -> None:
    """200, or 422 for what the document's types cannot say."""

    @many
    @given(BODIES[route])
    def check(body: Any) -> None:
        checked(api, "POST", route, route, json=body)

    check()


@pytest.mark.parametrize("route", BODIES)
def test_any_other_body_is_refused(api, route) -> None:
    """A sound body with anything for one of its fields, and bytes that are no JSON."""

    @many
    @given(JUNK, BODIES[route], st.data())
    def check(junk: Any, body: dict[str, Any], data: st.DataObject) -> None:
        field = data.draw(st.sampled_from(sorted(body)))
        checked(api, "POST", route, route, json=body | {field: junk})
        raw = data.draw(st.binary(max_size=20))
        assert (
            checked(
                api, "POST", route, route, content=raw, headers={"content-type": "application/json"}
            )
            == 422
        )

    check()


@pytest.mark.parametrize(
    "route",
    [
        "/v1/users/{user_id}/recommendations",
        "/v1/items/{item_id}",
        "/v1/items/{item_id}/similar",
        "/v1/popular",
    ],
)
def test_any_query_is_answered_or_refused(api, route) -> None:
    """Known users and items, with parameters of any value, are answered or refused."""

    @many
    @given(
        st.sampled_from(ITEMS),
        st.dictionaries(
            st.sampled_from(["k", "category", "exclude", "more"]), TEXT | st.integers(1, 100)
        ),
    )
    def check(identity: str, query: dict[str, Any]) -> None:
        checked(api, "GET", route, route.format(user_id=identity, item_id=identity), params=query)

    check()


def test_anyone_can_be_deleted(api) -> None:
    """Known or not; a deleted user does not exist the second time."""

    @many
    @given(TEXT.filter(lambda text: is_id(text) and "/" not in text and text not in (".", "..")))
    def check(user: str) -> None:
        path = f"/v1/users/{quote(user, safe='')}"
        assert checked(api, "DELETE", "/v1/users/{user_id}", path) == 200
        assert api.delete(path).json()["existed"] is False

    check()


@pytest.mark.parametrize(
    "raw",
    [b'{"user_id": "\\ud800"}', b'{"user_id": NaN}', b'{"user_id": "1", "k": 1e999}', b"\xff", b""],
)
def test_invalid_text_is_refused(api, raw) -> None:
    """A lone surrogate, NaN and bytes that are not UTF-8 are refused."""
    assert (
        checked(
            api,
            "POST",
            "/v1/recommend",
            "/v1/recommend",
            content=raw,
            headers={"content-type": "application/json"},
        )
        == 422
    )


def test_every_route_is_documented(api) -> None:
    """Each operation has a summary, a tag and answers.

    The document's examples are valid requests.
    """
    document = json.loads(json.dumps(api.app.openapi()))  # type: ignore[attr-defined]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            assert operation["tags"], path
            if "metrics" not in path:
                assert "503" in operation["responses"], (path, method)
    for model in (schemas.RecommendRequest, schemas.RankRequest, schemas.Event):
        for example in model.model_json_schema()["examples"]:
            model.model_validate(example)
