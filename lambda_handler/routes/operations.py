"""The routes for operators: the model, the metrics and the health of this process."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from shortlist.lambda_handler.answers import LivePath
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.schemas import ERRORS
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.redis import RedisStore

TOP_FEATURES = 10


def add_operations(
    app: FastAPI,
    serving: ServingRelease,
    store: RedisStore,
    live: LivePath,
    metrics: Metrics,
    work: Work,
) -> None:
    """Adds the routes."""

    @app.get("/model/info", responses=ERRORS, tags=["operations"])
    @app.get("/v1/model/info", responses=ERRORS, tags=["operations"])
    async def model_info() -> dict[str, Any]:
        """The serving release: versions, index, most important features, offline figures, latencies of this process."""
        manifest = await work.run("live", lambda: live.info(serving.version()))
        shares = dict(manifest.get("importances") or {})  # type: ignore[call-overload]
        top = sorted(shares.items(), key=lambda pair: -pair[1])[:TOP_FEATURES]
        kept = (
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
        return {name: manifest.get(name) for name in kept} | {
            "importances": dict(top),
            "latency": metrics.percentiles(),
        }

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operations"])
    @app.get("/v1/metrics", response_class=PlainTextResponse, tags=["operations"])
    async def prometheus() -> PlainTextResponse:
        """Counters and latencies of this process, for Prometheus."""
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/health", responses=ERRORS, tags=["operations"])
    @app.get("/v1/health", responses=ERRORS, tags=["operations"])
    async def health() -> dict[str, str]:
        """Whether Redis answers and a release is there."""
        release = await work.run("health", _checked, store, serving)
        return {"status": "ok", "store": "ok", "release": release}

    @app.get("/health/ready", responses=ERRORS, tags=["operations"])
    @app.get("/v1/health/ready", responses=ERRORS, tags=["operations"])
    async def ready() -> dict[str, str]:
        """Whether Redis has the whole serving release: what it lacks is served from the bundle, slower."""
        release = await work.run("health", _whole, serving)
        return {"status": "ok", "store": "ok", "release": release}


def _checked(store: RedisStore, serving: ServingRelease) -> str:
    """The serving release, if Redis answers."""
    store.ping()
    return serving.version()


def _whole(serving: ServingRelease) -> str:
    """The serving release, if Redis has all of it."""
    release = serving.version()
    if not serving.is_whole():
        raise StoreUnavailable(
            f"release {release} is not whole in Redis (evicted, or Redis came back empty): run a refresh"
        )
    return release
