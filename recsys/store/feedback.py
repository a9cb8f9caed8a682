"""Applies negative feedback to the events of a record.

The rule is that of `recsys.models.feedback`, which the batch applies to whole tables; a property
test holds both equal. Standard library only, because the hit path imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.watermark import BEGINNING

NEGATIVE = -1
"""Stands for negative feedback among the positions of kinds."""


class Happened(NamedTuple):
    """An event in a record."""

    item: str
    time: int
    """Unix seconds."""
    weight: float | None
    position: int = BEGINNING
    """In the stream; BEGINNING for an event of the batch's table."""
    type: str | None = None
    spent: bool = False
    """Of negative feedback: what it took back is no longer kept, so it takes nothing back."""


class Standing(NamedTuple):
    """A positive event that no negative feedback has taken back."""

    event: Happened
    kind: int
    """Its position in `EventRules.kinds`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a record says of its user, under a release's rules.

    events: the positive events that stand, oldest first; had: the items that the user had, also
    those that were taken back; disliked: the items with negative feedback.
    """

    events: tuple[Standing, ...]
    had: frozenset[str]
    disliked: frozenset[str]


KindOf = Callable[[Happened], int | None]
"""The position of an event's kind in the rules, NEGATIVE, or None for an unknown type."""


def kinds_by(rules: EventRules) -> KindOf:
    """How the rules read an event."""
    places: dict[str | None, int] = {kind.name: at for at, kind in enumerate(rules.kinds)}
    places |= dict.fromkeys(rules.negative, NEGATIVE)
    otherwise = None if rules.weights else 0

    def kind_of(event: Happened) -> int | None:
        kind = places.get(event.type, otherwise)
        is_low = event.weight is not None and event.weight < rules.negative_below
        return NEGATIVE if is_low and kind is not None else kind

    return kind_of


def events_of(record: UserRecord) -> Iterator[Happened]:
    """The positive events that the record keeps whole, oldest first."""
    positions = record.positions or (BEGINNING,) * len(record.items)
    types = record.types or (None,) * len(record.items)
    return map(Happened, record.items, record.times, record.weights, positions, types)


def negatives_of(record: UserRecord) -> Iterator[Happened]:
    """The negative feedback that the record keeps whole, oldest first."""
    return (
        Happened(each.item, each.time, None, each.position, each.type, each.spent)
        for each in record.negatives
    )


def taken_back(
    positives: Sequence[Standing], negatives: Sequence[Happened], rules: EventRules
) -> dict[int, int]:
    """Which feedback takes back which event: {place in negatives: place in positives}.

    Each takes back one event of its item at or before its time that stands: the latest of the
    targets, or the latest of the others. Of one time the strongest kind is the latest.
    negatives: oldest first.
    """
    if not negatives:
        return {}
    concerned = {event.item for event in negatives}
    # Weakest kinds first within a time, so that the last of a list is the one to take back.
    places = [at for at, (event, _) in enumerate(positives) if event.item in concerned]
    places.sort(key=lambda at: (positives[at].event.time, -positives[at].kind))
    kinds = rules.kinds
    open_: dict[tuple[str, bool], list[int]] = {}
    pairs: dict[int, int] = {}
    following = 0
    for number, negative in enumerate(negatives):
        while following < len(places):
            at = places[following]
            event, kind = positives[at]
            if event.time > negative.time:
                break
            open_.setdefault((event.item, kinds[kind].is_target), []).append(at)
            following += 1
        for is_target in (True, False):
            if not negative.spent and open_.get((negative.item, is_target)):
                pairs[number] = open_[negative.item, is_target].pop()
                break
    return pairs


def not_lifted(targets: Iterable[Happened], negatives: Iterable[Happened]) -> list[Happened]:
    """The feedback that no later target event of its item has lifted."""
    latest: dict[str, int] = {}
    for event in targets:
        latest[event.item] = max(event.time, latest.get(event.item, -1))
    return [each for each in negatives if latest.get(each.item, -1) <= each.time]


def _are_all_alike(record: UserRecord, rules: EventRules) -> bool:
    """Whether all events are positive and of one kind, as most data has them."""
    if record.negatives or rules.weights or rules.negative:
        return False
    return all(weight is None or weight >= rules.negative_below for weight in record.weights)


def read(record: UserRecord, rules: EventRules) -> Reading:
    """Reads a record. Events of types that the rules do not know are left out."""
    if _are_all_alike(record, rules):
        return Reading(
            tuple(Standing(event, 0) for event in events_of(record)),
            frozenset(record.seen).union(record.items),
            frozenset(record.disliked),
        )
    kind_of, kinds = kinds_by(rules), rules.kinds
    known = [(event, kind_of(event)) for event in events_of(record)]
    positives = [Standing(event, kind) for event, kind in known if kind is not None and kind >= 0]
    # Rules may call negative what was an event of another kind when it came.
    turned = (event for event, kind in known if kind == NEGATIVE)
    negatives = sorted([*negatives_of(record), *turned], key=lambda event: event.time)
    gone = set(taken_back(positives, negatives, rules).values())
    targets = [event for event, kind in positives if kinds[kind].is_target]
    return Reading(
        tuple(each for place, each in enumerate(positives) if place not in gone),
        frozenset(record.seen).union(event.item for event in targets),
        frozenset(record.disliked).union(e.item for e in not_lifted(targets, negatives)),
    )
