"""Defines interactions and user states as arrays.

`Events` is the one form in which interactions leave the data package. `UserStates` is a batch of
users: the last `HISTORY_LENGTH` events of each, the number of events ever, everything seen, and
optional attributes. No model sees a user in another form, which is why a fresh user's history from
a request goes through the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.event_rules import ONE_KIND, EventKind
from shortlist.recsys.store.histories import HISTORY_LENGTH

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

MISSING = -1
"""Pads item rows and attribute tokens."""

NEVER = int(np.iinfo(np.int64).max)
"""The time of what does not happen."""


class Repeats(Enum):
    """Which items may be offered to a user, by whether the user had them."""

    NEVER = "never"
    """Only items that the user has not had."""
    ALLOW = "allow"
    """All but those with negative feedback."""
    ONLY = "only"
    """Only items that the user had, to measure repeats apart."""


@dataclass(frozen=True, slots=True)
class Negatives:
    """Negative feedback, sorted by user and time.

    user, item: int32[m] rows; time: int64[m].
    until: int64[m], the time of the user's next target event with the item, NEVER for none; from
    there on the feedback no longer counts. `recsys.models.feedback` has the rule.
    """

    user: Int32
    item: Int32
    time: Int64
    until: Int64

    @staticmethod
    def none() -> Negatives:
        """No feedback."""
        rows, times = np.empty(0, np.int32), np.empty(0, np.int64)
        return Negatives(rows, rows, times, times)

    def take(self, mask: NDArray[np.bool_]) -> Negatives:
        """The feedback where `mask` (bool[m]) holds."""
        return Negatives(self.user[mask], self.item[mask], self.time[mask], self.until[mask])


@dataclass(frozen=True, slots=True)
class Events:
    """Positive interactions, sorted by user and time, and the negative feedback on them.

    Events of one user and time have no order: theirs is drawn, see `recsys.models.ties`.
    user: int32[n] user rows, non-decreasing; item: int32[n] item rows.
    time: int64[n] seconds, or sequence numbers.
    weight: float32[n] ratings or weights, NaN where there is none.
    kind: uint8[n] positions in `kinds`; all 0 where it is not given.
    cancelled: int64[n], the time of the negative feedback that takes an event back, NEVER for none.
    """

    user: Int32
    item: Int32
    time: Int64
    weight: Float32
    n_users: int
    n_items: int
    kind: UInt8 = field(default_factory=lambda: np.empty(0, np.uint8))
    cancelled: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    negatives: Negatives = field(default_factory=Negatives.none)
    kinds: tuple[EventKind, ...] = ONE_KIND

    def __post_init__(self) -> None:
        """Fills in the columns that were not given."""
        if len(self.kind) != len(self.user):
            object.__setattr__(self, "kind", np.zeros(len(self.user), np.uint8))
        if len(self.cancelled) != len(self.user):
            object.__setattr__(self, "cancelled", np.full(len(self.user), NEVER, np.int64))

    def __len__(self) -> int:
        return len(self.user)

    @property
    def strength(self) -> Float32:
        """float32[n]: the strength of each event's kind, at most 1."""
        return np.array([kind.strength for kind in self.kinds], np.float32)[self.kind]

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """bool[n]: whether an event is of a kind to predict."""
        return np.array([kind.is_target for kind in self.kinds])[self.kind]

    @property
    def to_predict(self) -> NDArray[np.bool_]:
        """bool[n]: whether an event is of a kind to predict, and was never taken back."""
        return self.is_target & (self.cancelled == NEVER)

    @property
    def latest(self) -> int:
        """The time of the last event or feedback, 0 for none."""
        return int(np.append(self.time, self.negatives.time).max(initial=0))

    def standing(self) -> Events:
        """The events that were never taken back, which alone are learnt from."""
        taken_back = self.cancelled != NEVER
        return self.take(~taken_back) if taken_back.any() else self

    def select(
        self, users: NDArray[np.bool_] | None = None, items: NDArray[np.bool_] | None = None
    ) -> Events:
        """The events and the feedback of some users and items, whose rows keep their meaning.

        users: bool[n_users]; items: bool[n_items]; None for all of them.
        """
        users = np.ones(self.n_users, np.bool_) if users is None else users
        items = np.ones(self.n_items, np.bool_) if items is None else items
        negatives = self.negatives
        chosen = negatives.take(users[negatives.user] & items[negatives.item])
        return replace(self.take(users[self.user] & items[self.item]), negatives=chosen)

    def take(self, mask: NDArray[np.bool_]) -> Events:
        """The events where `mask` (bool[n]) holds; user and item rows keep their meaning."""
        return replace(
            self,
            user=self.user[mask],
            item=self.item[mask],
            time=self.time[mask],
            weight=self.weight[mask],
            kind=self.kind[mask],
            cancelled=self.cancelled[mask],
        )

    def offsets(self) -> Int64:
        """int64[n_users + 1]: user u's events are rows offsets[u]:offsets[u + 1]."""
        counts = np.bincount(self.user, minlength=self.n_users)
        return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    def digest(self) -> str:
        """Hex sha256 of users, items, times and kinds: the same on every machine."""
        digest = hashlib.sha256()
        columns: list[NDArray[Any]] = [self.user, self.item, self.time]
        if len(self.kinds) > 1:
            columns.append(self.kind)
        for array in columns:
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
    kinds: uint8[U, N] positions in the kinds of events, 0 where absent.
    now: int64[U], the time at which a list is asked for.
    disliked_rows, disliked_offsets: the items with negative feedback, as ragged as the seen ones.
    repeats: which items may be offered.
    """

    items: Int32
    times: Int64
    weights: Float32
    n_events: Int32
    attributes: Int32
    seen_rows: Int32
    seen_offsets: Int64
    kinds: UInt8 = field(default_factory=lambda: np.empty((0, HISTORY_LENGTH), np.uint8))
    now: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    disliked_rows: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    disliked_offsets: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    repeats: Repeats = Repeats.NEVER

    def __post_init__(self) -> None:
        """Fills in the columns that were not given; `now` is then the time of the last event."""
        n = len(self.items)
        if len(self.kinds) != n:
            object.__setattr__(self, "kinds", np.zeros(self.items.shape, np.uint8))
        if len(self.now) != n:
            object.__setattr__(self, "now", self.times.max(axis=1, initial=0))
        if len(self.disliked_offsets) != n + 1:
            object.__setattr__(self, "disliked_offsets", np.zeros(n + 1, np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def seen(self, user: int) -> Int32:
        """int32[s]: the item rows that the user at position `user` has had or disliked."""
        return self.seen_rows[self.seen_offsets[user] : self.seen_offsets[user + 1]]

    def disliked(self, user: int) -> Int32:
        """int32[s]: the item rows with negative feedback of the user at position `user`."""
        return self.disliked_rows[self.disliked_offsets[user] : self.disliked_offsets[user + 1]]

    def open_to(self, user: int, n_items: int) -> NDArray[np.bool_]:
        """bool[n_items]: the items that may be offered to the user at position `user`."""
        only = self.repeats is Repeats.ONLY
        is_open = np.full(n_items, not only, np.bool_)
        if self.repeats is not Repeats.ALLOW:
            is_open[self.seen(user)] = only
        is_open[self.disliked(user)] = False
        return is_open

    def slice(self, start: int, stop: int) -> UserStates:
        """The states at positions start:stop."""
        seen = self.seen_offsets[start : stop + 1]
        disliked = self.disliked_offsets[start : stop + 1]
        return UserStates(
            self.items[start:stop],
            self.times[start:stop],
            self.weights[start:stop],
            self.n_events[start:stop],
            self.attributes[start:stop],
            self.seen_rows[seen[0] : seen[-1]],
            seen - seen[0],
            self.kinds[start:stop],
            self.now[start:stop],
            self.disliked_rows[disliked[0] : disliked[-1]],
            disliked - disliked[0],
            self.repeats,
        )

    def take(self, mask: NDArray[np.bool_]) -> UserStates:
        """The states where `mask` (bool[U]) holds, in their order."""
        seen_rows, seen_offsets = _of_users(self.seen_rows, self.seen_offsets, mask)
        disliked_rows, disliked_offsets = _of_users(self.disliked_rows, self.disliked_offsets, mask)
        return UserStates(
            self.items[mask],
            self.times[mask],
            self.weights[mask],
            self.n_events[mask],
            self.attributes[mask],
            seen_rows,
            seen_offsets,
            self.kinds[mask],
            self.now[mask],
            disliked_rows,
            disliked_offsets,
            self.repeats,
        )


_Rows = TypeVar("_Rows", Int32, Int64)


def _taken(rows: _Rows, offsets: Int64, mask: NDArray[np.bool_]) -> tuple[_Rows, Int64]:
    """The entries of a ragged array where `mask` holds, and their offsets.

    mask: bool[len(rows)].
    """
    if mask.all():
        return rows, offsets
    return rows[mask], np.concatenate(([0], np.cumsum(mask)))[offsets].astype(np.int64)


def _of_users(rows: Int32, offsets: Int64, mask: NDArray[np.bool_]) -> tuple[Int32, Int64]:
    """The slices of a ragged array of the users where `mask` (bool[U]) holds."""
    lengths = np.diff(offsets)
    return rows[np.repeat(mask, lengths)], _offsets_of(lengths[mask])


def _offsets_of(lengths: Int64) -> Int64:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def states_at(
    events: Events,
    starts: Int64,
    cuts: Int64,
    attributes: Int32 | None = None,
    users: Int64 | Int32 | None = None,
) -> UserStates:
    """The states of users just before their cuts.

    Nothing at or after a cut enters a state. Of a user with events after the cut, the state is as
    of the first of these; of others as of the end of time.
    starts, cuts: int64[U]; user i has the events in rows starts[i]:cuts[i].
    attributes: int32[U, A] or None.
    users: [U] user rows; needed where there is negative feedback, for users without an event before
    their cut.
    """
    if users is None:
        users = np.full(len(cuts), MISSING, np.int32)
        users[cuts > starts] = events.user[cuts[cuts > starts] - 1]
    moments = _moments(events, users, cuts)
    rows, offsets = _ragged(starts, cuts)
    disliked_rows, disliked_offsets = _disliked(events.negatives, moments, users)
    # What was taken back is no longer of the history, and yet had.
    is_target = np.array([kind.is_target for kind in events.kinds])
    had, had_offsets = _taken(rows, offsets, is_target[events.kind[rows]])
    stands = events.cancelled[rows] >= np.repeat(moments, np.diff(offsets))
    rows, offsets = _taken(rows, offsets, stands)
    window = offsets[1:, None] - np.arange(HISTORY_LENGTH, 0, -1)[None, :]
    inside = window >= offsets[:-1, None]
    if attributes is None:
        attributes = np.empty((len(cuts), 0), np.int32)
    if len(rows):
        at = rows[np.where(inside, window, 0)]  # padding reads any event, and is masked
        items = np.where(inside, events.item[at], np.int32(MISSING))
        times = np.where(inside, events.time[at], np.int64(0))
        weights = np.where(inside, events.weight[at], np.float32(np.nan))
        kinds = np.where(inside, events.kind[at], np.uint8(0))
    else:
        items = np.full(window.shape, MISSING, np.int32)
        times = np.zeros(window.shape, np.int64)
        weights = np.full(window.shape, np.nan, np.float32)
        kinds = np.zeros(window.shape, np.uint8)
    seen_rows, seen_offsets = _joined(
        events.item[had], had_offsets, disliked_rows, disliked_offsets
    )
    return UserStates(
        items,
        times,
        weights,
        np.diff(offsets).astype(np.int32),
        attributes,
        seen_rows,
        seen_offsets,
        kinds,
        np.where(moments == NEVER, times.max(axis=1, initial=0), moments),
        disliked_rows,
        disliked_offsets,
    )


def _moments(events: Events, users: Int64 | Int32, cuts: Int64) -> Int64:
    """int64[U]: the time of each user's first event after the cut, NEVER where there is none."""
    moments = np.full(len(cuts), NEVER, np.int64)
    inside = np.flatnonzero(cuts < len(events))
    rows = cuts[inside]
    is_own = events.user[rows] == users[inside]
    moments[inside[is_own]] = events.time[rows[is_own]]
    return moments


def _ragged(starts: Int64, stops: Int64) -> tuple[Int64, Int64]:
    """The rows of all ranges one after the other, and their int64[U + 1] offsets."""
    lengths = stops - starts
    offsets = _offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def _disliked(negatives: Negatives, moments: Int64, users: Int64 | Int32) -> tuple[Int32, Int64]:
    """The items with negative feedback as of each moment, ragged."""
    first = np.searchsorted(negatives.user, users, side="left")
    rows, offsets = _ragged(first, np.searchsorted(negatives.user, users, side="right"))
    moment = np.repeat(moments, np.diff(offsets))
    holds = (negatives.time[rows] < moment) & (negatives.until[rows] >= moment)
    rows, offsets = _taken(rows, offsets, holds)
    return negatives.item[rows], offsets


def _joined(rows: Int32, offsets: Int64, more: Int32, more_offsets: Int64) -> tuple[Int32, Int64]:
    """Two ragged arrays as one, each user's `rows` before their `more`."""
    if len(more) == 0:
        return rows, offsets
    owners = np.concatenate(
        [np.repeat(np.arange(len(each) - 1), np.diff(each)) for each in (offsets, more_offsets)]
    )
    order = np.argsort(owners, kind="stable")
    return np.concatenate((rows, more))[order], offsets + more_offsets


Recommend = Callable[[UserStates, int], tuple[Int32, Float32]]
"""(states, k) -> items int32[U, k], best first, and scores float32[U, k]; only open items.

Items are padded with MISSING, scores with -inf.
"""
