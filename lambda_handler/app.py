"""The routes of the HTTP API: what they take, what they answer, and how errors look."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lambda_handler.answers import Answer, Asked, Filters, Live, Recommender, session_of
from lambda_handler.metrics import Metrics
from lambda_handler.observed import observed
from lambda_handler.schemas import ERRORS, HistoryEvent, ItemAnswer, RecommendAnswer, RecommendRequest
from recsys.errors import BrokenRelease, ShortlistError, Unavailable
from recsys.settings import Settings
from recsys.store import Store

log = logging.getLogger("shortlist")

RETRY_AFTER_SECONDS = "5"
TOP_FEATURES = 10


def create_app(
    settings: Settings, store: Store, live: Live, now: Callable[[], float] = time.time, metrics: Metrics | None = None
) -> FastAPI:
    """The API over a store and a live path; `metrics` are those that the live path reports to."""
    app = FastAPI(title="Shortlist", version="0.1.0", description="Recommendations at the price of a lookup.")
    metrics = Metrics() if metrics is None else metrics
    recommender = Recommender(settings, observed(store, metrics), live, metrics, now)
    _add_errors(app, metrics)
    _add_counting(app, metrics)
    _add_recommend(app, recommender)
    _add_operations(app, recommender, metrics)
    _add_items(app, recommender)
    return app


def _add_recommend(app: FastAPI, recommender: Recommender) -> None:
    @app.post("/recommend", response_model=RecommendAnswer, responses=ERRORS, tags=["recommendations"])
    @app.post("/v1/recommend", response_model=RecommendAnswer, responses=ERRORS, tags=["recommendations"])
    async def recommend(request: RecommendRequest) -> Response:
        """The best items for a user: from the cached list, live, from the request's history, or popular ones."""
        # Not handed to a thread: in Lambda there is one request at a time, and the hand-over costs more than the lookup.
        started = time.perf_counter()
        answer = recommender.recommend(_asked(request))
        return JSONResponse(_told(request, answer, (time.perf_counter() - started) * 1000))


def _asked(request: RecommendRequest) -> Asked:
    session = None
    if request.history or request.attributes:
        events = [_event(e) for e in request.history or ()]
        session = session_of(events, dict(request.attributes or {}))
    filters = Filters(frozenset(map(str, request.exclude)), frozenset(request.categories))
    return Asked(str(request.user_id), request.k, request.use_cache, session, filters)


def _event(event: str | int | HistoryEvent) -> tuple[str, int | None, float | None]:
    if isinstance(event, HistoryEvent):
        return str(event.item_id), event.timestamp, None if event.weight is None else float(event.weight)
    return str(event), None, None


def _told(request: RecommendRequest, answer: Answer, milliseconds: float) -> dict[str, Any]:
    ranked = answer.ranked
    rows = zip(ranked.items, ranked.scores, ranked.retrieval, strict=True)
    return {
        "user_id": request.user_id,
        "recommendations": [
            {
                "item_id": item.id,
                "title": item.title,
                "score": score,
                "rank": rank,
                "retrieval_score": retrieval,
                "genres": list(item.categories),
            }
            for rank, (item, score, retrieval) in enumerate(rows, 1)
        ],
        "latency_ms": round(milliseconds, 3),
        "cache_hit": answer.cache_hit,
        "n_candidates": ranked.n_candidates,
        "source": answer.source,
        "model_version": answer.version,
        "list_age_s": answer.list_age_s,
        "degraded": answer.degraded,
        "unknown_items": ranked.unknown_items,
        "recommendation_id": uuid.uuid4().hex,
    }


def _add_operations(app: FastAPI, recommender: Recommender, metrics: Metrics) -> None:
    @app.get("/model/info", responses=ERRORS, tags=["operations"])
    @app.get("/v1/model/info", responses=ERRORS, tags=["operations"])
    def model_info() -> dict[str, Any]:
        """The serving release: versions, index, most important features, offline figures, latencies of this process."""
        manifest = recommender.info()
        shares = dict(manifest.get("importances") or {})  # type: ignore[call-overload]
        top = sorted(shares.items(), key=lambda pair: -pair[1])[:TOP_FEATURES]
        kept = ("version", "created_at", "as_of", "code_version", "feature_hash", "index", "data", "protocol", "metrics")
        return {name: manifest.get(name) for name in kept} | {"importances": dict(top), "latency": metrics.percentiles()}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operations"])
    @app.get("/v1/metrics", response_class=PlainTextResponse, tags=["operations"])
    def prometheus() -> PlainTextResponse:
        """Counters and latencies of this process, for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/health", responses=ERRORS, tags=["operations"])
    @app.get("/v1/health", responses=ERRORS, tags=["operations"])
    def health() -> dict[str, str]:
        """Whether Redis answers and a release is there."""
        return recommender.health()


def _add_items(app: FastAPI, recommender: Recommender) -> None:
    @app.get("/v1/items/{item_id}", response_model=ItemAnswer, responses=ERRORS, tags=["items"])
    def item(item_id: Annotated[str, Path(min_length=1, max_length=256)]) -> Response:
        """An item's title and genres."""
        found = recommender.item(item_id)
        if found is None:
            raise HTTPException(404, f"item {item_id!r} is not in the catalogue: see the items of a recommendation")
        told = {"item_id": found.id, "title": found.title, "genres": list(found.categories), "available": found.available}
        return JSONResponse(told)


def _add_errors(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        return _error(request, 422, "invalid_request", f"{field}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return _error(request, error.status_code, code, str(error.detail))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind="unexpected")
        log.error("unexpected error", exc_info=error)
        return _error(request, 500, "internal", "an unexpected error, which is in the log under this request's id")

    @app.exception_handler(ShortlistError)
    def unavailable(request: Request, error: ShortlistError) -> JSONResponse:
        metrics.count("shortlist_errors_total", kind=type(error).__name__)
        code = "unavailable" if isinstance(error, (Unavailable, BrokenRelease)) else "internal"
        response = _error(request, 503, code, str(error))
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
        return response


def _error(request: Request, status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP's border
    context = request.scope.get("aws.context")
    request_id = getattr(context, "aws_request_id", None) or uuid.uuid4().hex
    body = {"error": {"type": kind, "code": code, "message": message, "request_id": request_id}}
    return JSONResponse(body, status_code=status)


def _add_counting(app: FastAPI, metrics: Metrics) -> None:
    app.add_middleware(_Counting, metrics=metrics)


class _Counting:
    """Counts and times every answer by route template and status, without the cost of a request object."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

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
