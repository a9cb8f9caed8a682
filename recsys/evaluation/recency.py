"""Item-based neighbours and EASE with the recent past weighted more: the strongest baselines where tastes move.

An item of the user's last events counts 0.5 ** (age / half-life), its age in events; what left the
window of states counts nothing. The half-life is the only thing chosen, on each user's last event
within the past that the method may know, so the comparison is with a baseline at its best.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import sparse

from shortlist.recsys.evaluation.baselines import (
    Csr,
    ItemWeights,
    by_scores,
    ease_weights,
    item_knn_weights,
)
from shortlist.recsys.evaluation.ranking_metrics import hit_matrix, ndcg
from shortlist.recsys.evaluation.truth import Truth, truth_between
from shortlist.recsys.models.decay import decayed
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Int64,
    Recommend,
    UserStates,
    states_at,
)
from shortlist.recsys.models.regression import MAX_REGRESSION_ITEMS
from shortlist.recsys.models.ties import cuts_before_last

HALF_LIVES = (3.0, 10.0, 30.0, 100.0)
"""Half-lives tried, in events: from a session to the whole window."""

LARGE_CATALOGUE = 5000
"""Above so many items the weights cost too much to be fitted twice, and the half-life is `UNTRIED`."""

UNTRIED = 10.0
VALIDATION_USERS = 2000
DEPTH = 10

FitWeights = Callable[[Events], ItemWeights]


def fit_recent_item_knn(
    events: Events, rng: np.random.Generator, weights: ItemWeights | None = None
) -> Recommend:
    """`fit_item_knn` with the recent past weighted more; `weights` are `item_knn_weights(events)` where they exist already."""
    half_life = best_half_life(events, item_knn_weights, rng)
    return recent(item_knn_weights(events) if weights is None else weights, half_life)


def fit_recent_ease(
    events: Events,
    rng: np.random.Generator,
    max_items: int = MAX_REGRESSION_ITEMS,
    weights: ItemWeights | None = None,
) -> Recommend | None:
    """`fit_ease` with the recent past weighted more; None where the catalogue exceeds `max_items`.

    `weights` are `ease_weights(events)` where they exist already, which saves the larger of the two
    solves.
    """
    if events.n_items > max_items:
        return None
    half_life = best_half_life(events, ease_weights, rng)
    return recent(ease_weights(events) if weights is None else weights, half_life)


def recent(weights: ItemWeights, half_life: float) -> Recommend:
    """The method that halves an item's weight every `half_life` events of its age."""
    return by_scores(weights.n_items, weights.score, partial(decayed_rows, half_life=half_life))


def best_half_life(events: Events, fit: FitWeights, rng: np.random.Generator) -> float:
    """Of HALF_LIVES, the one with the greatest NDCG@10 of users' last events, by weights fitted to the events before.

    What shares its time with a last event is held out as well. At most VALIDATION_USERS are drawn
    from those who took something new there. A catalogue above LARGE_CATALOGUE
    would take a second fit of many minutes (an EASE of 10 000 items inverts 0.8 GB), and is not
    searched.
    """
    if events.n_items > LARGE_CATALOGUE:
        return UNTRIED
    cut = cuts_before_last(events, 1)
    truth = _truth(events, cut, rng)
    if len(truth) == 0:
        return UNTRIED
    weights = fit(events.take(np.arange(len(events)) < cut[events.user]))

    def quality(half_life: float) -> float:
        items, _ = recent(weights, half_life)(truth.states, DEPTH)
        return float(ndcg(hit_matrix(items, truth, events.n_items), truth.counts, DEPTH).mean())

    return max(HALF_LIVES, key=quality)


def decayed_rows(states: UserStates, n_items: int, half_life: float) -> Csr:
    """A csr float32[U, n_items]: each item of the window at the weight of its latest event."""
    newest_first = states.items[:, ::-1]
    users, ages = np.nonzero(newest_first != MISSING)
    cells = users * n_items + newest_first[users, ages]
    latest = np.unique(cells, return_index=True)[
        1
    ]  # within a user ages ascend, so the first of a cell is the newest
    weight = decayed(ages[latest], half_life).astype(np.float32)
    return sparse.csr_matrix(
        (weight, (users[latest], cells[latest] % max(n_items, 1))), shape=(len(states), n_items)
    )


def _truth(events: Events, cut: Int64, rng: np.random.Generator) -> Truth:
    """The hold-outs of at most VALIDATION_USERS users, drawn from those who took something new at or after their cut."""
    offsets = events.offsets()
    cells = events.user.astype(np.int64) * events.n_items + events.item
    firsts = np.unique(cells, return_index=True)[1]
    able = np.unique(events.user[firsts[firsts >= cut[events.user[firsts]]]])
    users = np.sort(rng.permutation(able)[:VALIDATION_USERS]).astype(np.int64)
    states = states_at(events, offsets[:-1][users], cut[users])
    return truth_between(events, users, states, cut[users], offsets[1:][users])
