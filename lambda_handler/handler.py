"""The Lambda's entry point: settings, store, app and the Mangum adapter; the heavy path is imported when first needed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import PLAIN, Filters, LivePath, Options, Ranked
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.entry import Adapter, MalformedRequest, is_http, is_warm_up
from shortlist.lambda_handler.envelope import error_body
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_log import Say, say, warn_once
from shortlist.recsys.errors import LoadFailed
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.keys import Keys
from shortlist.recsys.store.records import ItemRecord, UserRecord
from shortlist.recsys.store.redis import open_store

if TYPE_CHECKING:
    from fastapi import FastAPI

REST_SECONDS = 1.0
"""For how long Redis is left alone after it did not answer."""

ATTEMPTS = 2
"""How often the store waits for its timeout before it gives up."""

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(
        _variable, "1"
    )  # one request at a time, and numpy, FAISS and LightGBM each bring a pool


class LazyLive:
    """Imports and opens the heavy path at its first use."""

    def __init__(
        self, settings: Settings, metrics: Metrics, tallies: CounterBuffer, keys: Keys
    ) -> None:
        self._settings, self._metrics, self._tallies, self._keys = settings, metrics, tallies, keys
        self._opened: LivePath | None = None
        self._lock = Lock()

    @property
    def _live(self) -> LivePath:
        """Raises LoadFailed where the heavy path cannot be imported or opened; the next use tries again."""
        with self._lock:
            if self._opened is None:
                try:
                    from shortlist.lambda_handler.live import open_live

                    self._opened = open_live(
                        self._settings, self._metrics.step, self._tallies, self._keys
                    )
                except (
                    ImportError,
                    OSError,
                ) as error:  # a library that is missing, or that the disk does not give
                    why = f"the live path cannot be opened ({type(error).__name__}: {error})"
                    raise LoadFailed(
                        f"{why}: mend the disk, or deploy the package again"
                    ) from error
            return self._opened

    def recommend(
        self, version: str, user: UserRecord, k: int, filters: Filters, shape: Options = PLAIN
    ) -> Ranked:
        """See `LivePath`."""
        return self._live.recommend(version, user, k, filters, shape)

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`."""
        return self._live.popular(version, k, filters)

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`."""
        return self._live.trending(version, k, filters)

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`."""
        return self._live.similar(version, item_id, k, filters)

    def rank(
        self, version: str, user: UserRecord, items: Sequence[str], filters: Filters
    ) -> Ranked:
        """See `LivePath`."""
        return self._live.rank(version, user, items, filters)

    def items(self, version: str, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """See `LivePath`."""
        return self._live.items(version, item_ids)

    def info(self, version: str) -> dict[str, object]:
        """See `LivePath`."""
        return self._live.info(version)


def build(metrics: Metrics, work: Work | None = None, say: Say = say) -> FastAPI:
    """The app under the environment's settings. work: where look-ups and live answers run; see `create_app`."""
    settings = Settings.from_env(os.environ)
    guard = CallPolicy(REST_SECONDS, deadline.left, ATTEMPTS * settings.redis_timeout_ms / 1000)
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms, guard)
    tallies = CounterBuffer(CountLog(store), metrics)
    live = LazyLive(settings, metrics, tallies, store.keys)
    return create_app(settings, store, live, metrics=metrics, tallies=tallies, say=say, work=work)


warn_once()
_metrics = Metrics(emf="AWS_LAMBDA_FUNCTION_NAME" in os.environ)
app = build(_metrics)
_http = Adapter(app)


def handler(event: Any, context: object) -> dict[str, Any]:  # noqa: ANN401 - whatever invokes the function
    """Answers HTTP events of every kind, and warm-ups; any other event with what is wrong with it.

    That is no exception: an error would be tried again, and counted by alarms, to no use.
    """
    if not is_http(event):
        return {"ok": True} if is_warm_up(event) else _unknown(event)
    try:
        return _http(event, context)  # type: ignore[arg-type]
    except MalformedRequest as error:
        return _malformed(error, context)
    finally:
        sys.stdout.writelines(
            f"{line}\n" for line in _metrics.emf_lines(time.time_ns() // 1_000_000)
        )
        sys.stdout.flush()


def _unknown(event: object) -> dict[str, Any]:
    """The answer to any other event. It names fields alone: values may be anybody's data."""
    fields = sorted(str(name)[:40] for name in event)[:10] if isinstance(event, dict) else ()
    has = ", ".join(fields) or type(event).__name__
    rule = (
        "HTTP events of API Gateway, a load balancer or a function URL, and warm-ups by a schedule"
    )
    message = f"the event, of {has}, is none that this function answers ({rule}): stop its source"
    say(json.dumps({"level": "warning", "error": "UnknownEvent", "message": message}))
    return {"ok": False, "error": message}


def _malformed(error: MalformedRequest, context: object) -> dict[str, Any]:
    request_id = getattr(context, "aws_request_id", "")
    line = {"level": "warning", "error": "MalformedRequest", "message": str(error)}
    say(json.dumps(line | {"request_id": request_id}))
    message = "the request has a part that is no text or no base64: encode its path as UTF-8"
    body = json.dumps(error_body(400, "malformed_request", message, request_id))
    headers = {"content-type": "application/json"}
    return {"statusCode": 400, "headers": headers, "body": body, "isBase64Encoded": False}
