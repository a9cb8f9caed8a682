"""Pairs negative feedback with the events that it takes back.

The rule, for one user and one item:

1. Events and feedback are read in the order of their times; of one time, events come first.
2. Each piece of feedback takes back one event that stands: the latest target event, or, where no
   target event stands, the latest of the others. Of several at one time the strongest kind is the
   latest. An event is taken back once; feedback that finds nothing takes nothing back.
3. From its time on, feedback keeps the item away from the user, whether it took something back or
   not. The first target event at a later time lifts it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import (
    MISSING,
    NEVER,
    Events,
    Int32,
    Int64,
    Negatives,
)


def with_feedback(events: Events, user: Int32, item: Int32, time: Int64) -> Events:
    """The events with this feedback on them, by the rule of this module.

    user, item: int32[m] rows; time: int64[m]; in any order. The result's `cancelled` and
    `negatives` are these, whatever they were before.
    """
    order = np.lexsort((item, time, user))
    user, item, time = user[order], item[order], time[order]
    pairs = _pairs(events.user, events.item, events.n_items)
    feedback_pairs = _pairs(user, item, events.n_items)
    # Nearly all events are of a user and item without feedback, and need no pairing.
    rows = np.flatnonzero(np.isin(pairs, feedback_pairs))
    is_target = events.is_target[rows]
    cancelled = np.full(len(events), NEVER, np.int64)
    left = np.arange(len(time))
    for some in (rows[is_target], rows[~is_target]):
        taken, by = _matched(
            (pairs[some], events.time[some], -events.kind[some].astype(np.int64)),
            (feedback_pairs[left], time[left]),
        )
        cancelled[some[taken]] = time[left[by]]
        left = np.delete(left, by)
    targets = rows[is_target]
    until = _next_times((pairs[targets], events.time[targets]), (feedback_pairs, time))
    return replace(events, cancelled=cancelled, negatives=Negatives(user, item, time, until))


def _pairs(user: Int32, item: Int32, n_items: int) -> Int64:
    """int64[n]: one number for each user and item."""
    return user.astype(np.int64) * n_items + item


def _matched(
    events: tuple[Int64, Int64, Int64], feedback: tuple[Int64, Int64]
) -> tuple[Int64, Int64]:
    """Positions of events that are taken back, and of the feedback that does it, pair by pair.

    events: pairs, times, and what orders events of one time; feedback: pairs and times. Feedback
    closes the latest open event as a bracket does, so both lie at one depth of nesting, where
    opening and closing brackets alternate.
    """
    pair = np.concatenate((events[0], feedback[0]))
    time = np.concatenate((events[1], feedback[1]))
    closes = np.arange(len(pair)) >= len(events[0])
    within = np.concatenate((events[2], np.zeros(len(feedback[0]), np.int64)))
    order = np.lexsort((within, closes, time, pair))
    pair, closes = pair[order], closes[order]
    new = np.ones(len(pair), np.bool_)
    new[1:] = pair[1:] != pair[:-1]
    after = _open_after(closes, new)
    before = np.where(new, 0, np.roll(after, 1))
    finds = ~closes | (before > 0)
    depth = np.where(closes, before, after)[finds]
    group = np.cumsum(new)[finds]
    order, closes = order[finds], closes[finds]
    nested = np.lexsort((depth, group))  # stable: by time within a depth
    closing = np.flatnonzero(closes[nested])
    return order[nested[closing - 1]], order[nested[closing]] - len(events[0])


def _open_after(closes: NDArray[np.bool_], new: NDArray[np.bool_]) -> Int64:
    """int64[n]: brackets still open after each one; closing where none is open changes nothing.

    new: bool[n], whether a group of brackets starts. It is a walk that is reflected at 0: the walk
    less its lowest point so far.
    """
    walk = np.cumsum(np.where(closes, -1, 1))
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    walk = walk - np.concatenate(([0], walk[starts[1:] - 1]))[group] if len(walk) else walk
    # Each group lies below all points of the groups before it, so that one pass has the lowest
    # points of all groups.
    drop = group * (len(walk) + 1)
    lowest = np.minimum(np.minimum.accumulate(walk - drop) + drop, 0)
    return walk - lowest


def _next_times(events: tuple[Int64, Int64], feedback: tuple[Int64, Int64]) -> Int64:
    """int64[m]: the time of the first event of the pair after each feedback, NEVER for none.

    events, feedback: pairs and times.
    """
    pair, time = (np.concatenate(both) for both in zip(events, feedback, strict=True))
    is_feedback = np.arange(len(pair)) >= len(events[0])
    order = np.lexsort((is_feedback, time, pair))
    # The place of the next event in that order, or one beyond the end.
    places = np.where(is_feedback[order], len(pair), np.arange(len(pair)))
    following = np.minimum.accumulate(places[::-1])[::-1]
    pair, time = np.append(pair[order], MISSING), np.append(time[order], NEVER)
    until = np.full(len(time), NEVER, np.int64)
    until[order] = np.where(pair[following] == pair[:-1], time[following], NEVER)
    return until[:-1][is_feedback]
