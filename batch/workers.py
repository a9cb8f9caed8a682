"""Runs tasks in several processes of this machine.

They are fresh processes: a fork after an OpenMP region would hang. Nor do they import the script
that runs, so a script without `if __name__ == "__main__":` works too.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from typing import TypeVar

from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import TerminatedWorkerError

from shortlist.batch.free_memory import free_memory
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.evaluation.resources import peak_memory

Result = TypeVar("Result")


class WorkerKilled(InvalidSettings):
    """A process ended in the middle of its task, most likely as memory ran out."""


WORKER_USERS = 1024
"""Users that a process is started for: starting it takes as long as 300 to 600 of their lists."""

WORKER_BYTES = 128 << 20
"""What a process takes besides what it loads: Python, numpy, FAISS, and a block of users."""

GROWTH = 3
"""Bytes in memory for a byte that is loaded: texts grow, and a block takes rows of wide tables."""

IDLE_SECONDS = 60
"""After so long without a task a process ends: this one may have been killed."""

_ENVIRON = {
    # More threads would only wait for each other.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # loky would take the pages of mapped files for a leak, and start a process again and again.
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e15",
}


def workers_for(wanted: int, n_users: int, loaded: int) -> int:
    """The number of processes for the lists of `n_users`; 1 stands for this process alone.

    wanted: 0 takes every core, as far as there are users and free memory for it.
    loaded: bytes that each process loads and does not share with the others.

    Raises:
        InvalidSettings: `wanted` is below 0.
    """
    _check(wanted)
    if multiprocessing.current_process().daemon:  # which may start no process of its own
        return 1
    if wanted:
        return wanted
    most = min(cpu_count(), n_users // WORKER_USERS)
    free = free_memory()
    if free is not None:
        most = min(most, free // (WORKER_BYTES + GROWTH * loaded))
    return max(1, most)


def _check(wanted: int) -> None:
    if wanted < 0:
        raise InvalidSettings(f"workers is {wanted}: give 1 or more, or 0 for every core")


def has_memory_for_two(wanted: int) -> bool:
    """Whether another process may do what this one has done, while this one does it again.

    There has to be memory for what this one had at most, twice. wanted: 1 forbids it.

    Raises:
        InvalidSettings: `wanted` is below 0.
    """
    _check(wanted)
    if wanted == 1 or multiprocessing.current_process().daemon:
        return False
    free = free_memory()
    return free is None or free >= 2 * peak_memory()["process"]


def completed(
    function: Callable[..., Result], tasks: Sequence[tuple[object, ...]], workers: int
) -> Iterator[tuple[int, Result]]:
    """The place and the result of each task, as they are completed.

    function: of a module that is quickly imported.

    Raises:
        WorkerKilled: a process was killed.
        BaseException: what a task raised. Of the others, those that a process has are ended first.
    """
    workers = max(1, min(workers, len(tasks)))
    places: dict[Future[Result], int] = {}
    with _pool(workers) as pool:
        try:
            with _interrupts_waiting():
                for place, task in enumerate(tasks):
                    places[pool.submit(function, *task)] = place
            for future in as_completed(places):
                yield places.pop(future), future.result()
        finally:
            for waiting in places:
                waiting.cancel()


@contextmanager
def in_parallel(function: Callable[..., Result], *task: object) -> Iterator[Future[Result]]:
    """Runs a task in another process while the body runs; the body's end waits for the result.

    Where the body raises, the process is killed: it may have minutes to go.

    Raises:
        WorkerKilled: the process was killed by others, or could not be started.
        BaseException: what the task raised.
    """
    with _pool(1) as pool:
        try:
            try:
                with _interrupts_waiting():
                    future = pool.submit(function, *task)
            except OSError as error:
                raise WorkerKilled(
                    f"a process of the batch could not be started: {error}"
                ) from error
            yield future
            future.result()
        except BaseException:
            pool.shutdown(kill_workers=True)
            raise


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes, until the body ends and what they have is done."""
    # Ctrl-C is for this process: each worker would print a traceback.
    ignored = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(
        workers,
        timeout=IDLE_SECONDS,
        initializer=signal.signal,
        initargs=ignored,
        env=_ENVIRON,
    )
    try:
        yield pool
    except TerminatedWorkerError as error:
        raise WorkerKilled(
            "a process of the batch was killed, most likely as memory ran out: set "
            f"SHORTLIST_WORKERS, or the call's workers, to less than {max(2, workers)}, or give "
            "the machine more memory"
        ) from error
    finally:
        pool.shutdown()


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Holds back Ctrl-C, also from processes that are started meanwhile, until they ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
