"""The route that forgets a user."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from lambda_handler.routes.recommend import UserPath
from lambda_handler.schemas import ERRORS, DeletedAnswer
from lambda_handler.serving import Serving
from lambda_handler.work import Work
from recsys.upkeep import Upkeep


def add_users(app: FastAPI, serving: Serving, upkeep: Upkeep, work: Work) -> None:
    """Adds the route."""

    @app.delete("/v1/users/{user_id}", response_model=DeletedAnswer, responses=ERRORS, tags=["users"])
    async def delete(user_id: UserPath) -> Response:
        """Deletes history, lists and live results, and keeps the user out of the next training. Safe to repeat.

        Events that are sent for a deleted user are rejected.
        """
        existed = await work.run("lookup", upkeep.delete_user, user_id, int(serving.now()))
        return JSONResponse({"user_id": user_id, "existed": existed})
