"""Trains the ranker: LambdaMART (Burges, 2010) by LightGBM, on the retriever's own candidates, point in time.

Towers, neighbours and the item table know only the events before each user's first cut; the labels
are the events after it. Several positions of that window become one ranking group each: the state
is everything before the position.

How many trees, and whether there is a ranker at all, is decided by users whom the judged rankers
did not learn from, on all
of their candidates: on some of them only, a difference that matters at rank 30 would count as one
at rank 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.features import FEATURES, features
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int32,
    Int64,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ranker import NO_RANKER, stamp
from shortlist.recsys.models.ties import Steps, steps_of
from shortlist.recsys.training.split import before

CHUNK = 64
FRESH_HORIZON = 10
"""Events that are the labels of a fresh user, where the protocol does not say."""

DEPTH = 10
"""The cut-off of the NDCG that decides how many trees there are, and whether there is a ranker."""

FEW_ROWS = 1000
"""Below this, LightGBM's draw of rows could come out empty, and is left out."""

FOLDS = 4
"""Parts of the users, each of which is judged by a ranker that learnt from the others."""

VALIDATION_USER_CAP = 2000
"""Users who are judged, at most."""

MIN_VALIDATION_USERS = 30
"""Users with a label among their candidates, below which no validation could show a gain."""

ENOUGH = 0.9
"""Share of the most that trees add to the retriever, for which the fewest trees are taken."""

SMOOTHING = 21
"""Trees over which the validation curve is averaged: one tree moves it up and down by more than ten do on the whole."""


@dataclass(frozen=True, slots=True)
class RankerParams:
    """How the ranker is trained."""

    estimators: int = 500
    """Most trees; validation usually ends training sooner."""
    learning_rate: float = 0.05
    leaves: int = 15
    min_rows_per_leaf: int = 50
    feature_share: float = 1.0
    row_share: float = 1.0
    """Shares that each tree sees. Less than all of both made the ranker, and the number of its trees, a matter of luck."""
    l2: float = 5.0
    truncation: int = 20
    patience: int = 40
    """Trees without a better validation NDCG@10, smoothed, before training stops."""
    positions: int = 5
    """Label positions a user, at most."""
    max_groups: int = 20_000
    negatives: int = 150
    """Candidates without a label that are kept for each group, drawn at random."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Ranking groups, their rows in the retriever's order.

    rows: float32[m, F]; labels: float32[m]; sizes: int64[g], rows of each group; users: int64[g].
    """

    rows: Float32
    labels: Float32
    sizes: Int64
    users: Int64

    @staticmethod
    def joined(parts: Sequence[Groups]) -> Groups:
        """The groups of all parts, in their order."""
        return Groups(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Groups))
        )

    def some(self, wanted: int, rng: np.random.Generator) -> Groups:
        """At most so many groups, drawn at random, in their order."""
        if len(self.sizes) <= wanted:
            return self
        kept = np.zeros(len(self.sizes), np.bool_)
        kept[rng.permutation(len(kept))[:wanted]] = True
        rows = np.repeat(kept, self.sizes)
        return Groups(self.rows[rows], self.labels[rows], self.sizes[kept], self.users[kept])


@dataclass(frozen=True, slots=True)
class Validation:
    """NDCG@10 of users whom the judged rankers had not learnt from, by the ranker and in the retriever's own order.

    ranker, retriever: means over the `n_users` with a label among their candidates; difference:
    ranker - retriever, and
    standard_error: of that difference, user by user.
    """

    ranker: float
    retriever: float
    difference: float
    standard_error: float
    n_users: int

    @property
    def shows_a_gain(self) -> bool:
        """Whether the ranker is better by more than one standard error: else the simpler model is taken (Breiman, 1984)."""
        return self.difference > self.standard_error

    def note(self) -> str:
        """The figures for a reader."""
        gain = f"{self.difference:+.4f} \N{PLUS-MINUS SIGN} {self.standard_error:.4f}"
        return f"validation NDCG@10 of {self.n_users} users {self.ranker:.4f}, the retriever's {self.retriever:.4f} ({gain})"


@dataclass(frozen=True, slots=True)
class FittedRanker:
    """What training gave.

    text: the stamped LightGBM model, empty where lists are to come in the retriever's order;
    importances: share of the total gain by feature; note: what was decided, and why; curve: the
    cross-validated NDCG@10 after each tree, empty where nothing could be validated; trees,
    n_groups: how many it has, and learnt from; validation: what decided.
    """

    text: str
    importances: dict[str, float]
    note: str
    curve: tuple[float, ...] = ()
    trees: int = 0
    n_groups: int = 0
    validation: Validation | None = None


def fit_ranker(
    groups: Groups, judged: Groups, params: RankerParams, rng: np.random.Generator, threads: int
) -> FittedRanker:
    """The ranker that learns from `groups`, or none where validation shows no gain over the retriever's order.

    judged: groups with all candidates, in the retriever's order; the users are those of `groups`,
    or some of them. How many trees to train is cross-validated over users; the ranker then learns
    from all of them.
    """
    n_judged = len(np.unique(judged.users))
    if n_judged < MIN_VALIDATION_USERS:
        few = f"only {n_judged} users have a label among their candidates, and {MIN_VALIDATION_USERS} are needed to validate a ranker"
        return FittedRanker(NO_RANKER, {}, f"{few}: lists come in the retriever's order")
    curve, trees, validation = _cross_validated(groups, judged, params, rng, threads)
    if not validation.shows_a_gain:
        note = f"{validation.note()} shows no gain: lists come in the retriever's order"
        return FittedRanker(NO_RANKER, {}, note, curve, validation=validation)
    fitted = train_ranker(groups, trees, params, rng, threads)
    return replace(
        fitted, note=f"{fitted.note}; {validation.note()}", curve=curve, validation=validation
    )


def train_ranker(
    groups: Groups, trees: int, params: RankerParams, rng: np.random.Generator, threads: int
) -> FittedRanker:
    """The ranker of so many trees that learns from all `groups`."""
    import lightgbm

    options = _options(params, len(groups.rows), threads, int(rng.integers(2**31)))
    everything = np.ones(len(groups.sizes), np.bool_)
    booster = lightgbm.train(
        options, lightgbm.Dataset(**_dataset(groups, everything)), num_boost_round=trees
    )
    gain = booster.feature_importance("gain")
    shares = (gain / max(gain.sum(), np.finfo(float).tiny)).tolist()
    note = f"{booster.num_trees()} trees from {len(groups.sizes)} groups"
    importances = dict(zip(FEATURES, shares, strict=True))
    return FittedRanker(
        stamp(booster.model_to_string()), importances, note, (), trees, len(groups.sizes)
    )


def enough_trees(curve: Sequence[float], without: float) -> int:
    """The fewest trees that give ENOUGH of the most that any number of them adds to `without`, the NDCG@10 of none.

    curve: NDCG@10 after each tree, which is smoothed. The curve soon becomes flat, and where on
    that its top lies is chance; where it stops to rise is not.
    """
    if len(curve) == 0:
        return 0
    smooth = _smoothed(curve)
    most = smooth.max()
    return int(np.argmax(smooth >= most - (1 - ENOUGH) * max(0.0, most - without))) + 1


def _top(curve: Sequence[float]) -> int:
    """The number of trees at which the smoothed curve is highest, 0 for an empty one."""
    return int(np.argmax(_smoothed(curve))) + 1 if curve else 0


def _smoothed(curve: Sequence[float]) -> NDArray[np.float64]:
    """The mean over SMOOTHING trees around each, of those there are; over fewer where the curve is short."""
    at, n = np.arange(len(curve)), len(curve)
    half = min(SMOOTHING // 2, (n - 1) // 4)
    first, after = np.maximum(0, at - half), np.minimum(n, at + half + 1)
    total = np.concatenate(([0.0], np.cumsum(curve)))
    return (total[after] - total[first]) / (after - first)


def _cross_validated(
    groups: Groups, judged: Groups, params: RankerParams, rng: np.random.Generator, threads: int
) -> tuple[tuple[float, ...], int, Validation]:
    """The mean NDCG@10 after each tree, how many trees are enough, and the figures of so many.

    Each fold of users is judged by a ranker that learnt from the other folds. All grow tree by tree
    together, until the smoothed mean curve has not risen for `patience` trees.
    """
    users = np.unique(judged.users)
    fold_of = np.full(
        int(max(groups.users.max(initial=0), users.max())) + 1, MISSING
    )  # whom nobody judges, all learn from
    fold_of[users] = rng.permutation(len(users)) % FOLDS
    boosters = [
        _judged_booster(groups, judged, fold_of, fold, params, rng, threads)
        for fold in range(FOLDS)
    ]
    sizes = np.bincount(fold_of[judged.users], minlength=FOLDS)
    curve: list[float] = []
    while len(curve) < params.estimators and len(curve) - _top(curve) < params.patience:
        finished = [booster.update() for booster in boosters]
        if all(finished):  # nothing is left to split
            break
        curve.append(
            float(np.average([booster.eval_valid()[0][2] for booster in boosters], weights=sizes))
        )
    in_order = -np.arange(len(judged.rows), dtype=np.float64)  # rows are in the retriever's order
    trees = enough_trees(curve, float(_ndcg(judged, in_order).mean()))
    score = np.zeros(len(judged.rows))
    for fold, booster in enumerate(boosters if trees else []):
        rows = np.repeat(fold_of[judged.users] == fold, judged.sizes)
        score[rows] = booster.predict(judged.rows[rows], num_iteration=trees, num_threads=threads)
    return tuple(curve), trees, _validation(judged, score, in_order)


def _judged_booster(
    groups: Groups,
    judged: Groups,
    fold_of: Int64,
    fold: int,
    params: RankerParams,
    rng: np.random.Generator,
    threads: int,
) -> Any:  # noqa: ANN401 - a Booster of LightGBM, which has no types
    """A booster without trees that will learn from the users of all folds but this one, and be judged by the others."""
    import lightgbm

    learnt = _dataset(groups, fold_of[groups.users] != fold)
    options = _options(params, len(learnt["data"]), threads, int(rng.integers(2**31)))
    train = lightgbm.Dataset(**learnt)
    booster = lightgbm.Booster(options, train)
    held = lightgbm.Dataset(**_dataset(judged, fold_of[judged.users] == fold), reference=train)
    return booster.add_valid(held, "judged")


def _validation(
    judged: Groups, score: NDArray[np.float64], in_order: NDArray[np.float64]
) -> Validation:
    """The figures of the ranker's and the retriever's scores, both float64[m]; a user's groups are averaged."""
    users, of = np.unique(judged.users, return_inverse=True)
    by_user = np.stack(
        [np.bincount(of, _ndcg(judged, by)) / np.bincount(of) for by in (score, in_order)]
    )
    gain = by_user[0] - by_user[1]
    ranker, retriever = by_user.mean(axis=1).tolist()
    error = float(gain.std(ddof=1) / np.sqrt(len(users)))
    return Validation(ranker, retriever, float(gain.mean()), error, len(users))


def _ndcg(groups: Groups, score: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[g]: NDCG@10 of each group's rows by falling score, of the labels among its rows."""
    group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    order = np.lexsort((-score, group))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(groups.sizes) - groups.sizes, groups.sizes)
    discount = np.where(rank < DEPTH, 1 / np.log2(rank + 2), 0.0)
    hits = np.bincount(group, groups.labels).astype(np.int64)
    ideal = np.cumsum(1 / np.log2(np.arange(DEPTH) + 2))[np.minimum(hits, DEPTH) - 1]
    return np.bincount(group, discount * groups.labels[order]) / ideal


def _options(params: RankerParams, n_rows: int, threads: int, seed: int) -> dict[str, object]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [DEPTH],
        "lambdarank_truncation_level": params.truncation,
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_rows_per_leaf,
        "feature_fraction": params.feature_share,
        "bagging_fraction": params.row_share if n_rows >= FEW_ROWS else 1.0,
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

    horizon: how many of the following events are labels (and what shares the last one's time), or
    None for the rest of the window. No state ends, and no labels end, inside a tie.
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

    How many events are known is drawn evenly on a logarithmic scale; labels are the next `horizon`
    events, or FRESH_HORIZON. Both end at the border of a tie.
    """
    events = before(events, last)
    starts, ends = events.offsets()[:-1], events.offsets()[1:]
    users = np.repeat(users[(ends - starts)[users] > 1], params.positions)
    users = (
        np.sort(rng.permutation(users)[: params.max_groups])
        if len(users) > params.max_groups
        else users
    )
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
        np.empty((0, len(FEATURES)), np.float32),
        np.empty(0, np.float32),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
    )
    parts = [empty]
    for s in range(0, len(users), CHUNK):
        u, cut = users[s : s + CHUNK], cuts[s : s + CHUNK]
        states = states_at(events, starts[u], cut, attributes[u])
        labels = [events.item[a:b] for a, b in zip(cut, stops[s : s + CHUNK], strict=True)]
        parts.append(_groups(model, states, u, labels, params, rng))
    return Groups.joined(parts)


def _positions(
    events: Events,
    steps: Steps,
    first: Int64,
    last: Int64,
    params: RankerParams,
    rng: np.random.Generator,
) -> tuple[Int64, Int64]:
    """Users, and where within first[u]:last[u] their labels start: at starts of steps, of which some are drawn."""
    length = last - first
    users = np.repeat(np.arange(events.n_users), length)
    places = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
    able = (places == 0) | steps.starts_at(first[users] + places)
    users, places, length = (
        users[able],
        places[able],
        np.bincount(users[able], minlength=events.n_users),
    )
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
    model: Model,
    states: UserStates,
    users: Int64,
    labels: list[Int32],
    params: RankerParams,
    rng: np.random.Generator,
) -> Groups:
    candidates = retrieve(model, states)
    hit = np.stack(
        [np.isin(row, label) for row, label in zip(candidates.items, labels, strict=True)]
    )
    present = candidates.items != MISSING
    draw = np.where(hit, -1, rng.random(hit.shape))
    draw[~present] = 2
    kept = (
        np.argsort(np.argsort(draw, axis=1), axis=1)
        < hit.sum(axis=1, keepdims=True) + params.negatives
    )
    kept &= present & hit.any(axis=1, keepdims=True)
    rows = features(states, candidates, model.table)[kept[present]]
    sizes = kept.sum(axis=1)
    return Groups(
        rows, hit[kept].astype(np.float32), sizes[sizes > 0].astype(np.int64), users[sizes > 0]
    )
