"""Runs tasks that need a model in several processes, which load it from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from shortlist.batch.workers import completed, workers_for
from shortlist.recsys.models.bundle import load_model, save_model
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.models.ranker import NO_RANKER

Result = TypeVar("Result")


def results_by_model(
    function: Callable[..., Result],
    model: Model,
    tasks: Sequence[tuple[object, ...]],
    workers: int,
    n_users: int,
    note: Callable[[str], None],
) -> Iterator[tuple[int, Result]]:
    """The place and the result of each task, `function(model, *task)`, as they are completed.

    function: of a module that is quickly imported; workers: processes, as `workers_for` takes them;
    n_users: of all tasks; note: takes why one process does all where several were wanted.

    Raises:
        InvalidSettings: `workers` is below 0, or a process was killed.
    """
    workers = min(workers_for(workers, n_users, _own_bytes(model)), len(tasks))
    with ExitStack() as stack:
        if workers > 1:
            try:
                directory = _saved(model, stack)
            except OSError as error:  # a disk without room: this process needs no file
                note(f"in one process, as the model could not be written for others ({error})")
            else:
                by_files = [(function, directory, *task) for task in tasks]
                yield from completed(_by_files, by_files, workers)
                return
        blas = ThreadpoolController()
        for place, task in enumerate(tasks):
            # As the others have: a long product has other bits by more threads.
            with blas.limit(limits=1, user_api="blas"):
                result = function(model, *task)
            yield place, result


def _own_bytes(model: Model) -> int:
    """Bytes that each process loads for itself, of the index and the table.

    Vectors and neighbours are mapped, and shared.
    """
    columns = model.table.arrays().items()
    own = sum(array.nbytes for name, array in columns if not name.startswith("neighbours"))
    return own + model.towers.items.nbytes


def _saved(model: Model, stack: ExitStack) -> str:
    """A directory that holds the model until the stack is closed. Raises OSError."""
    directory = stack.enter_context(TemporaryDirectory(prefix="shortlist-model-"))
    text = NO_RANKER if model.ranker is None else model.ranker.text
    save_model(Path(directory), model, text, {"version": "in work"})
    return directory


def _by_files(function: Callable[..., Result], directory: str, *task: object) -> Result:
    return function(_loaded(directory), *task)


@cache  # once a process: loading takes longer than a task
def _loaded(directory: str) -> Model:
    return load_model(Path(directory))
