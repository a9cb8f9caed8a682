"""Tests of reads in threads."""

from __future__ import annotations

import threading

import pytest

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.background import BackgroundReads
from shortlist.recsys.errors import ArtefactsUnavailable, BrokenRelease

SECONDS = 20


def test_without_a_deadline_the_caller_reads() -> None:
    """As in a batch, or a test."""
    reads = BackgroundReads(lambda _: threading.current_thread())
    assert reads.result("a", 0.0) is threading.current_thread()


def test_readers_of_a_key_share_a_read() -> None:
    """Those who cannot wait leave in time; the read goes on for later ones, and begins once."""
    gate, begun = threading.Event(), list[str]()

    def read(key: str) -> str:
        begun.append(key)
        assert gate.wait(SECONDS)
        return key.upper()

    reads = BackgroundReads(read)

    for _ in range(2):
        with deadline.within(0.05), pytest.raises(ArtefactsUnavailable, match="a cannot be read"):
            reads.result("a", 0.0)
    assert begun == ["a"]
    gate.set()
    with deadline.within(SECONDS):
        assert reads.result("a", 0.0) == "A"


def test_errors_reach_every_waiter() -> None:
    """The next one reads again."""
    outcomes = iter([BrokenRelease("torn"), None])

    def read(_: str) -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return "whole"

    reads = BackgroundReads(read)
    with deadline.within(SECONDS):
        with pytest.raises(BrokenRelease, match="torn"):
            reads.result("a", 0.0)
        assert reads.result("a", 0.0) == "whole"


def test_no_thread_is_left(monkeypatch) -> None:
    """The answer is flagged, and a later one tries again."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with deadline.within(SECONDS), pytest.raises(ArtefactsUnavailable, match="can't start"):
        BackgroundReads(str).result("a", 0.0)
