"""Composes the studio's page and its endpoints.

The page asks the public API for all that it can say. These endpoints give what it cannot: the
hold-out, the data, releases side by side. They only read.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from shortlist.batch.studio import items, quality
from shortlist.batch.studio.compare import Comparison
from shortlist.batch.studio.data import data
from shortlist.batch.studio.mount import COMMON, POLICY, ROOT, WithHeaders
from shortlist.batch.studio.operations import operations, readable
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
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.rules import NO_RULES, Rules, fitting
from shortlist.recsys.store.rules_reading import rules_of

STATIC = Path(__file__).parent / "static"

API = f"{ROOT}/api"
"""Prefix of the endpoints."""

ADMIN_HEADER = "x-shortlist-admin-key"

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
Points = Annotated[int, Query(ge=1, le=items.MOST_POINTS)]
K = Annotated[int, Query(ge=1, le=100)]
Ids = Annotated[Sequence[str], Query(max_length=items.MOST)]
Text = Annotated[str, Query(max_length=1000)]


Ask = Callable[..., Awaitable[tuple[int, bytes]]]
"""Asks the API that is shown: (method, path, ...) to a status and a body, see `call`."""


@dataclass(frozen=True)
class Studio:
    """What the endpoints read.

    ask: asks the API; api_url: where that is, None for the one in this process; is_guarded: whether
    every request for data needs the admin key; timeout_ms: of a command to Redis; now: unix
    seconds; clock: monotonic seconds.
    """

    settings: Settings
    store: RedisStore
    ask: Ask
    api_url: str | None = None
    is_guarded: bool = False
    timeout_ms: int = 5000
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

    @cached_property
    def comparison(self) -> Comparison:
        """Live answers of any release."""
        return Comparison(self.settings, self.store, self.timeout_ms)

    def serving(self) -> View:
        """The serving release."""
        return self.releases.serving()

    def warm(self) -> None:
        """Loads the serving release, if there is one, so that the first page need not wait."""
        with suppress(ShortlistError, OSError):
            self.serving()

    def rules(self, view: View) -> Rules:
        """The business rules as they fit a release; none where they cannot be read."""
        plain = AdminStore(self.store).rules().plain
        return fitting(rules_of(plain), view.bundle.facts.attributes)[0] if plain else NO_RULES


def create_studio(studio: Studio) -> ASGIApp:
    """The studio as an ASGI app, for `/` and `/studio/`."""
    # No documentation of its own: its endpoints are the page's, and change with it.
    app = FastAPI(title="Shortlist studio", openapi_url=None, docs_url=None, redoc_url=None)
    _add_errors(app)
    if studio.is_guarded:
        _add_guard(app, studio.settings)
    _add_overview(app, studio)
    _add_users_and_items(app, studio)
    _add_releases(app, studio)

    @app.api_route("/", methods=["GET", "HEAD"])
    @app.api_route(ROOT, methods=["GET", "HEAD"])
    def page() -> Response:
        return FileResponse(STATIC / "index.html")

    app.mount(f"{ROOT}/", StaticFiles(directory=STATIC), name="static")
    return WithHeaders(app, COMMON | {"Content-Security-Policy": POLICY})


def _add_overview(app: FastAPI, studio: Studio) -> None:
    @app.get(f"{API}/overview")
    def overview_() -> Response:
        pointer = studio.releases.pointer()
        api = {"url": studio.api_url, "forwarded": studio.api_url is not None}
        view = studio.releases.view(pointer.current)
        needed = studio.settings.admin_key is not None
        return answer(overview(view, pointer, studio.now(), api, admin_key_needed=needed))

    @app.get(f"{API}/data")
    def data_() -> Response:
        return answer(data(studio.serving()))

    @app.get(f"{API}/quality")
    def quality_() -> Response:
        return answer(quality.quality(studio.serving()))

    @app.get(f"{API}/operations")
    async def operations_(request: Request) -> Response:
        sent = {n: request.headers[n] for n in (ADMIN_HEADER, "x-api-key") if n in request.headers}
        status, metrics = await studio.ask("GET", "/metrics", headers=sent)
        text = metrics.decode() if status == 200 else ""  # noqa: PLR2004 - as HTTP has it
        return answer(await run_in_threadpool(_operations, studio, text))


def _operations(studio: Studio, metrics: str) -> dict[str, Any]:
    view = readable(studio.serving)
    return operations(
        studio.settings,
        studio.store,
        lambda: studio.users.ids(view),
        view,
        readable(studio.releases.pointer),
        metrics,
        studio.now(),
    )


def _add_users_and_items(app: FastAPI, studio: Studio) -> None:
    @app.get(f"{API}/users")
    def users(q: Text = "", pick: str = "heavy", limit: Limit = 50) -> Response:
        return answer(studio.users.found(studio.serving(), q, pick, limit))

    @app.get(f"{API}/user")
    def user(id: Text) -> Response:  # noqa: A002 - the query's name
        return answer(studio.users.one(studio.serving(), id))

    @app.get(f"{API}/items")
    def items_(q: Text = "", category: Text = "", limit: Limit = 50) -> Response:
        return answer(items.found(studio.serving(), q, category, limit))

    @app.get(f"{API}/item")
    def item(id: Text) -> Response:  # noqa: A002 - the query's name
        view = studio.serving()
        blocked, rules = studio.store.blocked(), studio.rules(view)
        return answer(items.one(view, id, blocked, rules, studio.now()))

    @app.get(f"{API}/map")
    def map_(category: Text = "", limit: Points = 5000, also: Ids = ()) -> Response:
        return answer(items.on_the_map(studio.serving(), category, limit, also))


def _add_releases(app: FastAPI, studio: Studio) -> None:
    @app.get(f"{API}/releases")
    def releases() -> Response:
        artefacts = open_artefacts(studio.settings.artefacts)
        return answer(quality.releases(artefacts, studio.store, studio.store.release()))

    @app.get(f"{API}/compare")
    def compare(user: Text, other: Annotated[Text, Query(alias="with")], k: K = 10) -> Response:
        serving = studio.releases.pointer().current
        open_artefacts(studio.settings.artefacts).manifest(other)  # a wrong one is told first
        both = {"serving": serving, "other": other}
        return answer(
            {name: studio.comparison.answer(each, user, k) for name, each in both.items()}
        )


def answer(body: dict[str, Any]) -> Response:
    """JSON of plain values."""
    # As it is: FastAPI's own encoder would look at each value once more. Nothing is kept by a
    # browser: these are users' ids and histories.
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _add_guard(app: FastAPI, settings: Settings) -> None:
    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.url.path.startswith(API) and not _has_key(request, settings):
            message = f"the data need the server's SHORTLIST_ADMIN_KEY: send it in {ADMIN_HEADER}"
            return problem(403, "admin_key_needed", message)
        return await call_next(request)


def _has_key(request: Request, settings: Settings) -> bool:
    """Compares in constant time; a guarded studio has an admin key."""
    sent = request.headers.get(ADMIN_HEADER, "").encode(errors="surrogatepass")
    return settings.admin_key is not None and hmac.compare_digest(sent, settings.admin_key.encode())


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
