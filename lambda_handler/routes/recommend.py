"""The routes that recommend: what they take and what they answer."""

from __future__ import annotations

import time
import uuid
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from lambda_handler.answers import Answer, Asked, Filters, Recommender, session_of
from lambda_handler.schemas import ERRORS, HistoryEvent, RecommendAnswer, RecommendRequest


def add_recommend(app: FastAPI, recommender: Recommender) -> None:
    """Adds the routes."""

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
