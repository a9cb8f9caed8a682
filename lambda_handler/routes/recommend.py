"""The routes that recommend: what they take and what they answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from shortlist.lambda_handler.access import check_user
from shortlist.lambda_handler.answers import (
    Answer,
    Filters,
    Options,
    Ranked,
    Reason,
    RecommendationQuery,
    session_of,
)
from shortlist.lambda_handler.envelope import Json, tagged
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.request_context import answered
from shortlist.lambda_handler.routes.direct import body_of, direct, query_of
from shortlist.lambda_handler.schemas import (
    ERRORS,
    UNCHANGED,
    HistoryEvent,
    OfUserQuery,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
    UserPath,
    UserQuery,
)
from shortlist.recsys.store.recommendation_id import new_id
from shortlist.recsys.store.records import UserRecord


class _Path(BaseModel):
    user_id: UserPath


_QUERY = query_of(UserQuery)
_OF_USER = query_of(OfUserQuery)


def add_recommend(app: FastAPI, recommender: Recommender, work: Work) -> None:
    """Adds the routes."""
    body = body_of(RecommendRequest)

    @direct(
        app,
        "POST",
        "/recommend",
        body,
        response_model=RecommendAnswer,
        responses=ERRORS,
        tags=["recommendations"],
    )
    @direct(
        app,
        "POST",
        "/v1/recommend",
        body,
        response_model=RecommendAnswer,
        responses=ERRORS,
        tags=["recommendations"],
    )
    async def recommend(request: RecommendRequest) -> Response:
        """The best items for a user: from the cached list, live, from the request's history, or popular ones."""
        started = time.perf_counter()
        check_user(str(request.user_id))
        answer = await _answered(recommender, work, _asked(request))
        return Json(_told(request.user_id, answer, started, recommender.now()))

    @direct(
        app,
        "GET",
        "/v1/users/{user_id}/recommendations",
        _read_user,
        response_model=RecommendAnswer,
        responses=ERRORS | UNCHANGED,
        tags=["recommendations"],
    )
    async def recommendations(
        user_id: UserPath, query: Annotated[UserQuery, Query()], request: Request
    ) -> Response:
        """The same list as by POST, with an ETag that changes when what is recommended does."""
        return tagged(request, await _listed(recommender, work, user_id, query))

    @direct(
        app,
        "GET",
        "/v1/user/recommendations",
        _read_query,
        response_model=RecommendAnswer,
        responses=ERRORS | UNCHANGED,
        tags=["recommendations"],
    )
    async def by_query(query: Annotated[OfUserQuery, Query()], request: Request) -> Response:
        """The same list, for a user with an id of any characters."""
        return tagged(request, await _listed(recommender, work, query.user_id, query))

    @app.post("/v1/rank", response_model=RankAnswer, responses=ERRORS, tags=["recommendations"])
    async def rank(request: RankRequest) -> Response:
        """Puts given items in the ranker's order for a user; blocked items are left out."""
        user = None if request.user_id is None else str(request.user_id)
        if user is not None:
            check_user(user)
        items = [str(item) for item in request.items]
        answer = await work.run("live", recommender.rank, user, _session(request), items)
        told = {"source": answer.source, "unknown_items": answer.ranked.unknown_items}
        return Json(list_of(answer, user) | told)


async def _answered(recommender: Recommender, work: Work, asked: RecommendationQuery) -> Answer:
    """Looks up first; what the list does not give may take long, and is no look-up's business."""
    found = await work.run("lookup", recommender.look_up, asked)
    return found if isinstance(found, Answer) else await work.run("live", found)


async def _listed(
    recommender: Recommender, work: Work, user_id: str, query: UserQuery
) -> dict[str, Any]:
    started = time.perf_counter()
    check_user(user_id)
    filters = Filters(frozenset(query.exclude), frozenset(query.category))
    answer = await _answered(
        recommender, work, RecommendationQuery(user_id, query.k, filters=filters)
    )
    return _told(user_id, answer, started, recommender.now())


async def _read_query(request: Request) -> tuple[OfUserQuery, Request]:
    return _OF_USER(request), request


async def _read_user(request: Request) -> tuple[str, UserQuery, Request]:
    return _Path.model_validate(request.path_params).user_id, _QUERY(request), request


def _asked(request: RecommendRequest) -> RecommendationQuery:
    filters = Filters(frozenset(map(str, request.exclude)), frozenset(request.categories))
    shape = Options(float(request.diversity), request.explain)
    return RecommendationQuery(
        str(request.user_id), request.k, request.use_cache, _session(request), filters, shape
    )


def _session(request: RecommendRequest | RankRequest) -> UserRecord | None:
    if not request.history and not request.attributes:
        return None
    events = [_event(e) for e in request.history or ()]
    return session_of(events, dict(request.attributes or {}))


def _event(event: str | int | HistoryEvent) -> tuple[str, int | None, float | None]:
    if isinstance(event, HistoryEvent):
        return (
            str(event.item_id),
            event.timestamp,
            None if event.weight is None else float(event.weight),
        )
    return str(event), None, None


def _told(user_id: str | int, answer: Answer, started: float, now: float) -> dict[str, Any]:
    ranked = answer.ranked
    note = answered(answer, str(user_id))
    note.shown, note.at = len(ranked.items), now
    return {
        "user_id": user_id,
        "recommendations": _rows(ranked),
        "latency_ms": round((time.perf_counter() - started) * 1000, 3),
        "cache_hit": answer.cache_hit,
        "n_candidates": ranked.n_candidates,
        "source": answer.source,
        "model_version": answer.version,
        "list_age_s": answer.list_age_s,
        "degraded": answer.degraded,
        "unknown_items": ranked.unknown_items,
        "recommendation_id": new_id(answer.version, answer.source, now),
    }


def _rows(ranked: Ranked) -> Sequence[dict[str, Any]]:
    rows = [
        {
            "item_id": item.id,
            "title": item.title,
            "score": score,
            "rank": rank,
            "retrieval_score": retrieval,
            "genres": list(item.categories),
        }
        for rank, (item, score, retrieval) in enumerate(
            zip(ranked.items, ranked.scores, ranked.retrieval, strict=True), 1
        )
    ]
    for row, reason in zip(rows, ranked.reasons, strict=False):
        row["reason"] = _reason(reason)
    return rows


def _reason(reason: Reason) -> dict[str, Any]:
    titles = " and ".join(cause.title for cause in reason.causes[:2])
    return {
        "text": f"because of {titles}" if titles else "because it is popular, or new",
        "because": [
            {"item_id": c.item_id, "title": c.title, "share": c.share} for c in reason.causes
        ],
        "features": dict(reason.features),
    }


def list_of(answer: Answer, user: str | None = None) -> dict[str, Any]:
    """An answer that is a mere list of items."""
    answered(answer, user)
    ranked = answer.ranked
    items = [
        {
            "item_id": item.id,
            "title": item.title,
            "score": score,
            "rank": rank,
            "genres": list(item.categories),
        }
        for rank, (item, score) in enumerate(zip(ranked.items, ranked.scores, strict=True), 1)
    ]
    return {"items": items, "model_version": answer.version, "degraded": answer.degraded}
