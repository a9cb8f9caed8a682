"""Adds events to a user's record.

The latest events are kept whole, the rest as items that the user had or disliked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.feedback import (
    NEGATIVE,
    Happened,
    Standing,
    events_of,
    kinds_by,
    negatives_of,
    not_lifted,
    taken_back,
)
from shortlist.recsys.store.records import Negative, UserRecord

HISTORY_LENGTH = 100
"""A user's latest events, as many as the models look at and a record keeps with time and weight.

The one place that says so; it is part of what a bundle was trained for.
"""

NEWCOMER_SECONDS = 3 * 86_400
"""How long the record of a user whom no batch knows lives after their latest event.

Refreshes of three nights may fail.
"""

MAX_SEEN = 20_000
"""Seen items, and disliked ones, that events over HTTP may leave in a record.

Beyond it the oldest give way, so that no record grows without end. The batch's own records are as
long as its table says.
"""

ALL_ALIKE = EventRules()
"""The rules of data whose events are all alike."""


def with_events(
    record: UserRecord, events: Sequence[Happened], rules: EventRules = ALL_ALIKE
) -> UserRecord:
    """The record after `events`, in order of time.

    rules: of the serving release, which say what is negative feedback.
    """
    return _bounded(record, with_feedback(record, *_split(events, rules), rules))


def _split(events: Iterable[Happened], rules: EventRules) -> tuple[list[Happened], list[Happened]]:
    """Positive events, and negative feedback."""
    kind_of = kinds_by(rules)
    positives: list[Happened] = []
    negatives: list[Happened] = []
    for event in events:
        (negatives if kind_of(event) == NEGATIVE else positives).append(event)
    return positives, negatives


def _bounded(before: UserRecord, after: UserRecord) -> UserRecord:
    """The record with at most MAX_SEEN seen and disliked items, or as many as it had before."""
    return replace(
        after,
        seen=after.seen[-max(MAX_SEEN, len(before.seen)) :],
        disliked=after.disliked[-max(MAX_SEEN, len(before.disliked)) :],
    )


def with_feedback(
    record: UserRecord,
    new: Sequence[Happened],
    new_negatives: Sequence[Happened],
    rules: EventRules,
) -> UserRecord:
    """The record after positive events and negative feedback, in order of time.

    Kept whole are the latest HISTORY_LENGTH events that stand, those after them that were taken
    back, and the latest HISTORY_LENGTH pieces of feedback. Feedback on an event that is no longer
    kept whole leaves `n_events` as it is, until a batch counts again.
    """
    known, known_negatives = list(events_of(record)), list(negatives_of(record))
    # A stable sort: of events with one time, those of the record stay before the new ones.
    positives = _by_time([*known, *new])
    negatives = _by_time([*known_negatives, *new_negatives])
    pairs = _pairs(positives, negatives, rules)
    first, n_past = _cut(positives, negatives, pairs.values())
    # An event goes with what takes it back, or it would stand again.
    left = {pairs[at] for at in range(n_past) if at in pairs}.union(range(first))
    past = [event for place, event in enumerate(positives) if place in left]
    kept = [event for place, event in enumerate(positives) if place not in left]
    feedback = [
        event._replace(spent=event.spent or pairs.get(at) in left)
        for at, event in enumerate(negatives)
    ]
    is_target = _target_test(rules)
    lifted = {event.item for event in set(filter(is_target, new)).intersection(kept)}
    disliked = [item for item in record.disliked if item not in lifted]
    disliked += [e.item for e in not_lifted(filter(is_target, positives), negatives[:n_past])]
    counted = len(known) - len(_pairs(known, known_negatives, rules))
    spilled = [event.position for event in (*past, *negatives[:n_past])]
    return _with_kept(
        replace(
            record,
            n_events=max(0, record.n_events - counted) + len(positives) - len(pairs),
            seen=tuple(dict.fromkeys((*record.seen, *(e.item for e in past if is_target(e))))),
            spilled=max([record.spilled, *spilled]),
            disliked=tuple(dict.fromkeys(disliked)),
        ),
        kept,
        feedback[n_past:],
    )


def _by_time(events: Iterable[Happened]) -> list[Happened]:
    return sorted(events, key=lambda event: event.time)


def _pairs(
    positives: Sequence[Happened], negatives: Sequence[Happened], rules: EventRules
) -> dict[int, int]:
    """As `taken_back`; an event of an unknown type counts as one of the weakest kind."""
    if not negatives:
        return {}
    kind_of, weakest = kinds_by(rules), len(rules.kinds) - 1
    kinds = (kind_of(event) for event in positives)
    known = (weakest if kind is None or kind == NEGATIVE else kind for kind in kinds)
    return taken_back(list(map(Standing, positives, known)), negatives, rules)


def _target_test(rules: EventRules) -> Callable[[Happened], bool]:
    """Tells whether an event makes its item one that the user had."""
    kind_of, kinds = kinds_by(rules), rules.kinds

    def is_target(event: Happened) -> bool:
        kind = kind_of(event)
        return kind is not None and kind != NEGATIVE and kinds[kind].is_target

    return is_target


def _cut(
    positives: Sequence[Happened], negatives: Sequence[Happened], gone: Collection[int]
) -> tuple[int, int]:
    """The first positive event to keep whole, and how many negatives not to keep.

    gone: the places of positives that were taken back.
    """
    standing = [place for place in range(len(positives)) if place not in gone]
    n_past = max(0, len(negatives) - HISTORY_LENGTH)
    if len(standing) <= HISTORY_LENGTH:
        return 0, n_past
    first = standing[-HISTORY_LENGTH]
    return first, max(n_past, sum(each.time < positives[first].time for each in negatives))


def _with_kept(
    record: UserRecord, events: Sequence[Happened], negatives: Iterable[Happened]
) -> UserRecord:
    """The record with these events kept whole, in place of its own."""
    positions = tuple(event.position for event in events)
    types = tuple(event.type for event in events)
    return replace(
        record,
        items=tuple(event.item for event in events),
        times=tuple(event.time for event in events),
        weights=tuple(event.weight for event in events),
        positions=positions if any(positions) else (),
        types=types if any(each is not None for each in types) else (),
        negatives=tuple(Negative(e.item, e.time, e.position, e.type, e.spent) for e in negatives),
    )


def merge(
    learnt: UserRecord, stored: UserRecord | None, watermark: int, rules: EventRules = ALL_ALIKE
) -> UserRecord:
    """The batch's record with newer stored events.

    watermark: the position in the stream up to which the batch has read. The stored events from
    before it are the batch's to keep or to drop: a table may lose rows. An event that the table has
    as well counts once. rules: of the batch's release.
    """
    if stored is None:
        return learnt
    fresh, turned = _split(_unknown(events_of(stored), [*events_of(learnt)], watermark), rules)
    negatives = _unknown([*negatives_of(stored), *turned], [*negatives_of(learnt)], watermark)
    merged = _bounded(learnt, with_feedback(learnt, fresh, negatives, rules))
    if stored.spilled <= watermark:
        return merged
    # A newer event has left the window for the items that were had or disliked. Which of those is
    # its item is no longer known, so all of them stay.
    return replace(
        merged,
        seen=tuple(dict.fromkeys((*stored.seen, *merged.seen))),
        spilled=max(merged.spilled, stored.spilled),
        disliked=tuple(dict.fromkeys((*stored.disliked, *merged.disliked))),
    )


def _unknown(
    events: Iterable[Happened], learnt: Sequence[Happened], watermark: int
) -> list[Happened]:
    """The events beyond the watermark that the batch does not have.

    An event is the batch's where item and time are, and the type as well where both say it.
    """
    known: dict[tuple[str, int], set[str | None]] = {}
    for event in learnt:
        known.setdefault((event.item, event.time), set()).add(event.type)

    def is_known(event: Happened) -> bool:
        types = known.get((event.item, event.time), set())
        return bool(types) and (event.type is None or not types.isdisjoint({None, event.type}))

    return [event for event in events if event.position > watermark and not is_known(event)]
