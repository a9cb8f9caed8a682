"""Routes that FastAPI finds and documents, but that are called with no more than what they read of the request.

Between a route and its function FastAPI keeps exit stacks, parses the body before pydantic sees it,
and solves dependencies. That is worth its time where there are dependencies; a cached answer, which
has none, would take a quarter longer by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_origin
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

Read = Callable[[Request], Awaitable[tuple[Any, ...]]]
"""Makes of a request the arguments of an endpoint. Raises ValidationError, or RequestValidationError."""

Endpoint = Callable[..., Awaitable[Response]]
M = TypeVar("M", bound=BaseModel)
E = TypeVar("E", bound=Endpoint)

NOT_JSON = [
    {
        "type": "json_type",
        "loc": ("body",),
        "msg": "its Content-Type must be application/json, and it JSON in UTF-8",
    }
]


def direct(app: FastAPI, method: str, path: str, read: Read, **told: Any) -> Callable[[E], E]:  # noqa: ANN401 - as FastAPI's
    """Decorates an endpoint, which FastAPI documents by its parameters as ever, and which is called with what `read` gives."""

    class Direct(APIRoute):
        def __init__(self, path: str, endpoint: Endpoint, **documented: Any) -> None:  # noqa: ANN401 - likewise
            super().__init__(path, endpoint, **documented)

            async def answer(scope: Scope, receive: Receive, send: Send) -> None:
                request = Request(scope, receive)
                try:
                    arguments = await read(request)
                except ValidationError as error:
                    raise RequestValidationError(error.errors()) from error
                response = await endpoint(*arguments)
                await response(scope, receive, send)

            self.app = answer

    def added(endpoint: E) -> E:
        app.router.add_api_route(
            path, endpoint, methods=[method], route_class_override=Direct, **told
        )
        return endpoint

    return added


def body_of(model: type[M]) -> Callable[[Request], Awaitable[tuple[M]]]:
    """Reads a JSON body."""

    async def read(request: Request) -> tuple[M]:
        body = await _body(request)
        if body and not _is_json(request.headers.get("content-type", "")):
            raise RequestValidationError(NOT_JSON)
        return (model.model_validate_json(body),)

    return read


async def _body(request: Request) -> bytes:
    """As `Request.body`, without the cost of its stream."""
    parts: list[bytes] = []
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the caller has gone")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def query_of(model: type[M]) -> Callable[[Request], M]:
    """Reads a query string: the last value of a parameter, or all of them where the model takes a list."""
    lists = {
        name for name, field in model.model_fields.items() if get_origin(field.annotation) is list
    }
    needs = any(field.is_required() for field in model.model_fields.values())
    nothing = None if needs else model()

    def read(request: Request) -> M:
        query: bytes = request.scope["query_string"]
        if not query and nothing is not None:
            return nothing
        values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            values.setdefault(name, []).append(value)
        return model.model_validate(
            {name: all_ if name in lists else all_[-1] for name, all_ in values.items()}
        )

    return read
