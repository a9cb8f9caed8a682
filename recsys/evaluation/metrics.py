"""Accuracy of ranked lists, one number per user, with binary relevance over the whole catalogue.

Every function returns an array over users rather than a mean, so that the same numbers can be resampled for intervals.
A user without held-out items has no accuracy: NaN, and such users are left out of means and of `n_users`.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from recsys.errors import BrokenMethod
from recsys.evaluation.truth import Truth, pair_keys
from recsys.events import MISSING, Float32, Int32, Int64

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

PER_USER = ("ndcg@10", "recall@10", "recall@20", "mrr")
"""The columns of `per_user`."""

DEPTH = 100
"""How many ranks a list has: a first hit beyond it counts as none in `mrr`."""

COVERAGE_DEPTH = 10
"""How many ranks `coverage` looks at."""


def hit_matrix(ranked: Int32, truth: Truth, n_items: int) -> Bool:
    """bool[U, K]: where the ranked items (int32[U, K], MISSING-padded) are among the user's held-out ones."""
    hits: Bool = np.isin(_row_keys(ranked, n_items), pair_keys(truth.offsets, truth.items, n_items))
    hits &= ranked != MISSING
    return hits


def ndcg(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: normalised discounted cumulative gain of the first k ranks.

    DCG@k = sum over ranks r <= k with a hit of 1 / log2(r + 1), divided by the same sum over the first min(n_truth, k)
    ranks, which is the best any list can do (Järvelin and Kekäläinen 2002, with binary gains). hits: bool[U, K] with
    K >= 1; n_truth: int64[U].
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # [k]
    ideal = np.concatenate(([np.nan], np.cumsum(discounts)))[np.minimum(n_truth, k)]
    width = min(k, hits.shape[1])
    # Added rank by rank, like `ideal`, so that a perfect list has exactly 1 and no user's figure depends on the others.
    gained: Float64 = np.cumsum(np.where(hits[:, :width], discounts[:width], 0.0), axis=1)[:, -1]
    return gained / ideal


def recall(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: the share of the user's held-out items in the first k ranks: hits@k / n_truth.

    The denominator is not cut at k, so a user with more than k held-out items cannot reach 1 (Manning, Raghavan and
    Schütze 2008, chapter 8).
    """
    shares: Float64 = hits[:, :k].sum(axis=1) / np.where(n_truth > 0, n_truth, np.nan)
    return shares


def reciprocal_rank(hits: Bool, n_truth: Int64) -> Float64:
    """float64[U]: 1 / rank of the first hit, 0 where the list has none (Voorhees 1999, TREC-8)."""
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    return np.where(n_truth > 0, 1.0 / ranks, np.nan)


def per_user(ranked: Int32, truth: Truth, n_items: int) -> Float64:
    """float64[U, 4]: the metrics `PER_USER` of lists int32[U, K], of which the first `DEPTH` ranks are looked at."""
    hits = hit_matrix(ranked[:, :DEPTH], truth, n_items)
    n_truth = truth.counts
    columns = (ndcg(hits, n_truth, 10), recall(hits, n_truth, 10), recall(hits, n_truth, 20))
    return np.stack((*columns, reciprocal_rank(hits, n_truth)), axis=1)


def coverage(ranked: Int32, n_items: int) -> float:
    """The share of the catalogue in at least one user's first `COVERAGE_DEPTH` ranks; NaN for no users or no items."""
    if not len(ranked) or not n_items:
        return float("nan")
    top = ranked[:, :COVERAGE_DEPTH]
    return len(np.unique(top[top != MISSING])) / n_items


def mean_over_users(values: Float64) -> Float64:
    """float64[M]: the means of float64[U, M] over users; with no users a warning and NaN, for 0 would be a claim."""
    if not len(values):
        warnings.warn("no user has a held-out item: the metrics are NaN; hold out more", RuntimeWarning, stacklevel=2)
        return np.full(values.shape[1], np.nan)
    means: Float64 = values.mean(axis=0)
    return means


def assert_honest_lists(method: str, items: Int32, scores: Float32, truth: Truth, n_items: int) -> None:
    """Raise `BrokenMethod` where the lists of `method` break what `Recommend` promises.

    A list with a seen item, a repeated item, a gap or a rising score is a bug of the method, and would make its figures
    lies: nothing is mended here. items: int32[U, K]; scores: float32[U, K].
    """
    if items.shape != scores.shape or len(items) != len(truth):
        raise BrokenMethod(
            f"method {method!r} returned items {items.shape} and scores {scores.shape} for {len(truth)} users: both"
            " must be [users, k]; mend the method",
        )
    faults = {
        "an item row outside the catalogue": (items < MISSING) | (items >= n_items),
        "an item that the user has already seen": _seen(items, truth, n_items),
        "the same item twice": _repeated(items),
        "an item after padding": _after(items == MISSING, items != MISSING),
        "a score that is NaN or greater than the one before": np.isnan(scores) | _rising(scores),
        "a padded score that is not -inf, or an item whose score is": (items == MISSING) != np.isneginf(scores),
    }
    for fault, where in faults.items():
        if where.any():
            row, rank = (int(i) for i in np.argwhere(where)[0])
            raise BrokenMethod(
                f"method {method!r} gave user row {truth.users[row]} {fault} (item row {items[row, rank]}, rank"
                f" {rank + 1}, score {scores[row, rank]}): a list must never have that; mend the method",
            )


def _row_keys(ranked: Int32, n_items: int) -> Int64:
    return np.arange(len(ranked), dtype=np.int64)[:, None] * n_items + ranked


def _seen(items: Int32, truth: Truth, n_items: int) -> Bool:
    states = truth.states
    seen: Bool = np.isin(_row_keys(items, n_items), pair_keys(states.seen_offsets, states.seen_rows, n_items))
    seen &= items != MISSING
    return seen


def _repeated(items: Int32) -> Bool:
    """True where an item stands earlier in the same list too."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    repeated = np.zeros(items.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != MISSING), axis=1)
    return repeated


def _after(first: Bool, then: Bool) -> Bool:
    """True where `then` holds and `first` held one rank before."""
    out = np.zeros(first.shape, bool)
    out[:, 1:] = first[:, :-1] & then[:, 1:]
    return out


def _rising(scores: Float32) -> Bool:
    out = np.zeros(scores.shape, bool)
    out[:, 1:] = scores[:, 1:] > scores[:, :-1]
    return out
