"""Fits the two stages in their point-in-time order.

A *fold* is everything learnt from the events before a cut: neighbours, item table, towers, index. A
ranker is trained on the candidates of one fold, with the events after its cut as labels. It then
serves with a later fold, whose cut is the end of those labels.

A ranker learns from late positions of known users, and from early positions of a cohort that was
held out from the towers (cold start).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from loky import cpu_count

from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import ItemTable
from shortlist.recsys.models.index import build_index
from shortlist.recsys.models.interactions import Events, Int64
from shortlist.recsys.models.pipeline import Model, by_trend, new_items
from shortlist.recsys.models.ranker import NO_RANKER, Ranker, ranker_from
from shortlist.recsys.models.towers import Towers
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.heap import kept_memory
from shortlist.recsys.training.item_table import content_matrix, fit_item_table
from shortlist.recsys.training.lambdamart import (
    VALIDATION_USER_CAP,
    FittedRanker,
    fit_ranker,
    train_ranker,
)
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.ranking_groups import (
    MakeGroups,
    RankingGroups,
    cold_start_groups,
    in_turn,
    ranker_groups,
)
from shortlist.recsys.training.split import before, cuts
from shortlist.recsys.training.two_tower import Round, TrainedTowers, TrainingProgress, fit_towers

MIN_USERS = 100
"""Fewest users of which a cohort is held out; with fewer, every one is needed to learn from."""


class Fold(IntEnum):
    """What a model may know, each fold more than the one before; the values name directories."""

    BEFORE_LABELS = 0
    """The events before the labels that the reported ranker learns from."""
    BEFORE_HOLDOUT = 1
    """The events before the reported hold-out."""
    EVERYTHING = 2
    """All events: what serves."""


Stage = Callable[[str], AbstractContextManager[TrainingProgress]]
"""Opens a named stage of a run; its value takes the progress."""


@dataclass(frozen=True, slots=True)
class TwoStage:
    """A fitted two-stage model, and the record of its training.

    ranker: the ranker with its validation; rounds: those of the first towers, which knew nothing of
    the labels; epochs: the number that early stopping picked there, and that the model's own towers
    were trained for; events_digest: the digest of the events that these own towers learnt from.
    """

    model: Model
    ranker: FittedRanker
    rounds: list[Round]
    epochs: int
    events_digest: str


def item_table_of(dataset: Dataset, past: Events) -> ItemTable:
    """The neighbours and the item table as of the end of `past`."""
    past = past.standing()
    return fit_item_table(past, dataset.catalogue, fit_neighbours(past))


def train_towers(
    dataset: Dataset,
    past: Events,
    params: FitParams,
    progress: TrainingProgress,
    epochs: int | None = None,
) -> TrainedTowers:
    """Towers trained on `past` for so many epochs, or (None) until early stopping.

    With `epochs` by half of the threads: a refresh trains two folds at once, and whoever trains one
    alone is to get the same bits, which depend on the number of threads.
    """
    threads = threads_of(params)
    with pinned_torch(threads if epochs is None else max(1, threads // 2)):
        return fit_towers(
            past.standing(),
            content_matrix(dataset.catalogue),
            dataset.attributes,
            dataset.vocabulary.size,
            params.towers,
            np.random.default_rng(params.seed),
            progress,
            epochs,
            params.repeats,
        )


def threads_of(params: FitParams) -> int:
    """The number of threads that training takes."""
    return params.threads or cpu_count()


def assemble(
    towers: Towers, table: ItemTable, params: FitParams, ranker: Ranker | None = None
) -> Model:
    """The model of a fold."""
    index = build_index(towers.items, params.n_lists, params.n_probe)
    return Model(
        towers,
        index,
        table,
        ranker,
        params.n_candidates,
        by_trend(table),
        params.exploration_share,
        new_items(table),
        params.repeats,
    )


# Each draw has a generator of its own, seeded by seed + 1, + 2 and so on: one of them can then
# change without moving the others.


def validated_ranker(
    groups: RankingGroups, validation: RankingGroups, params: FitParams
) -> FittedRanker:
    """A ranker trained on `groups`; an empty one where `validation` shows no gain."""
    rng = np.random.default_rng(params.seed + 1)
    return fit_ranker(groups, validation, params.ranker, rng, params.threads)


def refit_ranker(
    reported: FittedRanker, groups: Sequence[RankingGroups], params: FitParams
) -> FittedRanker:
    """The reported ranker, trained again on more groups with as many trees.

    An empty ranker stays empty.
    """
    if reported.text == NO_RANKER:
        return reported
    rng = np.random.default_rng(params.seed + 1)
    sample = RankingGroups.sampled(groups, params.ranker.max_groups, rng)
    return train_ranker(sample, reported.trees, params.ranker, rng, params.threads)


def groups_after(
    model: Model,
    dataset: Dataset,
    events: Events,
    first: Int64,
    horizon: int | None,
    params: FitParams,
    make: MakeGroups = in_turn,
    draw: int = 2,
) -> RankingGroups:
    """Groups whose labels are the events at or after `first`, int64[n_users] rows of `events`.

    The model must know only the events before these. draw: the generator's number.
    """
    last = events.offsets()[1:]
    rng = np.random.default_rng(params.seed + draw)
    return ranker_groups(
        model, events, dataset.attributes, first, last, horizon, params.ranker, rng, make
    )


def cold_start_label_groups(
    model: Model,
    dataset: Dataset,
    past: Events,
    protocol: HoldoutProtocol,
    params: FitParams,
    make: MakeGroups = in_turn,
) -> RankingGroups:
    """Groups from early positions of the cohort that was held out from the model."""
    cohort, last = held_out_cohort(past, params), label_cuts(past, protocol)
    horizon = horizon_of(protocol)
    rng = np.random.default_rng(params.seed + 3)
    return cold_start_groups(
        model, past, dataset.attributes, cohort, last, horizon, params.ranker, rng, make
    )


def ranker_training_groups(
    model: Model,
    dataset: Dataset,
    past: Events,
    protocol: HoldoutProtocol,
    params: FitParams,
    make: MakeGroups = in_turn,
) -> RankingGroups:
    """The groups that a ranker learns from, all within `past`.

    model: one that knows only `past_before_labels`.
    """
    cuts_of_labels, horizon = label_cuts(past, protocol), horizon_of(protocol)
    late = groups_after(model, dataset, past, cuts_of_labels, horizon, params, make)
    early = cold_start_label_groups(model, dataset, past, protocol, params, make)
    return RankingGroups.joined(late.grades, [late, early])


def ranker_validation_groups(
    model: Model,
    dataset: Dataset,
    past: Events,
    protocol: HoldoutProtocol,
    params: FitParams,
    make: MakeGroups = in_turn,
) -> RankingGroups:
    """The groups that validate a ranker: all candidates of some users at the start of the labels.

    model: one that knows only `past_before_labels`.
    """
    whole_lists = replace(
        params.ranker, positions=1, max_groups=VALIDATION_USER_CAP, negatives=params.n_candidates
    )
    return groups_after(
        model,
        dataset,
        past,
        label_cuts(past, protocol),
        horizon_of(protocol),
        replace(params, ranker=whole_lists),
        make,
    )


def fit_inner_ranker(
    model: Model,
    dataset: Dataset,
    past: Events,
    protocol: HoldoutProtocol,
    params: FitParams,
    make: MakeGroups = in_turn,
) -> FittedRanker:
    """A ranker from `past` alone; an empty one where validation shows no gain.

    model: one that knows only `past_before_labels`.
    """
    validation = ranker_validation_groups(model, dataset, past, protocol, params, make)
    groups = ranker_training_groups(model, dataset, past, protocol, params, make)
    return validated_ranker(groups, validation, params)


def held_out_cohort(events: Events, params: FitParams) -> Int64:
    """int64[m]: users held out from the first towers, so that the ranker learns cold start."""
    if events.n_users < MIN_USERS:
        return np.empty(0, np.int64)
    draw = np.random.default_rng(params.seed + 4).random(events.n_users)
    return np.flatnonzero(draw < params.fresh_share)


def past_before_labels(past: Events, protocol: HoldoutProtocol, params: FitParams) -> Events:
    """The events before the ranker's labels, without those of the held-out cohort."""
    early = before(past, label_cuts(past, protocol))
    known = np.ones(early.n_users, np.bool_)
    known[held_out_cohort(past, params)] = False
    return early.select(known)


def past_of(dataset: Dataset, protocol: HoldoutProtocol, params: FitParams, fold: Fold) -> Events:
    """The events that a fold may know."""
    if fold == Fold.EVERYTHING:
        return dataset.events
    before_holdout = before(dataset.events, cuts(dataset.events, protocol))
    if fold == Fold.BEFORE_HOLDOUT:
        return before_holdout
    return past_before_labels(before_holdout, protocol, params)


def horizon_of(protocol: HoldoutProtocol) -> int | None:
    """How many events ahead the labels reach: to the next, or (None) to the end of the window."""
    return 1 if protocol == "leave-one-out" else None


def label_cuts(events: Events, protocol: HoldoutProtocol) -> Int64:
    """int64[n_users]: the row of `events` at which a user's label window starts."""
    has_order = len(events) > 0 and events.time.min() < events.time.max()
    # Leave-one-out has windows of a tenth, too: several positions, each with one event as label.
    return cuts(events, "time" if protocol == "time" and has_order else "last-10pct")


def fit_two_stage(
    dataset: Dataset,
    past: Events,
    protocol: HoldoutProtocol,
    params: FitParams,
    stage: Stage,
    make: MakeGroups = in_turn,
) -> TwoStage:
    """A two-stage model from `past` alone. `make` makes the ranker's groups.

    The ranker is trained on an inner fold; a fold of all of `past` serves. Early stopping: the
    first towers hold out some events and pick the number of epochs; the final ones use all data.
    """
    early_past = past_before_labels(past, protocol, params)
    with stage("features before the labels"):
        early_table = item_table_of(dataset, early_past)
    with stage("towers before the labels") as progress:
        early_towers = train_towers(dataset, early_past, params, progress)
    with stage("ranker") as progress:
        early_model = assemble(early_towers.towers, early_table, params)
        ranker = fit_inner_ranker(early_model, dataset, past, protocol, params, make)
        progress(1.0, ranker.note)
    with stage("features"):
        table = item_table_of(dataset, past)
    with stage("towers") as progress:
        trained = train_towers(dataset, past, params, progress, early_towers.epochs)
    model = assemble(trained.towers, table, params, ranker_from(ranker.text))
    return TwoStage(model, ranker, early_towers.rounds, early_towers.epochs, trained.events_digest)


def without_ranker(model: Model) -> Model:
    """The same model, whose lists are in the retriever's order."""
    return replace(model, ranker=None)


@contextmanager
def pinned_torch(threads: int) -> Iterator[None]:
    """Runs torch reproducibly on `threads` threads, with memory that it keeps meanwhile.

    Restores torch's state.
    """
    import torch

    deterministic: Any = torch.utils.deterministic
    threads_before = torch.get_num_threads()
    mode_before = torch.get_deterministic_debug_mode()
    fills_before = deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    # Otherwise threads add up gradients in the order in which they finish.
    torch.set_deterministic_debug_mode("error")
    # A help for those who debug: every new tensor would be filled with NaN first.
    deterministic.fill_uninitialized_memory = False
    try:
        with kept_memory():
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_deterministic_debug_mode(mode_before)
        deterministic.fill_uninitialized_memory = fills_before
