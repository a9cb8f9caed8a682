"""Composes the studio's page and its endpoints.

The page asks the public API for all that it can say. These endpoints give what it cannot: the
hold-out, the data, releases side by side. They only read.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from shortlist.batch.studio import items
from shortlist.batch.studio.mount import ROOT
from shortlist.batch.studio.overview import overview
from shortlist.batch.studio.releases import Releases, View
from shortlist.batch.studio.users import Users
from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    BrokenRelease,
    InvalidInput,
    ReleaseNotFound,
    ShortlistError,
    StoreUnavailable,
    Unavailable,
    UnknownItem,
)
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import RedisStore

STATIC = Path(__file__).parent / "static"

API = f"{ROOT}/api"
"""Prefix of the endpoints."""

POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page may load from its own origin alone; charts may draw images of their own."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # ids of users stand in addresses
    "Cross-Origin-Resource-Policy": "same-origin",
}

ANSWERS: tuple[tuple[type[ShortlistError], int, str], ...] = (
    (UnknownItem, 404, "unknown_item"),
    (InvalidInput, 400, "invalid_request"),
    (ReleaseNotFound, 404, "no_release"),
    (StoreUnavailable, 503, "redis_unavailable"),
    (ArtefactsUnavailable, 503, "artefacts_unavailable"),
    (Unavailable, 503, "unavailable"),
    (BrokenRelease, 503, "broken_release"),
)
"""The first that fits an error gives its status and code."""

Limit = Annotated[int, Query(ge=1, le=items.MOST)]
Text = Annotated[str, Query(max_length=1000)]


@dataclass(frozen=True)
class Studio:
    """What the endpoints read.

    api_url: of the service that is shown, None for the one in this process; is_guarded: whether
    every request needs the admin key; now: unix seconds; clock: monotonic seconds.
    """

    settings: Settings
    store: RedisStore
    api_url: str | None = None
    is_guarded: bool = False
    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic

    @cached_property
    def releases(self) -> Releases:
        """The releases among the artefacts."""
        return Releases(self.settings, self.store)

    @cached_property
    def users(self) -> Users:
        """The users in Redis."""
        return Users(self.store, self.now, self.clock)

    def serving(self) -> View:
        """The serving release."""
        return self.releases.serving()


def create_studio(studio: Studio) -> FastAPI:
    """The studio as an ASGI app, for `/` and `/studio/`."""
    # No documentation of its own: its endpoints are the page's, and change with it.
    app = FastAPI(title="Shortlist studio", openapi_url=None, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_headers(app)
    _add_endpoints(app, studio)

    @app.get("/")
    @app.get(ROOT)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    # no-cache: a browser asks whether a file has changed, which costs nothing on loopback.
    app.mount(f"{ROOT}/", StaticFiles(directory=STATIC), name="static")
    return app


def _add_endpoints(app: FastAPI, studio: Studio) -> None:
    @app.get(f"{API}/overview")
    def overview_() -> dict[str, Any]:
        pointer = studio.releases.pointer()
        api = {"url": studio.api_url, "forwarded": studio.api_url is not None}
        view = studio.releases.view(pointer.current)
        needed = studio.settings.admin_key is not None
        return overview(view, pointer, studio.now(), api, admin_key_needed=needed)

    @app.get(f"{API}/users")
    def users(q: Text = "", pick: str = "heavy", limit: Limit = 50) -> dict[str, Any]:
        return studio.users.found(studio.serving(), q, pick, limit)

    @app.get(f"{API}/user")
    def user(id: Text) -> dict[str, Any]:  # noqa: A002 - the query's name
        return studio.users.one(studio.serving(), id)

    @app.get(f"{API}/items")
    def items_(q: Text = "", category: Text = "", limit: Limit = 50) -> dict[str, Any]:
        return items.found(studio.serving(), q, category, limit)

    @app.get(f"{API}/item")
    def item(id: Text) -> dict[str, Any]:  # noqa: A002 - the query's name
        return items.one(studio.serving(), id)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ShortlistError)
    def refused(_request: Request, error: ShortlistError) -> Response:
        for kind, status, code in ANSWERS:
            if isinstance(error, kind):
                return problem(status, code, str(error))
        raise error

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> Response:
        # The rule and the name alone: a value may be a user's id.
        faults = (f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return problem(400, "invalid_request", "; ".join(faults))

    @app.exception_handler(404)
    def missing(_request: Request, _error: Exception) -> Response:
        return problem(404, "not_found", "the studio has no such page: begin at /")


def problem(status: int, code: str, message: str) -> Response:
    """An error in the API's shape."""
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def _add_headers(app: FastAPI) -> None:
    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.path.startswith(API):
            response.headers["Cache-Control"] = "no-store"  # ids and histories of users
        else:
            response.headers.setdefault("Cache-Control", "no-cache")
        return response
