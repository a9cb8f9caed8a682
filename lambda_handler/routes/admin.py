"""Routes that change what is served, for operators."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException

from shortlist.lambda_handler.access import ADMIN_HEADER, CALLER, is_admin_key
from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.request_context import current
from shortlist.lambda_handler.request_log import Say
from shortlist.lambda_handler.schemas import (
    CHANGED,
    ERRORS,
    NO_RELEASE,
    NOT_FOUND,
    BlockedAnswer,
    CanaryRequest,
    ItemBody,
    ItemPath,
    PointerAnswer,
    ReleasesAnswer,
    RulesAnswer,
    RulesRequest,
)
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import ReleaseNotFound, RulesChanged, UnknownItem
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.rules_reading import StoredRules, changes, rules_of

HEADER = APIKeyHeader(name=ADMIN_HEADER, auto_error=False)
VersionPath = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="See GET /v1/releases.")
]


def add_admin(
    app: FastAPI,
    settings: Settings,
    serving: ServingRelease,
    admin_store: AdminStore,
    executor: Executor,
    say: Say | None = None,
) -> None:
    """Adds the routes.

    say: writes a line of JSON to the log for each change of the rules.
    """

    async def check(request: Request, key: Annotated[str | None, Security(HEADER)]) -> None:
        if CALLER in request.scope or is_admin_key(settings, key):
            return  # where callers are checked, this one has the scope
        if settings.admin_key is None:
            message = "the admin routes are closed: set SHORTLIST_ADMIN_KEY to open them"
            raise HTTPException(403, message)
        message = f"{ADMIN_HEADER} is missing or is not the configured one: send the right one"
        raise HTTPException(403, message)

    guarded = [Depends(check)]
    _add_releases(app, settings, serving, admin_store, executor, guarded)
    _add_blocking(app, serving, admin_store, executor, guarded)
    _add_rules(app, serving, admin_store, executor, guarded, say)


def _add_releases(
    app: FastAPI,
    settings: Settings,
    serving: ServingRelease,
    admin_store: AdminStore,
    executor: Executor,
    guarded: list[Any],
) -> None:
    options: dict[str, Any] = {"dependencies": guarded, "tags": ["admin"], "responses": ERRORS}

    def artefacts() -> Artefacts:
        return open_artefacts(settings.artefacts)

    @app.get("/v1/releases", response_model=ReleasesAnswer, **options)
    async def list_releases() -> Response:
        """The releases that can serve, oldest first, and which one does."""
        pointer = await executor.run("admin", admin_store.store.release)
        known = await executor.run("admin", admin_store.releases)
        listed = [
            {
                "version": release.version,
                "created_at": release.created_at,
                "ndcg_at_10": release.ndcg,
            }
            for release in known
        ]
        return JSONResponse(_pointer_payload(pointer) | {"releases": listed})

    @app.post(
        "/v1/releases/{version}/promote",
        response_model=PointerAnswer,
        **options | {"responses": ERRORS | NO_RELEASE},
    )
    async def promote(version: VersionPath) -> Response:
        """Makes a release the serving one, if it is whole."""
        return await changed(lambda: releases.promote(admin_store.store, artefacts(), version))

    @app.post(
        "/v1/releases/{version}/canary",
        response_model=PointerAnswer,
        **options | {"responses": ERRORS | NO_RELEASE},
    )
    async def canary(version: VersionPath, request: CanaryRequest) -> Response:
        """Serves a share of the users from a release, always the same ones; 0 ends it."""
        return await changed(
            lambda: releases.canary(admin_store.store, artefacts(), version, request.percent)
        )

    @app.post("/v1/releases/rollback", response_model=PointerAnswer, **options)
    async def rollback() -> Response:
        """Makes the previous release the serving one again."""
        return await changed(lambda: releases.rollback(admin_store.store, artefacts()))

    async def changed(change: Callable[[], ReleasePointer]) -> Response:
        try:
            pointer = await executor.run("admin", change)
        except ReleaseNotFound as error:
            raise HTTPException(404, str(error)) from error
        serving.invalidate()
        return JSONResponse(_pointer_payload(pointer))


def _add_blocking(
    app: FastAPI,
    serving: ServingRelease,
    admin_store: AdminStore,
    executor: Executor,
    guarded: list[Any],
) -> None:
    options: dict[str, Any] = {
        "dependencies": guarded,
        "tags": ["admin"],
        "responses": ERRORS | NOT_FOUND,
    }

    @app.post("/v1/items/{item_id}/block", response_model=BlockedAnswer, **options)
    async def block(item_id: ItemPath) -> Response:
        """Keeps an item out of every answer.

        Other processes follow within seconds.
        """
        return await block_item(item_id)

    @app.post("/v1/item/block", response_model=BlockedAnswer, **options)
    async def block_by_body(request: ItemBody) -> Response:
        """The same, for an id of any characters."""
        return await block_item(str(request.item_id))

    @app.post("/v1/items/{item_id}/unblock", response_model=BlockedAnswer, **options)
    async def unblock(item_id: ItemPath) -> Response:
        """Lets an item be shown again."""
        return await unblock_item(item_id)

    @app.post("/v1/item/unblock", response_model=BlockedAnswer, **options)
    async def unblock_by_body(request: ItemBody) -> Response:
        """The same, for an id of any characters."""
        return await unblock_item(str(request.item_id))

    async def block_item(item_id: str) -> Response:
        if await executor.run("lookup", serving.item, item_id) is None:
            message = f"item {item_id!r} is not in the catalogue, so that there is nothing to block"
            raise UnknownItem(message)
        await executor.run("lookup", admin_store.block, item_id)
        serving.invalidate()
        return JSONResponse({"item_id": item_id, "blocked": True})

    async def unblock_item(item_id: str) -> Response:
        await executor.run("lookup", admin_store.unblock, item_id)
        serving.invalidate()
        return JSONResponse({"item_id": item_id, "blocked": False})


def _add_rules(
    app: FastAPI,
    serving: ServingRelease,
    admin_store: AdminStore,
    executor: Executor,
    guarded: list[Any],
    say: Say | None,
) -> None:
    options: dict[str, Any] = {
        "dependencies": guarded,
        "tags": ["admin"],
        "response_model": RulesAnswer,
    }

    @app.get("/v1/admin/rules", responses=ERRORS, **options)
    async def rules() -> Response:
        """The business rules, and which of them do not fit the serving release."""
        stored = await executor.run("admin", admin_store.rules)
        notes = await executor.run("admin", serving.unfit_rules, rules_of(stored.plain))
        return JSONResponse(_rules_payload(stored, notes))

    @app.put("/v1/admin/rules", responses=ERRORS | CHANGED, **options)
    async def put_rules(request: RulesRequest) -> Response:
        """Replaces all business rules, if nobody else has meanwhile.

        Other processes follow within seconds, and the change is in the log.
        """
        by = current().caller or "an operator"
        # First: an answer that fails must not follow a change.
        notes = await executor.run("admin", serving.unfit_rules, rules_of(request.rules))
        before = await executor.run("admin", admin_store.rules)
        try:
            stored = await executor.run(
                "admin",
                admin_store.write_rules,
                request.rules,
                by,
                int(serving.now()),
                request.version,
            )
        except RulesChanged as error:
            raise HTTPException(409, str(error)) from error
        serving.invalidate()
        if say is not None:
            say(_audit_line(before, stored))
        return JSONResponse(_rules_payload(stored, notes))


def _rules_payload(stored: StoredRules, notes: list[str]) -> dict[str, Any]:
    return {
        "version": stored.version,
        "rules": stored.plain,
        "by": stored.by,
        "at": stored.at,
        "notes": notes,
    }


def _audit_line(before: StoredRules, after: StoredRules) -> str:
    fields = {
        "level": "info",
        "event": "rules",
        "request_id": current().request_id,
        "by": after.by,
        "version": after.version,
        "changes": changes(before.plain, after.plain),
    }
    return json.dumps(fields, separators=(",", ":"))


def _pointer_payload(pointer: ReleasePointer | None) -> dict[str, Any]:
    if pointer is None:
        return {"current": None, "previous": None, "canary": None}
    canary = None
    if pointer.canary is not None:
        canary = {"version": pointer.canary.version, "percent": pointer.canary.percent}
    return {"current": pointer.current, "previous": pointer.previous, "canary": canary}
