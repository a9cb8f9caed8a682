"""The routes for operators who may change what is served; closed unless a key is configured."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException

from shortlist.lambda_handler.access import ADMIN_HEADER, CALLER, is_admin_key
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.schemas import (
    ERRORS,
    NO_RELEASE,
    NOT_FOUND,
    BlockedAnswer,
    ItemBody,
    ItemPath,
    PointerAnswer,
    ReleasesAnswer,
)
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import ReleaseNotFound, UnknownItem
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.records import ReleasePointer

HEADER = APIKeyHeader(name=ADMIN_HEADER, auto_error=False)
VersionPath = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="See GET /v1/releases.")
]


def add_admin(
    app: FastAPI, settings: Settings, serving: ServingRelease, upkeep: AdminStore, work: Work
) -> None:
    """Adds the routes."""

    async def check(request: Request, key: Annotated[str | None, Security(HEADER)]) -> None:
        if CALLER in request.scope or is_admin_key(settings, key):
            return  # where callers are checked, this one has the scope
        if settings.admin_key is None:
            raise HTTPException(
                403, "the admin routes are closed: set SHORTLIST_ADMIN_KEY to open them"
            )
        raise HTTPException(
            403, f"{ADMIN_HEADER} is missing or is not the configured one: send the right one"
        )

    guarded = [Depends(check)]
    _add_releases(app, settings, serving, upkeep, work, guarded)
    _add_blocking(app, serving, upkeep, work, guarded)


def _add_releases(
    app: FastAPI,
    settings: Settings,
    serving: ServingRelease,
    upkeep: AdminStore,
    work: Work,
    guarded: list[Any],
) -> None:
    told: dict[str, Any] = {"dependencies": guarded, "tags": ["admin"], "responses": ERRORS}

    def artefacts() -> Artefacts:
        return open_artefacts(settings.artefacts)

    @app.get("/v1/releases", response_model=ReleasesAnswer, **told)
    async def list_releases() -> Response:
        """The releases that can serve, oldest first, and which one does."""
        pointer = await work.run("admin", upkeep.store.release)
        known = await work.run("admin", upkeep.releases)
        notes = [
            {"version": n.version, "created_at": n.created_at, "ndcg_at_10": n.ndcg} for n in known
        ]
        return JSONResponse(_pointed(pointer) | {"releases": notes})

    @app.post(
        "/v1/releases/{version}/promote",
        response_model=PointerAnswer,
        **told | {"responses": told["responses"] | NO_RELEASE},
    )
    async def promote(version: VersionPath) -> Response:
        """Makes a release the serving one, if it is whole."""
        try:
            pointer = await work.run(
                "admin", lambda: releases.promote(upkeep.store, artefacts(), version)
            )
        except ReleaseNotFound as error:
            raise HTTPException(404, str(error)) from error
        serving.forget()
        return JSONResponse(_pointed(pointer))

    @app.post("/v1/releases/rollback", response_model=PointerAnswer, **told)
    async def rollback() -> Response:
        """Makes the release before the serving one."""
        pointer = await work.run("admin", lambda: releases.rollback(upkeep.store, artefacts()))
        serving.forget()
        return JSONResponse(_pointed(pointer))


def _add_blocking(
    app: FastAPI, serving: ServingRelease, upkeep: AdminStore, work: Work, guarded: list[Any]
) -> None:
    told: dict[str, Any] = {
        "dependencies": guarded,
        "tags": ["admin"],
        "responses": ERRORS | NOT_FOUND,
    }

    @app.post("/v1/items/{item_id}/block", response_model=BlockedAnswer, **told)
    async def block(item_id: ItemPath) -> Response:
        """Keeps an item out of every answer, in this process at once and everywhere within seconds."""
        return await _blocked(item_id)

    @app.post("/v1/item/block", response_model=BlockedAnswer, **told)
    async def block_by_body(request: ItemBody) -> Response:
        """The same, for an id of any characters."""
        return await _blocked(str(request.item_id))

    @app.post("/v1/items/{item_id}/unblock", response_model=BlockedAnswer, **told)
    async def unblock(item_id: ItemPath) -> Response:
        """Lets an item be shown again."""
        return await _unblocked(item_id)

    @app.post("/v1/item/unblock", response_model=BlockedAnswer, **told)
    async def unblock_by_body(request: ItemBody) -> Response:
        """The same, for an id of any characters."""
        return await _unblocked(str(request.item_id))

    async def _blocked(item_id: str) -> Response:
        if await work.run("lookup", serving.item, item_id) is None:
            raise UnknownItem(
                f"item {item_id!r} is not in the catalogue, so that there is nothing to block"
            )
        await work.run("lookup", upkeep.block, item_id)
        serving.forget()
        return JSONResponse({"item_id": item_id, "blocked": True})

    async def _unblocked(item_id: str) -> Response:
        await work.run("lookup", upkeep.unblock, item_id)
        serving.forget()
        return JSONResponse({"item_id": item_id, "blocked": False})


def _pointed(pointer: ReleasePointer | None) -> dict[str, Any]:
    if pointer is None:
        return {"current": None, "previous": None, "canary": None}
    canary = (
        None
        if pointer.canary is None
        else {"version": pointer.canary.version, "percent": pointer.canary.percent}
    )
    return {"current": pointer.current, "previous": pointer.previous, "canary": canary}
