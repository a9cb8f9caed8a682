"""Route that accepts users' events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, AnyStr

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from shortlist.lambda_handler.access import check_user
from shortlist.lambda_handler.executors import Executor
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
from shortlist.recsys.errors import BrokenRelease, StoreUnavailable, Unavailable
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.records import EventRecord, ReleasePointer

MAX_DIGITS = 300
"""Digits of an integer that are read: more than any field may have, fewer than Python refuses."""

MAX_VALUES = 50_000
"""Most commas and opening brackets outside of a body's strings; 500 plain events have some 4,000.

A mebibyte of brackets would take hundreds of megabytes as Python lists, and block the event loop
while they are made.
"""

# Possessive quantifiers, so that each part of a hostile body is looked at once. An unterminated
# string matches too.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)


class _LenientRequest(Request):
    """Reads integers of any length, so that they cost their event and not the whole request."""

    async def json(self) -> Any:  # noqa: ANN401 - as the parent
        body = await self.body()
        _check_values(body)
        return json.loads(body, parse_int=lambda digits: int(digits[:MAX_DIGITS]))


def _check_values(body: bytes) -> None:
    """Refuses a body of too many values before it is parsed.

    Strings are removed only from bodies that have too many with them, since that takes longer.
    """
    if _count(body, b",[{") <= MAX_VALUES:
        return
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    count = _count(_STRING.sub("", text), ",[{")
    if count > MAX_VALUES:
        message = (
            f"body: it has some {count} values, at most {MAX_VALUES} are read: "
            f"send at most {MAX_EVENTS} plain events"
        )
        raise HTTPException(422, message)


def _count(text: AnyStr, characters: AnyStr) -> int:
    """How often any of the characters occurs."""
    return sum(text.count(characters[at : at + 1]) for at in range(len(characters)))


class _LenientRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await inner(_LenientRequest(request.scope, request.receive))

        return handle


def add_events(
    app: FastAPI,
    serving: ServingRelease,
    ingestor: EventIngestor,
    metrics: Metrics,
    executor: Executor,
) -> None:
    """Adds the route."""

    async def events(request: EventsRequest) -> Response:
        """Accepts events.

        Sending one again, by the same user and event_id, is safe for a week. The user's very next
        recommendations take them into account. An event that breaks a rule is rejected by itself.
        """
        _check_users(request)  # of all events before any is stored
        valid, invalid = _sorted_out(request)
        result = await executor.run("lookup", _take, serving, ingestor, valid)
        rejected = sorted([*invalid, *result.rejected], key=lambda reject: reject.index)
        _count_outcomes(metrics, result, rejected)
        answer = {
            "accepted": result.accepted,
            "duplicates": result.duplicates,
            "rejected": [
                {"index": reject.index, "code": reject.code, "message": reject.message}
                for reject in rejected
            ],
        }
        return JSONResponse(answer)

    app.router.add_api_route(
        "/v1/events",
        events,
        methods=["POST"],
        route_class_override=_LenientRoute,  # FastAPI's decorators do not take it
        response_model=EventsAnswer,
        responses=ERRORS,
        tags=["events"],
    )


def _check_users(request: EventsRequest) -> None:
    for event in request.events:
        if isinstance(event, Event):
            check_user(str(event.user_id))


def _sorted_out(request: EventsRequest) -> tuple[list[Indexed], list[Reject]]:
    """Valid events, and rejects of the others."""
    events = list(enumerate(request.events))
    valid = [(at, _record(event)) for at, event in events if isinstance(event, Event)]
    invalid = [
        Reject(at, "invalid_event", event.message)
        for at, event in events
        if isinstance(event, Invalid)
    ]
    return valid, invalid


def _count_outcomes(metrics: Metrics, result: IngestResult, rejected: Sequence[Reject]) -> None:
    if result.waiting is not None:
        metrics.level("shortlist_events_waiting", result.waiting + result.accepted)
    metrics.count("shortlist_events_total", result.accepted, outcome="accepted")
    metrics.count("shortlist_events_total", result.duplicates, outcome="duplicate")
    for reject in rejected:
        metrics.count("shortlist_events_total", outcome=reject.code)


def _take(serving: ServingRelease, ingestor: EventIngestor, events: list[Indexed]) -> IngestResult:
    if not events:
        return IngestResult()
    pointer = serving.pointer()
    if serving.is_stale:  # Redis may have lost who was deleted, whose events must not be stored
        raise StoreUnavailable(
            "Redis has no release: nobody knows what it has lost; "
            "run a refresh, and send the events again"
        )
    return ingestor.take(pointer, _rules(serving, pointer), events)


def _rules(serving: ServingRelease, pointer: ReleasePointer) -> dict[str, EventRules]:
    """How each release that serves users reads events.

    One whose facts cannot be read has none: its events keep type and weight, by which they are read
    once the facts are there again.
    """
    rules: dict[str, EventRules] = {}
    canary = () if pointer.canary is None else (pointer.canary.version,)
    for version in (pointer.current, *canary):
        try:
            rules[version] = serving.facts(version).events
        except (Unavailable, BrokenRelease) as error:
            serving.degraded(error)
    return rules


def _record(event: Event) -> EventRecord:
    weight = None if event.weight is None else float(event.weight)
    return EventRecord(
        event.event_id,
        str(event.user_id),
        str(event.item_id),
        event.timestamp,
        weight,
        event.recommendation_id,
        event.position,
        event.event_type,
    )
