"""Defines interactions and user states as arrays.

`Events` is the one form in which interactions leave the data package. `UserStates` is a batch of
users: the last `HISTORY_LENGTH` events of each, the number of events ever, everything seen, and
optional attributes. No model sees a user in another form, which is why a fresh user's history from
a request goes through the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.store.histories import HISTORY_LENGTH

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

MISSING = -1
"""Pads item rows and attribute tokens."""


@dataclass(frozen=True, slots=True)
class Events:
    """Interactions, sorted by user and time.

    Events of one user and time have no order: theirs is drawn, see `recsys.models.ties`.
    user: int32[n] user rows, non-decreasing; item: int32[n] item rows.
    time: int64[n] seconds, or sequence numbers.
    weight: float32[n] ratings or weights, NaN where there is none.
    """

    user: Int32
    item: Int32
    time: Int64
    weight: Float32
    n_users: int
    n_items: int

    def __len__(self) -> int:
        return len(self.user)

    def take(self, mask: NDArray[np.bool_]) -> Events:
        """The events where `mask` (bool[n]) holds; user and item rows keep their meaning."""
        return Events(
            self.user[mask],
            self.item[mask],
            self.time[mask],
            self.weight[mask],
            self.n_users,
            self.n_items,
        )

    def offsets(self) -> Int64:
        """int64[n_users + 1]: user u's events are rows offsets[u]:offsets[u + 1]."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    def digest(self) -> str:
        """Hex sha256 of users, items and times: the same on every machine."""
        digest = hashlib.sha256()
        for array in (self.user, self.item, self.time):
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class UserStates:
    """A batch of users as the models see them.

    items: int32[U, N] item rows, oldest to newest, right-aligned, MISSING-padded on the left.
    times: int64[U, N]; weights: float32[U, N], NaN where absent.
    n_events: int32[U] events ever, also those that left the window.
    attributes: int32[U, A] attribute tokens, MISSING where absent.
    seen_rows: int32[S] item rows; seen_offsets: int64[U + 1], whose slices give each user's.
    """

    items: Int32
    times: Int64
    weights: Float32
    n_events: Int32
    attributes: Int32
    seen_rows: Int32
    seen_offsets: Int64

    def __len__(self) -> int:
        return len(self.items)

    def seen(self, user: int) -> Int32:
        """int32[s]: the item rows that the user at position `user` has already had."""
        return self.seen_rows[self.seen_offsets[user] : self.seen_offsets[user + 1]]

    def slice(self, start: int, stop: int) -> UserStates:
        """The states at positions start:stop."""
        offsets = self.seen_offsets[start : stop + 1]
        return UserStates(
            self.items[start:stop],
            self.times[start:stop],
            self.weights[start:stop],
            self.n_events[start:stop],
            self.attributes[start:stop],
            self.seen_rows[offsets[0] : offsets[-1]],
            offsets - offsets[0],
        )

    def take(self, mask: NDArray[np.bool_]) -> UserStates:
        """The states where `mask` (bool[U]) holds, in their order."""
        lengths = np.diff(self.seen_offsets)
        return UserStates(
            self.items[mask],
            self.times[mask],
            self.weights[mask],
            self.n_events[mask],
            self.attributes[mask],
            self.seen_rows[np.repeat(mask, lengths)],
            np.concatenate(([0], np.cumsum(lengths[mask]))).astype(np.int64),
        )


def states_at(
    events: Events, starts: Int64, cuts: Int64, attributes: Int32 | None = None
) -> UserStates:
    """The states of users just before their cuts.

    Nothing at or after a cut enters a state.
    starts, cuts: int64[U]; user i has the events in rows starts[i]:cuts[i].
    attributes: int32[U, A] or None.
    """
    window = cuts[:, None] - np.arange(HISTORY_LENGTH, 0, -1)[None, :]
    inside = window >= starts[:, None]
    at = np.where(inside, window, 0)  # padding reads any event, and is masked below
    if len(events):
        items = np.where(inside, events.item[at], np.int32(MISSING))
        times = np.where(inside, events.time[at], np.int64(0))
        weights = np.where(inside, events.weight[at], np.float32(np.nan))
    else:
        items = np.full(at.shape, MISSING, np.int32)
        times = np.zeros(at.shape, np.int64)
        weights = np.full(at.shape, np.nan, np.float32)
    lengths = cuts - starts
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    if attributes is None:
        attributes = np.empty((len(cuts), 0), np.int32)
    return UserStates(
        items, times, weights, lengths.astype(np.int32), attributes, events.item[rows], offsets
    )


Recommend = Callable[[UserStates, int], tuple[Int32, Float32]]
"""(states, k) -> items int32[U, k], best first, and scores float32[U, k]; never a seen item.

Items are padded with MISSING, scores with -inf.
"""
