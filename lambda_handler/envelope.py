"""How answers look that every route shares: the error envelope, and the count of what was answered."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lambda_handler.metrics import Metrics
from lambda_handler.tallies import Tallies
from recsys.errors import BrokenRelease, InvalidInput, ShortlistError, Unavailable, UnknownItem

log = logging.getLogger("shortlist")

RETRY_AFTER_SECONDS = "5"

UNREADABLE = 400
"""What FastAPI answers where a body cannot even be decoded."""


VOLATILE = ("latency_ms", "list_age_s", "recommendation_id", "cache_hit")
"""What differs from one answer to the next without a difference in what is recommended."""


class Json(JSONResponse):
    """JSON by pydantic's own encoder, a tenth of the standard library's time for a list of twenty items."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as the parent
        """The bytes; what is not a number becomes null."""
        return to_json(content, inf_nan_mode="null")


def tagged(request: Request, told: dict[str, Any]) -> Response:
    """The answer with its entity tag; 304 without a body where If-None-Match has it."""
    body = to_json({name: value for name, value in told.items() if name not in VOLATILE})
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'
    known = {part.strip() for part in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, tag.removeprefix("W/"), "*"}:
        return Response(status_code=304, headers={"ETag": tag})
    return Json(told, headers={"ETag": tag})


def add_errors(app: FastAPI, metrics: Metrics) -> None:
    """Every error in the one envelope."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path")) or "body"
        return _error(request, 422, "invalid_request", f"{field}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == UNREADABLE:
            return _error(request, 422, "invalid_request", "body: it is not JSON in UTF-8")
        code = {403: "forbidden", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return _error(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind="unexpected")
        log.error("unexpected error", exc_info=error)
        return _error(request, 500, "internal", "an unexpected error, which is in the log under this request's id")

    @app.exception_handler(InvalidInput)
    def mistaken(request: Request, error: InvalidInput) -> JSONResponse:
        status, code = (404, "not_found") if isinstance(error, UnknownItem) else (422, "invalid_request")
        return _error(request, status, code, str(error))

    @app.exception_handler(ShortlistError)
    def unavailable(request: Request, error: ShortlistError) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind=type(error).__name__)
        code = "unavailable" if isinstance(error, (Unavailable, BrokenRelease)) else "internal"
        response = _error(request, 503, code, str(error))
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
        return response


class HeadAsGet:
    """Answers HEAD as GET, without the body; ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leaves every other method alone."""

        async def bodiless(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, bodiless)
        else:
            await self._app(scope, receive, send)


def _error(request: Request, status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP's border
    context = request.scope.get("aws.context")
    request_id = getattr(context, "aws_request_id", None) or uuid.uuid4().hex
    body = {"error": {"type": kind, "code": code, "message": message, "request_id": request_id}}
    return JSONResponse(body, status_code=status)


def add_counting(app: FastAPI, metrics: Metrics, tallies: Tallies | None = None) -> None:
    """Counts every answer by route and status; what Redis is told of is sent after the answer."""
    app.add_middleware(_Counting, metrics=metrics, tallies=tallies)


class _Counting:
    """Counts and times every answer by route template and status, without the cost of a request object."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tallies: Tallies | None) -> None:
        self._app, self._metrics, self._tallies = app, metrics, tallies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, started = 500, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.move("shortlist_requests_in_flight", 1)
        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.move("shortlist_requests_in_flight", -1)
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.record("shortlist_request_seconds", time.perf_counter() - started, route=route)
            self._metrics.count("shortlist_requests_total", route=route, status=str(status))
            if self._tallies is not None:
                self._tallies.after_answer()
