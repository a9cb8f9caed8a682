"""Summarises the user's own events with each candidate.

When an item is due again follows from how often and how long ago the user took it. Times are
compared with each other only, as logarithms of quotients, so that sequence numbers serve as well as
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.decay import halving
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Int64, UserStates

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The distinct (user, item) pairs among the target events of the histories of U users.

    key: int64[P], user position * (n + 1) + item row, ascending.
    user, place: int64[E], the position in the states of each event, pair by pair, oldest first.
    start: int64[P], where each pair's events begin among them.
    count: int64[P], events; first, last: int64[P], the times of the oldest and the newest.
    age: int64[P], how many events the user had after the last one.
    """

    key: Int64
    start: Int64
    count: Int64
    first: Int64
    last: Int64
    age: Int64
    user: Int64
    place: Int64

    def decayed_counts(self, half_life: float) -> Float64:
        """float64[P]: events of each pair, of which one counts half as much every `half_life`."""
        if len(self.key) == 0:
            return np.empty(0, np.float64)
        weights = halving(half_life)[self.place].astype(np.float64)
        return np.add.reduceat(weights, self.start)

    def activations(self, states: UserStates, *, by_time: bool) -> Float64:
        """float64[P]: the logarithm of the sum of age ** -0.5 over each pair's events.

        states: those of the pairs; by_time: in units of time, else in events, both at least 1.
        """
        if len(self.key) == 0:
            return np.empty(0, np.float64)
        if by_time:
            ages = states.now[self.user] - states.times[self.user, self.place]
        else:
            ages = states.items.shape[1] - self.place
        summed = np.add.reduceat(np.maximum(ages, 1).astype(np.float64) ** -0.5, self.start)
        return np.log(summed)

    def repeated_shares(self, n_users: int) -> Float64:
        """float64[U]: the share of each user's events whose item came before; NaN for no event."""
        n_events = np.bincount(self.user, minlength=n_users).astype(np.float64)
        n_items = np.bincount(self.user[self.start], minlength=n_users)
        return 1 - n_items / np.where(n_events > 0, n_events, np.nan)


def pairs_of(states: UserStates, is_target: Bool, n_items: int) -> Pairs:
    """The pairs of the histories.

    is_target: bool[K], whether events of a kind count.
    """
    users, places = np.nonzero((states.items != MISSING) & is_target[states.kinds])
    if len(users) == 0:
        return Pairs(*(np.empty(0, np.int64) for _ in fields(Pairs)))
    keys = users * np.int64(n_items + 1) + states.items[users, places]
    # Stable, so that the events of a pair stay oldest to newest.
    order = np.argsort(keys, kind="stable")
    keys, users, places = keys[order], users[order], places[order]
    start = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    count = np.diff(np.append(start, len(keys)))
    end = start + count - 1
    times = states.times[users, places]
    age = states.items.shape[1] - 1 - places[end]
    return Pairs(keys[start], start, count, times[start], times[end], age, users, places)


def positions_in(pairs: Pairs, items: Int32, n_items: int) -> Int64:
    """int64[U, C]: the pair of each user and candidate, MISSING where there is none.

    items: int32[U, C] item rows, MISSING-padded.
    """
    if len(pairs.key) == 0:
        return np.full(items.shape, MISSING, np.int64)
    # Padding reads the row after the last item, which is in no history.
    rows = np.where(items == MISSING, n_items, items)
    wanted = np.arange(len(items), dtype=np.int64)[:, None] * (n_items + 1) + rows
    at = np.minimum(np.searchsorted(pairs.key, wanted), len(pairs.key) - 1)
    return np.where(pairs.key[at] == wanted, at, MISSING)


def had(states: UserStates, items: Int32, n_items: int) -> Bool:
    """bool[U, C]: whether the user has had each candidate, whenever that was."""
    out = np.zeros(items.shape, np.bool_)
    is_seen = np.zeros(n_items + 1, np.bool_)  # padding reads the last entry
    for user, row in enumerate(items):
        seen = states.seen(user)
        is_seen[seen] = True
        out[user] = is_seen[row]
        is_seen[seen] = False
    return out


def log_time(difference: NDArray[Any]) -> Float64:
    """The logarithm of a difference of times, of which the least is 1."""
    return np.log(np.maximum(difference, 1).astype(np.float64))


def log_own_interval(pairs: Pairs) -> Float64:
    """float64[P]: the logarithm of the mean time from one event to the next; NaN for one event."""
    gaps = np.where(pairs.count > 1, pairs.count - 1, np.nan)
    return np.log(np.maximum((pairs.last - pairs.first) / gaps, 1.0))


def unknown() -> Float32:
    """float32[1, 1]: a NaN that stands for all users and candidates."""
    return np.full((1, 1), np.nan, np.float32)


def picked(values: NDArray[Any], at: Int64) -> Float32:
    """float32[U, C]: the values float64[P] of the pairs `at`, NaN where there is none.

    A single NaN stands for all where no candidate has a pair, as where nothing is offered again.
    """
    if at.max(initial=MISSING) == MISSING:
        return unknown()
    padded = np.append(values, np.nan)  # MISSING reads the last entry
    return padded[at].astype(np.float32)
