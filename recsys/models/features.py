"""Computes the ranker's features from states, candidates and items.

Ranker training, evaluation, precompute and the live path all call `features`; nothing else builds
ranker input. A feature is one entry of `FEATURES`: the value that stands for "unknown", a sentence,
and the function that computes its column. `recsys.models.fingerprint` hashes all of it, and a
ranker or bundle of another hash is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.decay import halving
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, UserStates
from shortlist.recsys.models.neighbours import Neighbours, Relation
from shortlist.recsys.store.histories import HISTORY_LENGTH

RECENT = 5.0
"""Half-life, in events, of the features of the recent past."""

LONG = 60.0
"""Half-life, in events, of the features of the whole past: the window holds 100."""

MAX_DEVIATIONS = 1e4
"""Where standardised weights are cut off: no honest weight is larger, and sums fit into float32."""


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Facts about n items as of a moment.

    Row n is padding, so that MISSING reads unknowns. The columns are float32[n + 1].

    popularity: log(1 + events).
    recent: the same over the last tenth of the events.
    trend: `recent` less what `popularity` implies.
    age: share of the time span since the item's first event, NaN for none.
    weight: mean standardised weight, shrunk to 0.
    year: of the item itself, NaN where unknown.
    membership: float32[n + 1, M], 1 where an item has a category.
    neighbours: each item's strongest neighbours under every relation.
    labels: int32[n + 1, W] labels of the items' own columns, as positions in `rarity`, each once in
    a row; the last position pads.
    rarity: float32[L + 1], the logarithm of items for each that has the label; 0 for padding.
    numbers: float32[n + 1, B] values of the items' own columns as ranks, 0 to 1, NaN where unknown.
    weight_mean, weight_scale: of the events' weights, NaN where there are none.
    """

    popularity: Float32
    recent: Float32
    trend: Float32
    age: Float32
    weight: Float32
    year: Float32
    membership: Float32
    weight_mean: float
    weight_scale: float
    neighbours: Neighbours
    labels: Int32 = field(default_factory=lambda: np.empty((0, 0), np.int32))
    rarity: Float32 = field(default_factory=lambda: np.zeros(1, np.float32))
    numbers: Float32 = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __post_init__(self) -> None:
        """Fills in the columns that were not given."""
        n = len(self.popularity)
        if len(self.labels) != n:
            object.__setattr__(self, "labels", np.zeros((n, 0), np.int32))
        if len(self.numbers) != n:
            object.__setattr__(self, "numbers", np.zeros((n, 0), np.float32))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Retrieved items of U users.

    items: int32[U, C] item rows, by falling retrieval score, MISSING-padded at the end.
    scores: float32[U, C].
    """

    items: Int32
    scores: Float32


class Inputs:
    """The inputs of all features, and the values that several share.

    A shared value is computed when the first feature reads it, and once.
    """

    def __init__(self, states: UserStates, candidates: Candidates, table: ItemTable) -> None:
        self.states = states
        self.items = candidates.items
        self.table = table
        self.present = candidates.items != MISSING
        self._scores = candidates.scores

    @cached_property
    def scores(self) -> Float32:
        """float32[U, C]: retrieval scores, 0 for padding."""
        return np.where(self.present, self._scores, np.float32(0))

    @cached_property
    def weights(self) -> Float32:
        """float32[U, N]: weights in standard deviations from the mean, cut off at MAX_DEVIATIONS.

        An event without a weight has NaN.
        """
        mean, scale = np.float32(self.table.weight_mean), np.float32(self.table.weight_scale)
        largest = float(np.finfo(np.float32).max)
        bound = np.float32(min(MAX_DEVIATIONS * self.table.weight_scale, largest))
        return np.clip(self.states.weights - mean, -bound, bound) / scale

    @cached_property
    def recent_popularity(self) -> Float32:
        """float32[U, 1]: the mean popularity of the recent history."""
        return self.recent_mean(self.table.popularity)

    @cached_property
    def year_gap(self) -> Float32:
        """float32[U, C]: each candidate's year less the mean of the recent history."""
        return self.table.year[self.items] - self.recent_mean(self.table.year)

    @cached_property
    def history_membership(self) -> Float32:
        """float32[U, N, M]: the categories of the history."""
        return self.table.membership[self.states.items]

    @cached_property
    def item_membership(self) -> Float32:
        """float32[U, C, M]: the categories of the candidates."""
        return self.table.membership[self.items]

    @cached_property
    def item_membership_norm(self) -> Float32:
        """float32[U, C]: the length of each candidate's category vector."""
        offered = self.item_membership
        return np.sqrt(np.einsum("ucm,ucm->uc", offered, offered))

    @cached_property
    def neighbour_sums(self) -> dict[NeighbourSum, Float32]:
        """float32[U, C] for each `NeighbourSum` of FEATURES."""
        return _neighbour_sums(self)

    def recent_mean(self, column: Float32) -> Float32:
        """float32[U, 1]: mean of an item column over the recent history."""
        return weighted_mean(column[self.states.items], halving(RECENT))[:, None]


def weighted_mean(values: Float32, weights: Float32) -> Float32:
    """float32[U]: means of the finite values [U, N] under weights [N].

    NaN where no value is finite.
    """
    known = np.isfinite(values)
    total = (known * weights).sum(axis=1)
    summed = (np.where(known, values, 0) * weights).sum(axis=1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1), np.nan).astype(np.float32)


@dataclass(frozen=True, slots=True)
class NeighbourSum:
    """Strength of a candidate as neighbour of the history, decayed by age."""

    relation: Relation
    half_life: float
    """In events."""
    by_weight: bool = False
    """Whether the history's items also count by their standardised weight."""

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]."""
        return inputs.neighbour_sums[self]


@dataclass(frozen=True, slots=True)
class ItemColumn:
    """A column of the item table."""

    name: str

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]."""
        column: Float32 = getattr(inputs.table, self.name)
        return column[inputs.items]


@dataclass(frozen=True, slots=True)
class CategoryMatch:
    """Cosine of a candidate's categories with the decayed history's."""

    half_life: float
    """In events."""

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]; NaN where either side has no categories."""
        decay = halving(self.half_life)[None, None, :]
        taste = np.matmul(decay, inputs.history_membership)  # [U, 1, M]
        taste_norm = np.sqrt(np.square(taste).sum(axis=2))  # [U, 1]
        products = np.matmul(inputs.item_membership, taste.transpose(0, 2, 1))[:, :, 0]  # [U, C]
        norm = taste_norm * inputs.item_membership_norm
        cosine = np.where(norm > 0, products / np.where(norm > 0, norm, 1), np.nan)
        return cosine.astype(np.float32)


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Cosine of a candidate's own labels with the decayed history's, rare labels counting more.

    The labels are weighted by their inverse document frequency (Sparck Jones, 1972): what nearly
    every item has tells little.
    """

    half_life: float
    """In events."""

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]; NaN where either side has no labels."""
        table, history = inputs.table, inputs.states.items
        if table.labels.shape[1] == 0:
            return np.full((len(history), 1), np.nan, np.float32)
        size = len(table.rarity)
        had = table.labels[history]  # [U, N, W]
        weight = table.rarity[had] * halving(self.half_life)[None, :, None]
        place = had + size * np.arange(len(history))[:, None, None]
        taste = np.bincount(place.ravel(), weight.ravel(), size * len(history))
        taste = taste.reshape(len(history), size)
        offered = table.labels[inputs.items]  # [U, C, W]
        users = np.arange(len(history))[:, None, None]
        products = (taste[users, offered] * table.rarity[offered]).sum(axis=2)
        norm = np.sqrt(np.square(taste).sum(axis=1))[:, None]
        norm = norm * np.sqrt(np.square(table.rarity[offered]).sum(axis=2))
        cosine = np.where(norm > 0, products / np.where(norm > 0, norm, 1), np.nan)
        return cosine.astype(np.float32)


def _number_distance(inputs: Inputs) -> Float32:
    """float32[U, C]; NaN where no column is known on both sides."""
    total = np.zeros(inputs.items.shape, np.float32)
    known = np.zeros(inputs.items.shape, np.float32)
    for column in inputs.table.numbers.T:
        distance = np.abs(column[inputs.items] - inputs.recent_mean(column))
        is_known = np.isfinite(distance)
        total += np.where(is_known, distance, 0)
        known += is_known
    return np.where(known > 0, total / np.maximum(known, 1), np.nan).astype(np.float32)


def _retrieval_rank(inputs: Inputs) -> Float32:
    return np.log1p(np.arange(inputs.items.shape[1], dtype=np.float32))[None, :]


def _popularity_gap(inputs: Inputs) -> Float32:
    return inputs.table.popularity[inputs.items] - inputs.recent_popularity


def _age_gap(inputs: Inputs) -> Float32:
    return inputs.table.age[inputs.items] - inputs.recent_mean(inputs.table.age)


def _history_length(inputs: Inputs) -> Float32:
    return np.log1p(inputs.states.n_events.astype(np.float32))[:, None]


class Feature(NamedTuple):
    """One input of the ranker."""

    default: float
    """The value that stands for an unknown one."""
    sentence: str
    column: Callable[[Inputs], Float32]
    """Gives float32 that broadcasts to [U, C]; what is not finite is unknown."""


FEATURES: dict[str, Feature] = {
    "retrieval_score": Feature(
        0.0, "Retrieval score of the candidate.", lambda inputs: inputs.scores
    ),
    "retrieval_rank": Feature(
        0.0, "Logarithm of the candidate's place by retrieval score.", _retrieval_rank
    ),
    "retrieval_margin": Feature(
        0.0,
        "Retrieval score less that of the user's best candidate.",
        lambda inputs: inputs.scores - inputs.scores[:, :1],
    ),
    "next_1": Feature(
        0.0,
        "Co-visitation with the history as the next event, half-life 1 event.",
        NeighbourSum(Relation.NEXT_1, half_life=1.0),
    ),
    "next_1_wide": Feature(
        0.0,
        "Co-visitation with the history as the next event, half-life 8 events.",
        NeighbourSum(Relation.NEXT_1, half_life=8.0),
    ),
    "next_3": Feature(
        0.0,
        "Co-visitation with the history within 3 events, half-life 3 events.",
        NeighbourSum(Relation.NEXT_3, half_life=3.0),
    ),
    "next_10": Feature(
        0.0,
        "Co-visitation with the history within 10 events, half-life 10 events.",
        NeighbourSum(Relation.NEXT_10, half_life=10.0),
    ),
    "near_recent": Feature(
        0.0,
        "Symmetric co-visitation with the recent history.",
        NeighbourSum(Relation.NEAR, half_life=RECENT),
    ),
    "near_all": Feature(
        0.0,
        "Symmetric co-visitation with the whole history.",
        NeighbourSum(Relation.NEAR, half_life=LONG),
    ),
    "near_liked": Feature(
        0.0,
        "Symmetric co-visitation with the whole history, weighted by its ratings.",
        NeighbourSum(Relation.NEAR, half_life=LONG, by_weight=True),
    ),
    "regression_recent": Feature(
        0.0,
        "Item-item regression on the recent history, half-life 15 events.",
        NeighbourSum(Relation.REGRESSION, half_life=15.0),
    ),
    "regression_all": Feature(
        0.0,
        "Item-item regression on the whole history.",
        # Far beyond the window of 100 events: all count almost alike, as the regression expects.
        NeighbourSum(Relation.REGRESSION, half_life=1000.0),
    ),
    "popularity": Feature(
        0.0, "Logarithm of the item's number of events.", ItemColumn("popularity")
    ),
    "popularity_recent": Feature(
        0.0,
        "Logarithm of the item's events in the last tenth of all events.",
        ItemColumn("recent"),
    ),
    "trend": Feature(
        0.0, "Recent popularity less what the popularity implies.", ItemColumn("trend")
    ),
    "item_age": Feature(
        -1.0, "Share of the data's time span since the item's first event.", ItemColumn("age")
    ),
    "item_weight": Feature(0.0, "Mean standardised rating of the item.", ItemColumn("weight")),
    "year": Feature(-1.0, "Year of the item.", ItemColumn("year")),
    "year_gap": Feature(
        0.0,
        "Year of the item less the mean of the recent history.",
        lambda inputs: inputs.year_gap,
    ),
    "year_distance": Feature(
        -1.0, "Absolute value of `year_gap`.", lambda inputs: np.abs(inputs.year_gap)
    ),
    "popularity_gap": Feature(
        0.0, "Popularity of the item less the mean of the recent history.", _popularity_gap
    ),
    "age_gap": Feature(0.0, "Age of the item less the mean of the recent history.", _age_gap),
    "category_recent": Feature(
        -1.0,
        "Cosine of the item's categories with those of the recent history.",
        CategoryMatch(RECENT),
    ),
    "category_all": Feature(
        -1.0,
        "Cosine of the item's categories with those of the whole history.",
        CategoryMatch(LONG),
    ),
    "attributes_recent": Feature(
        -1.0,
        "Cosine of the item's own labels, such as its brand, with those of the recent history.",
        LabelMatch(RECENT),
    ),
    "attributes_all": Feature(
        -1.0,
        "Cosine of the item's own labels with those of the whole history.",
        LabelMatch(LONG),
    ),
    "number_distance": Feature(
        -1.0,
        "Mean distance of the item's own numbers, as ranks, to those of the recent history.",
        _number_distance,
    ),
    "history_length": Feature(0.0, "Logarithm of the user's number of events.", _history_length),
    "history_weight": Feature(
        0.0,
        "Mean standardised rating of the history.",
        lambda inputs: weighted_mean(inputs.weights, halving(LONG))[:, None],
    ),
    "history_popularity": Feature(
        0.0,
        "Mean popularity of the recent history.",
        lambda inputs: inputs.recent_popularity,
    ),
}
"""Every feature, in the order of the ranker's columns."""


def feature_table() -> list[tuple[str, str, str]]:
    """Name, default and sentence of every feature, as text for the documentation."""
    return [(name, f"{each.default:g}", each.sentence) for name, each in FEATURES.items()]


def features(states: UserStates, candidates: Candidates, table: ItemTable) -> Float32:
    """float32[rows, F]: one row for each real candidate, user by user."""
    inputs = Inputs(states, candidates, table)
    present = inputs.present
    rows = np.empty((int(present.sum()), len(FEATURES)), np.float32)
    for f, feature in enumerate(FEATURES.values()):
        column = feature.column(inputs)
        if column.shape != present.shape:  # broadcasting what has the shape costs a tenth of it all
            column = np.broadcast_to(column, present.shape)
        column = column[present]
        rows[:, f] = np.where(np.isfinite(column), column, np.float32(feature.default))
    return rows


def _neighbour_sums(inputs: Inputs) -> dict[NeighbourSum, Float32]:
    columns = (feature.column for feature in FEATURES.values())
    wanted = [column for column in columns if isinstance(column, NeighbourSum)]
    items, n_places = inputs.items, inputs.items.shape[1]
    sums = {each: np.zeros(items.shape, np.float32) for each in wanted}
    weights = np.where(np.isfinite(inputs.weights), inputs.weights, 0)
    # An item's place among the user's candidates, so that summing is one bincount a feature; those
    # that are no candidates share a place beyond, which is cut off.
    place = np.full(len(inputs.table.popularity), n_places, np.int64)
    for user, row in enumerate(items):
        own = row[: int((row != MISSING).sum())]
        place[own] = np.arange(len(own))
        history = inputs.states.items[user]
        _sum_for_user(history, weights[user], place, inputs.table.neighbours, user, sums)
        place[own] = n_places
    return sums


def _sum_for_user(
    history: Int32,
    weights: Float32,
    place: NDArray[np.int64],
    neighbours: Neighbours,
    user: int,
    sums: dict[NeighbourSum, Float32],
) -> None:
    """Adds up one user's neighbours, in place.

    history: int32[N] item rows; weights: float32[N], 0 where unknown; place: int64[n + 1].
    """
    present = history != MISSING
    first = int(np.argmax(present)) if present.any() else HISTORY_LENGTH
    past = history[first:]
    if len(past) == 0:
        return
    places = [place[rows[past]].ravel() for rows in neighbours.rows]  # [R] of [h * K]
    strengths = [weight[past] for weight in neighbours.weights]  # [R] of [h, K]
    for wanted, out in sums.items():
        decay = halving(wanted.half_life)[first:]
        if wanted.by_weight:
            decay = decay * weights[first:]
        n_places = out.shape[1]
        strength = strengths[wanted.relation] * decay[:, None]
        total = np.bincount(places[wanted.relation], strength.ravel(), minlength=n_places + 1)
        out[user] = total[:n_places]
