"""Tests the server's log: a slow reader delays no request."""

from __future__ import annotations

import threading

from shortlist.lambda_handler import server
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.server import LogWriter
from tests.exposition import parse, value

SECONDS = 30


def lost(metrics: Metrics) -> float:
    """Lines that were lost."""
    return value(parse(metrics.text())[1], "shortlist_log_lines_lost_total")


def test_lines_are_written_in_order() -> None:
    """Lines are written whole and in order, all of them before the end."""
    written: list[str] = []
    metrics = Metrics()
    log = LogWriter(written.append, lambda: None, metrics)
    for number in range(100):
        log.say(str(number))
    log.close()
    assert "".join(written) == "".join(f"{number}\n" for number in range(100))
    assert lost(metrics) == 0


def test_stuck_reader(monkeypatch) -> None:
    """Lines beyond the queue are lost and counted, and neither a request nor the end waits."""
    monkeypatch.setattr(server, "LINES", 2)
    stuck, begun, metrics = threading.Event(), threading.Event(), Metrics()

    def write(_: str) -> None:
        begun.set()
        assert stuck.wait(SECONDS)

    log = LogWriter(write, lambda: None, metrics)
    log.say("first")
    assert begun.wait(SECONDS)
    for _ in range(5):
        log.say("more")
    assert lost(metrics) == 3
    log.close(0.0)
    stuck.set()


def test_closed_reader() -> None:
    """A broken pipe ends neither the writer nor a request."""
    metrics = Metrics()

    def write(_: str) -> None:
        raise BrokenPipeError

    log = LogWriter(write, lambda: None, metrics)
    log.say("one")
    log.say("two")
    log.close()
    assert lost(metrics) == 2
