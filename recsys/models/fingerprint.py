"""Hashes features and towers, for bundles and code to agree.

Names, order, defaults and constants are hashed as text. Code has no text that is the same after a
harmless rewrite, so formulas are hashed by what they give: the feature rows and user vectors of one
small, fixed input.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from functools import cache
from typing import Any

import numpy as np

from shortlist.recsys.models import features as features_module
from shortlist.recsys.models.features import Candidates, ItemLabels, ItemTable, features
from shortlist.recsys.models.interactions import MISSING, Float32, UserStates
from shortlist.recsys.models.neighbours import (
    PROPOSING_HALF_LIFE,
    PROPOSING_RELATIONS,
    Neighbours,
    Relation,
)
from shortlist.recsys.models.towers import (
    HALF_LIVES,
    LAYER_NORM_EPSILON,
    Towers,
    user_vectors,
)
from shortlist.recsys.store.histories import HISTORY_LENGTH

GRID = 0.01
"""Values are rounded to multiples of this before they are hashed; what moves one shows.

Processors add floats in different orders, and libraries differ in the last bit: by less than 1e-6
here. The input is chosen so that every value is 100 times as far from where rounding flips, and the
tests check that, so the hash is the same on every machine.
"""

SEED = 10908
"""Of the fixed input: of 30,000, the one whose values are farthest from where rounding flips."""


@cache
def feature_hash() -> str:
    """Sixteen hex digits of all features and the towers' forward pass.

    They are computed once in a process, in about a millisecond.
    """
    cells = np.rint(reference_values().astype(np.float64) / GRID).astype("<i8")
    digest = hashlib.sha256(json.dumps(declarations()).encode())
    digest.update(cells.tobytes())
    return digest.hexdigest()[:16]


def declarations() -> list[object]:
    """The features in order, and every constant that shapes their inputs."""
    declared: list[object] = []
    for name, feature in features_module.FEATURES.items():
        column = feature.column
        parameters: dict[str, object] = asdict(column) if is_dataclass(column) else {}
        declared.append([name, feature.default, parameters])
    constants = {
        "history_length": HISTORY_LENGTH,
        "relations": [relation.name for relation in Relation],
        "proposing": [[relation.name for relation in PROPOSING_RELATIONS], PROPOSING_HALF_LIFE],
        "features": [
            features_module.RECENT,
            features_module.LONG,
            features_module.MAX_DEVIATIONS,
            features_module.OWN_INTERVALS,
        ],
        "towers": [list(HALF_LIVES), LAYER_NORM_EPSILON],
    }
    return [declared, constants]


def reference_values() -> Float32:
    """float32[m]: feature rows and user vectors of the fixed input."""
    states, candidates = _states(), _candidates()
    rows = features(states, candidates, _table())
    vectors = user_vectors(_towers(), states)
    return np.concatenate((rows.ravel(), vectors.ravel()))


N_ITEMS, N_NEIGHBOURS, N_CATEGORIES, N_LABELS = 12, 3, 4, 5
DIMENSION, HIDDEN, N_TOKENS = 2, 3, 2


def _noise(stream: int, *shape: int) -> Float32:
    """float32 in [-1, 1), by integer arithmetic alone.

    A generator's stream may change with numpy.
    """
    at = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64)
    mixed = at * np.uint64(2654435761) + np.uint64(40503 * (stream + 1) + 7919 * SEED)
    mixed = (mixed * np.uint64(2246822519)) % np.uint64(2**32)
    mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(3266489917) % np.uint64(2**32)
    return (mixed / 2**31 - 1).astype(np.float32).reshape(shape)


def _states() -> UserStates:
    """Users with half a window, a full window and no history."""
    lengths = np.array([HISTORY_LENGTH // 2, HISTORY_LENGTH, 0])
    shape = (len(lengths), HISTORY_LENGTH)
    absent = np.arange(HISTORY_LENGTH) < HISTORY_LENGTH - lengths[:, None]
    items = ((_noise(0, *shape) + 1) / 2 * N_ITEMS).astype(np.int32)
    times = np.cumsum(1 + ((_noise(22, *shape) + 1) * 50).astype(np.int64), axis=1)
    unrated = np.arange(HISTORY_LENGTH) % 4 == 0
    weights = np.where(absent | unrated, np.nan, 3 + 2 * _noise(1, *shape))
    return UserStates(
        items=np.where(absent, MISSING, items).astype(np.int32),
        times=times,
        weights=weights.astype(np.float32),
        n_events=np.array([lengths[0], 2 * HISTORY_LENGTH, 0], np.int32),
        attributes=np.array([[0], [1], [MISSING]], np.int32),
        # One candidate of each of the first two, and another that left the window.
        seen_rows=np.array([1, 4, 7], np.int32),
        seen_offsets=np.array([0, 2, 3, 3], np.int64),
        kinds=np.where(absent, 0, ((_noise(25, *shape) + 1) * 1.5).astype(np.uint8)).astype(
            np.uint8
        ),
        now=times.max(axis=1) + np.array([3, 40, 0]),
        disliked_rows=np.array([6, 3], np.int32),
        disliked_offsets=np.array([0, 1, 2, 2], np.int64),
    )


def _candidates() -> Candidates:
    items = np.array([[1, 4, N_ITEMS - 1], [7, 2, 0], [5, 3, MISSING]], np.int32)
    scores = np.sort(_noise(2, *items.shape), axis=1)[:, ::-1]
    return Candidates(items, np.where(items == MISSING, -np.inf, scores).astype(np.float32))


def _table() -> ItemTable:
    def column(stream: int, scale: float) -> Float32:
        return np.append(scale * (_noise(stream, N_ITEMS) + 1), np.nan).astype(np.float32)

    year = column(8, 40.0)
    year[4] = np.nan
    has_category = _noise(9, N_ITEMS + 1, N_CATEGORIES) > 0
    has_category[[4, N_ITEMS]] = False
    categories = np.where(has_category, np.arange(N_CATEGORIES), N_CATEGORIES).astype(np.int32)
    alike = np.append(np.ones(N_CATEGORIES), 0).astype(np.float32)
    labels = (_noise(22, N_ITEMS + 1, 2) + 1) / 2 * (N_LABELS + 1)
    labels[N_ITEMS] = N_LABELS
    numbers = (_noise(24, N_ITEMS + 1, 2) + 1) / 2
    numbers[[5, N_ITEMS]] = np.nan
    return ItemTable(
        popularity=column(3, 3.0),
        recent=column(4, 2.0),
        trend=column(5, 1.0),
        age=column(6, 0.5),
        weight=column(7, 1.0),
        target_share=column(23, 0.5),
        negative_share=column(24, 0.5),
        year=year,
        interval=column(20, 3.0),
        repeat_rate=column(21, 0.5),
        categories=ItemLabels(categories, alike),
        is_target=np.array([1, 0, 0], np.float32),
        strength=np.array([1, 0.5, 0.2], np.float32),
        weight_mean=2.5,
        weight_scale=0.75,
        neighbours=_neighbours(),
        labels=ItemLabels(
            labels.astype(np.int32), np.append(_noise(23, N_LABELS) + 1, 0).astype(np.float32)
        ),
        numbers=numbers.astype(np.float32),
    )


def _neighbours() -> Neighbours:
    shape = (len(Relation), N_ITEMS + 1, N_NEIGHBOURS)
    rows = ((_noise(10, *shape) + 1) / 2 * N_ITEMS).astype(np.int32)
    # No whole units: the hash is of the formulas, whatever the precision of the weights.
    weights: Any = _noise(11, *shape) + 1
    rows[:, N_ITEMS], weights[:, N_ITEMS] = N_ITEMS, 0
    return Neighbours(rows, weights, np.ones(shape[:2], np.float32))


def _towers() -> Towers:
    width = len(HALF_LIVES) * DIMENSION
    history, attributes = _noise(12, N_ITEMS + 1, DIMENSION), _noise(13, N_TOKENS + 1, DIMENSION)
    history[-1], attributes[-1] = 0, 0
    return Towers(
        history=history,
        items=_noise(14, N_ITEMS, DIMENSION + 1),
        attributes=attributes,
        skip_w=_noise(15, width, DIMENSION),
        norm_g=_noise(16, width + DIMENSION) + 1,
        norm_b=_noise(17, width + DIMENSION),
        hidden_w=_noise(18, width + DIMENSION, HIDDEN),
        hidden_b=_noise(19, HIDDEN),
        out_w=_noise(20, HIDDEN, DIMENSION),
        out_b=_noise(21, DIMENSION),
    )
