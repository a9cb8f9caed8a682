"""Baselines for repeats: what the user had, and TIFU-KNN.

A user's own most frequent and most recent items are what repeat consumption has to beat; both are
filled up with popular items. Where events are of several kinds, what a user met counts as well: who
put something into the cart often buys it. TIFU-KNN blends what a user had with what similar users
had. All see the window of states.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from shortlist.recsys.evaluation.baselines import (
    CHUNK_CELLS,
    Csr,
    Score,
    by_scores,
    falling_popularity,
    seen_rows,
)
from shortlist.recsys.evaluation.ranking_metrics import hit_matrix, ndcg
from shortlist.recsys.evaluation.recency import DEPTH, validation_truth
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int64,
    Recommend,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.least import least
from shortlist.recsys.models.ties import cuts_before_last

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

LEFT_WINDOW = 1e-4
"""Weight of what the user had before the window: less than that of any event in it."""

TIE = 1e-3
"""Weight of recency among items with as many events."""

WITHIN_GROUP, ACROSS_GROUPS = 0.9, 0.7
"""Decay from one basket to the one before, and from one group to the one before (Hu et al. 2020).

These are the values that were published for most of the four data sets.
"""

NEIGHBOURS = 300
"""Similar users, as published for most of the four."""

GROUPS = (2, 7, 20)
"""Baskets of a group that are tried; the published ones are 3 to 7 of whole baskets."""

OWN_SHARES = (0.3, 0.7, 0.9)
"""Shares of the user's own items in the blend that are tried."""

MAX_USERS = 20_000
"""Most users among whom neighbours are searched, drawn at random: the time is users times these."""


def fit_own_frequent(events: Events) -> Recommend:
    """A user's own items by the events, each counted by its strength, then popular items."""
    return by_scores(events.n_items, _filled(events), partial(_frequent, _strengths(events)))


def fit_own_recent(events: Events) -> Recommend:
    """A user's own items by their latest event of any kind, then popular items."""
    return by_scores(events.n_items, _filled(events), _recent)


class TifuParams(NamedTuple):
    """group: baskets of a group; own_share: of the user's own items in the blend, 0 to 1."""

    group: int
    own_share: float


def fit_tifu_knn(events: Events, rng: np.random.Generator, params: TifuParams) -> Recommend:
    """Decayed counts of a user's own items, blended with those of the nearest users.

    A basket is what a user had at one time. A user's vector is the mean over groups of successive
    baskets, each decayed, of the mean over a group's baskets, each decayed as well. The score is
    `own_share` times the user's vector and the rest times the mean of the NEIGHBOURS vectors that
    are nearest in Euclidean distance (Hu et al. 2020, "Modeling Personalized Item Frequency
    Information for Next-basket Recommendation"). Other items follow by popularity.
    """
    rows = partial(_decayed_baskets, _is_target(events), params.group)
    offsets = events.offsets()
    users = np.sort(rng.permutation(np.flatnonzero(np.diff(offsets)))[:MAX_USERS])
    states = states_at(events, offsets[:-1][users], offsets[1:][users])
    pool, filled = rows(states, events.n_items), _filled(events)

    def score(own: Csr) -> Float32:
        others = _mean_of_nearest(own, pool)
        return filled(params.own_share * own + (1 - params.own_share) * others)

    return by_scores(events.n_items, score, rows)


def fit_tuned_tifu_knn(events: Events, rng: np.random.Generator) -> Recommend:
    """TIFU-KNN with its parameters tuned inside `events`."""
    return fit_tifu_knn(events, rng, best_tifu_params(events, rng))


def best_tifu_params(events: Events, rng: np.random.Generator) -> TifuParams:
    """The best of GROUPS and OWN_SHARES by NDCG@10 of users' last events, fitted to those before.

    At most VALIDATION_USERS users are drawn. Without a user of two events it is the middle of both.
    """
    tried = [TifuParams(*each) for each in product(GROUPS, OWN_SHARES)]
    cut = cuts_before_last(events, 1)
    truth = validation_truth(events, cut, rng, Repeats.ALLOW)
    if len(truth) == 0:
        return tried[len(tried) // 2]
    past = events.take(np.arange(len(events)) < cut[events.user])

    def quality(params: TifuParams) -> float:
        items, _ = fit_tifu_knn(past, rng, params)(truth.states, DEPTH)
        return float(ndcg(hit_matrix(items, truth, events.n_items), truth.counts, DEPTH).mean())

    return max(tried, key=quality)


def _strengths(events: Events) -> Float64:
    return np.array([kind.strength for kind in events.kinds])


def _is_target(events: Events) -> Bool:
    return np.array([kind.is_target for kind in events.kinds])


def _filled(events: Events) -> Score:
    """Takes the positive entries of a csr for scores, and popularity below them."""
    popularity = falling_popularity(events)

    def score(rows: Csr) -> Float32:
        scores = rows.toarray()
        return np.where(scores > 0, scores, popularity).astype(np.float32)

    return score


class _Window(NamedTuple):
    """Events of the windows, of each user the latest first.

    user: int64[e] positions; age: int64[e], 0 for the user's latest event; item, time, kind:
    int64[e].
    """

    user: Int64
    age: Int64
    item: Int64
    time: Int64
    kind: Int64


def _window(states: UserStates, is_counted: Bool | None = None) -> _Window:
    """is_counted: bool[K], the kinds of events that are taken; None for all of them."""
    counts = states.items != MISSING
    if is_counted is not None:
        counts &= is_counted[states.kinds]
    user, age = np.nonzero(counts[:, ::-1])
    place = states.items.shape[1] - 1 - age
    item = states.items[user, place].astype(np.int64)
    kind = states.kinds[user, place].astype(np.int64)
    return _Window(user, age, item, states.times[user, place], kind)


def _frequent(strengths: Float64, states: UserStates, n_items: int) -> Csr:
    window = _window(states)
    weight = strengths[window.kind] + TIE / (1 + window.age)
    return _with_seen(states, window, weight, n_items)


def _recent(states: UserStates, n_items: int) -> Csr:
    window = _window(states)
    # Within a user ages ascend, so the first of equal (user, item) pairs is the latest.
    _, latest = np.unique(window.user * n_items + window.item, return_index=True)
    window = _Window(*(column[latest] for column in window))
    return _with_seen(states, window, 1 / (1 + window.age), n_items)


def _with_seen(states: UserStates, window: _Window, weight: Float64, n_items: int) -> Csr:
    """A csr float32[U, n_items]: the summed weights, with what left the window behind all."""
    own = _summed(window, weight, (len(states), n_items))
    return own + np.float32(LEFT_WINDOW) * seen_rows(states, n_items)


def _summed(window: _Window, weight: Float64, shape: tuple[int, int]) -> Csr:
    cells = (window.user, window.item)
    return sparse.csr_matrix((weight.astype(np.float32), cells), shape=shape)


def _decayed_baskets(is_target: Bool, group: int, states: UserStates, n_items: int) -> Csr:
    """A csr float32[U, n_items]: the vectors of `fit_tifu_knn`."""
    window = _window(states, is_target)
    basket = _baskets(window)
    n_baskets = np.zeros(len(states), np.int64)
    np.maximum.at(n_baskets, window.user, basket + 1)
    n_baskets = n_baskets[window.user]
    n_groups = -(-n_baskets // group)
    at, within = basket // group, basket % group
    # The oldest group may have fewer baskets than the others.
    size = np.minimum(group, n_baskets - at * group)
    weight = ACROSS_GROUPS**at / n_groups * WITHIN_GROUP**within / size
    return _summed(window, weight, (len(states), n_items))


def _baskets(window: _Window) -> Int64:
    """int64[e]: the basket of each event, 0 for its user's latest."""
    if len(window.user) == 0:
        return np.empty(0, np.int64)
    user_begins = np.append(True, window.user[1:] != window.user[:-1])
    begins = user_begins | np.append(True, window.time[1:] != window.time[:-1])
    number = np.cumsum(begins)
    first = number[user_begins]
    return number - first[np.cumsum(user_begins) - 1]


def _mean_of_nearest(own: Csr, pool: Csr) -> Csr:
    """A csr float32[U, n_items]: the mean of the rows of `pool` that are nearest to each of own."""
    k = min(NEIGHBOURS, pool.shape[0])
    if k == 0 or own.shape[0] == 0:
        return sparse.csr_matrix(own.shape, dtype=np.float32)
    squares = np.asarray(pool.multiply(pool).sum(axis=1)).ravel().astype(np.float32)
    transposed = pool.T.tocsr()
    means = []
    step = max(1, CHUNK_CELLS // pool.shape[0])
    for start in range(0, own.shape[0], step):
        part = own[start : start + step]
        # Without the square of the user's own length, which is the same for all of a row.
        distance = squares[None, :] - 2 * (part @ transposed).toarray()
        columns = least(distance, k)
        cells = (np.repeat(np.arange(len(columns)), k), columns.ravel())
        shares = np.full(columns.size, 1 / k, np.float32)
        means.append(sparse.csr_matrix((shares, cells), shape=distance.shape) @ pool)
    return sparse.vstack(means, format="csr")
