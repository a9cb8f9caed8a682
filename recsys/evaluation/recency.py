"""Baselines with recency: item neighbours and EASE.

Recent events weigh more: these are the strongest baselines where tastes change. An item of the
user's last events has the weight 0.5 ** (age / half-life), its age in events; older events than the
window of states have none. Only the half-life is tuned, on each user's last event within the past
that the method may know, so the comparison is with a baseline at its best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.ties import cuts_before_last

HALF_LIVES = (3.0, 10.0, 30.0, 100.0)
"""Half-lives tried, in events: from a session to the whole window."""

LARGE_CATALOGUE = 5000
"""Most items of which the weights are fitted twice; above, the half-life is DEFAULT_HALF_LIFE."""

DEFAULT_HALF_LIFE = 10.0
VALIDATION_USERS = 2000
"""Most users in validation: the same as for our own models."""

DEPTH = 10
"""The cut-off of the NDCG that picks the half-life: that of the headline figure."""

FitWeights = Callable[[Events], ItemWeights]


def fit_recent_item_knn(
    events: Events,
    rng: np.random.Generator,
    weights: ItemWeights,
    repeats: Repeats = Repeats.NEVER,
) -> Recommend:
    """Item neighbours, with recent events weighted more.

    weights: `item_knn_weights(events)`, which the plain form has fitted already.
    repeats: what may be offered, in the choice of the half-life.
    """
    return recent(weights, best_half_life(events, item_knn_weights, rng, repeats))


def fit_recent_ease(
    events: Events,
    rng: np.random.Generator,
    weights: ItemWeights,
    repeats: Repeats = Repeats.NEVER,
) -> Recommend:
    """EASE, with recent events weighted more.

    weights: `ease_weights(events)`, which the plain form has fitted already.
    repeats: what may be offered, in the choice of the half-life.
    """
    return recent(weights, best_half_life(events, ease_weights, rng, repeats))


def recent(weights: ItemWeights, half_life: float) -> Recommend:
    """The method that halves an item's weight every `half_life` events of its age."""
    return by_scores(weights.n_items, weights.score, partial(decayed_rows, half_life=half_life))


def best_half_life(
    events: Events,
    fit: FitWeights,
    rng: np.random.Generator,
    repeats: Repeats = Repeats.NEVER,
) -> float:
    """The one of HALF_LIVES with the greatest NDCG@10 of users' last events.

    The weights are fitted to the events before these. Events that share their time with a last one
    are held out as well. At most VALIDATION_USERS are drawn from those who took something open
    there. A catalogue above LARGE_CATALOGUE would take a second fit of many minutes (an EASE of
    10,000 items inverts 0.4 GB), and is not searched.
    """
    if events.n_items > LARGE_CATALOGUE:
        return DEFAULT_HALF_LIFE
    cut = cuts_before_last(events, 1)
    truth = validation_truth(events, cut, rng, repeats)
    if len(truth) == 0:
        return DEFAULT_HALF_LIFE
    weights = fit(events.take(np.arange(len(events)) < cut[events.user]))

    def quality(half_life: float) -> float:
        items, _ = recent(weights, half_life)(truth.states, DEPTH)
        hits = hit_matrix(items, truth, events.n_items)
        return float(ndcg(hits, truth.counts, DEPTH).mean())

    return max(HALF_LIVES, key=quality)


def decayed_rows(states: UserStates, n_items: int, half_life: float) -> Csr:
    """A csr float32[U, n_items]: each item of the window at the weight of its latest event."""
    newest_first = states.items[:, ::-1]
    users, ages = np.nonzero(newest_first != MISSING)
    items = newest_first[users, ages]
    # Within a user ages ascend, so the first of equal (user, item) pairs is the newest.
    _, newest = np.unique(users * n_items + items, return_index=True)
    weight = decayed(ages[newest], half_life).astype(np.float32)
    cells = (users[newest], items[newest])
    return sparse.csr_matrix((weight, cells), shape=(len(states), n_items))


def validation_truth(
    events: Events, cut: Int64, rng: np.random.Generator, repeats: Repeats
) -> Truth:
    """The hold-outs of at most VALIDATION_USERS users.

    They are drawn from those who took something after their cut, under NEVER something new.
    """
    offsets = events.offsets()
    if repeats is Repeats.NEVER:
        pairs = events.user.astype(np.int64) * events.n_items + events.item
        _, rows = np.unique(pairs, return_index=True)
    else:
        rows = np.arange(len(events))
    owners = events.user[rows]
    eligible = np.unique(owners[rows >= cut[owners]])
    users = np.sort(rng.permutation(eligible)[:VALIDATION_USERS]).astype(np.int64)
    states = states_at(events, offsets[:-1][users], cut[users])
    states = replace(states, repeats=repeats)
    return truth_between(events, users, states, cut[users], offsets[1:][users])
