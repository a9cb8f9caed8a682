"""Routes about items: single, similar, popular and trending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from shortlist.lambda_handler.answers import Answer, Filters, Ranked
from shortlist.lambda_handler.envelope import tagged
from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.recommender import Compute, Recommender
from shortlist.lambda_handler.routes.recommend import list_payload
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

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath


def add_items(
    app: FastAPI, serving: ServingRelease, recommender: Recommender, executor: Executor
) -> None:
    """Adds the routes."""
    _add_item(app, serving, executor)
    _add_similar(app, recommender, executor)
    _add_lists(app, recommender, executor)


def _add_item(app: FastAPI, serving: ServingRelease, executor: Executor) -> None:
    options: dict[str, Any] = {
        "response_model": ItemAnswer,
        "responses": ERRORS | NOT_FOUND | UNCHANGED,
        "tags": ["items"],
    }

    @app.get("/v1/items/{item_id}", **options)
    async def item(item_id: ItemPath, request: Request) -> Response:
        """An item's title, categories and attributes, and whether it may be shown.

        /v1/item takes ids that a path cannot hold.
        """
        return tagged(request, await executor.run("lookup", _item, serving, item_id))

    @app.get("/v1/item", **options)
    async def item_by_query(query: Annotated[ItemQuery, Query()], request: Request) -> Response:
        """The same, for an id of any characters."""
        return tagged(request, await executor.run("lookup", _item, serving, query.item_id))


def _add_similar(app: FastAPI, recommender: Recommender, executor: Executor) -> None:
    options: dict[str, Any] = {
        "response_model": ListAnswer,
        "responses": ERRORS | NOT_FOUND | UNCHANGED,
        "tags": ["items"],
    }

    @app.get("/v1/items/{item_id}/similar", **options)
    async def similar(
        item_id: ItemPath, query: Annotated[ListQuery, Query()], request: Request
    ) -> Response:
        """The items most like one.

        They are near it in the model, or taken by the same users.
        """
        return tagged(request, await similar_items(item_id, query))

    @app.get("/v1/item/similar", **options)
    async def similar_by_query(
        query: Annotated[OfItemQuery, Query()], request: Request
    ) -> Response:
        """The same, for an id of any characters."""
        return tagged(request, await similar_items(query.item_id, query))

    async def similar_items(item_id: str, query: ListQuery) -> dict[str, Any]:
        filters = _filters(query).without([item_id])  # which no rule may pin to its own list
        answer = await executor.run(
            "live", recommender.from_live, _similar_to(item_id), query.k, filters
        )
        return list_payload(answer)


def _similar_to(item_id: str) -> Compute:
    def compute(live: LivePath, version: str, k: int, filters: Filters) -> Ranked:
        return live.similar(version, item_id, k, filters)

    return compute


def _add_lists(app: FastAPI, recommender: Recommender, executor: Executor) -> None:
    options: dict[str, Any] = {
        "response_model": ListAnswer,
        "responses": ERRORS | UNCHANGED,
        "tags": ["items"],
    }

    @app.get("/v1/popular", **options)
    async def popular(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most interactions."""
        answer = await executor.run("lookup", recommender.popular, query.k, _filters(query))
        if not isinstance(answer, Answer):
            answer = await executor.run("live", answer)
        return tagged(request, list_payload(answer))

    @app.get("/v1/trending", **options)
    async def trending(query: Annotated[ListQuery, Query()], request: Request) -> Response:
        """The items with the most recent interactions.

        The answer has popular items, flagged as degraded, if the models cannot be read.
        """

        def compute(live: LivePath, version: str, k: int, filters: Filters) -> Ranked:
            return live.trending(version, k, filters)

        answer = await executor.run(
            "live", recommender.from_live_or_popular, compute, query.k, _filters(query)
        )
        return tagged(request, list_payload(answer))


def _item(serving: ServingRelease, item_id: str) -> dict[str, object]:
    item = serving.item(item_id)
    if item is None:
        message = f"item {item_id!r} is not in the catalogue: see the items of a recommendation"
        raise UnknownItem(message)
    return {
        "item_id": item.id,
        "title": item.title,
        "categories": list(item.categories),
        "genres": list(item.categories),
        "attributes": item.attributes,
        "available": serving.is_available(item),
    }


def _filters(query: ListQuery) -> Filters:
    return Filters(categories=frozenset(query.category), where=query.where or ())
