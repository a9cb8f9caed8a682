"""The route that takes events: what users did since the last training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, AnyStr

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from shortlist.lambda_handler.access import check_user
from shortlist.lambda_handler.executors import Work
from shortlist.lambda_handler.ingest import EventIngestor, Indexed, IngestResult, Reject
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.schemas import (
    ERRORS,
    MAX_EVENTS,
    Event,
    EventsAnswer,
    EventsRequest,
    Invalid,
)
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.records import EventRecord

MAX_DIGITS = 300
"""Digits of an integer that are read: more than any field may have, and fewer than Python refuses to convert."""

MAX_VALUES = 50_000
"""Commas and opening brackets outside the strings of a body. 500 events have some 4,000; a mebibyte of brackets would take
hundreds of megabytes as Python's lists, and hold up the event loop while these are made."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
"""A string of JSON, or its beginning where it does not end: each part of a body is looked at once, whatever it has."""


class _LenientRequest(Request):
    """A request whose JSON may have integers of any length, which then cost their event and not the request."""

    async def json(self) -> Any:  # noqa: ANN401 - as the parent
        body = await self.body()
        _check_values(body)
        return json.loads(body, parse_int=lambda digits: int(digits[:MAX_DIGITS]))


def _check_values(body: bytes) -> None:
    """Refuses a body of too many values before it is parsed; strings are left out only where it matters."""
    if _marks(body, b",[{") <= MAX_VALUES:
        return
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    found = _marks(_STRING.sub("", text), ",[{")
    if found > MAX_VALUES:
        message = f"body: it has some {found} values, at most {MAX_VALUES} are read: send at most {MAX_EVENTS} plain events"
        raise HTTPException(422, message)


def _marks(text: AnyStr, marks: AnyStr) -> int:
    return sum(text.count(marks[at : at + 1]) for at in range(len(marks)))


class _LenientRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await inner(_LenientRequest(request.scope, request.receive))

        return handle


def add_events(
    app: FastAPI, serving: ServingRelease, intake: EventIngestor, metrics: Metrics, work: Work
) -> None:
    """Adds the route."""

    async def events(request: EventsRequest) -> Response:
        """Takes events. Sending one again, by the same user and event_id, is safe for a week at least.

        The user's very next recommendations know of them. An event that breaks a rule is rejected
        by itself.
        """
        for event in request.events:
            if isinstance(event, Event):
                check_user(str(event.user_id))  # of all before any is taken
        good = [
            (at, _record(event))
            for at, event in enumerate(request.events)
            if isinstance(event, Event)
        ]
        bad = [
            Reject(at, "invalid_event", e.message)
            for at, e in enumerate(request.events)
            if isinstance(e, Invalid)
        ]
        taken = await work.run("lookup", _taken, serving, intake, good)
        if taken.waiting is not None:
            metrics.level("shortlist_events_waiting", taken.waiting + taken.accepted)
        for outcome, count in (("accepted", taken.accepted), ("duplicate", taken.duplicates)):
            metrics.count("shortlist_events_total", count, outcome=outcome)
        rejected = sorted([*bad, *taken.rejected], key=lambda reject: reject.index)
        for reject in rejected:
            metrics.count("shortlist_events_total", outcome=reject.code)
        told = [{"index": r.index, "code": r.code, "message": r.message} for r in rejected]
        return JSONResponse(
            {"accepted": taken.accepted, "duplicates": taken.duplicates, "rejected": told}
        )

    app.router.add_api_route(
        "/v1/events",
        events,
        methods=["POST"],
        route_class_override=_LenientRoute,
        response_model=EventsAnswer,
        responses=ERRORS,
        tags=["events"],
    )


def _taken(serving: ServingRelease, intake: EventIngestor, good: list[Indexed]) -> IngestResult:
    if not good:
        return IngestResult()
    versions = serving.pointer().versions
    if (
        serving.is_stale
    ):  # with the release Redis has lost who was deleted: what is taken now might be theirs
        raise StoreUnavailable(
            "Redis has no release: nobody knows what it has lost; run a refresh, and send the events again"
        )
    return intake.take(versions, good)


def _record(event: Event) -> EventRecord:
    weight = None if event.weight is None else float(event.weight)
    acted_on = (event.recommendation_id, event.position)
    return EventRecord(
        event.event_id, str(event.user_id), str(event.item_id), event.timestamp, weight, *acted_on
    )
