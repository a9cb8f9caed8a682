"""Moves cuts to the borders of ties.

Events of a tie have no order; their rows follow one another as drawn when the data was loaded. A
cut inside a tie would call a draw the past, so every cut is moved to the border of a tie. A user
whose whole history shares one time has no border inside it: there, and only there, the drawn order
stands in for time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import MISSING, Events, Int64


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of all histories, oldest first.

    A step is one tie, or one event where a user's whole history is a tie.
    first: int64[n], the row of the first event of each event's step.
    after: int64[n], the row after its last event.
    """

    first: Int64
    after: Int64

    def border(self, rows: Int64, starts: Int64) -> Int64:
        """Cuts moved to borders, so that each leaves something before it.

        rows: int64[m], cuts that are rows of events, each greater than its user's first row in
        `starts` (int64[m]). A cut moves back to the start of its step; where that is the first step
        of the user, forward to its end.
        """
        early = self.first[rows]
        return np.where(early > starts, early, self.after[rows])

    def starts_at(self, rows: Int64) -> NDArray[np.bool_]:
        """bool[m]: whether a step starts at the rows, int64[m]."""
        return self.first[rows] == rows


def steps_of(events: Events) -> Steps:
    """The steps of these events.

    A history that was cut down to one tie counts as one.
    """
    new = ~ties_with_previous(events)
    new |= is_drawn(events)[events.user]
    borders = np.append(np.flatnonzero(new), len(events))
    step = np.cumsum(new) - 1
    return Steps(borders[step], borders[step + 1])


def cuts_before_last(events: Events, held: Int64 | int) -> Int64:
    """int64[n_users]: the cut before the last `held` events to predict of each user.

    Of a user with fewer it is the first of them. What led to them (see `before_funnels`) and events
    of the same time lie after the cut too. At least one event is left before a cut: where there is
    none, or nothing to predict, the cut is after the user's last event.
    """
    offsets = events.offsets()
    starts, cut = offsets[:-1], offsets[1:].copy()
    wanted = np.flatnonzero(events.to_predict)
    ends = np.searchsorted(wanted, offsets)
    n_wanted = np.diff(ends)
    able = np.flatnonzero(n_wanted)
    first = before_funnels(events, able, wanted[(ends[1:] - np.minimum(held, n_wanted))[able]])
    is_later = first > starts[able]  # something is left before it
    able, first = able[is_later], first[is_later]
    cut[able] = steps_of(events).border(first, starts[able])
    return cut


def before_funnels(events: Events, users: Int64, rows: Int64) -> Int64:
    """int64[m]: rows moved back to before what led to them.

    users: int64[m] user rows; rows: int64[m] rows of events of theirs to predict. A view tells the
    purchase that it leads to, so a hold-out of purchases begins right after the last purchase
    before it. A user without one has no such moment: theirs begins at the first view of anything
    held out. Where all events are to be predicted nothing moves.
    """
    targets = np.flatnonzero(events.is_target)
    if len(targets) == len(events):
        return rows
    number = np.arange(len(events))
    starts, begins = events.offsets()[users], steps_of(events).first[rows]
    held = np.full(events.n_users, len(events))
    held[users] = begins
    pairs = events.user.astype(np.int64) * events.n_items + events.item
    is_held = events.to_predict & (number >= held[events.user])
    leads = (number < held[events.user]) & np.isin(pairs, pairs[is_held])
    np.minimum.at(held, events.user[leads], number[leads])
    last = np.append(MISSING, targets)[np.searchsorted(targets, begins)]
    moved = np.where(last >= starts, last + 1, held[users])
    return np.where(begins == starts, rows, moved)  # a first tie is no funnel


def cuts_after_next(events: Events, rows: Int64, last: Int64, held: int) -> Int64:
    """int64[m]: the cuts after the next `held` events to predict, from `rows` on, outside a tie.

    rows, last: int64[m] rows of events; no cut is after its `last`, which is greater than its row.
    """
    wanted = np.flatnonzero(events.to_predict)
    stops = np.append(wanted + 1, np.full(held, len(events)))
    ends = np.minimum(last, stops[np.searchsorted(wanted, rows) + held - 1])
    return np.minimum(last, steps_of(events).after[ends - 1])


def is_drawn(events: Events) -> NDArray[np.bool_]:
    """bool[n_users]: whether a user's whole history, two events or more, is one tie."""
    n_tied = np.bincount(events.user[ties_with_previous(events)], minlength=events.n_users)
    lengths = np.bincount(events.user, minlength=events.n_users)
    return (lengths > 1) & (n_tied == lengths - 1)


def tied_share(events: Events) -> float:
    """The share of events that are in a tie; 0 for no events."""
    with_previous = ties_with_previous(events)
    with_next = np.append(with_previous[1:], np.zeros(min(1, len(events)), np.bool_))
    return float((with_previous | with_next).mean()) if len(events) else 0.0


def ties_with_previous(events: Events) -> NDArray[np.bool_]:
    """bool[n]: whether the event in the row before has the same user and time."""
    tied = np.zeros(len(events), np.bool_)
    tied[1:] = (events.user[1:] == events.user[:-1]) & (events.time[1:] == events.time[:-1])
    return tied
