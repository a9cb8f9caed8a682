"""The routes about items: one of them, those like it, and those that many want."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import Response

from lambda_handler.answers import Answer, Filters
from lambda_handler.envelope import tagged
from lambda_handler.recommender import Recommender
from lambda_handler.routes.recommend import list_of
from lambda_handler.schemas import ERRORS, NOT_FOUND, UNCHANGED, ItemAnswer, ListAnswer, ListQuery
from lambda_handler.serving import Serving
from lambda_handler.work import Work
from recsys.errors import UnknownItem
from recsys.wire import ItemRecord

ItemPath = Annotated[str, Path(min_length=1, max_length=256, description="The item's id.")]


def add_items(app: FastAPI, serving: Serving, recommender: Recommender, work: Work) -> None:
    """Adds the routes."""

    @app.get("/v1/items/{item_id}", response_model=ItemAnswer, responses=ERRORS | NOT_FOUND | UNCHANGED, tags=["items"])
    async def item(item_id: ItemPath, request: Request) -> Response:
        """An item's title and genres, and whether it may be shown."""
        found, available = await work.run("lookup", _item, serving, item_id)
        told = {"item_id": found.id, "title": found.title, "genres": list(found.categories), "available": available}
        return tagged(request, told)

    @app.get("/v1/items/{item_id}/similar", response_model=ListAnswer, responses=ERRORS | NOT_FOUND | UNCHANGED, tags=["items"])
    async def similar(item_id: ItemPath, query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items most like one: near in what the model has learnt of them, and taken near it by the same users."""
        return tagged(request, list_of(await work.run("live", recommender.similar, item_id, query.k, _filters(query))))

    @app.get("/v1/popular", response_model=ListAnswer, responses=ERRORS | UNCHANGED, tags=["items"])
    async def popular(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most interactions."""
        found = await work.run("lookup", recommender.popular, query.k, _filters(query))
        return tagged(request, list_of(found if isinstance(found, Answer) else await work.run("live", found)))

    @app.get("/v1/trending", response_model=ListAnswer, responses=ERRORS | UNCHANGED, tags=["items"])
    async def trending(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most interactions of late; the popular ones, flagged, where that cannot be told."""
        return tagged(request, list_of(await work.run("live", recommender.trending, query.k, _filters(query))))


def _item(serving: Serving, item_id: str) -> tuple[ItemRecord, bool]:
    """The item, and whether it may be shown."""
    found = serving.item(item_id)
    if found is None:
        raise UnknownItem(f"item {item_id!r} is not in the catalogue: see the items of a recommendation")
    return found, found.available and found.id not in serving.blocked()


def _filters(query: ListQuery) -> Filters:
    return Filters(categories=frozenset(query.category))
