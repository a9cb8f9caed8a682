"""Compares direct routes with FastAPI's own: status, answers and document."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.testclient import TestClient

from shortlist.lambda_handler.envelope import add_errors
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.routes.direct import body_of, direct, query_of
from tests.loops import run_in_own_loop


class Wish(BaseModel):
    """A body."""

    model_config = ConfigDict(extra="forbid")
    name: str
    times: Annotated[int, Field(ge=1, strict=True)] = 1


class Choice(BaseModel):
    """A query."""

    model_config = ConfigDict(extra="forbid")
    k: int = 20
    category: list[str] = Field(default_factory=list)


def with_routes(*, ours: bool) -> FastAPI:
    """The same two routes, read by themselves or by FastAPI."""
    app = FastAPI()
    add_errors(app, Metrics())
    choice = query_of(Choice)

    async def read(request: Request) -> tuple[Choice]:
        return (choice(request),)

    async def wish(body: Wish) -> Response:
        """Takes a body."""
        return JSONResponse(body.model_dump())

    async def choose(query: Annotated[Choice, Query()]) -> Response:
        """Takes a query."""
        return JSONResponse(query.model_dump())

    if ours:
        direct(app, "POST", "/wish", body_of(Wish), response_model=Wish)(wish)
        direct(app, "GET", "/choice", read, response_model=Choice)(choose)
    else:
        app.post("/wish", response_model=Wish)(wish)
        app.get("/choice", response_model=Choice)(choose)
    return app


OURS, THEIRS = (TestClient(with_routes(ours=ours)) for ours in (True, False))
JSON = "application/json"
GOOD = b'{"name": "a", "times": 2}'


def test_the_document_is_fastapis() -> None:
    """Nobody who reads it can tell the difference."""
    assert OURS.get("/openapi.json").json() == THEIRS.get("/openapi.json").json()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (GOOD, JSON, 200),
        (GOOD, "Application/JSON; charset=utf-8", 200),
        (GOOD, "application/vnd.wish+json", 200),
        (GOOD, "text/json", 422),
        (GOOD, "application/jsonx", 422),
        (GOOD, "", 422),
        (b"", JSON, 422),
        (b"{", JSON, 422),
        (b"[]", JSON, 422),
        (b"null", JSON, 422),
        (b'{"name": "a\xff"}', JSON, 422),
        (b'{"name": "a", "times": 0}', JSON, 422),
        (b'{"name": "a", "times": 1.0}', JSON, 422),
        (b'{"name": "a", "times": "1"}', JSON, 422),
        (b'{"name": "a", "name": "b"}', JSON, 200),
        (b'{"name": "a", "other": 1}', JSON, 422),
        (b'{"times": 1}', JSON, 422),
    ],
)
def test_body_is_read_as_by_fastapi(body, content_type, status) -> None:
    """The status is FastAPI's and, for an accepted body or a refused field, so is the answer."""
    ours, theirs = (
        client.post("/wish", content=body, headers={"content-type": content_type})
        for client in (OURS, THEIRS)
    )
    assert (ours.status_code, theirs.status_code) == (status, status)
    if status == 200:
        assert ours.json() == theirs.json()
    else:
        assert ours.json()["error"]["code"] == "invalid_request"
        field = theirs.json()["error"]["message"].partition(":")[0]
        assert ours.json()["error"]["message"].startswith(
            "body:" if field.isdigit() else f"{field}:"
        )


@pytest.mark.parametrize(
    "query",
    [
        "",
        "k=3",
        "k=3&k=4",
        "category=a&category=%C3%A9",
        "category=",
        "k=",
        "k=x",
        "other=1",
        "k=1&k=x",
        "category=a+b",
    ],
)
def test_query_is_read_as_by_fastapi(query) -> None:
    """The answer is FastAPI's, or the same field is refused."""
    ours, theirs = (client.get(f"/choice?{query}") for client in (OURS, THEIRS))
    assert ours.status_code == theirs.status_code
    answers = [
        a.json() if a.status_code == 200 else a.json()["error"]["message"] for a in (ours, theirs)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("PUT", 405), ("POST", 200)])
def test_direct_routes_refuse_other_methods(method, status) -> None:
    """The router refuses them as for every route."""
    assert (
        OURS.request(method, "/wish", content=GOOD, headers={"content-type": JSON}).status_code
        == status
    )


def answered(messages: list[dict[str, Any]]) -> list[Any]:
    """What the app sends when it receives these messages."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", JSON.encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/wish",
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    run_in_own_loop(with_routes(ours=True)(scope, receive, send))
    return sent


def test_body_in_parts() -> None:
    """A long body may come in several messages, as servers deliver it."""
    parts = [
        {"type": "http.request", "body": GOOD[n : n + 9], "more_body": True}
        for n in range(0, len(GOOD), 9)
    ]
    sent = answered([*parts, {"type": "http.request"}])
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (200, {"name": "a", "times": 2})


def test_disconnect_within_a_body() -> None:
    """A caller who disconnects within a body causes no 500 and no alarm."""
    sent = answered(
        [{"type": "http.request", "body": GOOD[:9], "more_body": True}, {"type": "http.disconnect"}]
    )
    assert sent[0]["status"] == 422
