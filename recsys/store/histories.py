"""Adds events to a user's record.

The latest events are kept whole, the rest as seen items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.watermark import BEGINNING

HISTORY_LENGTH = 100
"""A user's latest events, as many as the models look at and a record keeps with time and weight.

The one place that says so; it is part of what a bundle was trained for.
"""

NEWCOMER_SECONDS = 3 * 86_400
"""How long the record of a user whom no batch knows lives after their latest event.

Refreshes of three nights may fail.
"""

MAX_SEEN = 20_000
"""Seen items that events over HTTP may leave in a record.

Beyond it the oldest give way, so that no record grows without end. The batch's own records are as
long as its table says.
"""


class Happened(NamedTuple):
    """An event in a record."""

    item: str
    time: int
    """Unix seconds."""
    weight: float | None
    position: int = BEGINNING
    """In the stream; BEGINNING for an event of the batch's table."""


def events_of(record: UserRecord) -> Iterator[Happened]:
    """The events that the record keeps whole, oldest first."""
    positions = record.positions or (BEGINNING,) * len(record.items)
    return map(Happened, record.items, record.times, record.weights, positions)


def with_events(record: UserRecord, events: Sequence[Happened]) -> UserRecord:
    """The record after `events`, in order of time."""
    # A stable sort: of events with one time, those of the record stay before the new ones.
    ordered = sorted([*events_of(record), *events], key=lambda event: event.time)
    past, kept = ordered[:-HISTORY_LENGTH], ordered[-HISTORY_LENGTH:]
    most_seen = max(MAX_SEEN, len(record.seen))
    seen = tuple(dict.fromkeys((*record.seen, *(event.item for event in past))))
    positions = tuple(event.position for event in kept)
    return replace(
        record,
        items=tuple(event.item for event in kept),
        times=tuple(event.time for event in kept),
        weights=tuple(event.weight for event in kept),
        n_events=record.n_events + len(events),
        seen=seen[-most_seen:],
        positions=positions if any(positions) else (),
        spilled=max([record.spilled, *(event.position for event in past)]),
    )


def merge(learnt: UserRecord, stored: UserRecord | None, watermark: int) -> UserRecord:
    """The batch's record with newer stored events.

    watermark: the position in the stream up to which the batch has read. The stored events from
    before it are the batch's to keep or to drop: a table may lose rows. An event that the table has
    as well counts once.
    """
    if stored is None:
        return learnt
    known = {(event.item, event.time) for event in events_of(learnt)}
    newer = [event for event in events_of(stored) if event.position > watermark]
    fresh = [event for event in newer if (event.item, event.time) not in known]
    merged = with_events(learnt, fresh)
    if stored.spilled <= watermark:
        return merged
    # A newer event has left the window for the seen items. Which of those is its item is no longer
    # known, so all of them stay.
    seen = tuple(dict.fromkeys((*stored.seen, *merged.seen)))
    return replace(merged, seen=seen, spilled=max(merged.spilled, stored.spilled))
