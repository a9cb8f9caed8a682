"""Trains the ranker: LambdaMART on the retriever's own candidates.

LambdaMART (Burges, 2010) is trained by LightGBM, point in time. Towers, neighbours and the item
table know only the events before each user's first cut; the labels are the events after it. Several
positions of that window become one ranking group each: the state is everything before the position.
Labels are graded by the strength of the events' kinds. A group needs a label of a kind to predict,
and validation asks for these alone.

The number of trees, and whether there is a ranker at all, is cross-validated over users. Validation
ranks all candidates: with a sample of them, a difference at rank 30 would count as one at rank 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models import own_events
from shortlist.recsys.models.features import FEATURES, Candidates, features
from shortlist.recsys.models.interactions import (
    MISSING,
    NEVER,
    Events,
    Float32,
    Int32,
    Int64,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ranker import NO_RANKER, stamp
from shortlist.recsys.models.ties import Steps, cuts_after_next, steps_of
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.split import before
from shortlist.recsys.training.targets import ranker_labels

GROUPS_AT_ONCE = 64
"""Groups whose candidates are retrieved together, which bounds the memory of their features."""

COLD_START_HORIZON = 10
"""Events that are the labels of a user of the held-out cohort, where the protocol names none."""

DEPTH = 10
"""The cut-off of the NDCG that decides the number of trees, and whether there is a ranker."""

MIN_BAGGED_ROWS = 1000
"""Fewest rows of which LightGBM draws a share; its draw from fewer could come out empty."""

NEGATIVES_BESIDE_OWN = 2
"""So many times the negatives where users are offered what they had.

Those are all kept, and are to be ranked against the rest: fewer of the rest, and validation fell.
"""

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
class Grades:
    """What labels are worth: 0 is no label, and each further one is worth more or as much.

    gains: the gain of each; is_hit: whether it is of a kind to predict.
    """

    gains: tuple[float, ...] = (0.0, 1.0)
    is_hit: tuple[bool, ...] = (False, True)


BINARY = Grades()
"""The grades of events that are all alike."""


@dataclass(frozen=True, slots=True)
class RankingGroups:
    """Ranking groups, their rows in the retriever's order.

    rows: float32[m, F]; labels: float32[m], positions in the grades; sizes: int64[g], rows of each
    group; users: int64[g].
    """

    rows: Float32
    labels: Float32
    sizes: Int64
    users: Int64
    grades: Grades = BINARY

    @staticmethod
    def empty(grades: Grades = BINARY) -> RankingGroups:
        """No groups."""
        rows, labels = np.empty((0, len(FEATURES)), np.float32), np.empty(0, np.float32)
        return RankingGroups(rows, labels, np.empty(0, np.int64), np.empty(0, np.int64), grades)

    @staticmethod
    def joined(parts: Sequence[RankingGroups]) -> RankingGroups:
        """The groups of all parts, which have the same grades, in their order."""
        return RankingGroups(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.users for part in parts]),
            parts[0].grades,
        )

    def to_predict(self) -> RankingGroups:
        """The same groups, of which the labels of a kind to predict count, and all alike."""
        hits = np.array(self.grades.is_hit, np.float32)[self.labels.astype(np.int64)]
        return replace(self, labels=hits, grades=BINARY)

    def take(self, mask: NDArray[np.bool_]) -> RankingGroups:
        """The groups where `mask` (bool[g]) holds, in their order."""
        rows = np.repeat(mask, self.sizes)
        return replace(
            self,
            rows=self.rows[rows],
            labels=self.labels[rows],
            sizes=self.sizes[mask],
            users=self.users[mask],
        )

    @staticmethod
    def sampled(
        parts: Sequence[RankingGroups], most: int, rng: np.random.Generator
    ) -> RankingGroups:
        """At most so many of the groups of all parts, drawn at random, in their order."""
        ends = np.cumsum([len(part.sizes) for part in parts])
        drawn = np.ones(ends[-1], np.bool_)
        if len(drawn) > most:
            drawn[rng.permutation(len(drawn))[most:]] = False
        # Drawn before they are joined: rows are the largest thing that training holds.
        masks = np.split(drawn, ends[:-1])
        return RankingGroups.joined([p.take(mask) for p, mask in zip(parts, masks, strict=True)])


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


def ranker_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    first: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
) -> RankingGroups:
    """Groups from the label windows first[u]:last[u] of each user, both int64[n_users].

    The model must know nothing at or after `first`. horizon: how many of the following events to
    predict are labels (with those in between, and those that share the last one's time), or None
    for the rest of the window. No state ends, and no labels end, inside a tie.
    """
    steps = steps_of(events)
    users, cuts = _positions(events, steps, first, last, params, rng)
    stops = last[users]
    if horizon is not None:
        stops = cuts_after_next(events, cuts, last[users], horizon)
    return _groups_of_windows(model, events, attributes, (users, cuts, stops), params, rng)


def cold_start_groups(
    model: Model,
    events: Events,
    attributes: Int32,
    users: Int64,
    last: Int64,
    horizon: int | None,
    params: RankerParams,
    rng: np.random.Generator,
) -> RankingGroups:
    """Groups from early positions of users whom the model never saw.

    last: int64[n_users], the row of each user at which the usable events end. Labels reach to the
    next `horizon` events to predict, or COLD_START_HORIZON. States and labels end at the border of
    a tie.
    """
    events = before(events, last)
    starts, ends = events.offsets()[:-1], events.offsets()[1:]
    lengths = ends - starts
    users = np.repeat(users[lengths[users] > 1], params.positions)
    if len(users) > params.max_groups:
        users = np.sort(rng.permutation(users)[: params.max_groups])
    # Evenly on a logarithmic scale: the first few events change a list most.
    known = np.floor(np.exp(rng.uniform(0, np.log(lengths[users])))).astype(np.int64)
    steps = steps_of(events)
    cuts = steps.border(starts[users] + known, starts[users])
    n_labels = COLD_START_HORIZON if horizon is None else horizon
    stops = cuts_after_next(events, cuts, ends[users], n_labels)
    return _groups_of_windows(model, events, attributes, (users, cuts, stops), params, rng)


def _groups_of_windows(
    model: Model,
    events: Events,
    attributes: Int32,
    windows: tuple[Int64, Int64, Int64],
    params: RankerParams,
    rng: np.random.Generator,
) -> RankingGroups:
    """A group for each window (user, cut, stop): the state before the cut, the labels after it."""
    users, cuts, stops = windows
    starts = events.offsets()[:-1]
    grades, grade_of_kind = grades_of(events.kinds)
    is_label = ranker_labels(events, model.repeats) & (events.cancelled == NEVER)
    labels_of = np.where(is_label, grade_of_kind[events.kind], 0)
    parts = [RankingGroups.empty(grades)]
    for at in range(0, len(users), GROUPS_AT_ONCE):
        chunk = slice(at, at + GROUPS_AT_ONCE)
        user, cut = users[chunk], cuts[chunk]
        states = states_at(events, starts[user], cut, attributes[user], user)
        states = replace(states, repeats=model.repeats)
        windows_of = list(map(slice, cut.tolist(), stops[chunk].tolist()))
        labels = [(events.item[rows], labels_of[rows]) for rows in windows_of]
        parts.append(_groups(model, states, user, labels, grades, params, rng))
    return RankingGroups.joined(parts)


def grades_of(kinds: Sequence[EventKind]) -> tuple[Grades, Int64]:
    """The grades of labels, and int64[K] the grade of each kind.

    They ascend by strength. Of one strength the kinds to predict have a grade of their own.
    """
    distinct = sorted({(kind.strength, kind.is_target) for kind in kinds})
    grades = Grades(
        (0.0, *(strength for strength, _ in distinct)),
        (False, *(is_target for _, is_target in distinct)),
    )
    own = [distinct.index((kind.strength, kind.is_target)) + 1 for kind in kinds]
    return grades, np.array(own, np.int64)


def _positions(
    events: Events,
    steps: Steps,
    first: Int64,
    last: Int64,
    params: RankerParams,
    rng: np.random.Generator,
) -> tuple[Int64, Int64]:
    """Users, and rows within first[u]:last[u] at which their labels start.

    These are the start of the window and some further starts of steps, drawn at random, that have
    something to predict after them.
    """
    users, places = _steps_within(events, steps, first, last)
    draw = rng.random(len(users))
    draw[places == 0] = -1  # the start of the window is always taken
    order = np.lexsort((draw, users))
    users, places = users[order], places[order]
    kept = _rank_within(users, events.n_users) < params.positions
    users, places = users[kept], places[kept]
    sample = np.sort(rng.permutation(len(users))[: params.max_groups])
    users, places = users[sample], places[sample]
    return users.astype(np.int64), first[users] + places


def _steps_within(events: Events, steps: Steps, first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """Users, and the places within their windows at which a step starts, the first always."""
    length = last - first
    users = np.repeat(np.arange(events.n_users), length)
    places = np.arange(len(users)) - np.repeat(np.cumsum(length) - length, length)
    rows = first[users] + places
    wanted = np.append(0, np.cumsum(events.to_predict))
    starts = (places == 0) | steps.starts_at(rows)
    starts &= wanted[last[users]] > wanted[rows]
    return users[starts], places[starts]


def _rank_within(users: Int64, n_users: int) -> Int64:
    """int64[m]: the place of each entry among those of its user; users: non-decreasing."""
    counts = np.bincount(users, minlength=n_users)
    return np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)


def _groups(
    model: Model,
    states: UserStates,
    users: Int64,
    labels: list[tuple[Int32, Int64]],
    grades: Grades,
    params: RankerParams,
    rng: np.random.Generator,
) -> RankingGroups:
    """A group for each state that has a label to predict among its candidates.

    labels: items and grades of each user's labels.
    """
    candidates = retrieve(model, states)
    pairs = zip(candidates.items, labels, strict=True)
    n_items = len(model.table.popularity) - 1
    graded = np.stack([_graded(row, *label, n_items) for row, label in pairs])
    hit = graded > 0
    used: NDArray[np.bool_] = np.any(np.array(grades.is_hit)[graded], axis=1)
    present = candidates.items != MISSING
    # What the user had is always kept: its order among itself is what repeats are learnt from.
    certain = hit | own_events.had(states, candidates.items, n_items)
    # Ranked by the draw: what is certain first, then random negatives, then padding.
    draw = np.where(certain, -1, rng.random(hit.shape))
    draw[~present] = 2
    rank = np.argsort(np.argsort(draw, axis=1), axis=1)
    times = 1 if model.repeats is Repeats.NEVER else NEGATIVES_BESIDE_OWN
    kept = rank < certain.sum(axis=1, keepdims=True) + times * params.negatives
    kept &= present & used[:, None]
    if not used.any():
        return RankingGroups.empty(grades)
    offered = Candidates(candidates.items[used], candidates.scores[used]).only(kept[used])
    rows = features(states.take(used), offered, model.table)
    sizes = kept[used].sum(axis=1)
    return RankingGroups(rows, graded[kept].astype(np.float32), sizes, users[used], grades)


def _graded(candidates: Int32, items: Int32, grades: Int64, n_items: int) -> Int64:
    """int64[C]: the highest grade of each candidate, 0 for none and for padding."""
    best = np.zeros(n_items + 1, np.int64)  # padding reads the last entry
    np.maximum.at(best, items, grades)
    return best[candidates]
