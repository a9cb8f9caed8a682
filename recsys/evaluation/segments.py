"""Kinds of users and of items, so that a report can say for whom, and on what, a method is good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.recsys.evaluation.ranking_metrics import ItemFacts, hit_matrix
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Int64, UserStates

THIRDS = ("head", "middle", "tail")
"""The classes of `popularity_thirds`, most popular first."""

THIRDS_DEPTH = 20
"""How many ranks `found_by_third` looks at."""

MAX_CATEGORIES = 8
"""How many favourite categories have a segment of their own."""


class Segments(NamedTuple):
    """Users in classes, none of which is empty: labels, and of: int64[U], whose entries are positions in labels."""

    labels: tuple[str, ...]
    of: Int64


def by_history_length(n_events: Int32) -> Segments:
    """Users in at most four bins of about as many, by their number of events (int32[U]); "a-b" has a to b events.

    The bins end at observed quartiles; where quartiles are equal there are fewer bins.
    """
    if not len(n_events):
        return Segments((), np.empty(0, np.int64))
    last = np.unique(np.quantile(n_events, (0.25, 0.5, 0.75, 1.0), method="inverted_cdf"))
    first = [n_events.min(), *(last[:-1] + 1)]
    labels = tuple(f"{int(a)}-{int(b)}" for a, b in zip(first, last, strict=True))
    return Segments(labels, np.searchsorted(last, n_events))


def favourite_categories(states: UserStates, membership: Float32) -> Int64:
    """int64[U]: the category with the greatest summed membership in the users' windows; MISSING where all sums are 0.

    A window is a user's last `HISTORY_LENGTH` events. Of categories with the same sum the first is
    taken. membership: float32[n_items, C] with C >= 1.
    """
    users, ranks = np.nonzero(states.items != MISSING)
    ones = np.ones(len(users), np.float32)
    had = sparse.csr_matrix(
        (ones, (users, states.items[users, ranks])), shape=(len(states), len(membership))
    )
    sums = had @ membership  # [U, C]
    return np.where(sums.max(axis=1) > 0, sums.argmax(axis=1), MISSING)


def by_favourite_category(favourites: Int64, names: Sequence[str]) -> Segments:
    """Users by favourite category (int64[U]): the `MAX_CATEGORIES` ones, most frequent first, and "other" for the rest.

    Users without a favourite (MISSING) are of the rest. names: C category names.
    """
    frequency = np.bincount(favourites[favourites != MISSING], minlength=len(names))
    frequent = [
        c for c in np.argsort(-frequency, kind="stable")[:MAX_CATEGORIES].tolist() if frequency[c]
    ]
    position = np.full(
        len(names) + 1, len(frequent)
    )  # its last entry, which is that of MISSING, stays "other"
    position[frequent] = np.arange(len(frequent))
    of = position[favourites]
    rest = ("other",) if (of == len(frequent)).any() else ()
    return Segments((*(names[c] for c in frequent), *rest), of)


def popularity_thirds(users: Int64) -> NDArray[np.int64]:
    """int64[n_items]: the position in `THIRDS` of each item, given its number of distinct past users (int64[n_items]).

    From the most popular item down (of equals, from the lowest row), items are of the head until
    these hold a third of all (user, item) pairs, then of the middle until they hold two thirds. An
    item without users is of the tail.
    """
    order = np.argsort(-users, kind="stable")
    before = np.cumsum(users[order]) - users[order]  # pairs of the more popular items
    thirds = np.full(len(users), len(THIRDS) - 1)
    thirds[order] = np.minimum(3 * before // max(1, users.sum()), len(THIRDS) - 1)
    return np.where(users > 0, thirds, len(THIRDS) - 1)


def held_by_third(truth: Truth, thirds: Int64) -> Int64:
    """int64[3]: how many held-out items are of each third; thirds: int64[n_items]."""
    return np.bincount(thirds[truth.items], minlength=len(THIRDS))


def found_by_third(ranked: Int32, truth: Truth, facts: ItemFacts, thirds: Int64) -> Int64:
    """int64[3]: how many held-out items of each third are in their user's first `THIRDS_DEPTH` ranks of int32[U, K]."""
    top = ranked[:, :THIRDS_DEPTH]
    return np.bincount(thirds[top[hit_matrix(top, truth, len(facts))]], minlength=len(THIRDS))
