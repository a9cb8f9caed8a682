"""Fits the two stages in their point-in-time order.

A *fold* is everything learnt from the events before some moment: neighbours, item table, towers,
index. A ranker is trained on a fold and the labels after its moment, and then serves with a later
fold, whose moment is the labels' end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import ItemTable
from shortlist.recsys.models.index import build_index
from shortlist.recsys.models.interactions import Events, Int64
from shortlist.recsys.models.pipeline import Model, by_trend, new_items
from shortlist.recsys.models.ranker import NO_RANKER, Ranker, ranker_from
from shortlist.recsys.models.towers import Towers
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import content_matrix, fit_item_table
from shortlist.recsys.training.lambdamart import (
    VALIDATION_USER_CAP,
    FittedRanker,
    Groups,
    RankerParams,
    fit_ranker,
    fresh_groups,
    ranker_groups,
    train_ranker,
)
from shortlist.recsys.training.split import before, cuts
from shortlist.recsys.training.two_tower import Progress, Round, TowerParams, Trained, fit_towers

MIN_USERS = 100
"""Users below which none is spared for the fresh cohort."""

Stage = Callable[[str], AbstractContextManager[Progress]]
"""Opens a named stage, and gives what to call with its progress."""


@dataclass(frozen=True, slots=True)
class FitParams:
    """Everything that shapes a model beside the data."""

    towers: TowerParams = field(default_factory=TowerParams)
    ranker: RankerParams = field(default_factory=RankerParams)
    n_candidates: int = 500
    n_lists: int = 100
    n_probe: int = 10
    exploration_share: float = 0.01
    fresh_share: float = 0.1
    """Share of the users that the towers before the ranker's labels never see."""
    seed: int = 20260801
    threads: int = 0
    """Threads of torch and LightGBM in training; 0 takes every core."""


@dataclass(frozen=True, slots=True)
class TwoStage:
    """What `fit_two_stage` gave.

    model: what serves; ranker: how its ranker was trained; rounds: how the towers before the labels
    were; epochs: how many of those led to the best towers, for as many of which the model's own
    were trained; learnt_from: the digest of the events that these own towers were given.
    """

    model: Model
    ranker: FittedRanker
    rounds: list[Round]
    epochs: int
    learnt_from: str


def item_table_of(dataset: Dataset, past: Events) -> ItemTable:
    """The neighbours and item table as of the end of `past`."""
    return fit_item_table(past, dataset.catalogue, fit_neighbours(past))


def towers_of(
    dataset: Dataset, past: Events, params: FitParams, progress: Progress, epochs: int | None = None
) -> Trained:
    """Towers trained on `past`: for so many epochs, or until held-back events are foretold no better."""
    with pinned_torch(params.threads):
        return fit_towers(
            past,
            content_matrix(dataset.catalogue),
            dataset.attributes,
            dataset.vocabulary.size,
            params.towers,
            np.random.default_rng(params.seed),
            progress,
            epochs,
        )


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
    )


def ranker_of(groups: Groups, judged: Groups, params: FitParams) -> FittedRanker:
    """The ranker that learns from these groups, or none where the judged users do not show a gain."""
    return fit_ranker(
        groups, judged, params.ranker, np.random.default_rng(params.seed + 1), params.threads
    )


def refit_ranker(
    reported: FittedRanker, groups: Sequence[Groups], params: FitParams
) -> FittedRanker:
    """What was reported on, trained again on more groups: a ranker of as many trees, or none where there was none."""
    if reported.text == NO_RANKER:
        return reported
    rng = np.random.default_rng(params.seed + 1)
    joined = Groups.joined(groups).some(params.ranker.max_groups, rng)
    return train_ranker(joined, reported.trees, params.ranker, rng, params.threads)


def groups_after(
    model: Model,
    dataset: Dataset,
    events: Events,
    first: Int64,
    horizon: int | None,
    params: FitParams,
) -> Groups:
    """Groups whose labels are the events at or after `first`, of a model that knows only the events before."""
    last, rng = events.offsets()[1:], np.random.default_rng(params.seed + 2)
    return ranker_groups(
        model, events, dataset.attributes, first, last, horizon, params.ranker, rng
    )


def cold_start_label_groups(
    model: Model, dataset: Dataset, past: Events, protocol: HoldoutProtocol, params: FitParams
) -> Groups:
    """Groups from the beginnings of the users that `past_before_labels` keeps from the model."""
    users, last = held_out_cohort(past, params), label_cuts(past, protocol)
    rng = np.random.default_rng(params.seed + 3)
    return fresh_groups(
        model, past, dataset.attributes, users, last, horizon_of(protocol), params.ranker, rng
    )


def groups_inside(
    model: Model, dataset: Dataset, past: Events, protocol: HoldoutProtocol, params: FitParams
) -> Groups:
    """The groups that a ranker from `past` alone learns from, on a model that knows its `past_before_labels`."""
    after = groups_after(
        model, dataset, past, label_cuts(past, protocol), horizon_of(protocol), params
    )
    return Groups.joined([after, cold_start_label_groups(model, dataset, past, protocol, params)])


def validation_inside(
    model: Model, dataset: Dataset, past: Events, protocol: HoldoutProtocol, params: FitParams
) -> Groups:
    """Groups that judge such a ranker: all candidates of some users, as of the start of their labels."""
    wanted = replace(
        params.ranker, positions=1, max_groups=VALIDATION_USER_CAP, negatives=params.n_candidates
    )
    whole = replace(params, ranker=wanted)
    return groups_after(
        model, dataset, past, label_cuts(past, protocol), horizon_of(protocol), whole
    )


def ranker_inside(
    model: Model, dataset: Dataset, past: Events, protocol: HoldoutProtocol, params: FitParams
) -> FittedRanker:
    """A ranker from `past` alone, on a model that knows its `past_before_labels`; none where it would add nothing."""
    judged = validation_inside(model, dataset, past, protocol, params)
    return ranker_of(groups_inside(model, dataset, past, protocol, params), judged, params)


def held_out_cohort(events: Events, params: FitParams) -> Int64:
    """int64[m]: the users that the towers before the labels never see, so that the ranker learns what fresh users do."""
    if events.n_users < MIN_USERS:
        return np.empty(0, np.int64)
    return np.flatnonzero(
        np.random.default_rng(params.seed + 4).random(events.n_users) < params.fresh_share
    )


def past_before_labels(past: Events, protocol: HoldoutProtocol, params: FitParams) -> Events:
    """What the model before the ranker's labels may know: the events before them, and none of the fresh cohort."""
    inner = before(past, label_cuts(past, protocol))
    return inner.take(~np.isin(inner.user, held_out_cohort(past, params)))


def horizon_of(protocol: HoldoutProtocol) -> int | None:
    """How many events ahead the protocol asks for: the next one and what shares its time, or (None) all that are held out."""
    return 1 if protocol == "leave-one-out" else None


def label_cuts(events: Events, protocol: HoldoutProtocol) -> Int64:
    """int64[n_users]: where the ranker's label window starts within `events`."""
    has_order = len(events) > 0 and events.time.min() < events.time.max()
    return cuts(events, "time" if protocol == "time" and has_order else "last-10pct")


def fit_two_stage(
    dataset: Dataset, past: Events, protocol: HoldoutProtocol, params: FitParams, stage: Stage
) -> TwoStage:
    """A two-stage model from `past` alone: a ranker trained on an inner fold, and a fold of all of `past` to serve with.

    The inner towers also tell how long to train: those of the outer fold learn from everything, for
    as many epochs.
    """
    inner = past_before_labels(past, protocol, params)
    with stage("features before the labels"):
        inner_table = item_table_of(dataset, inner)
    with stage("towers before the labels") as progress:
        behind = towers_of(dataset, inner, params, progress)
    with stage("ranker") as progress:
        model = assemble(behind.towers, inner_table, params)
        ranker = ranker_inside(model, dataset, past, protocol, params)
        progress(1.0, ranker.note)
    with stage("features"):
        table = item_table_of(dataset, past)
    with stage("towers") as progress:
        trained = towers_of(dataset, past, params, progress, behind.epochs)
    served = assemble(trained.towers, table, params, ranker_from(ranker.text))
    return TwoStage(served, ranker, behind.rounds, behind.epochs, trained.learnt_from)


def without_ranker(model: Model) -> Model:
    """The same model, whose lists are the retriever's own."""
    return replace(model, ranker=None)


@contextmanager
def pinned_torch(threads: int) -> Iterator[None]:
    """Runs torch on `threads` threads (0: every core), reproducibly, and puts things back as they were."""
    import torch

    old = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads if threads > 0 else _cores())
    torch.use_deterministic_algorithms(
        mode=True
    )  # else threads add up gradients in the order in which they come
    try:
        yield
    finally:
        torch.set_num_threads(old[0])
        torch.use_deterministic_algorithms(mode=old[1])


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
