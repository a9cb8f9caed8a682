"""Held-out items, against which every method is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Events, Int32, Int64, Repeats, UserStates


@dataclass(frozen=True, slots=True)
class Truth:
    """Held-out items, and the states from which they have to be predicted.

    users: int32[U] user rows; states: the U users as of just before their hold-out; offsets:
    int64[U + 1], whose slices of items: int32[offsets[-1]] give each user's held-out item rows,
    without duplicates and without any item that may not be offered to the user. A user may be left
    with none, and is then not counted. `truth_of` makes one from raw hold-outs.
    """

    users: Int32
    states: UserStates
    offsets: Int64
    items: Int32

    def __len__(self) -> int:
        return len(self.users)

    @property
    def counts(self) -> Int64:
        """int64[U]: the number of held-out items of each user."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> Truth:
        """The users at positions start:stop."""
        offsets = self.offsets[start : stop + 1]
        items = self.items[offsets[0] : offsets[-1]]
        return Truth(
            self.users[start:stop], self.states.slice(start, stop), offsets - offsets[0], items
        )

    def counted(self) -> Truth:
        """The users with a held-out item, who alone have a metric."""
        counted = self.counts > 0
        offsets = np.concatenate((self.offsets[:1], self.offsets[1:][counted]))
        return Truth(self.users[counted], self.states.take(counted), offsets, self.items)


def truth_of(users: Int32, states: UserStates, offsets: Int64, items: Int32, n_items: int) -> Truth:
    """The truth of raw hold-outs, without duplicates and items that are closed to the user.

    Shapes as in `Truth`; `n_items` is the size of the catalogue. The order is kept.
    """
    keys = pair_keys(offsets, items, n_items)
    keep = np.zeros(len(keys), bool)
    keep[np.unique(keys, return_index=True)[1]] = True
    keep &= are_open(states, keys, n_items)
    kept = np.concatenate(([0], np.cumsum(keep)))
    return Truth(users, states, kept[offsets].astype(np.int64), items[keep])


def of_repeats(truth: Truth, repeats: Repeats, n_items: int) -> Truth:
    """The part of a truth that may be offered under `repeats`."""
    states = replace(truth.states, repeats=repeats)
    return truth_of(truth.users, states, truth.offsets, truth.items, n_items)


def truth_between(
    events: Events, users: Int64, states: UserStates, first: Int64, last: Int64
) -> Truth:
    """The truth whose raw hold-outs are the events to predict in rows first[i]:last[i] of `events`.

    users, first, last: int64[U]; states: of these users.
    """
    lengths = last - first
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
    wanted = events.to_predict[rows]
    rows, offsets = rows[wanted], np.concatenate(([0], np.cumsum(wanted)))[offsets]
    return truth_of(users.astype(np.int32), states, offsets, events.item[rows], events.n_items)


def are_open(states: UserStates, keys: Int64, n_items: int) -> NDArray[np.bool_]:
    """Whether the items may be offered to the users: bool of the shape of `keys`.

    keys: pairs of user position and item row, as `pair_keys` makes them. It is
    `UserStates.open_to` of pairs.
    """
    closed = np.isin(keys, pair_keys(states.disliked_offsets, states.disliked_rows, n_items))
    if states.repeats is not Repeats.ALLOW:
        seen = np.isin(keys, pair_keys(states.seen_offsets, states.seen_rows, n_items))
        closed |= ~seen if states.repeats is Repeats.ONLY else seen
    return ~closed


def pair_keys(offsets: Int64, items: Int32, n_items: int) -> Int64:
    """int64[len(items)]: one number for each (user position, item row) of a ragged array."""
    owners = np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))
    return owners * n_items + items
