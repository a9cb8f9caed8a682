"""Tests of tasks in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shortlist.batch import workers
from shortlist.batch.workers import (
    WORKER_BYTES,
    WORKER_USERS,
    WorkerKilled,
    completed,
    has_memory_for_two,
    in_parallel,
    workers_for,
)
from shortlist.recsys.errors import InvalidSettings

ENDLESS = """
import signal, sys, time
from shortlist.batch.workers import completed
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
for place, _ in completed(time.sleep, [(0.05,)] * 10_000, 2):
    print(place, flush=True)
"""
"""A script as people write them, without a guard of its main module."""


@pytest.mark.parametrize(
    ("wanted", "n_users", "free", "expected"),
    [
        (0, 8 * WORKER_USERS, None, 4),
        (0, 3 * WORKER_USERS, None, 3),
        (0, 2 * WORKER_USERS - 1, None, 1),
        (0, 0, None, 1),
        (0, 8 * WORKER_USERS, 2 * WORKER_BYTES + 600, 2),
        (0, 8 * WORKER_USERS, 2 * WORKER_BYTES + 599, 1),
        (0, 8 * WORKER_USERS, 0, 1),
        (1, 8 * WORKER_USERS, None, 1),
        (6, 1, 0, 6),
    ],
)
def test_number_of_workers(wanted, n_users, free, expected, monkeypatch) -> None:
    """Every core, as far as there are users and memory for it; what a setting says is taken."""
    monkeypatch.setattr(workers, "cpu_count", lambda: 4)
    monkeypatch.setattr(workers, "free_memory", lambda: free)
    assert workers_for(wanted, n_users, loaded=100) == expected


def test_every_result_has_its_place() -> None:
    """In whatever order they come."""
    tasks = [(2, n) for n in range(50)]
    assert dict(completed(pow, tasks, 2)) == {n: 2**n for n in range(50)}


def test_no_more_workers_than_tasks() -> None:
    """Each takes memory, even without a task; and without any task there is none."""
    before = set(multiprocessing.active_children())
    results = completed(pow, [(2, 3)], 8)
    assert next(results) == (0, 8)
    assert len(set(multiprocessing.active_children()) - before) == 1
    assert list(results) == list(completed(pow, [], 8)) == []


def test_workers_have_one_thread() -> None:
    """So that those of several do not wait for each other."""
    tasks = [("OMP_NUM_THREADS",), ("OPENBLAS_NUM_THREADS",)]
    assert dict(completed(os.getenv, tasks, 2)) == {0: "1", 1: "1"}


def test_an_error_is_the_callers() -> None:
    """The first error of a task ends the others."""
    with pytest.raises(ValueError, match="invalid literal"):
        dict(completed(int, [("x",), *[("1",)] * 100], 2))


def test_a_task_during_the_body() -> None:
    """Its result is there at the end of the body; what it raises comes then."""
    with in_parallel(os.getpid) as future:
        pass
    assert future.result() != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"), in_parallel(int, "x"):
        pass


def test_a_failing_body_kills_the_task() -> None:
    """What would take an hour is not waited for."""
    before, started = set(multiprocessing.active_children()), set()

    def fail() -> None:
        with in_parallel(time.sleep, 3600):
            started.update(set(multiprocessing.active_children()) - before)
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        fail()
    assert [process.is_alive() for process in started] == [False]


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no memory for it: the message has the system's words."""

    def refuse(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(workers.ProcessPoolExecutor, "submit", refuse)
    with (
        pytest.raises(WorkerKilled, match="not be started: Cannot allocate"),
        in_parallel(os.getpid),
    ):
        pass


def test_a_parallel_task_is_killed() -> None:
    """As where memory ran out: the message says what to do."""
    with (
        pytest.raises(InvalidSettings, match=r"was killed.* SHORTLIST_WORKERS.* to less than 2"),
        in_parallel(os._exit, 137),
    ):
        pass


@pytest.mark.parametrize(
    ("wanted", "free", "expected"),
    [(0, None, True), (0, 2000, True), (0, 1999, False), (1, None, False), (2, 1999, False)],
)
def test_memory_for_a_second_process(wanted, free, expected, monkeypatch) -> None:
    """Room for what this process had at most, twice; 1 forbids it."""
    monkeypatch.setattr(workers, "free_memory", lambda: free)
    monkeypatch.setattr(workers, "peak_memory", lambda: {"process": 1000, "largest_child": 9000})
    assert has_memory_for_two(wanted) is expected


def test_a_killed_worker() -> None:
    """As where memory ran out: the message says what to do."""
    with pytest.raises(InvalidSettings, match=r"was killed.* SHORTLIST_WORKERS.* to less than 2"):
        dict(completed(os._exit, [(137,)] * 2, 3))


def test_mapped_files_are_no_leak(tmp_path: Path) -> None:
    """Loky ends a worker that has grown beyond this, and pages of mapped files count as growth."""
    ((_, limit),) = completed(os.getenv, [("LOKY_MAX_MEMORY_LEAK_SIZE",)], 1)
    assert float(limit) == 1e15


def test_a_daemon_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have no children, so it makes the lists itself."""
    monkeypatch.setattr(workers, "cpu_count", lambda: 4)
    monkeypatch.setattr(workers, "free_memory", lambda: None)
    assert workers_for(0, 100_000, 0) == 4
    assert has_memory_for_two(0)
    daemon = type("Daemon", (), {"daemon": True})()
    monkeypatch.setattr(multiprocessing, "current_process", lambda: daemon)
    assert workers_for(0, 100_000, 0) == 1
    assert not has_memory_for_two(0)


def test_less_than_no_worker() -> None:
    """The value, the rule and the remedy."""
    with pytest.raises(InvalidSettings, match="workers is -1: give 1 or more, or 0"):
        workers_for(-1, 1, 0)
    with pytest.raises(InvalidSettings, match="workers is -1: give 1 or more, or 0"):
        has_memory_for_two(-1)


def test_no_worker_is_left() -> None:
    """Neither after the last task nor where nobody wants the other results."""
    whole = {pid for _, pid in completed(os.getpid, [()] * 20, 2)}
    broken_off = completed(os.getpid, [()] * 20, 2)
    _, pid = next(broken_off)
    broken_off.close()
    assert os.getpid() not in whole | {pid}
    for each in whole | {pid}:
        with pytest.raises(ProcessLookupError):
            os.kill(each, 0)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The script ENDLESS at work, with its workers in a process group of its own."""
    script = tmp_path / "script.py"
    script.write_text(ENDLESS)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        yield process
        with suppress(ProcessLookupError):  # whatever a failed test has left
            os.killpg(process.pid, signal.SIGKILL)


def test_an_interrupt_ends_all(endless: subprocess.Popen[str]) -> None:
    """Ctrl-C in a script without a guard: one traceback, not one of each worker."""
    os.killpg(endless.pid, signal.SIGINT)  # as a terminal does
    _, errors = endless.communicate(timeout=60)  # until the last worker has closed the pipe
    assert endless.returncode == -signal.SIGINT
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1


def test_a_stop_ends_all(endless: subprocess.Popen[str]) -> None:
    """SIGTERM for the script alone, as a container gets it: its workers end with it."""
    endless.send_signal(signal.SIGTERM)
    _, errors = endless.communicate(timeout=60)
    assert (endless.returncode, errors) == (75, "")
