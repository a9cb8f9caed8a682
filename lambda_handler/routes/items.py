"""The routes about items: one of them, those like it, and those that many want."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from shortlist.lambda_handler.answers import Answer, Filters
from shortlist.lambda_handler.envelope import tagged
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.routes.recommend import list_of
from shortlist.lambda_handler.schemas import (
    ERRORS,
    NOT_FOUND,
    UNCHANGED,
    ItemAnswer,
    ItemPath,
    ItemQuery,
    ListAnswer,
    ListQuery,
    OfItemQuery,
)
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import UnknownItem


def add_items(app: FastAPI, serving: ServingRelease, recommender: Recommender, work: Work) -> None:
    """Adds the routes."""

    @app.get(
        "/v1/items/{item_id}",
        response_model=ItemAnswer,
        responses=ERRORS | NOT_FOUND | UNCHANGED,
        tags=["items"],
    )
    async def item(item_id: ItemPath, request: Request) -> Response:
        """An item's title and genres, and whether it may be shown. /v1/item takes ids that a path cannot hold."""
        return tagged(request, await work.run("lookup", _item, serving, item_id))

    @app.get(
        "/v1/item",
        response_model=ItemAnswer,
        responses=ERRORS | NOT_FOUND | UNCHANGED,
        tags=["items"],
    )
    async def item_by_query(query: Annotated[ItemQuery, Query()], request: Request) -> Response:
        """The same, for an id of any characters."""
        return tagged(request, await work.run("lookup", _item, serving, query.item_id))

    @app.get(
        "/v1/items/{item_id}/similar",
        response_model=ListAnswer,
        responses=ERRORS | NOT_FOUND | UNCHANGED,
        tags=["items"],
    )
    async def similar(
        item_id: ItemPath, query: Annotated[ListQuery, Query()], request: Request
    ) -> Response:
        """The items most like one: near in what the model has learnt of them, and taken near it by the same users."""
        return tagged(
            request,
            list_of(await work.run("live", recommender.similar, item_id, query.k, _filters(query))),
        )

    @app.get(
        "/v1/item/similar",
        response_model=ListAnswer,
        responses=ERRORS | NOT_FOUND | UNCHANGED,
        tags=["items"],
    )
    async def similar_by_query(
        query: Annotated[OfItemQuery, Query()], request: Request
    ) -> Response:
        """The same, for an id of any characters."""
        found = await work.run("live", recommender.similar, query.item_id, query.k, _filters(query))
        return tagged(request, list_of(found))

    @app.get("/v1/popular", response_model=ListAnswer, responses=ERRORS | UNCHANGED, tags=["items"])
    async def popular(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most interactions."""
        found = await work.run("lookup", recommender.popular, query.k, _filters(query))
        return tagged(
            request, list_of(found if isinstance(found, Answer) else await work.run("live", found))
        )

    @app.get(
        "/v1/trending", response_model=ListAnswer, responses=ERRORS | UNCHANGED, tags=["items"]
    )
    async def trending(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most interactions of late; the popular ones, flagged, where that cannot be told."""
        return tagged(
            request, list_of(await work.run("live", recommender.trending, query.k, _filters(query)))
        )


def _item(serving: ServingRelease, item_id: str) -> dict[str, object]:
    item = serving.item(item_id)
    if item is None:
        raise UnknownItem(
            f"item {item_id!r} is not in the catalogue: see the items of a recommendation"
        )
    available = item.available and item.id not in serving.blocked()
    return {
        "item_id": item.id,
        "title": item.title,
        "genres": list(item.categories),
        "available": available,
    }


def _filters(query: ListQuery) -> Filters:
    return Filters(categories=frozenset(query.category))
