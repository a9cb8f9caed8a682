"""The routes about items."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from lambda_handler.answers import Recommender
from lambda_handler.schemas import ERRORS, ItemAnswer


def add_items(app: FastAPI, recommender: Recommender) -> None:
    """Adds the routes."""

    @app.get("/v1/items/{item_id}", response_model=ItemAnswer, responses=ERRORS, tags=["items"])
    def item(item_id: Annotated[str, Path(min_length=1, max_length=256)]) -> Response:
        """An item's title and genres."""
        found = recommender.item(item_id)
        if found is None:
            raise HTTPException(404, f"item {item_id!r} is not in the catalogue: see the items of a recommendation")
        told = {"item_id": found.id, "title": found.title, "genres": list(found.categories), "available": found.available}
        return JSONResponse(told)
