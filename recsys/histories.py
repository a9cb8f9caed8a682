"""How a user's record takes new events: in order of time, the latest kept with their details, the rest only as seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recsys.wire import UserRecord

KEPT_EVENTS = 100
"""Events that a record keeps with time and weight: as many as the models look at."""

Happened = tuple[str, int, float | None]
"""An item id, unix seconds and a weight."""


def with_events(record: UserRecord, events: Sequence[Happened]) -> UserRecord:
    """The record after `events`; one that is as late as another comes after those that were there before it."""
    known = zip(record.items, record.times, record.weights, strict=True)
    ordered = sorted([*known, *events], key=lambda event: event[1])  # stable
    past, kept = ordered[:-KEPT_EVENTS], ordered[-KEPT_EVENTS:]
    seen = dict.fromkeys((*record.seen, *(item for item, _, _ in past)))
    return replace(
        record,
        items=tuple(item for item, _, _ in kept),
        times=tuple(when for _, when, _ in kept),
        weights=tuple(weight for _, _, weight in kept),
        n_events=record.n_events + len(events),
        seen=tuple(seen),
    )
