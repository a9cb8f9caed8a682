"""Trains the ranker: LambdaMART on the retriever's own candidates.

LambdaMART (Burges, 2010) is trained by LightGBM on the groups of `ranking_groups`; validation asks
for labels of a kind to predict alone.

The number of trees, and whether there is a ranker at all, is cross-validated over users. Validation
ranks all candidates: with a sample of them, a difference at rank 30 would count as one at rank 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.interactions import MISSING, Int64
from shortlist.recsys.models.ranker import NO_RANKER, stamp
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.ranking_groups import BINARY, RankingGroups

DEPTH = 10
"""The cut-off of the NDCG that decides the number of trees, and whether there is a ranker."""

MIN_BAGGED_ROWS = 1000
"""Fewest rows of which LightGBM draws a share; its draw from fewer could come out empty."""

FOLDS = 4
"""Most folds of users in cross-validation; each is validated by a ranker of the other users."""

MOST_WITHHELD = 0.2
"""Share of the groups that a ranker may lack for there to be fewer folds.

It is less than it lacks where all users are in validation: a quarter.
"""

VALIDATION_USER_CAP = 2000
"""Most users in validation."""

MIN_VALIDATION_USERS = 30
"""Fewest users with a label among their candidates; with fewer no validation shows a gain."""

ENOUGH = 0.9
"""Share of the best gain over the retriever that the fewest trees must reach."""

_HAD, _OWN = (list(FEATURES).index(name) for name in ("had", "own_all"))

CURVE_DIGITS = 12
"""Decimals of the validation curve; a float holds about 16."""

SMOOTHING = 21
"""Trees over which the validation curve is averaged: one alone moves it more than ten together."""


@dataclass(frozen=True, slots=True)
class Validation:
    """NDCG@10 of users whom the validated rankers had not learnt from.

    ranker, retriever: means over the `n_users` with a label among their candidates, by the ranker
    and in the retriever's own order; difference: ranker - retriever; standard_error: of that
    difference, user by user.
    """

    ranker: float
    retriever: float
    difference: float
    standard_error: float
    n_users: int

    @property
    def shows_a_gain(self) -> bool:
        """Whether the ranker is better by more than one standard error.

        Otherwise the simpler model is taken (the one-standard-error rule of Breiman et al., 1984).
        """
        return self.difference > self.standard_error

    def note(self) -> str:
        """The figures in words."""
        gain = f"{self.difference:+.4f} \N{PLUS-MINUS SIGN} {self.standard_error:.4f}"
        return (
            f"validation NDCG@10 of {self.n_users} users {self.ranker:.4f}, "
            f"the retriever's {self.retriever:.4f} ({gain})"
        )


@dataclass(frozen=True, slots=True)
class FittedRanker:
    """A trained ranker, and the record of its training.

    text: the stamped LightGBM model, empty where lists are to come in the retriever's order;
    importances: share of the total gain by feature; note: the decision and its reason; curve: the
    cross-validated NDCG@10 after each tree, empty where nothing could be validated; trees: their
    number; n_groups: the groups that it learnt from; validation: the figures behind the decision.
    """

    text: str
    importances: dict[str, float]
    note: str
    curve: tuple[float, ...] = ()
    trees: int = 0
    n_groups: int = 0
    validation: Validation | None = None


def fit_ranker(
    groups: RankingGroups,
    validation: RankingGroups,
    params: RankerParams,
    rng: np.random.Generator,
    threads: int,
) -> FittedRanker:
    """The ranker that learns from `groups`; an empty one where validation shows no gain.

    validation: groups with all candidates, in the retriever's order; the users are those of
    `groups`, or some of them. The number of trees is cross-validated over users; the ranker then
    learns from all of them. A single fold's is taken as it is: it lacks few of the groups.
    """
    validation = validation.to_predict()
    n_users = len(np.unique(validation.users))
    if n_users < MIN_VALIDATION_USERS:
        note = (
            f"only {n_users} users have a label among their candidates, "
            f"and {MIN_VALIDATION_USERS} are needed to validate a ranker: "
            "lists come in the retriever's order"
        )
        return FittedRanker(NO_RANKER, {}, note)
    folds, curve, trees, figures = _cross_validated(groups, validation, params, rng, threads)
    if not figures.shows_a_gain:
        note = f"{figures.note()} shows no gain: lists come in the retriever's order"
        return FittedRanker(NO_RANKER, {}, note, curve, validation=figures)
    if len(folds) == 1:
        fitted = _fitted(*folds[0], trees)
    else:
        del folds  # and their data, which are as large as what follows
        fitted = train_ranker(groups, trees, params, rng, threads)
    note = f"{fitted.note}; {figures.note()}"
    return replace(fitted, note=note, curve=curve, validation=figures)


def train_ranker(
    groups: RankingGroups,
    trees: int,
    params: RankerParams,
    rng: np.random.Generator,
    threads: int,
) -> FittedRanker:
    """The ranker of so many trees that learns from all `groups`."""
    import lightgbm

    options = _options(params, groups, len(groups.rows), threads, int(rng.integers(2**31)))
    data = lightgbm.Dataset(**_dataset(groups, threads))
    booster = lightgbm.train(options, data, num_boost_round=trees)
    return _fitted(booster, len(groups.sizes), trees)


def _fitted(booster: Any, n_groups: int, trees: int) -> FittedRanker:  # noqa: ANN401 - a Booster
    """The ranker of a booster's first trees, which learnt from so many groups."""
    gain = booster.feature_importance("gain", iteration=trees)
    shares = gain / max(gain.sum(), np.finfo(float).tiny)  # without a split the gain is 0
    return FittedRanker(
        stamp(booster.model_to_string(num_iteration=trees)),
        importances=dict(zip(FEATURES, shares.tolist(), strict=True)),
        note=f"{min(trees, booster.num_trees())} trees from {n_groups} groups",
        trees=trees,
        n_groups=n_groups,
    )


def enough_trees(curve: Sequence[float], without: float) -> int:
    """The fewest trees whose gain over `without` is ENOUGH of the best gain of any number.

    curve: NDCG@10 after each tree, which is smoothed; without: NDCG@10 of no tree. The curve soon
    becomes flat: where on that its top lies is chance, where it stops rising is not.
    """
    if len(curve) == 0:
        return 0
    smooth = _smoothed(curve)
    best = smooth.max()
    enough = best - (1 - ENOUGH) * max(0.0, best - without)
    return int(np.argmax(smooth >= enough)) + 1


def _best_trees(curve: Sequence[float]) -> int:
    """The number of trees at which the smoothed curve is highest, 0 for an empty one."""
    return int(np.argmax(_smoothed(curve))) + 1 if curve else 0


def _smoothed(curve: Sequence[float]) -> NDArray[np.float64]:
    """The centred mean over SMOOTHING trees; over fewer at the ends, or for a short curve.

    The first trees are averaged over as many before as after: the curve rises steeply there, and
    later trees alone would lend the first one their gain.
    """
    n = len(curve)
    tree = np.arange(n)
    half = min(SMOOTHING // 2, (n - 1) // 4)
    first = np.maximum(0, tree - half)
    after = np.minimum(n, tree + np.minimum(half, tree) + 1)
    total = np.concatenate(([0.0], np.cumsum(curve)))
    return (total[after] - total[first]) / (after - first)


def _cross_validated(
    groups: RankingGroups,
    validation: RankingGroups,
    params: RankerParams,
    rng: np.random.Generator,
    threads: int,
) -> tuple[list[tuple[Any, int]], tuple[float, ...], int, Validation]:
    """Each fold's booster with the number of its groups; the curve; the trees; their figures.

    Each fold of users is validated by a ranker that learnt from all other users. The curve is the
    mean NDCG@10 after each tree, the trees are as many as are enough.
    """
    fold_of = _folds(groups, validation, rng)
    n_folds = int(fold_of.max()) + 1
    folds = [
        _booster_of_fold(groups, validation, fold_of, fold, params, rng, threads)
        for fold in range(n_folds)
    ]
    boosters = [booster for booster, _ in folds]
    sizes = np.bincount(fold_of[validation.users], minlength=n_folds)
    curve = _grow(boosters, sizes, params)
    retriever = -np.arange(len(validation.rows), dtype=np.float64)  # rows are in its order
    trees = enough_trees(curve, _floor(validation, retriever, curve))
    score = np.zeros(len(validation.rows))
    for fold, booster in enumerate(boosters if trees else []):
        rows = np.repeat(fold_of[validation.users] == fold, validation.sizes)
        score[rows] = booster.predict(
            validation.rows[rows], num_iteration=trees, num_threads=threads
        )
    return folds, tuple(curve), trees, _validation(validation, score, retriever)


def _floor(
    validation: RankingGroups, retriever: NDArray[np.float64], curve: Sequence[float]
) -> float:
    """NDCG@10 from which the gain of further trees is counted.

    It is that of the retriever's order, float64[m]. Where candidates were had before, a single tree
    tells these from the others, which is most of the gain and says nothing of their own order. Then
    it is that of the first tree or of the user's most frequent items, if these are better.
    """
    floors = [float(_ndcg(validation, retriever).mean())]
    if validation.rows[:, _HAD].any():
        own = validation.rows[:, _OWN].astype(np.float64)
        floors += [float(_ndcg(validation, own).mean()), *curve[:1]]
    return max(floors)


def _folds(groups: RankingGroups, validation: RankingGroups, rng: np.random.Generator) -> Int64:
    """int64[highest user + 1]: the fold of each user in validation, MISSING of the others.

    Users of no fold are in the training of every one. There are as few folds as MOST_WITHHELD
    allows: where few of the groups belong to users in validation, one ranker can lack them all.
    """
    users = np.unique(validation.users)
    share = np.isin(groups.users, users).sum() / max(1, len(groups.users))
    n_folds = int(np.clip(np.ceil(share / MOST_WITHHELD), 1, FOLDS))
    highest = int(max(groups.users.max(initial=0), users.max()))
    fold_of = np.full(highest + 1, MISSING)
    fold_of[users] = rng.permutation(len(users)) % n_folds
    return fold_of


def _grow(boosters: Sequence[Any], sizes: Int64, params: RankerParams) -> list[float]:
    """The mean NDCG@10 of all folds after each tree; all boosters grow together.

    Stops when the smoothed curve has not risen for `patience` trees. sizes: int64[folds], groups.
    """
    curve: list[float] = []
    while len(curve) < params.estimators and len(curve) - _best_trees(curve) < params.patience:
        finished = [booster.update() for booster in boosters]
        if all(finished):  # nothing is left to split
            break
        ndcg = [booster.eval_valid()[0][2] for booster in boosters]
        # LightGBM adds it up thread by thread, so that the last digits differ with their number.
        curve.append(round(float(np.average(ndcg, weights=sizes)), CURVE_DIGITS))
    return curve


def _booster_of_fold(
    groups: RankingGroups,
    validation: RankingGroups,
    fold_of: Int64,
    fold: int,
    params: RankerParams,
    rng: np.random.Generator,
    threads: int,
) -> tuple[Any, int]:
    """A booster without trees that learns from the other folds and is validated on this one.

    Also the number of groups that it learns from.
    """
    import lightgbm

    learnt = groups.take(fold_of[groups.users] != fold)
    options = _options(params, groups, len(learnt.rows), threads, int(rng.integers(2**31)))
    train = lightgbm.Dataset(**_dataset(learnt, threads))
    booster = lightgbm.Booster(options, train)
    held_out = _dataset(validation.take(fold_of[validation.users] == fold), threads)
    booster.add_valid(lightgbm.Dataset(**held_out, reference=train), "held out")
    return booster, len(learnt.sizes)


def _validation(
    groups: RankingGroups, ranker: NDArray[np.float64], retriever: NDArray[np.float64]
) -> Validation:
    """The figures of two scores of all rows, float64[m]; a user's groups are averaged."""
    users, user_of = np.unique(groups.users, return_inverse=True)
    n_groups = np.bincount(user_of)
    by_ranker, by_retriever = (
        np.bincount(user_of, _ndcg(groups, score)) / n_groups for score in (ranker, retriever)
    )
    gain = by_ranker - by_retriever
    return Validation(
        float(by_ranker.mean()),
        float(by_retriever.mean()),
        float(gain.mean()),
        float(gain.std(ddof=1) / np.sqrt(len(users))),
        len(users),
    )


def _ndcg(groups: RankingGroups, score: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[g]: NDCG@10 of each group's rows by falling score, of the labels among its rows."""
    group = np.repeat(np.arange(len(groups.sizes)), groups.sizes)
    order = np.lexsort((-score, group))
    starts = np.cumsum(groups.sizes) - groups.sizes
    rank = np.arange(len(order)) - np.repeat(starts, groups.sizes)
    discount = np.where(rank < DEPTH, 1 / np.log2(rank + 2), 0.0)
    hits = np.bincount(group, groups.labels).astype(np.int64)
    ideal = np.cumsum(1 / np.log2(np.arange(DEPTH) + 2))[np.minimum(hits, DEPTH) - 1]
    return np.bincount(group, discount * groups.labels[order]) / ideal


def _options(
    params: RankerParams, groups: RankingGroups, n_rows: int, threads: int, seed: int
) -> dict[str, object]:
    # LightGBM's own gains of the labels 0 and 1 are these.
    graded = {} if groups.grades == BINARY else {"label_gain": list(groups.grades.gains)}
    return graded | {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [DEPTH],
        "lambdarank_truncation_level": params.truncation,
        "learning_rate": params.learning_rate,
        "num_leaves": params.leaves,
        "min_data_in_leaf": params.min_rows_per_leaf,
        "feature_fraction": params.feature_share,
        "bagging_fraction": params.row_share if n_rows >= MIN_BAGGED_ROWS else 1.0,
        "bagging_freq": 1,
        "lambda_l2": params.l2,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }


def _dataset(groups: RankingGroups, threads: int) -> dict[str, Any]:
    """LightGBM's arguments for the groups."""
    return {
        "data": groups.rows,
        "label": groups.labels,
        "group": groups.sizes,
        "feature_name": list(FEATURES),
        # Otherwise it is made on all cores, and LightGBM trains on all from then on.
        "params": {"num_threads": threads},
    }
