"""Adds routes that skip FastAPI's per-request machinery.

FastAPI matches and documents such a route as any other. But between a route and its function it
keeps exit stacks, parses the body before pydantic does, and resolves dependencies: a quarter more
time for a cached answer, which needs none of it. Here the route reads its arguments itself.
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
"""Reads an endpoint's arguments. Raises ValidationError or RequestValidationError."""

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


def direct(app: FastAPI, method: str, path: str, read: Read, **options: Any) -> Callable[[E], E]:  # noqa: ANN401 - as FastAPI's
    """Decorates an endpoint, which is called with what `read` returns.

    FastAPI documents it by its parameters; `options` are those of `add_api_route`.
    """

    class DirectRoute(APIRoute):
        def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:  # noqa: ANN401 - likewise
            super().__init__(path, endpoint, **options)

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                request = Request(scope, receive)
                try:
                    arguments = await read(request)
                except ValidationError as error:
                    raise RequestValidationError(error.errors()) from error
                response = await endpoint(*arguments)
                await response(scope, receive, send)

            self.app = app  # in place of FastAPI's own

    def add(endpoint: E) -> E:
        app.router.add_api_route(
            path, endpoint, methods=[method], route_class_override=DirectRoute, **options
        )
        return endpoint

    return add


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
    """Accepts application/json and suffixed types such as application/ld+json, as FastAPI does."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return True
    return media_type.startswith("application/") and media_type.endswith("+json")


def query_of(model: type[M]) -> Callable[[Request], M]:
    """Reads a query string.

    A list gets all values of a parameter, others the last.
    """
    fields = model.model_fields
    lists = {name for name, field in fields.items() if get_origin(field.annotation) is list}
    has_required = any(field.is_required() for field in fields.values())
    default = None if has_required else model()  # built once: most requests have no query

    def read(request: Request) -> M:
        query: bytes = request.scope["query_string"]
        if not query and default is not None:
            return default
        values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            values.setdefault(name, []).append(value)
        return model.model_validate(
            {name: each if name in lists else each[-1] for name, each in values.items()}
        )

    return read
