"""The one function that makes what the ranker sees, from user states, candidates and the item table.

Ranker training, evaluation, precompute and the live path all call `features`; nothing else builds
ranker input. Each feature is declared once, with the value that stands for "unknown"; names, order
and defaults are hashed, and a ranker or bundle of another hash is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from shortlist.recsys.models.interactions import MISSING, Float32, Int32, UserStates
from shortlist.recsys.models.neighbours import Neighbours, decays
from shortlist.recsys.store.histories import HISTORY_LENGTH

FEATURES: dict[str, float] = {
    "retrieval_score": 0.0,
    "retrieval_rank": 0.0,
    "retrieval_margin": 0.0,
    "next_1": 0.0,
    "next_1_wide": 0.0,
    "next_3": 0.0,
    "next_10": 0.0,
    "near_recent": 0.0,
    "near_all": 0.0,
    "near_liked": 0.0,
    "regression_recent": 0.0,
    "regression_all": 0.0,
    "popularity": 0.0,
    "popularity_recent": 0.0,
    "trend": 0.0,
    "item_age": -1.0,
    "item_weight": 0.0,
    "year": -1.0,
    "year_gap": 0.0,
    "year_distance": -1.0,
    "popularity_gap": 0.0,
    "age_gap": 0.0,
    "category_recent": -1.0,
    "category_all": -1.0,
    "history_length": 0.0,
    "history_weight": 0.0,
    "history_popularity": 0.0,
}
"""Every feature and the value that stands for an unknown one."""

_SUMS: tuple[tuple[str, int, float], ...] = (
    ("next_1", 0, 1.0),
    ("next_1_wide", 0, 8.0),
    ("next_3", 1, 3.0),
    ("next_10", 2, 10.0),
    ("near_recent", 3, 5.0),
    ("near_all", 3, 60.0),
    ("regression_recent", 4, 15.0),
    ("regression_all", 4, 1000.0),
)
"""Neighbour sums: the feature, the relation (an index into RELATIONS), the half-life in events."""

_SUM_DECAYS = decays(tuple(half_life for _, _, half_life in _SUMS))
_RECENT, _ALL = decays((5.0, 60.0))

MAX_DEVIATIONS = 1e4
"""Where standardised weights are cut off: no honest weight lies there, and sums of larger ones would overflow 32 bits."""


def feature_hash() -> str:
    """Sixteen hex digits that change with the features' names, order or defaults."""
    text = ";".join(f"{name}={default!r}" for name, default in FEATURES.items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What is known of n items as of a moment, for features; the row n is padding, so that MISSING reads unknowns.

    popularity: float32[n + 1], log(1 + events); recent: the same over the last tenth of the events;
    trend: the latter less what the former implies; age: share of the time span since the item's
    first event, NaN for none; weight: mean standardised weight, shrunk to 0; year: NaN where
    unknown; membership: float32[n + 1, C]; weight_mean, weight_scale: of the events' weights, NaN
    when there are none.
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


@dataclass(frozen=True, slots=True)
class Candidates:
    """items: int32[U, C] item rows, by falling retrieval score, MISSING-padded at the end; scores: float32[U, C]."""

    items: Int32
    scores: Float32


def features(states: UserStates, candidates: Candidates, table: ItemTable) -> Float32:
    """float32[rows, F]: one row for each candidate that is not padding, user by user, in the order of FEATURES."""
    items = candidates.items
    present = items != MISSING
    columns = {**_retrieval(candidates, present), **_neighbour_sums(states, items, table)}
    columns |= (
        _item_columns(items, table)
        | _history_columns(states, items, table)
        | _category_columns(states, items, table)
    )
    out = np.empty((int(present.sum()), len(FEATURES)), np.float32)
    for f, (name, default) in enumerate(FEATURES.items()):
        column = np.broadcast_to(columns[name], items.shape)[present]
        out[:, f] = np.where(np.isfinite(column), column, np.float32(default))
    return out


def _retrieval(candidates: Candidates, present: np.ndarray) -> dict[str, Float32]:
    scores = np.where(present, candidates.scores, np.float32(0))
    rank = np.log1p(np.arange(scores.shape[1], dtype=np.float32))[None, :]
    return {
        "retrieval_score": scores,
        "retrieval_rank": rank,
        "retrieval_margin": scores - scores[:, :1],
    }


def _item_columns(items: Int32, table: ItemTable) -> dict[str, Float32]:
    return {
        "popularity": table.popularity[items],
        "popularity_recent": table.recent[items],
        "trend": table.trend[items],
        "item_age": table.age[items],
        "item_weight": table.weight[items],
        "year": table.year[items],
    }


def _history_columns(states: UserStates, items: Int32, table: ItemTable) -> dict[str, Float32]:
    def recent(column: Float32) -> Float32:
        return _weighted_mean(column[states.items], _RECENT)[:, None]

    popularity = recent(table.popularity)
    year_gap = table.year[items] - recent(table.year)
    weights = _standardised(states.weights, table)
    return {
        "year_gap": year_gap,
        "year_distance": np.abs(year_gap),
        "popularity_gap": table.popularity[items] - popularity,
        "age_gap": table.age[items] - recent(table.age),
        "history_length": np.log1p(states.n_events.astype(np.float32))[:, None],
        "history_weight": _weighted_mean(weights, _ALL)[:, None],
        "history_popularity": popularity,
    }


def _standardised(weights: Float32, table: ItemTable) -> Float32:
    """float32[U, N]: weights as deviations from the mean, at most MOST_DEVIATIONS; NaN where there is none."""
    bound = np.float32(min(MAX_DEVIATIONS * table.weight_scale, float(np.finfo(np.float32).max)))
    return np.clip(weights - np.float32(table.weight_mean), -bound, bound) / np.float32(
        table.weight_scale
    )


def _weighted_mean(values: Float32, weights: Float32) -> Float32:
    """float32[U]: the mean of values [U, N] under weights [N], over those that are known; NaN where none is."""
    known = np.isfinite(values)
    total = (known * weights).sum(axis=1)
    summed = (np.where(known, values, 0) * weights).sum(axis=1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1), np.nan).astype(np.float32)


def _category_columns(states: UserStates, items: Int32, table: ItemTable) -> dict[str, Float32]:
    membership = table.membership[states.items]  # [U, N, C]
    offered = table.membership[items]  # [U, C, categories]
    norm = np.sqrt(np.einsum("ucm,ucm->uc", offered, offered))
    out: dict[str, Float32] = {}
    for name, decay in (("category_recent", _RECENT), ("category_all", _ALL)):
        taste = np.matmul(decay[None, None, :], membership)  # [U, 1, C]
        length = np.sqrt(np.square(taste).sum(axis=2))  # [U, 1]
        products = np.matmul(offered, taste.transpose(0, 2, 1))[:, :, 0]  # [U, C]
        scale = length * norm
        out[name] = np.where(scale > 0, products / np.where(scale > 0, scale, 1), np.nan).astype(
            np.float32
        )
    return out


def _neighbour_sums(states: UserStates, items: Int32, table: ItemTable) -> dict[str, Float32]:
    out = {name: np.zeros(items.shape, np.float32) for name, _, _ in _SUMS}
    out["near_liked"] = np.zeros(items.shape, np.float32)
    place = np.full(
        len(table.popularity), items.shape[1], np.int64
    )  # where an item stands among a user's candidates
    weights = _standardised(states.weights, table)
    weights = np.where(np.isfinite(weights), weights, 0)
    for user, row in enumerate(items):
        count = int((row != MISSING).sum())
        place[row[:count]] = np.arange(count)
        _user_sums(states.items[user], weights[user], place, table.neighbours, user, out)
        place[row[:count]] = items.shape[1]
    return out


def _user_sums(
    history: Int32,
    weights: Float32,
    place: np.ndarray,
    neighbours: Neighbours,
    user: int,
    out: dict[str, Float32],
) -> None:
    first = int(np.argmax(history != MISSING)) if (history != MISSING).any() else HISTORY_LENGTH
    past = history[first:]
    if len(past) == 0:
        return
    n = out["near_liked"].shape[1]
    at = [place[rows[past]] for rows in neighbours.rows]  # [R] of [h, K]
    value = [w[past] for w in neighbours.weights]
    for s, (name, relation, _) in enumerate(_SUMS):
        strength = value[relation] * _SUM_DECAYS[s, first:, None]
        out[name][user] = np.bincount(at[relation].ravel(), strength.ravel(), minlength=n + 1)[:n]
    liked = value[3] * (_ALL[first:] * weights[first:])[:, None]
    out["near_liked"][user] = np.bincount(at[3].ravel(), liked.ravel(), minlength=n + 1)[:n]
