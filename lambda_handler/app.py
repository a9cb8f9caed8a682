"""The HTTP API, put together from its routes."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.access import ADMIN_HEADER, KEY_HEADER, secure
from shortlist.lambda_handler.admission import Admission
from shortlist.lambda_handler.answers import LivePath
from shortlist.lambda_handler.base_path import BasePath
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.deadline import Deadlines
from shortlist.lambda_handler.envelope import Done, HeadAsGet, add_counting, add_errors
from shortlist.lambda_handler.executors import OnTheSpot, Pool, Work
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
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.lambda_handler.timed_store import observed
from shortlist.recsys.errors import DeadlineExceeded, Overloaded, ShortlistError
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.histories import NEWCOMER_SECONDS
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.version import installed_version

WARM_SECONDS = 5.0
"""For which a server waits for the serving bundle before its first request."""

LAST_SECONDS = 2.0
"""For which a server waits for Redis to take its last counts."""


def create_app(
    settings: Settings,
    store: RedisStore,
    live: LivePath,
    now: Callable[[], float] = time.time,
    metrics: Metrics | None = None,
    tallies: CounterBuffer | None = None,
    say: Say | None = None,
    clock: Callable[[], float] = time.monotonic,
    work: Work | None = None,
) -> FastAPI:
    """The API over a store and a live path, which reports to the same `metrics`.

    now: unix seconds; clock: seconds that never go back.
    tallies: what sends counts to Redis, and say: what writes a line for each request; without them
    neither is done.
    work: where look-ups and live answers run; without it as in a Lambda, one request at a time and
    without a limit of its own.
    """
    metrics = Metrics() if metrics is None else metrics
    work = OnTheSpot() if work is None else work
    seen = observed(store, metrics)
    serving = ServingRelease(settings, seen, live, metrics, now, clock)
    about = "Recommendations at the price of a lookup."
    app = _Api(
        title="Shortlist",
        version=installed_version(),
        description=about,
        lifespan=_lifespan(work, lambda: live.info(serving.version()), metrics, tallies),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # we count and log ourselves
        redirect_slashes=False,  # another path is another id: nobody is sent from one user to another
        openapi_url=None,  # until the routes stand, so that those of the documentation are looked through last
    )
    recommender = Recommender(
        serving, seen, live, LiveCache(seen, settings.cache_ttl_seconds), metrics
    )
    add_errors(app, metrics)
    app.add_middleware(Deadlines, seconds=work.seconds)  # of the time after the body is there
    app.add_middleware(Admission, metrics=metrics, seats=work.seats)
    logged = [] if say is None else [RequestLog(say, users=settings.log_users).line]
    add_counting(app, metrics, *logged, *_after(metrics, tallies, store))
    app.outermost(settings.cors_origins, settings.base_paths)
    add_recommend(app, recommender, work)
    bounds = Bounds(settings.max_waiting_events, settings.max_newcomers, NEWCOMER_SECONDS)
    intake = EventIngestor(EventLog(store), partial(_has_items, live), bounds, now)
    add_events(app, serving, intake, metrics, work)
    add_items(app, serving, recommender, work)
    add_users(app, serving, AdminStore(store), work)
    add_admin(app, settings, serving, AdminStore(store), work)
    add_operations(app, serving, store, live, metrics, work)
    app.openapi_url = "/openapi.json"
    app.setup()
    secure(app, settings)
    return app


def _has_items(live: LivePath, version: str, item_ids: Sequence[str]) -> list[bool]:
    return [item is not None for item in live.items(version, item_ids)]


class _Api(FastAPI):
    """FastAPI, with what must stand outside its own handling of errors, so that it holds for a 500 as well."""

    _origins: Sequence[str] = ()
    _base_paths: Sequence[str] = ()

    def outermost(self, origins: Sequence[str], base_paths: Sequence[str]) -> None:
        """Serves pages of these origins, and below these base paths."""
        self._origins, self._base_paths = origins, base_paths

    def build_middleware_stack(self) -> ASGIApp:
        """See FastAPI."""
        stack: ASGIApp = HeadAsGet(super().build_middleware_stack())
        if self._base_paths:
            stack = BasePath(stack, self._base_paths)
        return _with_cors(stack, self._origins) if self._origins else stack


def _after(metrics: Metrics, tallies: CounterBuffer | None, store: RedisStore) -> list[Done]:
    """What follows an answer, in this order."""
    impressions = Impressions(metrics, tallies, store.keys)
    done: list[Done] = [lambda note, _scope, status, _seconds: impressions.count(note, status)]
    if tallies is not None:
        done.append(lambda *_: tallies.maybe_flush())
    return done


def _lifespan(
    work: Work, warm: Callable[[], object], metrics: Metrics, tallies: CounterBuffer | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What a server does at its beginning and its end. In Lambda there are no such moments."""

    @asynccontextmanager
    async def until_the_end(_app: FastAPI) -> AsyncIterator[None]:
        if work.seconds < math.inf:
            with suppress(ShortlistError, OSError), deadline.within(WARM_SECONDS):
                await work.run(
                    "live", warm
                )  # without it the first live answers would be popular items
        yield
        if tallies is not None:
            sender = Pool("counts", 1, metrics)
            with suppress(DeadlineExceeded, Overloaded), deadline.within(LAST_SECONDS):
                await sender.run(tallies.send)
            sender.close()
        work.close()

    return until_the_end


METHODS = ("GET", "HEAD", "POST", "DELETE")
"""Every method that a route has."""

HEADERS = (
    "content-type",
    "if-none-match",
    "authorization",  # this and the next for whoever checks callers, here or before the API
    KEY_HEADER.lower(),
    ADMIN_HEADER.lower(),
    "x-amz-date",  # these with a signature
    "x-amz-security-token",
    "x-amz-content-sha256",
)


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    from fastapi.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=list(METHODS),
        allow_headers=list(HEADERS),
        expose_headers=["etag", "retry-after", "www-authenticate"],
    )
