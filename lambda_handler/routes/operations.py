"""Routes for operators: model, metrics and health of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from shortlist.lambda_handler.executors import Executor
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.schemas import ERRORS
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.redis import RedisStore

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath

TOP_FEATURES = 10
"""Features whose importance is shown."""

SHOWN = (
    "version",
    "created_at",
    "as_of",
    "code_version",
    "feature_hash",
    "index",
    "data",
    "protocol",
    "metrics",
)
"""Fields of the manifest that are shown."""


def add_operations(
    app: FastAPI,
    serving: ServingRelease,
    store: RedisStore,
    live: LivePath,
    metrics: Metrics,
    executor: Executor,
) -> None:
    """Adds the routes."""

    @app.get("/model/info", responses=ERRORS, tags=["operations"])
    @app.get("/v1/model/info", responses=ERRORS, tags=["operations"])
    async def model_info() -> dict[str, Any]:
        """The serving release and this process.

        It has versions, index, most important features, offline figures, and latencies.
        """
        manifest = await executor.run("live", lambda: live.info(serving.version()))
        importances = dict(manifest.get("importances") or {})  # type: ignore[call-overload]
        top = sorted(importances.items(), key=lambda pair: -pair[1])[:TOP_FEATURES]
        answer: dict[str, Any] = {name: manifest.get(name) for name in SHOWN}
        return answer | {"importances": dict(top), "latency": metrics.percentiles()}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operations"])
    @app.get("/v1/metrics", response_class=PlainTextResponse, tags=["operations"])
    async def prometheus() -> PlainTextResponse:
        """Counters and latencies of this process, for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/health", responses=ERRORS, tags=["operations"])
    @app.get("/v1/health", responses=ERRORS, tags=["operations"])
    async def health() -> dict[str, str]:
        """Checks that Redis answers and a release is published."""
        release = await executor.run("health", _checked, store, serving)
        return {"status": "ok", "store": "ok", "release": release}

    @app.get("/health/ready", responses=ERRORS, tags=["operations"])
    @app.get("/v1/health/ready", responses=ERRORS, tags=["operations"])
    async def ready() -> dict[str, str]:
        """Checks that Redis has the whole serving release, and this process its bundle.

        Without either, answers are slower or degraded.
        """
        release = await executor.run("health", _whole, serving, live)
        return {"status": "ok", "store": "ok", "bundle": "ok", "release": release}


def _checked(store: RedisStore, serving: ServingRelease) -> str:
    """Returns the serving release.

    Raises StoreUnavailable if Redis does not answer.
    """
    store.ping()
    return serving.version()


def _whole(serving: ServingRelease, live: LivePath) -> str:
    """Returns the serving release.

    Raises:
        StoreUnavailable: Redis lacks a part of it.
        Unavailable, BrokenRelease: the bundle is missing, or not what its manifest says.
    """
    release = serving.version()
    if not serving.is_whole():
        raise StoreUnavailable(
            f"release {release} is not whole in Redis (evicted, or Redis came back empty): "
            "run a refresh"
        )
    live.info(release)  # loads the bundle, unless it is loaded
    return release
