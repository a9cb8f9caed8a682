"""Reads histories that come with requests, as a release reads events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from shortlist.recsys import values
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.feedback import Happened, kinds_by, read
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.release_facts import ReleaseFacts

NAMED = 20
"""Types that a message names: more are no help."""

ALLOW = "allow"
"""The mode of a release that offers again what a user had."""


class SessionEvent(NamedTuple):
    """An event in a request's history."""

    item: str
    time: int | None = None
    """Unix seconds."""
    weight: float | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What a request says of its user: events, oldest first, and attributes."""

    events: tuple[SessionEvent, ...] = ()
    attributes: dict[str, object] | None = None


def record_of(
    session: Session, stored: UserRecord | None, facts: ReleaseFacts, now: float
) -> UserRecord:
    """The user's record as a release reads the request.

    A history in the request replaces the stored one, and its attributes override stored ones. What
    was had or disliked by the stored one stays so either way. now: unix seconds.

    Raises:
        InvalidInput: an event is of a type that the release does not know.
    """
    stored = stored or UserRecord()
    attributes = {**(stored.attributes or {}), **(session.attributes or {})}
    if not session.events:
        return replace(stored, attributes=attributes)
    events = _happened(session.events, facts, now)
    record = UserRecord(
        items=tuple(event.item for event in events),
        times=tuple(event.time for event in events),
        weights=tuple(event.weight for event in events),
        attributes=attributes,
        types=tuple(event.type for event in events),
    )
    own, earlier = read(record, facts.events), read(stored, facts.events)
    return replace(
        record,
        n_events=len(own.events),
        seen=tuple(sorted(earlier.had)),
        disliked=tuple(sorted(earlier.disliked - own.had)),
    )


def _happened(events: Sequence[SessionEvent], facts: ReleaseFacts, now: float) -> list[Happened]:
    """The events with a time and, where the release tells types apart, a type.

    One without a time takes the one before it. The first ones happen now, or with the next event
    that has a time. One without a type is of the strongest.
    """
    known = [event.time for event in events if event.time is not None]
    latest = known[0] if known else int(now) if facts.has_clock_times else 0
    kind_of, strongest = kinds_by(facts.events), facts.events.kinds[0].name or None
    happened: list[Happened] = []
    for place, (item, at, weight, event_type) in enumerate(events):
        latest = latest if at is None else at
        event = Happened(item, latest, weight, type=event_type or strongest)
        if kind_of(event) is None:
            stated = unknown_type(event_type, [facts.events])
            raise InvalidInput(f"history.{place}.event_type: {stated}")
        happened.append(event)
    return happened


def unknown_type(event_type: str | None, rules: Sequence[EventRules]) -> str:
    """Says that no release knows a type, and what to do."""
    names = [*dict.fromkeys(name for each in rules for name in (*each.weights, *each.negative))]
    listed = ", ".join(names[:NAMED])
    if len(names) > NAMED:
        listed += f" and {len(names) - NAMED} more"
    stated = "it is missing" if event_type is None else f"{values.shown(event_type)} is unknown"
    return (
        f"{stated}, the serving release knows {listed}: send one of these, or give the type a "
        "weight in the event rules and run a batch"
    )


def excluded(record: UserRecord, facts: ReleaseFacts, *, allow_repeats: bool | None) -> set[str]:
    """The items that may not be offered to a user, as far as the record knows."""
    reading = read(record, facts.events)
    repeats = facts.repeats == ALLOW if allow_repeats is None else allow_repeats
    return set(reading.disliked if repeats else reading.disliked | reading.had)


def repeats_unknown(version: str) -> InvalidInput:
    """The refusal of repeats by a release that has not learnt from them."""
    return InvalidInput(
        f"allow_repeats: true is refused: release {version} never offers again what a user had, "
        "and has not learnt when; leave it out, or run a batch with SHORTLIST_REPEATS=allow"
    )
