"""The server's log: whoever does not read it holds up no request."""

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


def test_lines_are_written_whole_and_in_order() -> None:
    """All of them are, before the end."""
    written: list[str] = []
    metrics = Metrics()
    log = LogWriter(written.append, lambda: None, metrics)
    for number in range(100):
        log.say(str(number))
    log.close()
    assert "".join(written) == "".join(f"{number}\n" for number in range(100))
    assert lost(metrics) == 0


def test_a_reader_that_is_stuck_costs_lines_and_no_time(monkeypatch) -> None:
    """What finds no room is counted, and the end does not wait."""
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


def test_a_reader_that_has_gone_costs_lines() -> None:
    """A broken pipe ends neither the writer nor a request."""
    metrics = Metrics()

    def write(_: str) -> None:
        raise BrokenPipeError

    log = LogWriter(write, lambda: None, metrics)
    log.say("one")
    log.say("two")
    log.close()
    assert lost(metrics) == 2
