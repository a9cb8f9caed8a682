"""Fits the two stages in their point-in-time order.

A *fold* is everything learnt from the events before some moment: neighbours, item table, towers, index. A ranker is
trained on a fold and the labels after its moment, and then serves with a later fold, whose moment is the labels' end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from recsys.catalogue import Dataset
from recsys.events import Events, Int64
from recsys.features import ItemTable
from recsys.index import build_index
from recsys.pipeline import Model, by_trend, new_items
from recsys.ranker import Ranker
from recsys.settings import Protocol
from recsys.towers import Towers
from recsys.training.item_table import content_matrix, fit_item_table
from recsys.training.lambdamart import FittedRanker, Groups, RankerParams, fit_ranker, ranker_groups
from recsys.training.neighbours import fit_neighbours
from recsys.training.split import before, cuts
from recsys.training.two_tower import Progress, Round, TowerParams, fit_towers

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
    seed: int = 20260801
    threads: int = 0
    """Threads of torch and LightGBM in training; 0 takes every core."""


@dataclass(frozen=True, slots=True)
class TwoStage:
    """model: what serves; ranker: how its ranker was trained; rounds: how its towers were."""

    model: Model
    ranker: FittedRanker
    rounds: list[Round]


def item_table_of(dataset: Dataset, past: Events) -> ItemTable:
    """The neighbours and item table as of the end of `past`."""
    return fit_item_table(past, dataset.catalogue, fit_neighbours(past))


def towers_of(dataset: Dataset, past: Events, params: FitParams, progress: Progress) -> tuple[Towers, list[Round]]:
    """Towers trained on `past`, and how each round went."""
    with pinned_torch(params.threads):
        return fit_towers(
            past,
            content_matrix(dataset.catalogue),
            dataset.attributes,
            dataset.vocabulary.size,
            params.towers,
            np.random.default_rng(params.seed),
            progress,
        )


def assemble(towers: Towers, table: ItemTable, params: FitParams, ranker: Ranker | None = None) -> Model:
    """The model of a fold."""
    index = build_index(towers.items, params.n_lists, params.n_probe)
    return Model(towers, index, table, ranker, params.n_candidates, by_trend(table), params.exploration_share, new_items(table))


def ranker_of(
    model: Model, dataset: Dataset, events: Events, first: Int64, horizon: int | None, params: FitParams
) -> FittedRanker:
    """A ranker whose labels are the events at or after `first`, on a model that knows only the events before."""
    rng = np.random.default_rng(params.seed + 1)
    groups = ranker_groups_of(model, dataset, events, first, horizon, params, rng)
    return fit_ranker(groups, params.ranker, rng, params.threads)


def ranker_groups_of(
    model: Model,
    dataset: Dataset,
    events: Events,
    first: Int64,
    horizon: int | None,
    params: FitParams,
    rng: np.random.Generator,
) -> Groups:
    """What `ranker_of` learns from."""
    return ranker_groups(model, events, dataset.attributes, first, events.offsets()[1:], horizon, params.ranker, rng)


def horizon_of(protocol: Protocol) -> int | None:
    """How many events ahead the protocol asks for: the next one, or (None) all that are held out."""
    return 1 if protocol == "leave-one-out" else None


def label_cuts(events: Events, protocol: Protocol) -> Int64:
    """int64[n_users]: where the ranker's label window starts within `events`."""
    return cuts(events, "time" if protocol == "time" else "last-10pct")


def fit_two_stage(dataset: Dataset, past: Events, protocol: Protocol, params: FitParams, stage: Stage) -> TwoStage:
    """A two-stage model from `past` alone: a ranker trained on an inner fold, and a fold of all of `past` to serve with."""
    first = label_cuts(past, protocol)
    inner = before(past, first)
    with stage("features before the labels"):
        inner_table = item_table_of(dataset, inner)
    with stage("towers before the labels") as progress:
        inner_towers, _ = towers_of(dataset, inner, params, progress)
    with stage("ranker") as progress:
        model = assemble(inner_towers, inner_table, params)
        ranker = ranker_of(model, dataset, past, first, horizon_of(protocol), params)
        progress(1.0, ranker.note)
    with stage("features"):
        table = item_table_of(dataset, past)
    with stage("towers") as progress:
        towers, rounds = towers_of(dataset, past, params, progress)
    return TwoStage(assemble(towers, table, params, Ranker(ranker.text) if ranker.text else None), ranker, rounds)


def without_ranker(model: Model) -> Model:
    """The same model, whose lists are the retriever's own."""
    return replace(model, ranker=None)


@contextmanager
def pinned_torch(threads: int) -> Iterator[None]:
    """Runs torch on `threads` threads (0: every core), reproducibly, and puts things back as they were."""
    import torch

    old = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads if threads > 0 else _cores())
    torch.use_deterministic_algorithms(mode=True)  # else threads add up gradients in the order in which they come
    try:
        yield
    finally:
        torch.set_num_threads(old[0])
        torch.use_deterministic_algorithms(mode=old[1])


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
