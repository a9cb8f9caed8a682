"""Routes that recommend items, and their answers' JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
)
from shortlist.lambda_handler.envelope import Json, encoded, tagged_bytes, with_fields
from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.recommender import NO_FILTERS, Recommender
from shortlist.lambda_handler.request_context import note_answer
from shortlist.lambda_handler.routes.direct import body_of, direct, query_of
from shortlist.lambda_handler.rows_json import joined_rows, shown
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
from shortlist.lambda_handler.sessions import Session, SessionEvent
from shortlist.recsys.store.recommendation_id import new_id


class _Path(BaseModel):
    user_id: UserPath


_USER_QUERY = query_of(UserQuery)
_OF_USER_QUERY = query_of(OfUserQuery)


def add_recommend(app: FastAPI, recommender: Recommender, executor: Executor) -> None:
    """Adds the routes."""
    body = body_of(RecommendRequest)
    options: dict[str, Any] = {"response_model": RecommendAnswer, "tags": ["recommendations"]}

    @direct(app, "POST", "/recommend", body, responses=ERRORS, **options)
    @direct(app, "POST", "/v1/recommend", body, responses=ERRORS, **options)
    async def recommend(request: RecommendRequest) -> Response:
        """The best items for a user.

        They come from the precomputed list, from the models, or from the request's own history;
        users of whom nothing is known get popular items, and so do callers who name no user.
        """
        started = time.perf_counter()
        if request.user_id is not None:
            check_user(str(request.user_id))
        answer = await _answer(recommender, executor, _query(request))
        body = with_fields(*_encoded(request.user_id, answer, started, recommender.now()))
        return Response(body, media_type="application/json")

    @direct(
        app,
        "GET",
        "/v1/users/{user_id}/recommendations",
        _read_path,
        responses=ERRORS | UNCHANGED,
        **options,
    )
    async def recommendations(
        user_id: UserPath, query: Annotated[UserQuery, Query()], request: Request
    ) -> Response:
        """The same list as by POST, with an ETag.

        It changes with the recommendations.
        """
        return tagged_bytes(request, *await _list_body(recommender, executor, user_id, query))

    @direct(
        app,
        "GET",
        "/v1/user/recommendations",
        _read_query,
        responses=ERRORS | UNCHANGED,
        **options,
    )
    async def by_query(query: Annotated[OfUserQuery, Query()], request: Request) -> Response:
        """The same list, for a user id of any characters."""
        return tagged_bytes(request, *await _list_body(recommender, executor, query.user_id, query))

    _add_rank(app, recommender, executor)


def _add_rank(app: FastAPI, recommender: Recommender, executor: Executor) -> None:
    @app.post("/v1/rank", response_model=RankAnswer, responses=ERRORS, tags=["recommendations"])
    async def rank(request: RankRequest) -> Response:
        """Orders given items for a user by the ranker.

        Blocked items, and those that `where` does not admit, are left out.
        """
        user = None if request.user_id is None else str(request.user_id)
        if user is not None:
            check_user(user)
        items = [str(item) for item in request.items]
        filters = Filters(where=request.where or ())
        answer = await executor.run(
            "live", recommender.rank, user, _session(request), items, filters
        )
        extra = {"source": answer.source, "unknown_items": answer.ranked.unknown_items}
        return Json(list_payload(answer, user) | extra)


async def _answer(
    recommender: Recommender, executor: Executor, query: RecommendationQuery
) -> Answer:
    """Answers by a look-up or, failing that, by the live path.

    Live answers may take long, and have their own threads under a server.
    """
    answer = await executor.run("lookup", recommender.look_up, query)
    return answer if isinstance(answer, Answer) else await executor.run("live", answer)


async def _list_body(
    recommender: Recommender, executor: Executor, user_id: str, query: UserQuery
) -> tuple[bytes, Mapping[str, object]]:
    started = time.perf_counter()
    check_user(user_id)
    filters = Filters(frozenset(query.exclude), frozenset(query.category), query.where or ())
    options = Options(allow_repeats=query.allow_repeats)
    own = RecommendationQuery(user_id, query.k, filters=filters, options=options)
    answer = await _answer(recommender, executor, own)
    return _encoded(user_id, answer, started, recommender.now())


async def _read_query(request: Request) -> tuple[OfUserQuery, Request]:
    return _OF_USER_QUERY(request), request


async def _read_path(request: Request) -> tuple[str, UserQuery, Request]:
    user_id = _Path.model_validate(request.path_params).user_id
    return user_id, _USER_QUERY(request), request


def _query(request: RecommendRequest) -> RecommendationQuery:
    return RecommendationQuery(
        user=None if request.user_id is None else str(request.user_id),
        k=request.k,
        use_cache=request.use_cache,
        session=_session(request),
        filters=_filters(request),
        options=Options(float(request.diversity), request.explain, request.allow_repeats),
    )


def _filters(request: RecommendRequest) -> Filters:
    if not (request.exclude or request.categories or request.where):
        return NO_FILTERS  # mostly: one object for all, as answers are made in microseconds
    excluded = frozenset(map(str, request.exclude))
    return Filters(excluded, frozenset(request.categories), request.where or ())


def _session(request: RecommendRequest | RankRequest) -> Session | None:
    if not request.history and not request.attributes:
        return None
    events = tuple(map(_event, request.history or ()))
    return Session(events, dict(request.attributes or {}))


def _event(entry: str | int | HistoryEvent) -> SessionEvent:
    if not isinstance(entry, HistoryEvent):
        return SessionEvent(str(entry))
    weight = None if entry.weight is None else float(entry.weight)
    return SessionEvent(str(entry.item_id), entry.timestamp, weight, entry.event_type)


def _encoded(
    user_id: str | int | None, answer: Answer, started: float, now: float
) -> tuple[bytes, Mapping[str, object]]:
    """The JSON answer, and the fields that change between answers of the same items.

    Records the answer in the request's context.
    """
    ranked = answer.ranked
    context = note_answer(answer, None if user_id is None else str(user_id))
    context.shown, context.at = len(ranked.items), now
    stable = {
        "user_id": user_id,
        "n_candidates": ranked.n_candidates,
        "source": answer.source,
        "model_version": answer.version,
        "degraded": answer.degraded,
        "unknown_items": ranked.unknown_items,
        "unknown_values": answer.unknown_values,
    }
    is_plain = not ranked.reasons and not ranked.rules
    rows = joined_rows(ranked) if is_plain else encoded(_rows(ranked))
    volatile = {
        "latency_ms": round((time.perf_counter() - started) * 1000, 3),
        "cache_hit": answer.cache_hit,
        "list_age_s": answer.list_age_s,
        "recommendation_id": new_id(answer.version, answer.source, now),
    }
    return b'%b,"recommendations":%b}' % (encoded(stable)[:-1], rows), volatile


def _rows(ranked: Ranked) -> Sequence[dict[str, Any]]:
    columns = zip(ranked.items, ranked.scores, ranked.retrieval, strict=True)
    rows: list[dict[str, Any]] = [
        {
            "item_id": item.id,
            "title": item.title,
            "score": score,
            "rank": rank,
            "retrieval_score": retrieval,
            **shown(item),
        }
        for rank, (item, score, retrieval) in enumerate(columns, 1)
    ]
    for row, reason in zip(rows, ranked.reasons, strict=False):  # there are none unless requested
        row["reason"] = _reason(reason)
    add_rules(rows, ranked)
    return rows


def add_rules(rows: Sequence[dict[str, Any]], ranked: Ranked) -> None:
    """Names in each row the rules that moved its item, if any did."""
    for row, names in zip(rows, ranked.rules, strict=False):  # there are none without rules
        if names:
            row["rules"] = list(names)
            if "reason" in row:
                row["reason"]["text"] += f"; moved by {' and '.join(names)}"


def _reason(reason: Reason) -> dict[str, Any]:
    titles = " and ".join(cause.title for cause in reason.causes[:2])
    causes = [
        {"item_id": cause.item_id, "title": cause.title, "share": cause.share}
        for cause in reason.causes
    ]
    because = f"because of {titles}" if titles else "because it is popular, or new"
    return {
        "text": reason.habit or because,
        "because": causes,
        "features": dict(reason.features),
    }


def list_payload(answer: Answer, user: str | None = None) -> dict[str, Any]:
    """The JSON of a plain list of items.

    Records the answer in the request's context.
    """
    note_answer(answer, user)
    scored = zip(answer.ranked.items, answer.ranked.scores, strict=True)
    items: list[dict[str, Any]] = [
        {
            "item_id": item.id,
            "title": item.title,
            "score": score,
            "rank": rank,
            **shown(item),
        }
        for rank, (item, score) in enumerate(scored, 1)
    ]
    add_rules(items, answer.ranked)
    return {
        "items": items,
        "model_version": answer.version,
        "degraded": answer.degraded,
        "unknown_values": answer.unknown_values,
    }
