"""Divides users and items into segments for the report."""

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
"""Ranks that `hits_by_third` counts: those of recall@20."""

MAX_CATEGORIES = 8
"""Favourite categories with a segment of their own; more would not be read."""


class Segments(NamedTuple):
    """Users in segments, none of which is empty; of: int64[U], positions in `labels`."""

    labels: tuple[str, ...]
    of: Int64


def by_history_length(n_events: Int32) -> Segments:
    """Users in at most four bins of about as many, by their number of events (int32[U]).

    The bin "a-b" has a to b events. Bins end at observed quartiles; equal quartiles share a bin.
    """
    if not len(n_events):
        return Segments((), np.empty(0, np.int64))
    last = np.unique(np.quantile(n_events, (0.25, 0.5, 0.75, 1.0), method="inverted_cdf"))
    first = [n_events.min(), *(last[:-1] + 1)]
    labels = tuple(f"{int(a)}-{int(b)}" for a, b in zip(first, last, strict=True))
    return Segments(labels, np.searchsorted(last, n_events))


def favourite_categories(states: UserStates, membership: Float32) -> Int64:
    """int64[U]: the category with the greatest summed membership in each user's window.

    MISSING where all sums are 0. A window is a user's last `HISTORY_LENGTH` events. Of categories
    with the same sum the first is taken. membership: float32[n_items, C] with C >= 1.
    """
    users, ranks = np.nonzero(states.items != MISSING)
    cells = (users, states.items[users, ranks])
    ones = np.ones(len(users), np.float32)
    had = sparse.csr_matrix((ones, cells), shape=(len(states), len(membership)))
    sums = had @ membership  # [U, C]
    return np.where(sums.max(axis=1) > 0, sums.argmax(axis=1), MISSING)


def by_favourite_category(favourites: Int64, names: Sequence[str]) -> Segments:
    """Users by favourite category (int64[U]): the `MAX_CATEGORIES` most frequent, and "other".

    Users without a favourite (MISSING) are of "other". names: C category names.
    """
    frequency = np.bincount(favourites[favourites != MISSING], minlength=len(names))
    by_frequency = np.argsort(-frequency, kind="stable")[:MAX_CATEGORIES].tolist()
    frequent = [category for category in by_frequency if frequency[category]]
    other = len(frequent)
    position = np.full(len(names) + 1, other)  # MISSING reads the last entry, which stays "other"
    position[frequent] = np.arange(len(frequent))
    of = position[favourites]
    rest = ("other",) if (of == other).any() else ()
    return Segments((*(names[c] for c in frequent), *rest), of)


def popularity_thirds(users: Int64) -> NDArray[np.int64]:
    """int64[n_items]: the position in `THIRDS` of each item.

    users: int64[n_items], distinct past users. From the most popular item down (of equals, from the
    lowest row), items are of the head until these hold a third of all (user, item) pairs, then of
    the middle until they hold two thirds. An item without users is of the tail.
    """
    tail = len(THIRDS) - 1
    order = np.argsort(-users, kind="stable")
    before = np.cumsum(users[order]) - users[order]  # pairs of the more popular items
    thirds = np.full(len(users), tail)
    thirds[order] = np.minimum(3 * before // max(1, users.sum()), tail)
    return np.where(users > 0, thirds, tail)


def held_out_by_third(truth: Truth, thirds: Int64) -> Int64:
    """int64[3]: held-out items of each third; thirds: int64[n_items]."""
    return np.bincount(thirds[truth.items], minlength=len(THIRDS))


def hits_by_third(ranked: Int32, truth: Truth, facts: ItemFacts, thirds: Int64) -> Int64:
    """int64[3]: held-out items of each third in the first `THIRDS_DEPTH` ranks of int32[U, K]."""
    top = ranked[:, :THIRDS_DEPTH]
    hits = top[hit_matrix(top, truth, len(facts))]
    return np.bincount(thirds[hits], minlength=len(THIRDS))
