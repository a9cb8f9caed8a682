"""Trains the towers of each fold, the last two at once.

A step of training is mostly small operations, which gain little from a second thread: two folds on
half of the threads each are done sooner than one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from shortlist.batch import dataset_file
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.workers import WorkerKilled, has_memory_for_two, in_parallel
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.fit import Fold, past_of, threads_of, train_towers
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.two_tower import TrainedTowers, TrainingProgress

MIN_EVENTS_AT_ONCE = 200_000
"""Events, each as often as it is passed over, for which a process is started.

With fewer it takes longer to start than it saves.
"""


def towers_of_folds(
    work: Path,
    protocol: HoldoutProtocol,
    params: FitParams,
    reporter: ProgressReporter,
    workers: int,
) -> Iterator[tuple[Fold, TrainedTowers]]:
    """The towers of each fold, as they are trained.

    The first fold finds the number of epochs by holding out some events; the others then learn from
    all that they may know. work: the directory that holds the data set; workers: 1 trains one fold
    after the other, otherwise two are trained at once where there is memory for it.

    Raises:
        InvalidSettings: `workers` is below 0.
    """
    dataset = dataset_file.load(work)

    def trained(fold: Fold, epochs: int | None, progress: TrainingProgress) -> TrainedTowers:
        return _trained(dataset, protocol, params, fold, epochs, progress)

    with reporter.stage(f"train towers, fold {Fold.BEFORE_LABELS}") as progress:
        first = trained(Fold.BEFORE_LABELS, None, progress)
    yield Fold.BEFORE_LABELS, first
    epochs, here, there = first.epochs, Fold.BEFORE_HOLDOUT, Fold.EVERYTHING
    at_once: dict[Fold, TrainedTowers] = {}
    if (
        has_memory_for_two(workers)
        and threads_of(params) > 1
        and epochs * len(dataset.events) >= MIN_EVENTS_AT_ONCE
    ):
        name = f"train towers, folds {here} and {there}"
        task = (work, protocol, params, there, epochs, os.getpid())
        try:
            with reporter.stage(name) as progress, in_parallel(_trained_by_files, *task) as other:
                at_once[here] = trained(here, epochs, progress)
            at_once[there] = other.result()
        except WorkerKilled as error:
            reporter.say(f"  {error}; this process goes on alone")
    for fold in (here, there):
        towers = at_once.pop(fold, None)
        if towers is None:
            with reporter.stage(f"train towers, fold {fold}") as progress:
                towers = trained(fold, epochs, progress)
        yield fold, towers


def _trained_by_files(
    work: Path, protocol: HoldoutProtocol, params: FitParams, fold: Fold, epochs: int, parent: int
) -> TrainedTowers:
    """The towers of a fold, for the process `parent`; without it this one ends."""

    def progress(_share: float, _note: str) -> None:
        if os.getppid() != parent:
            os._exit(1)

    return _trained(dataset_file.load(work), protocol, params, fold, epochs, progress)


def _trained(
    dataset: Dataset,
    protocol: HoldoutProtocol,
    params: FitParams,
    fold: Fold,
    epochs: int | None,
    progress: TrainingProgress,
) -> TrainedTowers:
    past = past_of(dataset, protocol, params, fold)
    return train_towers(dataset, past, params, progress, epochs)
