"""Ranking metrics, one number per user, with binary relevance.

Lists are ranked over the whole catalogue. Every function returns an array over users rather than a
mean, so that the same numbers can be resampled for intervals. A user without held-out items has no
accuracy: NaN, and such users are left out of means and of `n_users`. Novelty and diversity are of
the list alone, and NaN where it is too short to have any.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import InvalidRecommendations
from shortlist.recsys.evaluation.truth import Truth, are_open, pair_keys
from shortlist.recsys.models.interactions import MISSING, Events, Float32, Int32, Int64, Repeats

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

PER_USER = (
    "ndcg@10",
    "recall@10",
    "recall@20",
    "mrr",
    "map@10",
    "hit_rate@10",
    "stratified_recall@20",
    "novelty@10",
    "diversity@10",
)
"""The columns of `per_user`."""

DEPTH = 100
"""Ranks of an evaluated list: a first hit beyond them counts as none in `mrr`."""

COVERAGE_DEPTH = 10
"""Ranks that `coverage` counts."""

ROWS_AT_ONCE = 4096
"""Items whose categories are held in full at once: a few MB."""


class Directions(NamedTuple):
    """The n items' categories as vectors of length 1, without the zeros.

    starts: int64[n + 1], whose slices of categories: int64[m] and values: float64[m] give each item
    its own.
    """

    starts: Int64
    categories: Int64
    values: Float64


@dataclass(frozen=True)
class ItemFacts:
    """Facts about items as of the cut, for metrics beyond accuracy; see `facts_of`.

    users: int64[n_items] distinct past users of each item; n_users: number of users in the past;
    membership: float32[n_items, C], not negative, above 0 where an item has a category; C = 0 where
    the catalogue has none.
    """

    users: Int64
    n_users: int
    membership: Float32

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def directions(self) -> Directions:
        """The items' categories, computed once."""
        lengths = [
            np.linalg.norm(self.membership[start : start + ROWS_AT_ONCE].astype(np.float64), axis=1)
            for start in range(0, len(self), ROWS_AT_ONCE)
        ]
        items, categories = np.nonzero(self.membership)
        values = self.membership[items, categories] / np.concatenate([[], *lengths])[items]
        return Directions(np.searchsorted(items, np.arange(len(self) + 1)), categories, values)


def facts_of(past: Events, membership: Float32) -> ItemFacts:
    """The facts in the events before the cut; a user without any is not among `n_users`."""
    pairs = np.unique(past.user * np.int64(past.n_items) + past.item)
    users = np.bincount(pairs % past.n_items, minlength=past.n_items)
    return ItemFacts(users, len(np.unique(past.user)), membership)


def hit_matrix(ranked: Int32, truth: Truth, n_items: int) -> Bool:
    """bool[U, K]: whether each ranked item (int32[U, K], MISSING-padded) is held out."""
    hits: Bool = np.isin(row_keys(ranked, n_items), pair_keys(truth.offsets, truth.items, n_items))
    hits &= ranked != MISSING
    return hits


def ndcg(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: normalised discounted cumulative gain of the first k ranks.

    DCG@k = sum over ranks r <= k with a hit of 1 / log2(r + 1), divided by the same sum over the
    first min(n_truth, k) ranks, which is the best any list can do (Järvelin and Kekäläinen 2002,
    with binary gains). hits: bool[U, K] with K >= 1; n_truth: int64[U].
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))  # [k]
    ideal = np.concatenate(([np.nan], np.cumsum(discounts)))[np.minimum(n_truth, k)]
    width = min(k, hits.shape[1])
    # Added rank by rank, like `ideal`, so that a perfect list has exactly 1 and no user's figure
    # depends on the others.
    gained: Float64 = np.cumsum(np.where(hits[:, :width], discounts[:width], 0.0), axis=1)[:, -1]
    return gained / ideal


def recall(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: the share of the user's held-out items in the first k ranks: hits@k / n_truth.

    The denominator is not cut at k, so a user with more than k held-out items cannot reach 1
    (Manning, Raghavan and Schütze 2008, chapter 8).
    """
    shares: Float64 = hits[:, :k].sum(axis=1) / np.where(n_truth > 0, n_truth, np.nan)
    return shares


def reciprocal_rank(hits: Bool, n_truth: Int64) -> Float64:
    """float64[U]: 1 / rank of the first hit, 0 where the list has none (Voorhees 1999, TREC-8)."""
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    return np.where(n_truth > 0, 1.0 / ranks, np.nan)


def average_precision(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: the precisions at the hits of the first k ranks, over min(n_truth, k).

    The divisor is the number of hits of the best list, so that this list has 1 (the MAP@k of the
    Million Song Dataset Challenge, McFee et al. 2012); trec_eval's map_cut divides by n_truth.
    Shapes as in `ndcg`.
    """
    top = hits[:, :k]
    precisions = np.cumsum(top, axis=1) / np.arange(1, top.shape[1] + 1)
    summed: Float64 = np.cumsum(np.where(top, precisions, 0.0), axis=1)[:, -1]
    return summed / np.where(n_truth > 0, np.minimum(n_truth, k), np.nan)


def hit_rate(hits: Bool, n_truth: Int64, k: int) -> Float64:
    """float64[U]: 1 where the first k ranks have a hit, else 0 (Deshpande and Karypis 2004)."""
    return np.where(n_truth > 0, hits[:, :k].any(axis=1), np.nan)


def stratified_recall(ranked: Int32, hits: Bool, truth: Truth, facts: ItemFacts, k: int) -> Float64:
    """float64[U]: recall in which every held-out item weighs popularity^-1/2.

    The weights of the hits of the first k ranks, divided by those of all the user's held-out items
    (Steck 2011, "Item popularity and recommendation accuracy", with exponent 1/2). The popularity
    is the number of distinct past users, at least 1. ranked: int32[U, K]; hits: bool[U, K].
    """
    weights = 1.0 / np.sqrt(np.maximum(facts.users, 1))
    owners = np.repeat(np.arange(len(truth)), truth.counts)
    whole = np.bincount(owners, weights[truth.items], minlength=len(truth))
    gained: Float64 = np.cumsum(np.where(hits[:, :k], weights[ranked[:, :k]], 0.0), axis=1)[:, -1]
    # Both sums have the same terms where everything is hit, but maybe in another order.
    return np.minimum(gained / np.where(whole > 0, whole, np.nan), 1.0)


def novelty(ranked: Int32, facts: ItemFacts, k: int) -> Float64:
    """float64[U]: mean of -log2(users of the item / all users) in the first k ranks.

    The self-information, in bits, of having had the item (Zhou et al. 2010, "Solving the apparent
    diversity-accuracy dilemma"); an item without past users counts as one with one. NaN for no
    items. ranked: int32[U, K].
    """
    bits = np.log2(max(1, facts.n_users) / np.maximum(facts.users, 1))
    top = ranked[:, :k]
    listed = top != MISSING
    summed: Float64 = np.cumsum(np.where(listed, bits[top], 0.0), axis=1)[:, -1]
    return summed / _or_nan(listed.sum(axis=1))


def diversity(ranked: Int32, facts: ItemFacts, k: int) -> Float64:
    """float64[U]: mean of 1 - cosine of the categories of pairs in the first k ranks.

    The intra-list distance of Ziegler et al. 2005. Pairs with an item without categories are left
    out; NaN where no pair is left. ranked: int32[U, K].
    """
    top = ranked[:, :k]
    starts, categories, values = facts.directions
    users, ranks = np.nonzero(top != MISSING)
    first = starts[top[users, ranks]]
    counts = starts[top[users, ranks] + 1] - first
    entries = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    shape = len(top), facts.membership.shape[1]
    cells = np.repeat(users, counts) * shape[1] + categories[entries]
    # Added up rank by rank, so that no user's figure depends on the others.
    summed = np.bincount(cells, values[entries], shape[0] * shape[1]).reshape(shape)  # [U, C]
    n = np.bincount(users[counts > 0], minlength=len(top))
    # Of unit rows u_1 … u_n the cosines of all ordered pairs sum to |u_1 + … + u_n|^2 - n.
    mean_cosine = ((summed**2).sum(axis=1) - n) / _or_nan(n * (n - 1))
    return np.clip(1.0 - mean_cosine, 0.0, 1.0)


def per_user(ranked: Int32, truth: Truth, facts: ItemFacts) -> Float64:
    """float64[U, 9]: the metrics `PER_USER` of the first `DEPTH` ranks of lists int32[U, K]."""
    ranked = ranked[:, :DEPTH]
    hits = hit_matrix(ranked, truth, len(facts))
    n_truth = truth.counts
    columns = (
        ndcg(hits, n_truth, 10),
        recall(hits, n_truth, 10),
        recall(hits, n_truth, 20),
        reciprocal_rank(hits, n_truth),
        average_precision(hits, n_truth, 10),
        hit_rate(hits, n_truth, 10),
        stratified_recall(ranked, hits, truth, facts, 20),
        novelty(ranked, facts, 10),
        diversity(ranked, facts, 10),
    )
    return np.stack(columns, axis=1)


def coverage(ranked: Int32, n_items: int) -> float:
    """The share of the catalogue in any user's first `COVERAGE_DEPTH` ranks.

    NaN for no users or no items.
    """
    if not len(ranked) or not n_items:
        return float("nan")
    top = ranked[:, :COVERAGE_DEPTH]
    return len(np.unique(top[top != MISSING])) / n_items


def mean_over_users(values: Float64) -> Float64:
    """float64[M]: the means of float64[U, M] over users, NaN values left out.

    NaN where no value is known. With no users at all there is a warning, too, for 0 would be a
    claim.
    """
    if not len(values):
        warnings.warn(
            "no user has a held-out item: the metrics are NaN; hold out more",
            RuntimeWarning,
            stacklevel=2,
        )
        return np.full(values.shape[1], np.nan)
    known = ~np.isnan(values)
    means: Float64 = column_sums(np.where(known, values, 0.0)) / _or_nan(known.sum(axis=0))
    return means


def column_sums(values: Float64) -> Float64:
    """float64[M]: the sums of float64[U, M] over users.

    A column's sum is the same bit for bit, whichever others stand beside it: numpy adds up a matrix
    of one column in another order than one of several.
    """
    sums: Float64 = np.ascontiguousarray(values.T).sum(axis=1)
    return sums


CLOSED = {
    Repeats.NEVER: "an item that the user has already seen",
    Repeats.ALLOW: "an item that the user has disliked",
    Repeats.ONLY: "an item that the user has not had, or has disliked",
}
"""What a list must not have, by what may be offered."""


def check_recommendations(
    method: str, items: Int32, scores: Float32, truth: Truth, n_items: int
) -> None:
    """Raises `InvalidRecommendations` where lists break the contract of `Recommend`.

    A list with a closed item, an item twice, a gap or a rising score is a bug of the method, and
    would make its figures lies: nothing is mended here. items: int32[U, K]; scores: float32[U, K].
    """
    if items.shape != scores.shape or len(items) != len(truth):
        raise InvalidRecommendations(
            f"method {method!r} returned items {items.shape} and scores {scores.shape} "
            f"for {len(truth)} users: both must be [users, k]; mend the method",
        )
    padded = items == MISSING
    faults = {
        "an item row outside the catalogue": (items < MISSING) | (items >= n_items),
        CLOSED[truth.states.repeats]: _closed(items, truth, n_items),
        "the same item twice": _repeated(items),
        "an item after padding": _after(padded, ~padded),
        "a score that is NaN or greater than the one before": np.isnan(scores) | _rising(scores),
        "a padded score that is not -inf, or an item whose score is": padded != np.isneginf(scores),
    }
    for fault, where in faults.items():
        if where.any():
            row, rank = (int(i) for i in np.argwhere(where)[0])
            raise InvalidRecommendations(
                f"method {method!r} gave user row {truth.users[row]} {fault} "
                f"(item row {items[row, rank]}, rank {rank + 1}, score {scores[row, rank]}): "
                "a list must never have that; mend the method",
            )


def _or_nan(counts: Int64) -> Float64:
    """The counts as divisors: NaN in the place of 0."""
    return np.where(counts > 0, counts, np.nan)


def row_keys(ranked: Int32, n_items: int) -> Int64:
    """int64[U, K]: one number for each (user position, item row), as in `pair_keys`."""
    return np.arange(len(ranked), dtype=np.int64)[:, None] * n_items + ranked


def _closed(items: Int32, truth: Truth, n_items: int) -> Bool:
    closed = ~are_open(truth.states, row_keys(items, n_items), n_items)
    closed &= items != MISSING
    return closed


def _repeated(items: Int32) -> Bool:
    """True where an item stands earlier in the same list too."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    equals_previous = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != MISSING)
    repeated = np.zeros(items.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], equals_previous, axis=1)
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
