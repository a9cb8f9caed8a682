"""Composes the Lambda function: settings, store, app and adapter.

The live path, with its heavy libraries, is imported at the first request that needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.entry import Adapter, MalformedRequest, is_http, is_warm_up
from shortlist.lambda_handler.envelope import error_body
from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.lazy import lazy
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_log import Say, say, warn_once
from shortlist.lambda_handler.snapshot import add_hooks
from shortlist.recsys.errors import LoadFailed
from shortlist.recsys.settings import REDIS_ATTEMPTS, Settings
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.keys import Keys
from shortlist.recsys.store.redis import open_store

if TYPE_CHECKING:
    from fastapi import FastAPI

    from shortlist.lambda_handler.live import LivePath

ANSWERED = (
    "HTTP events of API Gateway, a load balancer or a function URL, and warm-ups by a schedule"
)
"""What this function answers, for the message about any other event."""

COOLDOWN_SECONDS = 1.0
"""Cooldown after Redis failed repeatedly: requests in it fall back at once, without waiting."""

# One request at a time: thread pools of numpy, FAISS and LightGBM would only compete for the CPU.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def open_live_path(
    settings: Settings, metrics: Metrics, counters: CounterBuffer, keys: Keys
) -> LivePath:
    """Imports and opens the live path.

    Raises:
        LoadFailed: a library is missing, or the disk does not give it.
    """
    try:
        from shortlist.lambda_handler.live import open_live

        return open_live(settings, metrics.step, counters, keys)
    except (ImportError, OSError) as error:
        cause = f"the live path cannot be opened ({type(error).__name__}: {error})"
        raise LoadFailed(f"{cause}: mend the disk, or deploy the package again") from error


def build(metrics: Metrics, executor: Executor | None = None, say: Say = say) -> FastAPI:
    """Builds the app under the environment's settings; see `create_app`."""
    settings = Settings.from_env(os.environ)
    longest_call = REDIS_ATTEMPTS * settings.redis_timeout_ms / 1000
    policy = CallPolicy(COOLDOWN_SECONDS, deadline.left, longest_call)
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms, policy)
    counters = CounterBuffer(CountLog(store), metrics)
    live = lazy(lambda: open_live_path(settings, metrics, counters, store.keys))
    add_hooks(store, live)
    return create_app(
        settings, store, live, metrics=metrics, counters=counters, say=say, executor=executor
    )


warn_once()
_metrics = Metrics(emf="AWS_LAMBDA_FUNCTION_NAME" in os.environ)
app = build(_metrics)
_http = Adapter(app)


def handler(event: Any, context: object) -> dict[str, Any]:  # noqa: ANN401 - whatever invokes the function
    """Answers HTTP events and warm-ups, and reports any other event.

    Unknown events do not raise: Lambda would retry them, and an alarm would count them, to no use.
    """
    if not is_http(event):
        return {"ok": True} if is_warm_up(event) else _unknown(event)
    try:
        return _http(event, context)  # type: ignore[arg-type]
    except MalformedRequest as error:
        return _malformed(error, context)
    finally:  # after every invocation: a frozen container may never run again
        milliseconds = time.time_ns() // 1_000_000
        sys.stdout.writelines(f"{line}\n" for line in _metrics.emf_lines(milliseconds))
        sys.stdout.flush()


def _unknown(event: object) -> dict[str, Any]:
    """The answer to an unknown event.

    It has field names alone, since values may be private.
    """
    # Bounded, since anything may invoke the function.
    names = sorted(str(name)[:40] for name in event)[:10] if isinstance(event, dict) else []
    fields = ", ".join(names) or type(event).__name__
    message = f"the event, of {fields}, is none that this function answers ({ANSWERED}): stop it"
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
