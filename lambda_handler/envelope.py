"""How answers look that every route shares: the error envelope, and the count of what was answered."""

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

SOON_SECONDS = "1"
"""When to come back to a server that has too much to do: its queues hold no more than its deadline."""

UNREADABLE = 400
"""What FastAPI answers where a body cannot even be decoded."""


CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    422: "invalid_request",
    429: "too_many_requests",
}
"""Of refusals; each other status is `refused`."""

VOLATILE = ("latency_ms", "list_age_s", "recommendation_id", "cache_hit")
"""What differs from one answer to the next without a difference in what is recommended."""


class Json(JSONResponse):
    """JSON by pydantic's own encoder, a tenth of the standard library's time for a list of twenty items."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as the parent
        """See `encoded`."""
        return encoded(content)


def encoded(content: object) -> bytes:
    """JSON; what is not a number becomes null."""
    return to_json(content, inf_nan_mode="null")


def tagged(request: Request, told: dict[str, Any]) -> Response:
    """The answer with its entity tag; 304 without a body where If-None-Match has it."""
    body = encoded({name: value for name, value in told.items() if name not in VOLATILE})
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'
    known = request.headers.get("if-none-match")
    if known is not None and not {tag, tag.removeprefix("W/"), "*"}.isdisjoint(
        part.strip() for part in known.split(",")
    ):
        return Response(status_code=304, headers={"ETag": tag})
    rest = {name: told[name] for name in VOLATILE if name in told}
    whole = body[:-1] + b"," + encoded(rest)[1:] if rest else body
    return Response(whole, media_type="application/json", headers={"ETag": tag})


def add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every error in the one envelope. The handlers are coroutines: others would need one of anyio's threads to be free."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = (
            ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
            or "body"
        )
        return _error(422, "invalid_request", f"{field}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == UNREADABLE:
            return _error(422, "invalid_request", "body: it is not JSON in UTF-8")
        code = CODES.get(error.status_code, "refused")
        response = _error(error.status_code, code, str(error.detail))
        response.headers.update(_with_head(error.headers or {}))
        return response

    @app.exception_handler(Exception)
    async def broken(_request: Request, _unexpected: Exception) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind="unexpected")
        return _error(
            500, "internal", "an unexpected error, which is in the log under this request's id"
        )

    @app.exception_handler(InvalidInput)
    async def mistaken(_request: Request, error: InvalidInput) -> JSONResponse:
        status, code = (
            (404, "not_found") if isinstance(error, UnknownItem) else (422, "invalid_request")
        )
        return _error(status, code, str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(_request: Request, error: Overloaded) -> Response:
        metrics.count(
            "shortlist_errors_total", kind="Overloaded"
        )  # and no traceback in the log: there are many
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
        """Leaves every other method alone."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def bodiless(message: Message) -> None:
            await send(
                {**message, "body": b""} if message["type"] == "http.response.body" else message
            )

        await self._app({**scope, "method": "GET", "shortlist.head": True}, receive, bodiless)


def _with_head(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, whose Allow names HEAD beside GET."""
    return {
        name: value.replace("GET", "GET, HEAD") if name == "Allow" else value
        for name, value in headers.items()
    }


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(error_body(status, code, message, current().request_id), status_code=status)


def error_body(status: int, code: str, message: str, request_id: str) -> dict[str, Any]:
    """The one envelope of every error."""
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP's border
    return {"error": {"type": kind, "code": code, "message": message, "request_id": request_id}}


def refusal(
    status: int, code: str, message: str, *, retry_after: str | None = None, close: bool = False
) -> Response:
    """An error in the envelope, as an ASGI app. close: whether the connection ends, as the rest of a body is not read."""
    response = _error(status, code, message)
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    if close:
        response.headers["Connection"] = "close"
    return response


Done = Callable[[RequestContext, Scope, int, float], None]
"""Is told of each request when its answer is given: what was noted, its scope, its status, and the seconds it took."""


def add_counting(app: FastAPI, metrics: Metrics, *done: Done) -> None:
    """Counts every answer by route and status, and tells each of `done`."""
    app.add_middleware(_Counting, metrics=metrics, done=done)


def route_of(scope: Scope) -> str:
    """The template of a request's route: never its path, which may hold ids."""
    return getattr(scope.get("route"), "path", "unmatched")


class _Counting:
    """Counts and times every answer by route template and status, without the cost of a request object."""

    def __init__(self, app: ASGIApp, metrics: Metrics, done: Sequence[Done]) -> None:
        self._app, self._metrics, self._done = app, metrics, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a server's start and end are no requests
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()
        note = begin(scope)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.move("shortlist_requests_in_flight", 1)
        try:
            await self._app(scope, receive, noting)
        except Exception as error:  # noted for the log's one line, and raised again
            note.error = error
            raise
        finally:
            seconds, route = time.perf_counter() - started, route_of(scope)
            self._metrics.move("shortlist_requests_in_flight", -1)
            self._metrics.record("shortlist_request_seconds", seconds, route=route)
            self._metrics.count("shortlist_requests_total", route=route, status=str(status))
            for done in self._done:
                done(note, scope, status, seconds)
