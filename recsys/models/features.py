"""Computes the ranker's features from states, candidates and items.

Ranker training, evaluation, precompute and the live path all call `features`; nothing else builds
ranker input. A feature is one entry of `FEATURES`: the value that stands for "unknown", a sentence,
and the function that computes its column. `recsys.models.fingerprint` hashes all of it, and a
ranker or bundle of another hash is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models import own_events
from shortlist.recsys.models.decay import halving
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, Int64, UserStates
from shortlist.recsys.models.neighbours import Neighbours, Relation
from shortlist.recsys.models.own_events import Pairs
from shortlist.recsys.store.histories import HISTORY_LENGTH

Float64 = NDArray[np.float64]

RECENT = 5.0
"""Half-life, in events, of the features of the recent past."""

LONG = 60.0
"""Half-life, in events, of the features of the whole past: the window holds 100."""

OWN_INTERVALS = 2.0
"""Own intervals of a user and item after which these count as much as the item's usual one."""

UNKNOWN_QUOTIENT = -50.0
"""Stands for an unknown logarithm of a quotient of times; those of 64-bit times are above -44."""

MAX_DEVIATIONS = 1e4
"""Where standardised weights are cut off: no honest weight is larger, and sums fit into float32."""


@dataclass(frozen=True, slots=True)
class ItemLabels:
    """The labels of n items, such as their categories.

    A list of each item's own: a shop's hundreds of categories, a column each, are nearly all 0.

    rows: int32[n + 1, W], positions in `weights`, each once in a row; the last position pads.
    weights: float32[L + 1], how much a label counts; 0 for padding.
    """

    rows: Int32
    weights: Float32

    @staticmethod
    def none(n: int) -> ItemLabels:
        """No labels of n items."""
        return ItemLabels(np.zeros((n + 1, 0), np.int32), np.zeros(1, np.float32))


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Facts about n items as of a moment.

    Row n is padding, so that MISSING reads unknowns. The columns are float32[n + 1].

    popularity: log(1 + events), of the kinds that are predicted.
    recent: the same over the last tenth of the events.
    trend: `recent` less what `popularity` implies.
    age: share of the time span since the item's first event, NaN for none.
    weight: mean standardised weight, shrunk to 0.
    target_share: share of the item's events that are of a kind to predict, shrunk to that of all.
    negative_share: negative feedback as a share of it and of the events that stand, likewise.
    year: of the item itself, NaN where unknown.
    interval: logarithm of the usual time until a user has the item again; NaN without repeats.
    repeat_rate: share of the item's events whose user had it before; NaN without events.
    categories: of the items, all of which count alike.
    is_target: float32[K], 1 for the kinds of events that are predicted.
    strength: float32[K], of each kind, from 0 to 1.
    neighbours: each item's strongest neighbours under every relation.
    labels: of the items' own columns, which count by the logarithm of items for each that has the
    label.
    numbers: float32[n + 1, B] values of the items' own columns as ranks, 0 to 1, NaN where unknown.
    weight_mean, weight_scale: of the events' weights, NaN where there are none.
    """

    popularity: Float32
    recent: Float32
    trend: Float32
    age: Float32
    weight: Float32
    target_share: Float32
    negative_share: Float32
    year: Float32
    interval: Float32
    repeat_rate: Float32
    categories: ItemLabels
    is_target: Float32
    strength: Float32
    weight_mean: float
    weight_scale: float
    neighbours: Neighbours
    labels: ItemLabels = field(default_factory=lambda: ItemLabels.none(0))
    numbers: Float32 = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __post_init__(self) -> None:
        """Fills in the columns that were not given."""
        n = len(self.popularity)
        if len(self.labels.rows) != n:
            object.__setattr__(self, "labels", ItemLabels.none(n - 1))
        if len(self.numbers) != n:
            object.__setattr__(self, "numbers", np.zeros((n, 0), np.float32))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name; parts of labels and neighbours by both names."""
        arrays = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if isinstance(value, (ItemLabels, Neighbours)):
                for part in fields(value):
                    arrays[f"{column.name}: {part.name}"] = getattr(value, part.name)
            else:
                arrays[column.name] = np.asarray(value)
        return arrays


@dataclass(frozen=True, slots=True)
class Candidates:
    """Retrieved items of U users.

    items: int32[U, C] item rows, by falling retrieval score, MISSING-padded at the end.
    scores: float32[U, C].
    places: int64[U, C], each candidate's place among all that were retrieved, and best: float32
    [U, 1], the score of their first. Both are None where these are all.
    """

    items: Int32
    scores: Float32
    places: Int64 | None = None
    best: Float32 | None = None

    def only(self, wanted: NDArray[np.bool_]) -> Candidates:
        """The candidates where `wanted`, bool[U, C], holds: some of all, with the same features."""
        first = np.argsort(~wanted, axis=1, kind="stable")[:, : int(wanted.sum(axis=1).max())]
        is_wanted = np.take_along_axis(wanted, first, axis=1)
        items = np.take_along_axis(self.items, first, axis=1)
        scores = np.take_along_axis(self.scores, first, axis=1)
        items = np.where(is_wanted, items, np.int32(MISSING))
        return Candidates(items, scores, first, self.scores[:, :1])


@dataclass(frozen=True, slots=True)
class Offered:
    """The labels of U users' candidates.

    rows, weights: int32 and float32[U, C, W]; norm: float32[U, C], the length of each candidate's
    vector.
    """

    rows: Int32
    weights: Float32
    norm: Float32

    @staticmethod
    def of(labels: ItemLabels, items: Int32) -> Offered:
        """Those of items [U, C]."""
        rows = labels.rows[items]
        weights = labels.weights[rows]
        return Offered(rows, weights, np.sqrt(np.square(weights).sum(axis=2)))

    def cosine(self, taste: Float64) -> Float32:
        """float32[U, C]: of each candidate's vector with that of the user, [U, L + 1].

        NaN where either vector is 0.
        """
        users = np.arange(len(taste))[:, None, None]
        products = (taste[users, self.rows] * self.weights).sum(axis=2)
        return _quotient(products, np.sqrt(np.square(taste).sum(axis=1))[:, None] * self.norm)


class Inputs:
    """The inputs of all features, and the values that several share.

    A shared value is computed when the first feature reads it, and once.
    """

    def __init__(self, states: UserStates, candidates: Candidates, table: ItemTable) -> None:
        self.states = states
        self.items = candidates.items
        self.table = table
        self.present = candidates.items != MISSING
        self._candidates = candidates

    @cached_property
    def scores(self) -> Float32:
        """float32[U, C]: retrieval scores, 0 for padding."""
        return np.where(self.present, self._candidates.scores, np.float32(0))

    @cached_property
    def best(self) -> Float32:
        """float32[U, 1]: the score of the first that was retrieved."""
        best = self._candidates.best
        return self.scores[:, :1] if best is None else best

    @cached_property
    def places(self) -> Int64:
        """int64[1 or U, C]: the place of each candidate among all that were retrieved."""
        places = self._candidates.places
        return np.arange(self.items.shape[1])[None, :] if places is None else places

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
    def offered_categories(self) -> Offered:
        """The categories of the candidates."""
        return Offered.of(self.table.categories, self.items)

    @cached_property
    def offered_labels(self) -> Offered:
        """The labels of the candidates' own columns."""
        return Offered.of(self.table.labels, self.items)

    @cached_property
    def had(self) -> NDArray[np.bool_]:
        """bool[U, C]: whether the user has had each candidate."""
        return own_events.had(self.states, self.items, self._n_items)

    @cached_property
    def pairs(self) -> Pairs:
        """The user's own events, item by item."""
        return own_events.pairs_of(self.states, self.table.is_target > 0, self._n_items)

    @cached_property
    def own_pair(self) -> Int64:
        """int64[U, C]: the pair of each candidate, MISSING where the history lacks it.

        A single MISSING stands for all where no candidate has one.
        """
        return self._pair_of(self.pairs)

    @cached_property
    def log_since(self) -> Float32:
        """float32[U, C]: the logarithm of the time since the last event with each candidate."""
        now = self.states.now[self.pairs.user[self.pairs.start]]
        return own_events.picked(own_events.log_time(now - self.pairs.last), self.own_pair)

    @cached_property
    def log_own_interval(self) -> Float32:
        """float32[U, C]: the logarithm of the user's own mean interval with each candidate."""
        return own_events.picked(own_events.log_own_interval(self.pairs), self.own_pair)

    @cached_property
    def met_pairs(self) -> Pairs:
        """The user's events of kinds that are not predicted, item by item."""
        return own_events.pairs_of(self.states, self.table.is_target == 0, self._n_items)

    @cached_property
    def met_pair(self) -> Int64:
        """int64[U, C]: the pair of each candidate that was met so, as `own_pair`."""
        return self._pair_of(self.met_pairs)

    @cached_property
    def met_strength(self) -> Float32:
        """float32[E]: the strength of each event of `met_pairs`, pair by pair."""
        pairs = self.met_pairs
        return self.table.strength[self.states.kinds[pairs.user, pairs.place]]

    def _pair_of(self, pairs: Pairs) -> Int64:
        at = own_events.positions_in(pairs, self.items, self._n_items)
        return at if at.max(initial=MISSING) != MISSING else at[:1, :1]

    @property
    def _n_items(self) -> int:
        return len(self.table.popularity) - 1

    def of_had(self, values: Float32) -> Float32:
        """float32[U, C]: the values where the candidate was had, NaN elsewhere."""
        return np.where(self.had, values, np.float32(np.nan))

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
    return _quotient(summed, total)


def _quotient(total: NDArray[Any], size: NDArray[Any]) -> Float32:
    """float32 of the same shape: total / size, NaN where the size is not above 0."""
    unknown = np.full(total.shape, np.nan, np.float32)
    quotient: Float32 = np.divide(total, size, out=unknown, where=size > 0)
    return quotient


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
        labels = inputs.table.categories
        if labels.rows.shape[1] == 0:
            return own_events.unknown()
        return inputs.offered_categories.cosine(_taste(labels, inputs.states, self.half_life))


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
        labels = inputs.table.labels
        if labels.rows.shape[1] == 0:
            return own_events.unknown()
        return inputs.offered_labels.cosine(_taste(labels, inputs.states, self.half_life))


def _taste(labels: ItemLabels, states: UserStates, half_life: float) -> Float64:
    """float64[U, L + 1]: the sums of each user's labels, of older events by their half-life."""
    had = labels.rows[states.items]  # [U, N, W]
    weight = labels.weights[had] * halving(half_life)[None, :, None]
    return _sums(np.arange(len(had))[:, None, None], had, weight, (len(had), len(labels.weights)))


def _sums(users: Int64, labels: Int32, weight: Float32, shape: tuple[int, int]) -> Float64:
    """float64[U, L + 1]: the summed weight of each of these pairs of user and label."""
    total: NDArray[Any] = np.bincount(
        (labels + shape[1] * users).ravel(), weight.ravel(), shape[0] * shape[1]
    )
    return total.reshape(shape)


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


@dataclass(frozen=True, slots=True)
class OwnEvents:
    """The user's own events with a candidate, decayed by age."""

    half_life: float
    """In events."""

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]; NaN where the history lacks the candidate."""
        return own_events.picked(inputs.pairs.decayed_counts(self.half_life), inputs.own_pair)


@dataclass(frozen=True, slots=True)
class Activation:
    """The strength of a memory that each event leaves, and that fades by a power of its age.

    The logarithm of the sum of age ** -0.5 over the user's events with the candidate: base-level
    activation with its usual exponent (Anderson and Schooler 1991).
    """

    by_time: bool
    """Whether ages are in time, or in events."""

    def __call__(self, inputs: Inputs) -> Float32:
        """float32[U, C]; NaN where the history lacks the candidate."""
        pairs = inputs.pairs
        values = pairs.activations(inputs.states, by_time=self.by_time)
        return own_events.picked(values, inputs.own_pair)


def _met_count(inputs: Inputs) -> Float32:
    return own_events.picked(np.log1p(inputs.met_pairs.count), inputs.met_pair)


def _met_age(inputs: Inputs) -> Float32:
    return own_events.picked(np.log1p(inputs.met_pairs.age), inputs.met_pair)


def _met_strongest(inputs: Inputs) -> Float32:
    if len(inputs.met_pairs.key) == 0:
        return own_events.picked(inputs.met_strength, inputs.met_pair)
    strongest = np.maximum.reduceat(inputs.met_strength, inputs.met_pairs.start)
    return own_events.picked(strongest, inputs.met_pair)


def _met_last(inputs: Inputs) -> Float32:
    last = inputs.met_pairs.start + inputs.met_pairs.count - 1
    return own_events.picked(inputs.met_strength[last], inputs.met_pair)


def _near_disliked(inputs: Inputs) -> Float32:
    """The strengths of each candidate as a neighbour of the user's disliked items, summed."""
    out = np.zeros(inputs.items.shape, np.float32)
    n = len(inputs.table.popularity)
    for user in np.flatnonzero(np.diff(inputs.states.disliked_offsets)):
        disliked = np.unique(inputs.states.disliked(int(user)))
        rows, strength = inputs.table.neighbours.of(Relation.NEAR, disliked)
        total = np.bincount(rows.ravel(), strength.ravel(), minlength=n)
        out[user] = total[inputs.items[user]]
    return out


def _category_disliked(inputs: Inputs) -> Float32:
    """The cosine of each candidate's categories with those of the user's disliked items, summed."""
    states = inputs.states
    if len(states.disliked_rows) == 0:
        return own_events.unknown()
    labels = inputs.table.categories
    owners = np.repeat(np.arange(len(states)), np.diff(states.disliked_offsets))
    rows = labels.rows[states.disliked_rows]  # [disliked, W]
    shape = len(states), len(labels.weights)
    taste = _sums(owners[:, None], rows, labels.weights[rows], shape)
    return inputs.offered_categories.cosine(taste)


def _own_count(inputs: Inputs) -> Float32:
    return own_events.picked(np.log1p(inputs.pairs.count), inputs.own_pair)


def _own_age(inputs: Inputs) -> Float32:
    return own_events.picked(np.log1p(inputs.pairs.age), inputs.own_pair)


def _due(inputs: Inputs) -> Float32:
    """The time since, against the user's own interval blended with the item's usual one."""
    usual = inputs.table.interval[inputs.items]
    n_own = own_events.picked(inputs.pairs.count - 1.0, inputs.own_pair)
    own = np.where(n_own > 0, inputs.log_own_interval, 0)
    usual = np.where(np.isfinite(usual) | (n_own <= 0), usual, own)
    blended = (n_own * own + OWN_INTERVALS * usual) / (n_own + OWN_INTERVALS)
    return (inputs.log_since - blended).astype(np.float32)


def _user_repeats(inputs: Inputs) -> Float32:
    shares = inputs.pairs.repeated_shares(len(inputs.states)).astype(np.float32)
    return inputs.of_had(shares[:, None])


def _retrieval_rank(inputs: Inputs) -> Float32:
    return np.log1p(inputs.places.astype(np.float32))


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
        lambda inputs: inputs.scores - inputs.best,
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
    "had": Feature(
        0.0, "1 where the user has had the item, else 0.", lambda inputs: inputs.had.astype("f4")
    ),
    "own_count": Feature(
        0.0, "Logarithm of the number of the user's events with the item.", _own_count
    ),
    "own_recent": Feature(
        0.0, "The user's events with the item, half-life 5 events.", OwnEvents(RECENT)
    ),
    "own_all": Feature(
        0.0, "The user's events with the item, half-life 60 events.", OwnEvents(LONG)
    ),
    "own_activation": Feature(
        UNKNOWN_QUOTIENT,
        "How present the item is in the user's memory, by the events since each one with it.",
        Activation(by_time=False),
    ),
    "own_activation_time": Feature(
        UNKNOWN_QUOTIENT, "The same by the time since.", Activation(by_time=True)
    ),
    "own_age": Feature(
        -1.0, "Logarithm of the user's number of events since the last one with it.", _own_age
    ),
    "due_own": Feature(
        UNKNOWN_QUOTIENT,
        "Logarithm of the time since the last one, in the user's own mean intervals.",
        lambda inputs: inputs.log_since - inputs.log_own_interval,
    ),
    "due_usual": Feature(
        UNKNOWN_QUOTIENT,
        "The same in the item's usual intervals.",
        lambda inputs: inputs.log_since - inputs.table.interval[inputs.items],
    ),
    "due": Feature(
        UNKNOWN_QUOTIENT,
        "The same in the mean of both, of which the own one counts as often as it was seen.",
        _due,
    ),
    "item_repeats": Feature(
        -1.0,
        "Share of the item's events whose user had it before, where this user has.",
        lambda inputs: inputs.of_had(inputs.table.repeat_rate[inputs.items]),
    ),
    "user_repeats": Feature(
        -1.0,
        "Share of the user's events with an item that they had before, where it is one.",
        _user_repeats,
    ),
    "met_count": Feature(
        0.0,
        "Logarithm of the user's number of events with the item that are not predicted, as views.",
        _met_count,
    ),
    "met_strongest": Feature(0.0, "Strength of the strongest of these.", _met_strongest),
    "met_last": Feature(0.0, "Strength of the last of these.", _met_last),
    "met_age": Feature(
        -1.0, "Logarithm of the user's number of events since the last of these.", _met_age
    ),
    "item_target_share": Feature(
        0.0,
        "Share of the item's events that are of a kind to predict.",
        ItemColumn("target_share"),
    ),
    "item_negative_share": Feature(
        0.0, "Negative feedback as a share of the item's events.", ItemColumn("negative_share")
    ),
    "near_disliked": Feature(
        0.0, "Symmetric co-visitation with the items that the user disliked.", _near_disliked
    ),
    "category_disliked": Feature(
        -1.0,
        "Cosine of the item's categories with those of the items that the user disliked.",
        _category_disliked,
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
    # Column by column in memory, as they are made here and read by the trees.
    columns = np.empty((len(FEATURES), *present.shape), np.float32)
    for column, feature in zip(columns, FEATURES.values(), strict=True):
        column[...] = feature.column(inputs)
    defaults = np.array([feature.default for feature in FEATURES.values()], np.float32)
    np.copyto(columns, defaults[:, None, None], where=~np.isfinite(columns))
    if present.all():
        return columns.reshape(len(FEATURES), -1).T
    return columns[:, present].T


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
    found = [neighbours.of(relation, past) for relation in filter(neighbours.has, Relation)]
    # `take` is faster here than brackets.
    places = [place.take(rows).ravel() for rows, _ in found]  # [h * K]
    for wanted, out in sums.items():
        if not neighbours.has(wanted.relation):
            continue
        decay = halving(wanted.half_life)[first:]
        if wanted.by_weight:
            decay = decay * weights[first:]
        n_places = out.shape[1]
        strength = found[wanted.relation][1] * decay[:, None]
        total = np.bincount(places[wanted.relation], strength.ravel(), minlength=n_places + 1)
        out[user] = total[:n_places]
