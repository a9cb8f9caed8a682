"""Defines the error envelope, ETags and request metrics."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_context import RequestContext, begin, current
from shortlist.recsys.errors import (
    BrokenRelease,
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    ShortlistError,
    Unavailable,
    UnknownItem,
)

RETRY_AFTER_SECONDS = "5"
"""When to retry after a failure: as long as the pause after a failed bundle."""

SOON_SECONDS = "1"
"""When to retry on a busy server, whose queues hold no more work than its deadline allows."""

UNREADABLE = 400
"""FastAPI's status for a body that cannot be decoded."""

CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    422: "invalid_request",
    429: "too_many_requests",
}
"""Error codes by status; any other status has `refused`."""


class Json(JSONResponse):
    """JSON by pydantic's encoder: a tenth of the standard library's time for twenty items."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as the parent
        """See `encoded`."""
        return encoded(content)


def encoded(content: object) -> bytes:
    """Encodes JSON; NaN and infinity become null."""
    return to_json(content, inf_nan_mode="null")


def tagged(request: Request, payload: dict[str, Any]) -> Response:
    """The answer with its ETag.

    304 without a body if If-None-Match has that tag.
    """
    return tagged_bytes(request, encoded(payload), {})


def tagged_bytes(request: Request, stable: bytes, volatile: Mapping[str, object]) -> Response:
    """As `tagged`, for an encoded object; the tag leaves out the volatile fields."""
    # A weak tag: the volatile fields differ between two answers with the same one.
    tag = f'W/"{hashlib.sha256(stable).hexdigest()[:24]}"'
    if _matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers={"ETag": tag})
    body = with_fields(stable, volatile)
    return Response(body, media_type="application/json", headers={"ETag": tag})


def with_fields(body: bytes, fields: Mapping[str, object]) -> bytes:
    """An encoded object with more fields.

    They are joined as text, since encoding all of it again would double the time.
    """
    return body[:-1] + b"," + encoded(fields)[1:] if fields else body


def _matches(if_none_match: str | None, tag: str) -> bool:
    """Compares tags weakly, as RFC 9110 has it for If-None-Match."""
    if if_none_match is None:
        return False
    tags = {part.strip() for part in if_none_match.split(",")}
    return not tags.isdisjoint({tag, tag.removeprefix("W/"), "*"})


def add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Answers every error with the envelope.

    The handlers are coroutines: plain functions would need a free thread of anyio's.
    """

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]  # one error is enough to act on, and keeps the envelope
        parts = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
        field = ".".join(parts) or "body"
        return _error(422, "invalid_request", f"{field}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == UNREADABLE:  # the API has one status for bad bodies
            return _error(422, "invalid_request", "body: it is not JSON in UTF-8")
        code = CODES.get(error.status_code, "refused")
        response = _error(error.status_code, code, str(error.detail))
        response.headers.update(_headers_of(error, request))
        return response

    @app.exception_handler(Exception)
    async def broken(_request: Request, _unexpected: Exception) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind="unexpected")
        message = "an unexpected error, which is in the log under this request's id"
        return _error(500, "internal", message)

    @app.exception_handler(InvalidInput)
    async def mistaken(_request: Request, error: InvalidInput) -> JSONResponse:
        if isinstance(error, UnknownItem):
            return _error(404, "not_found", str(error))
        return _error(422, "invalid_request", str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(_request: Request, error: Overloaded) -> Response:
        # Without a traceback in the log: there are many of these.
        metrics.count("shortlist_errors_total", kind="Overloaded")
        return refusal(503, "overloaded", str(error), retry_after=SOON_SECONDS)

    @app.exception_handler(DeadlineExceeded)
    async def late(_request: Request, error: DeadlineExceeded) -> Response:
        metrics.count("shortlist_errors_total", kind="DeadlineExceeded")
        current().error = error
        return refusal(503, "deadline", str(error), retry_after=RETRY_AFTER_SECONDS)

    @app.exception_handler(ShortlistError)
    async def unavailable(_request: Request, error: ShortlistError) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind=type(error).__name__)
        current().error = error
        code = "unavailable" if isinstance(error, (Unavailable, BrokenRelease)) else "internal"
        response = _error(503, code, str(error))
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
        return response


class HeadAsGet:
    """Answers HEAD as GET, without the body; ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes other methods on unchanged."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def bodiless(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET", "shortlist.head": True}, receive, bodiless)


def _headers_of(error: HTTPException, request: Request) -> dict[str, str]:
    """An error's headers; Allow names the methods of all routes of the path, not of the first."""
    headers = dict(error.headers or {})
    if "Allow" not in headers:
        return headers
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    if "GET" in methods:
        methods.add("HEAD")
    return headers | {"Allow": ", ".join(sorted(methods))}


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(error_body(status, code, message, current().request_id), status_code=status)


def error_body(status: int, code: str, message: str, request_id: str) -> dict[str, Any]:
    """The envelope of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - as HTTP divides them
    return {"error": {"type": kind, "code": code, "message": message, "request_id": request_id}}


def refusal(
    status: int, code: str, message: str, *, retry_after: str | None = None, close: bool = False
) -> Response:
    """An error as an ASGI app.

    close: ends the connection, since a body is left unread.
    """
    response = _error(status, code, message)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    if close:
        response.headers["Connection"] = "close"
    return response


AfterAnswer = Callable[[RequestContext, Scope, int, float], None]
"""Runs after each answer, with the request's context, its scope, the status and the seconds."""


def add_counting(app: FastAPI, metrics: Metrics, *hooks: AfterAnswer) -> None:
    """Counts every answer by route and status, and calls the hooks."""
    app.add_middleware(_Counting, metrics=metrics, hooks=hooks)


def route_of(scope: Scope) -> str:
    """The template of a request's route.

    Its path may have ids.
    """
    return getattr(scope.get("route"), "path", "unmatched")


class _Counting:
    """Counts and times answers as plain ASGI, without the cost of a request object."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hooks: Sequence[AfterAnswer]) -> None:
        self._app, self._metrics, self._hooks = app, metrics, hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a server's start and end are no requests
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()  # 500 if no response starts
        context = begin(scope)

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.move("shortlist_requests_in_flight", 1)
        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:  # kept for the request's line, and raised again
            context.error = error
            raise
        finally:
            seconds, route = time.perf_counter() - started, route_of(scope)
            self._metrics.move("shortlist_requests_in_flight", -1)
            self._metrics.record("shortlist_request_seconds", seconds, route=route)
            self._metrics.count("shortlist_requests_total", route=route, status=str(status))
            for hook in self._hooks:
                hook(context, scope, status, seconds)
