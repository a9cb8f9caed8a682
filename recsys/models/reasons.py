"""Why an item is recommended, from the models themselves: which of the history speaks for it, and what each feature adds.

A past item's part is how much the retriever's score falls when that item is taken out of the
history, and how strongly the two are neighbours; each is brought to shares, and the two are
averaged where both say something.
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
    """What speaks for k items.

    history: float32[k, N], shares of the history's places, rows of zeros where none speaks;
    features: float32[k, F + 1], what each feature adds to the ranker's score, its base last; NaN
    for items that the ranker has not seen.
    """

    history: Float32
    features: Float32


def contributions(
    model: Model, state: UserStates, items: Int32, ranked: RankedRows | None
) -> Contributions:
    """What speaks for items int32[k] that were recommended to one user; ranked: what the ranker saw, None for nothing."""
    parts = [_shares(_falls(model, state, items)), _shares(_nearness(model, state, items))]
    says = [part.sum(axis=1, keepdims=True) > 0 for part in parts]
    voices = sum(said.astype(np.float32) for said in says)
    history = (parts[0] + parts[1]) / np.maximum(voices, 1)
    return Contributions(history.astype(np.float32), _of_features(model, items, ranked))


def _falls(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: how much the retriever's score of each item falls without each place of the history."""
    out = np.zeros((len(items), state.items.shape[1]), np.float32)
    places = np.flatnonzero(state.items[0] != MISSING)
    if len(places) == 0:
        return out
    without = np.repeat(state.items, len(places), axis=0)
    without[np.arange(len(places)), places] = MISSING
    attributes = np.repeat(state.attributes, len(places), axis=0)
    vectors = user_vectors(model.towers, replace(state, items=without, attributes=attributes))
    whole = user_vectors(model.towers, state)
    out[:, places] = np.matmul(model.towers.items[items], (whole - vectors).T)
    return out


def _nearness(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: how near each item is to each place of the history, among its neighbours."""
    history = state.items[0]
    out = np.zeros((len(items), len(history)), np.float32)
    places = np.flatnonzero(history != MISSING)
    rows, weights = (
        part[Relation.NEAR][history[places]]
        for part in (model.table.neighbours.rows, model.table.neighbours.weights)
    )
    out[:, places] = np.where(rows[None] == items[:, None, None], weights[None], 0).sum(axis=2)
    return out


def _shares(parts: Float32) -> Float32:
    """Each row's positive parts as shares of their sum."""
    positive = np.maximum(parts, 0)
    total = positive.sum(axis=1, keepdims=True)
    return (positive / np.where(total > 0, total, 1)).astype(np.float32)


def _of_features(model: Model, items: Int32, ranked: RankedRows | None) -> Float32:
    out = np.full((len(items), len(FEATURES) + 1), np.nan, np.float32)
    if model.ranker is None or ranked is None:
        return out
    candidates, rows = ranked
    place = {item: at for at, item in enumerate(candidates.items[0].tolist())}
    found = [at for at, item in enumerate(items.tolist()) if item in place]
    if found:
        out[found] = model.ranker.contributions(rows[[place[int(items[at])] for at in found]])
    return out
