"""The HTTP API, put together from its routes."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI

from lambda_handler.answers import Live, Recommender
from lambda_handler.envelope import add_counting, add_errors
from lambda_handler.events import Intake
from lambda_handler.metrics import Metrics
from lambda_handler.observed import observed
from lambda_handler.routes.events import add_events
from lambda_handler.routes.items import add_items
from lambda_handler.routes.operations import add_operations
from lambda_handler.routes.recommend import add_recommend
from recsys.event_log import EventLog
from recsys.settings import Settings
from recsys.store import RedisStore


def create_app(
    settings: Settings, store: RedisStore, live: Live, now: Callable[[], float] = time.time, metrics: Metrics | None = None
) -> FastAPI:
    """The API over a store and a live path; `metrics` are those that the live path reports to."""
    app = FastAPI(title="Shortlist", version="0.1.0", description="Recommendations at the price of a lookup.")
    metrics = Metrics() if metrics is None else metrics
    recommender = Recommender(settings, observed(store, metrics), live, metrics, now)
    add_errors(app, metrics)
    add_counting(app, metrics)
    add_recommend(app, recommender)
    add_events(app, recommender, Intake(EventLog(store), now), metrics)
    add_items(app, recommender)
    add_operations(app, recommender, metrics)
    return app
