"""Routes that delete a user's data."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from shortlist.lambda_handler.access import check_user
from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.request_context import current
from shortlist.lambda_handler.schemas import ERRORS, DeletedAnswer, UserBody, UserPath
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.store.admin import AdminStore


def add_users(
    app: FastAPI, serving: ServingRelease, admin_store: AdminStore, executor: Executor
) -> None:
    """Adds the routes."""

    @app.delete(
        "/v1/users/{user_id}", response_model=DeletedAnswer, responses=ERRORS, tags=["users"]
    )
    async def delete(user_id: UserPath) -> Response:
        """Deletes a user's data and keeps the user out of training.

        History, lists and live results are deleted. It is safe to repeat. Later events of a deleted
        user are rejected.
        """
        return await _deleted(user_id)

    @app.post("/v1/user/delete", response_model=DeletedAnswer, responses=ERRORS, tags=["users"])
    async def delete_by_body(request: UserBody) -> Response:
        """The same, for ids that are unsafe in a path.

        They have a slash, or dots alone.
        """
        return await _deleted(str(request.user_id))

    async def _deleted(user_id: str) -> Response:
        check_user(user_id)
        current().user = user_id  # for a log with user ids
        existed = await executor.run("lookup", admin_store.delete_user, user_id, int(serving.now()))
        return JSONResponse({"user_id": user_id, "existed": existed})
