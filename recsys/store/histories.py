"""A user's record taking in events: in order of time, the latest kept whole, the rest only as seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.watermark import BEGINNING

KEPT_EVENTS = 100
"""Events that a record keeps with time and weight: as many as the models look at."""

NEWCOMER_SECONDS = 3 * 86_400
"""How long the record of a user whom no batch knows lives after their latest event: refreshes of three nights may fail."""

MAX_SEEN = 20_000
"""Seen items that events over HTTP may leave in a record; beyond it the oldest give way, so that no record
grows without end. The batch's own records are as long as its table says."""


class Happened(NamedTuple):
    """An event in a record: item id, unix seconds, weight, and its position in the stream (0: of the batch's table)."""

    item: str
    time: int
    weight: float | None
    position: int = BEGINNING


def events_of(record: UserRecord) -> Iterator[Happened]:
    """The events that the record keeps whole, oldest first."""
    positions = record.positions or (BEGINNING,) * len(record.items)
    return map(Happened, record.items, record.times, record.weights, positions)


def with_events(record: UserRecord, events: Sequence[Happened]) -> UserRecord:
    """The record after `events`; one that is as late as another comes after those that were there before it."""
    ordered = sorted([*events_of(record), *events], key=lambda event: event.time)  # stable
    past, kept = ordered[:-KEPT_EVENTS], ordered[-KEPT_EVENTS:]
    seen = tuple(dict.fromkeys((*record.seen, *(event.item for event in past))))
    if len(seen) > max(MAX_SEEN, len(record.seen)):
        seen = seen[-max(MAX_SEEN, len(record.seen)) :]
    return replace(
        record,
        items=tuple(event.item for event in kept),
        times=tuple(event.time for event in kept),
        weights=tuple(event.weight for event in kept),
        n_events=record.n_events + len(events),
        seen=seen,
        positions=tuple(event.position for event in kept)
        if any(event.position for event in kept)
        else (),
        spilled=max([record.spilled, *(event.position for event in past)]),
    )


def merge(learnt: UserRecord, stored: UserRecord | None, watermark: int) -> UserRecord:
    """The batch's record with what the stored one has beyond what the batch has learnt from.

    watermark: the position in the stream up to which the batch has read. What the stored record has
    from before it is the batch's to keep or to drop: a table may lose rows. An event that the table
    has as well counts once.
    """
    if stored is None:
        return learnt
    known = {(event.item, event.time) for event in events_of(learnt)}
    newer = [event for event in events_of(stored) if event.position > watermark]
    fresh = [event for event in newer if (event.item, event.time) not in known]
    merged = with_events(learnt, fresh)
    if stored.spilled <= watermark:
        return merged
    # A newer event has left the window for the seen items: which of those is its item, nobody knows
    # any more.
    seen = tuple(dict.fromkeys((*stored.seen, *merged.seen)))
    return replace(merged, seen=seen, spilled=max(merged.spilled, stored.spilled))
