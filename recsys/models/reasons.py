"""Explains why an item is recommended, from the models themselves.

A past item's part is how much the retriever's score falls when that item is taken out of the
history, and how strongly the two are neighbours. Each is brought to shares, and the two are
averaged where both say something. A feature's part is its SHAP value in the ranker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shortlist.recsys.models.features import FEATURES, Candidates
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, UserStates
from shortlist.recsys.models.neighbours import Relation
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.models.towers import user_vectors

RankedRows = tuple[Candidates, Float32]
"""One user's candidates, and their feature rows, float32[C, F]."""


@dataclass(frozen=True, slots=True)
class Contributions:
    """The parts of the history and of the features in k recommendations.

    history: float32[k, N], shares of the history's places; a row of zeros where none speaks.
    features: float32[k, F + 1], what each feature adds to the ranker's score, its base last; NaN
    for items that the ranker has not seen.
    """

    history: Float32
    features: Float32


def contributions(
    model: Model, state: UserStates, items: Int32, ranked: RankedRows | None
) -> Contributions:
    """Explains items int32[k] that were recommended to one user.

    ranked: the ranker's input, None where it saw nothing.
    """
    parts = [_shares(_score_falls(model, state, items)), _shares(_nearness(model, state, items))]
    speaks = [part.sum(axis=1, keepdims=True) > 0 for part in parts]
    n_speaking = sum(each.astype(np.float32) for each in speaks)
    history = (parts[0] + parts[1]) / np.maximum(n_speaking, 1)
    return Contributions(history.astype(np.float32), _feature_parts(model, items, ranked))


def _score_falls(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: how much each item's retrieval score falls without each history place."""
    falls = np.zeros((len(items), state.items.shape[1]), np.float32)
    places = np.flatnonzero(state.items[0] != MISSING)
    if len(places) == 0:
        return falls
    # One state for each place that is left out, all scored at once.
    without = np.repeat(state.items, len(places), axis=0)
    without[np.arange(len(places)), places] = MISSING
    attributes = np.repeat(state.attributes, len(places), axis=0)
    vectors = user_vectors(model.towers, replace(state, items=without, attributes=attributes))
    whole = user_vectors(model.towers, state)
    falls[:, places] = np.matmul(model.towers.items[items], (whole - vectors).T)
    return falls


def _nearness(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: the weight of each item among the neighbours of each history place."""
    history = state.items[0]
    nearness = np.zeros((len(items), len(history)), np.float32)
    places = np.flatnonzero(history != MISSING)
    past = history[places]
    rows = model.table.neighbours.rows[Relation.NEAR][past]
    weights = model.table.neighbours.weights[Relation.NEAR][past]
    is_item = rows[None] == items[:, None, None]  # [k, places, K]
    nearness[:, places] = np.where(is_item, weights[None], 0).sum(axis=2)
    return nearness


def _shares(parts: Float32) -> Float32:
    """Each row's positive parts as shares of their sum."""
    positive = np.maximum(parts, 0)
    total = positive.sum(axis=1, keepdims=True)
    return (positive / np.where(total > 0, total, 1)).astype(np.float32)


def _feature_parts(model: Model, items: Int32, ranked: RankedRows | None) -> Float32:
    """float32[k, F + 1], NaN for items that are not among the candidates."""
    parts = np.full((len(items), len(FEATURES) + 1), np.nan, np.float32)
    if model.ranker is None or ranked is None:
        return parts
    candidates, rows = ranked
    row_of = {item: row for row, item in enumerate(candidates.items[0].tolist())}
    known = [place for place, item in enumerate(items.tolist()) if item in row_of]
    if known:
        item_rows = [row_of[int(items[place])] for place in known]
        parts[known] = model.ranker.contributions(rows[item_rows])
    return parts
