"""The route that takes events: what users did since the last training."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from lambda_handler.events import Indexed, Intake, Reject, Taken
from lambda_handler.metrics import Metrics
from lambda_handler.schemas import ERRORS, Event, EventsAnswer, EventsRequest, Invalid
from lambda_handler.serving import Serving
from lambda_handler.work import Work
from recsys.wire import EventRecord


def add_events(app: FastAPI, serving: Serving, intake: Intake, metrics: Metrics, work: Work) -> None:
    """Adds the route."""

    @app.post("/v1/events", response_model=EventsAnswer, responses=ERRORS, tags=["events"])
    async def events(request: EventsRequest) -> Response:
        """Takes events. Sending one again, by the same user and event_id, is safe for a week at least.

        The user's very next recommendations know of them. An event that breaks a rule is rejected by itself.
        """
        good = [(at, _record(event)) for at, event in enumerate(request.events) if isinstance(event, Event)]
        bad = [Reject(at, "invalid_event", e.message) for at, e in enumerate(request.events) if isinstance(e, Invalid)]
        taken = await work.run("lookup", _taken, serving, intake, good)
        for outcome, count in (("accepted", taken.accepted), ("duplicate", taken.duplicates)):
            metrics.count("shortlist_events_total", count, outcome=outcome)
        rejected = sorted([*bad, *taken.rejected], key=lambda reject: reject.index)
        for reject in rejected:
            metrics.count("shortlist_events_total", outcome=reject.code)
        told = [{"index": r.index, "code": r.code, "message": r.message} for r in rejected]
        return JSONResponse({"accepted": taken.accepted, "duplicates": taken.duplicates, "rejected": told})


def _taken(serving: Serving, intake: Intake, good: list[Indexed]) -> Taken:
    return intake.take(serving.version(), good) if good else Taken()


def _record(event: Event) -> EventRecord:
    weight = None if event.weight is None else float(event.weight)
    acted_on = (event.recommendation_id, event.position)
    return EventRecord(event.event_id, str(event.user_id), str(event.item_id), event.timestamp, weight, *acted_on)
