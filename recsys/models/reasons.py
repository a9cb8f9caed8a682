"""Explains why an item is recommended, from the models themselves.

A past item's part is how much the retriever's score falls when that item is taken out of the
history, and how strongly the two are neighbours. Each is brought to shares, and the two are
averaged where both say something. A feature's part is its SHAP value in the ranker. Of an item that
the user had, a habit says how often it comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shortlist.recsys.models import own_events
from shortlist.recsys.models.features import FEATURES, Candidates
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, UserStates
from shortlist.recsys.models.neighbours import Relation
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.models.towers import falls_without

RankedRows = tuple[Candidates, Float32]
"""One user's candidates, and their feature rows, float32[C, F]."""


UNITS = (
    ("minute", 60, 2 * 3600),
    ("hour", 3600, 2 * 86_400),
    ("day", 86_400, 60 * 86_400),
    ("month", 2_629_800, 2 * 31_557_600),
    ("year", 31_557_600, None),
)
"""Units of an interval, their seconds, and the interval from which the next one is read better."""


ROUNDING = 1e-5
"""Falls of a score up to this are none: single precision makes them by itself."""


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


def habits(model: Model, state: UserStates, items: Int32, *, has_clock: bool) -> tuple[str, ...]:
    """How often the user comes back to items int32[k], in words; "" for what they never had.

    has_clock: whether times are unix seconds; a mere order has no intervals.
    """
    n_items = len(model.table.popularity) - 1
    pairs = own_events.pairs_of(state, model.table.is_target > 0, n_items)
    at = own_events.positions_in(pairs, items[None, :], n_items)[0].tolist()
    seconds = np.exp(own_events.log_own_interval(pairs)).tolist()
    had = own_events.had(state, items[None, :], n_items)[0].tolist()
    texts = []
    for pair, was_had in zip(at, had, strict=True):
        again = pair != MISSING and pairs.count[pair] > 1
        if again and has_clock:
            texts.append(f"you come back to this every {period(seconds[pair])}")
        elif again:
            texts.append("you often come back to this")
        else:
            texts.append("you had this before" if was_had else "")
    return tuple(texts)


def period(seconds: float) -> str:
    """An interval in its unit: "12 days", "hour"."""
    name, size = next((name, size) for name, size, end in UNITS if end is None or seconds < end)
    number = max(1, round(seconds / size))
    return name if number == 1 else f"{number} {name}s"


def _score_falls(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: how much each item's retrieval score falls without each history place."""
    falls = np.zeros((len(items), state.items.shape[1]), np.float32)
    places = np.flatnonzero(state.items[0] != MISSING)
    if len(places) == 0:
        return falls
    fall = np.matmul(model.towers.items[items], falls_without(model.towers, state, places).T)
    falls[:, places] = np.where(np.abs(fall) > ROUNDING, fall, 0)
    return falls


def _nearness(model: Model, state: UserStates, items: Int32) -> Float32:
    """float32[k, N]: the weight of each item among the neighbours of each history place."""
    history = state.items[0]
    nearness = np.zeros((len(items), len(history)), np.float32)
    places = np.flatnonzero(history != MISSING)
    past = history[places]
    # Where each item is explained; those that are not have a row beyond, which is cut off.
    explained = np.full(len(model.table.popularity), len(items), np.int64)
    explained[items] = np.arange(len(items))
    rows, weights = model.table.neighbours.of(Relation.NEAR, past)
    at = explained[rows]  # [places, K]
    place, rank = np.nonzero(at < len(items))
    nearness[at[place, rank], places[place]] = weights[place, rank]
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
