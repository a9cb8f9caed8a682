"""Trains the ranker: LambdaMART (Burges, 2010) by LightGBM, on the retriever's own candidates, point in time.

Towers, neighbours and the item table know only the events before each user's first cut; the labels are the events after
it. Several positions of that window become one ranking group each: the state is everything before the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.events import MISSING, Events, Float32, Int32, Int64, UserStates, states_at
from recsys.features import FEATURES, features
from recsys.pipeline import Model, retrieve
from recsys.ranker import stamp
from recsys.ties import Steps, steps_of
from recsys.training.split import before

CHUNK = 64
FRESH_HORIZON = 10
"""Events that are the labels of a fresh user, where the protocol does not say."""

EVAL_AT = (10, 5, 20)
"""Cut-offs of the validation NDCG; the first decides when to stop."""

FEW_ROWS = 1000
"""Below this, LightGBM's draw of rows could come out empty, and is left out."""

FEW_TREES = 50
"""Trees where there are too few users to hold some out."""


@dataclass(frozen=True, slots=True)
class RankerParams:
    """How the ranker is trained."""

    estimators: int = 500
    """Most trees; early stopping usually ends sooner."""
    learning_rate: float = 0.05
    leaves: int = 15
    min_rows_per_leaf: int = 50
    feature_share: float = 0.6
    row_share: float = 0.8
    l2: float = 5.0
    truncation: int = 20
    patience: int = 40
    """Rounds without a better validation NDCG@10 before training stops."""
    positions: int = 5
    """Label positions a user, at most."""
    max_groups: int = 20_000
    negatives: int = 150
    """Candidates without a label that are kept for each group, drawn at random."""
    validation_share: float = 0.15
    """Share of the users whose groups decide when to stop."""


@dataclass(frozen=True, slots=True)
class Groups:
    """rows: float32[m, F]; labels: float32[m]; sizes: int64[g], rows of each group; users: int64[g]."""

    rows: Float32
    labels: Float32
    sizes: Int64
    users: Int64

    @staticmethod
    def joined(parts: Sequence[Groups]) -> Groups:
        """The groups of all parts, in their order."""
        return Groups(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Groups)))


@dataclass(frozen=True, slots=True)
class FittedRanker:
    """What training gave.

    text: the stamped LightGBM model, empty where there was nothing to learn; importances: share of the total gain by
    feature; note: how large it is; curve: the validation NDCG@10 after each tree, empty where nobody was held out.
    """

    text: str
    importances: dict[str, float]
    note: str
    curve: tuple[float, ...] = ()


def fit_ranker(groups: Groups, params: RankerParams, rng: np.random.Generator, threads: int) -> FittedRanker:
    """The ranker that early stopping on held-out users leaves."""
    if len(groups.sizes) == 0:
        return FittedRanker("", {}, "no label among the candidates: lists come from the retriever alone")
    import lightgbm

    users = np.unique(groups.users)
    held = rng.permutation(users)[: int(len(users) * params.validation_share)]
    valid_group = np.isin(groups.users, held)
    train = lightgbm.Dataset(**_dataset(groups, ~valid_group))
    told: dict[str, dict[str, list[float]]] = {}
    stopping: dict[str, Any] = {"num_boost_round": min(params.estimators, FEW_TREES)}
    if valid_group.any():
        valid = lightgbm.Dataset(**_dataset(groups, valid_group), reference=train)
        early = lightgbm.early_stopping(params.patience, first_metric_only=True, verbose=False)
        stopping = {"num_boost_round": params.estimators, "valid_sets": [valid]}
        stopping["callbacks"] = [early, lightgbm.record_evaluation(told)]
    if len(groups.rows) < FEW_ROWS:
        params = replace(params, row_share=1.0)
    booster = lightgbm.train(_options(params, threads, int(rng.integers(2**31))), train, **stopping)
    gain = booster.feature_importance("gain", iteration=booster.best_iteration)
    shares = (gain / max(gain.sum(), np.finfo(float).tiny)).tolist()
    text = stamp(booster.model_to_string(num_iteration=booster.best_iteration))
    curve = tuple(next(iter(told.values()))[f"ndcg@{EVAL_AT[0]}"]) if told else ()
    note = f"{booster.num_trees()} trees from {len(groups.sizes)} groups"
    return FittedRanker(text, dict(zip(FEATURES, shares, strict=True)), note, curve)


def _options(params: RankerParams, threads: int, seed: int) -> dict[str, object]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": list(EVAL_AT),
        "lambdarank_truncation_level": params.truncation,
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_rows_per_leaf,
        "feature_fraction": params.feature_share,
        "bagging_fraction": params.row_share,
        "bagging_freq": 1,
        "lambda_l2": params.l2,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }


def _dataset(groups: Groups, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    rows = np.repeat(chosen, groups.sizes)
    return {
        "data": groups.rows[rows],
        "label": groups.labels[rows],
        "group": groups.sizes[chosen],
        "feature_name": list(FEATURES),
    }


def ranker_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    first: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
) -> Groups:
    """Groups from the label windows first[u]:last[u] of each user; the model must know nothing at or after `first`.

    horizon: how many of the following events are labels (and what shares the last one's time), or None for the rest of the
    window. No state ends, and no labels end, inside a tie.
    """
    steps = steps_of(events)
    users, cuts = _positions(events, steps, first, last, params, rng)
    stops = last[users] if horizon is None else _horizon(steps, cuts, last[users], horizon)
    return _grouped(model, events, attributes, (users, cuts, stops), params, rng)


def fresh_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    users: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
) -> Groups:
    """Groups from the beginnings of users whom the model never saw, in their events before row last[u] (int64[n_users]).

    How many events are known is drawn evenly on a logarithmic scale; labels are the next `horizon` events, or FRESH_HORIZON.
    Both end at the border of a tie.
    """
    events = before(events, last)
    starts, ends = events.offsets()[:-1], events.offsets()[1:]
    users = np.repeat(users[(ends - starts)[users] > 1], params.positions)
    users = np.sort(rng.permutation(users)[: params.max_groups]) if len(users) > params.max_groups else users
    known = np.floor(np.exp(rng.uniform(0, np.log((ends - starts)[users])))).astype(np.int64)
    steps = steps_of(events)
    cuts = steps.border(starts[users] + known, starts[users])
    stops = _horizon(steps, cuts, ends[users], FRESH_HORIZON if horizon is None else horizon)
    return _grouped(model, events, attributes, (users, cuts, stops), params, rng)


def _horizon(steps: Steps, cuts: Int64, last: Int64, horizon: int) -> Int64:
    """int64[m]: where labels end that start at `cuts`: after so many events, and those that share the last one's time."""
    return np.minimum(last, steps.after[np.minimum(last, cuts + horizon) - 1])


def _grouped(
    model: Model,
    events: Events,
    attributes: Int32,
    windows: tuple[Int64, Int64, Int64],
    params: RankerParams,
    rng: np.random.Generator,
) -> Groups:
    """A group for each of the windows (users, cuts, stops): the state is what lies before the cut, the labels the rest."""
    users, cuts, stops = windows
    starts = events.offsets()[:-1]
    empty = Groups(
        np.empty((0, len(FEATURES)), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    )
    parts = [empty]
    for s in range(0, len(users), CHUNK):
        u, cut = users[s : s + CHUNK], cuts[s : s + CHUNK]
        states = states_at(events, starts[u], cut, attributes[u])
        labels = [events.item[a:b] for a, b in zip(cut, stops[s : s + CHUNK], strict=True)]
        parts.append(_groups(model, states, u, labels, params, rng))
    return Groups.joined(parts)


def _positions(
    events: Events, steps: Steps, first: Int64, last: Int64, params: RankerParams, rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Users, and where within first[u]:last[u] their labels start: at starts of steps, of which some are drawn."""
    length = last - first
    users = np.repeat(np.arange(events.n_users), length)
    places = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
    able = (places == 0) | steps.starts_at(first[users] + places)
    users, places, length = users[able], places[able], np.bincount(users[able], minlength=events.n_users)
    draw = rng.random(len(users))
    draw[places == 0] = -1  # the start of the window is always one of them
    order = np.lexsort((draw, users))
    users, places = users[order], places[order]
    rank = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
    kept = rank < params.positions
    users, places = users[kept], places[kept]
    some = np.sort(rng.permutation(len(users))[: params.max_groups])
    users, places = users[some], places[some]
    return users.astype(np.int64), first[users] + places


def _groups(
    model: Model, states: UserStates, users: Int64, labels: list[Int32], params: RankerParams, rng: np.random.Generator
) -> Groups:
    candidates = retrieve(model, states)
    hit = np.stack([np.isin(row, label) for row, label in zip(candidates.items, labels, strict=True)])
    present = candidates.items != MISSING
    draw = np.where(hit, -1, rng.random(hit.shape))
    draw[~present] = 2
    kept = np.argsort(np.argsort(draw, axis=1), axis=1) < hit.sum(axis=1, keepdims=True) + params.negatives
    kept &= present & hit.any(axis=1, keepdims=True)
    rows = features(states, candidates, model.table)[kept[present]]
    sizes = kept.sum(axis=1)
    return Groups(rows, hit[kept].astype(np.float32), sizes[sizes > 0].astype(np.int64), users[sizes > 0])
