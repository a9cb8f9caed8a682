"""Composes the HTTP API from its routes and middleware."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.access import ADMIN_HEADER, KEY_HEADER, secure
from shortlist.lambda_handler.admission import Admission
from shortlist.lambda_handler.base_path import BasePath
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.deadline import Deadlines
from shortlist.lambda_handler.envelope import AfterAnswer, HeadAsGet, add_counting, add_errors
from shortlist.lambda_handler.executors import Executor, InlineExecutor, Pool
from shortlist.lambda_handler.impressions import Impressions
from shortlist.lambda_handler.ingest import Bounds, EventIngestor
from shortlist.lambda_handler.live_cache import LiveCache
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.request_log import RequestLog, Say
from shortlist.lambda_handler.routes.admin import add_admin
from shortlist.lambda_handler.routes.events import add_events
from shortlist.lambda_handler.routes.items import add_items
from shortlist.lambda_handler.routes.operations import add_operations
from shortlist.lambda_handler.routes.recommend import add_recommend
from shortlist.lambda_handler.routes.users import add_users
from shortlist.lambda_handler.schemas import ErrorAnswer
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.lambda_handler.timed_store import timed
from shortlist.recsys.errors import DeadlineExceeded, Overloaded, ShortlistError
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.version import installed_version

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath

WARM_SECONDS = 5.0
"""How long a server waits for the serving bundle before its first request."""

LAST_SECONDS = 2.0
"""How long a server waits at its end for Redis to take the last counts."""


def create_app(
    settings: Settings,
    store: RedisStore,
    live: LivePath,
    now: Callable[[], float] = time.time,
    metrics: Metrics | None = None,
    counters: CounterBuffer | None = None,
    say: Say | None = None,
    clock: Callable[[], float] = time.monotonic,
    executor: Executor | None = None,
) -> FastAPI:
    """Builds the API over a store and a live path.

    live: reports to the same `metrics`.

    now: unix seconds; clock: monotonic seconds.
    counters: sends counts to Redis; None sends none. say: writes request lines; None writes none.
    executor: runs look-ups and live answers; by default as in a Lambda, one request at a time and
    without a time limit of its own.
    """
    metrics = Metrics() if metrics is None else metrics
    executor = InlineExecutor() if executor is None else executor
    timed_store = timed(store, metrics)
    serving = ServingRelease(settings, timed_store, live, metrics, now, clock)
    app = _Api(
        title="Shortlist",
        version=installed_version(),
        description="Recommendations at the price of a lookup.",
        lifespan=_lifespan(executor, lambda: live.info(serving.version()), metrics, counters),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the app has its own
        redirect_slashes=False,  # another path is another id: a redirect would change the user
        openapi_url=None,  # set below: documentation routes are matched after all others
    )
    cache = LiveCache(timed_store, settings.cache_ttl_seconds)
    recommender = Recommender(serving, timed_store, live, cache, metrics)
    add_errors(app, metrics)
    # Starlette runs middleware in reverse order: the deadline starts once the body is there.
    app.add_middleware(Deadlines, seconds=executor.seconds)
    app.add_middleware(Admission, metrics=metrics, seats=executor.seats)
    logs = [] if say is None else [RequestLog(say, users=settings.log_users).line]
    add_counting(app, metrics, *logs, *_after_answers(metrics, counters, store))
    app.wrap(settings.cors_origins, settings.base_paths)

    def has_items(version: str, item_ids: Sequence[str]) -> list[bool]:
        return [item is not None for item in live.items(version, item_ids)]

    bounds = Bounds(settings.max_waiting_events, settings.max_newcomers, NEWCOMER_SECONDS)
    ingestor = EventIngestor(EventLog(store), has_items, bounds, now)
    add_recommend(app, recommender, executor)
    add_events(app, serving, ingestor, metrics, executor)
    add_items(app, serving, recommender, executor)
    add_users(app, serving, AdminStore(store), executor)
    add_admin(app, settings, serving, AdminStore(store), executor, say)
    add_operations(app, serving, store, live, metrics, executor)
    app.openapi_url = "/openapi.json"
    app.setup()
    secure(app, settings)
    return app


class _Api(FastAPI):
    """FastAPI with middleware outside its own error handling, so that it covers a 500 as well."""

    _origins: Sequence[str] = ()
    _base_paths: Sequence[str] = ()

    def wrap(self, origins: Sequence[str], base_paths: Sequence[str]) -> None:
        """Allows pages of these origins, and serves below these base paths."""
        self._origins, self._base_paths = origins, base_paths

    def openapi(self) -> dict[str, Any]:
        """See FastAPI; with the schemas of errors, which the routes only name."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        if ErrorAnswer.__name__ not in schemas:
            _, errors = models_json_schema(
                [(ErrorAnswer, "serialization")], ref_template="#/components/schemas/{model}"
            )
            both = schemas | errors["$defs"]
            document["components"]["schemas"] = dict(sorted(both.items()))
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """See FastAPI."""
        stack: ASGIApp = HeadAsGet(super().build_middleware_stack())
        if self._base_paths:
            stack = BasePath(stack, self._base_paths)
        return _with_cors(stack, self._origins) if self._origins else stack


def _after_answers(
    metrics: Metrics, counters: CounterBuffer | None, store: RedisStore
) -> list[AfterAnswer]:
    """What runs after each answer, in this order."""
    impressions = Impressions(metrics, counters, store.keys)
    hooks: list[AfterAnswer] = [
        lambda context, _scope, status, _seconds: impressions.count(context, status)
    ]
    if counters is not None:
        hooks.append(lambda *_: counters.maybe_flush())
    return hooks


def _lifespan(
    executor: Executor, warm: Callable[[], object], metrics: Metrics, counters: CounterBuffer | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Start and end of a server; a Lambda has neither."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if executor.seconds < math.inf:
            with suppress(ShortlistError, OSError), deadline.within(WARM_SECONDS):
                # Otherwise the first live answers would be popular items.
                await executor.run("live", warm)
        yield
        if counters is not None:
            pool = Pool("counts", 1, metrics)  # the others may be full
            with suppress(DeadlineExceeded, Overloaded), deadline.within(LAST_SECONDS):
                await pool.run(counters.flush)
            pool.close()
        executor.close()

    return lifespan


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
"""Every method that a route has."""

HEADERS = (
    "content-type",
    "if-none-match",
    "authorization",  # checked by a gateway or proxy
    KEY_HEADER.lower(),
    ADMIN_HEADER.lower(),
    "x-amz-date",  # this and the next two come with a signature of AWS
    "x-amz-security-token",
    "x-amz-content-sha256",
)
"""Request headers that pages of other origins may send."""


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    from fastapi.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=list(METHODS),
        allow_headers=list(HEADERS),
        expose_headers=["etag", "retry-after", "www-authenticate"],
    )
