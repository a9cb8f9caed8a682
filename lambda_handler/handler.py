"""The Lambda's entry point: settings, store, app and the Mangum adapter; the heavy path is imported when first needed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from mangum import Mangum

from lambda_handler import deadline
from lambda_handler.answers import PLAIN, Filters, Live, Ranked, Shape
from lambda_handler.app import create_app
from lambda_handler.metrics import Metrics
from lambda_handler.request_log import Say, say, tell_once
from lambda_handler.tallies import Tallies
from lambda_handler.work import Work
from recsys.counts import CountLog
from recsys.settings import Settings
from recsys.store import Guard, Keys, open_store
from recsys.wire import UserRecord

if TYPE_CHECKING:
    from fastapi import FastAPI

REST_SECONDS = 1.0
"""For how long Redis is left alone after it did not answer."""

ATTEMPTS = 2
"""How often the store waits for its timeout before it gives up."""

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # one request at a time, and numpy, FAISS and LightGBM each bring a pool


class LazyLive:
    """Imports and opens the heavy path at its first use."""

    def __init__(self, settings: Settings, metrics: Metrics, tallies: Tallies, keys: Keys) -> None:
        self._settings, self._metrics, self._tallies, self._keys = settings, metrics, tallies, keys
        self._opened: Live | None = None
        self._lock = Lock()

    @property
    def _live(self) -> Live:
        with self._lock:
            if self._opened is None:
                from lambda_handler.live import open_live

                self._opened = open_live(self._settings, self._metrics.step, self._tallies, self._keys)
            return self._opened

    def recommend(self, version: str, user: UserRecord, k: int, filters: Filters, shape: Shape = PLAIN) -> Ranked:
        """See `Live`."""
        return self._live.recommend(version, user, k, filters, shape)

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        return self._live.popular(version, k, filters)

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        return self._live.trending(version, k, filters)

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        return self._live.similar(version, item_id, k, filters)

    def rank(self, version: str, user: UserRecord, items: Sequence[str], filters: Filters) -> Ranked:
        """See `Live`."""
        return self._live.rank(version, user, items, filters)

    def info(self, version: str) -> dict[str, object]:
        """See `Live`."""
        return self._live.info(version)


def build(metrics: Metrics, work: Work | None = None, say: Say = say) -> FastAPI:
    """The app under the environment's settings. work: where look-ups and live answers run; see `create_app`."""
    settings = Settings.from_env(os.environ)
    guard = Guard(REST_SECONDS, deadline.left, ATTEMPTS * settings.redis_timeout_ms / 1000)
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms, guard)
    tallies = Tallies(CountLog(store), metrics)
    live = LazyLive(settings, metrics, tallies, store.keys)
    return create_app(settings, store, live, metrics=metrics, tallies=tallies, say=say, work=work)


tell_once()
_metrics = Metrics(emf="AWS_LAMBDA_FUNCTION_NAME" in os.environ)
app = build(_metrics)
_http = Mangum(app, lifespan="off")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answers HTTP API events; a schedule's warm-up event is answered by itself."""
    if event.get("source") == "aws.events" or event.get("warmup") is True:
        return {"ok": True}
    try:
        return _http(event, context)  # type: ignore[arg-type]
    finally:
        sys.stdout.writelines(f"{line}\n" for line in _metrics.emf_lines(time.time_ns() // 1_000_000))
        sys.stdout.flush()
