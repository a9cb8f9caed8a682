"""What a running job tells where no terminal shows its bars."""

from __future__ import annotations

import io
import json
import queue
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from shortlist.batch.container import LoggingReporter
from shortlist.batch.progress import PRINT_SECONDS, ProgressReporter
from shortlist.batch.run_log import RunLog


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self._ends: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._waiting = threading.Semaphore(0)
        self.waits: list[float] = []

    def wait(self, _ended: threading.Event, seconds: float) -> bool:
        """Waits as the reporter does."""
        self.waits.append(seconds)
        self._waiting.release()
        return self._ends.get(timeout=30)

    def pass_once(self) -> None:
        """Lets one wait end, and returns when what follows it is done."""
        assert self._waiting.acquire(timeout=30)
        self._ends.put(item=False)
        assert self._waiting.acquire(timeout=30)
        self._waiting.release()

    def end(self) -> None:
        """Lets the last wait tell that the stage has ended."""
        self._ends.put(item=True)


def told(out: io.StringIO) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in out.getvalue().splitlines()]


def test_long_stages_tell_their_progress() -> None:
    """Every ten seconds: the stage, its seconds, its share done and its note."""
    out, clock = io.StringIO(), Clock()
    reporter = ProgressReporter(Console(file=out, width=150), clock.wait)
    with reporter.stage("towers") as progress:
        clock.pass_once()
        progress(0.25, "round 3")
        clock.pass_once()
        clock.end()
    assert clock.waits == [PRINT_SECONDS] * 3
    assert told(out)[:2] == [["towers", "10", "s"], ["towers", "20", "s", "25%", "round", "3"]]
    assert told(out)[2] == ["towers", "0.0", "s", "round", "3"]


def test_short_stages_tell_their_end() -> None:
    """One line, as before."""
    out = io.StringIO()
    with ProgressReporter(Console(file=out, width=150)).stage("towers"):
        pass
    assert told(out) == [["towers", "0.0", "s"]]


@pytest.mark.parametrize(
    "reporter_of",
    [
        lambda out, wait: ProgressReporter(Console(file=out, force_terminal=True), wait),
        lambda out, wait: ProgressReporter(Console(file=out, quiet=True), wait),
    ],
    ids=["a bar", "nothing"],
)
def test_bars_need_no_lines(
    reporter_of: Callable[[io.StringIO, Callable[..., bool]], ProgressReporter],
) -> None:
    """Where a terminal shows the bar, or nothing is shown, nobody waits."""
    clock = Clock()
    with reporter_of(io.StringIO(), clock.wait).stage("towers"):
        pass
    assert clock.waits == []


def test_containers_log_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a container has its heartbeat, and a line for the end of a stage."""
    monkeypatch.setattr(threading, "Thread", None)
    out = io.StringIO()
    with LoggingReporter(RunLog("a", out)).stage("towers"):
        pass
    (line,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert line["message"] == "towers 0.0 s"
