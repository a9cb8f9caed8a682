"""Item-based neighbours and EASE with the recent past weighted more: the strongest baselines where tastes move.

An item of the user's last events counts 0.5 ** (age / half-life), its age in events; what left the window of states counts
nothing. The half-life is the only thing chosen, on each user's last event within the past that the method may know, so the
comparison is with a baseline at its best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from recsys.evaluation.baselines import CHUNK_CELLS, ease_weights, item_knn_weights, top_k_unseen
from recsys.evaluation.metrics import hit_matrix, ndcg
from recsys.evaluation.truth import Truth
from recsys.events import MISSING, Events, Float32, Int32, Recommend, UserStates, states_at
from recsys.regression import MAX_REGRESSION_ITEMS

HALF_LIVES = (3.0, 10.0, 30.0, 100.0)
"""Half-lives tried, in events: from a session to the whole window."""

LARGE_CATALOGUE = 5000
"""Above so many items the weights cost too much to be fitted twice, and the half-life is `UNTRIED`."""

UNTRIED = 10.0
VALIDATION_USERS = 2000
DEPTH = 10

Weights = Any
"""[n_items, n_items], dense or csr: row i is what having had item i says of every item."""


def fit_recent_item_knn(events: Events, rng: np.random.Generator) -> Recommend:
    """`fit_item_knn` with the recent past weighted more."""
    return _fit(events, item_knn_weights, rng)


def fit_recent_ease(events: Events, rng: np.random.Generator, max_items: int = MAX_REGRESSION_ITEMS) -> Recommend | None:
    """`fit_ease` with the recent past weighted more; None where the catalogue exceeds `max_items`."""
    return None if events.n_items > max_items else _fit(events, ease_weights, rng)


def best_half_life(events: Events, fit: Callable[[Events], Weights], rng: np.random.Generator) -> float:
    """Of HALF_LIVES, the one with the greatest NDCG@10 of users' last events, by weights fitted to the events before."""
    offsets = events.offsets()
    able = np.flatnonzero(np.diff(offsets) > 1)
    last = offsets[1:][able] - 1
    if events.n_items > LARGE_CATALOGUE or len(able) == 0:
        return UNTRIED
    kept = np.ones(len(events), np.bool_)
    kept[last] = False
    weights = fit(events.take(kept))
    chosen = np.sort(rng.permutation(len(able))[:VALIDATION_USERS])
    states = states_at(events, offsets[:-1][able[chosen]], last[chosen])
    truth = Truth(able[chosen].astype(np.int32), states, np.arange(len(chosen) + 1), events.item[last[chosen]])
    counts = np.bincount(events.item, minlength=events.n_items).astype(np.float32)

    def score(half_life: float) -> float:
        hits = hit_matrix(_recommender(weights, counts, half_life)(states, DEPTH)[0], truth, events.n_items)
        return float(ndcg(hits, truth.counts, DEPTH).mean())

    return max(HALF_LIVES, key=score)


def _fit(events: Events, fit: Callable[[Events], Weights], rng: np.random.Generator) -> Recommend:
    half_life = best_half_life(events, fit, rng)
    counts = np.bincount(events.item, minlength=events.n_items).astype(np.float32)
    return _recommender(fit(events), counts, half_life)


def _recommender(weights: Weights, counts: Float32, half_life: float) -> Recommend:
    n_items = len(counts)
    last = counts / (counts.max(initial=0.0) + 1.0) - 1.0  # [-1, 0): what nothing is known of follows by popularity

    def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
        items = np.full((len(states), k), MISSING, np.int32)
        scores = np.full((len(states), k), -np.inf, np.float32)
        chunk = max(1, CHUNK_CELLS // max(n_items, 1))
        for start in range(0, len(states), chunk):
            part = states.slice(start, min(start + chunk, len(states)))
            product = _decayed(part, n_items, half_life) @ weights
            sums = product.toarray() if sparse.issparse(product) else product
            idle = (part.items == MISSING).all(axis=1)[:, None]
            sums = np.where(idle | (sums == 0), last, sums)
            items[start : start + len(part)], scores[start : start + len(part)] = top_k_unseen(sums, part, k)
        return items, scores

    return recommend


def _decayed(states: UserStates, n_items: int, half_life: float) -> Any:  # noqa: ANN401 - scipy.sparse carries no types
    """A csr float32[U, n_items]: each item of the window at the weight of its latest event."""
    newest_first = states.items[:, ::-1]
    users, ages = np.nonzero(newest_first != MISSING)
    items = newest_first[users, ages]
    latest = np.unique(users * n_items + items, return_index=True)[1]
    weight = (0.5 ** (ages[latest] / half_life)).astype(np.float32)
    return sparse.csr_matrix((weight, (users[latest], items[latest])), shape=(len(states), n_items))
