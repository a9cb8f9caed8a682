"""Reads latencies and fallbacks from the metrics."""

from __future__ import annotations

from shortlist.batch.studio.operations import degradations, latencies
from shortlist.lambda_handler.metrics import Metrics


def text(metrics: Metrics) -> str:
    """What /metrics gives."""
    return metrics.text()


def test_percentiles_by_buckets() -> None:
    """Of 99 values between 1 and 2.5 ms and one beyond all buckets."""
    metrics = Metrics()
    for _ in range(98):
        metrics.record("shortlist_retrieval_seconds", 0.002)
    for _ in range(2):
        metrics.record("shortlist_retrieval_seconds", 60.0)
    [row] = latencies(text(metrics))
    assert (row["what"], row["n"]) == ("live: candidates", 100)
    assert row["p50_ms"] == 1 + 1.5 * 50 / 98
    assert row["p99_ms"] == 10_000  # the last bound that is known


def test_commands_are_told_apart() -> None:
    """One row for each command that was sent."""
    metrics = Metrics()
    metrics.record("shortlist_store_seconds", 0.001, command="lists")
    metrics.record("shortlist_store_seconds", 0.001, command="items")
    assert [row["what"] for row in latencies(text(metrics))] == ["Redis: items", "Redis: lists"]


def test_nothing_was_measured() -> None:
    """No row, and no text at all, give nothing."""
    assert latencies(text(Metrics())) == latencies("") == []
    assert degradations(text(Metrics())) == degradations("") == []


def test_fallbacks_are_counted() -> None:
    """Those that happened."""
    metrics = Metrics()
    metrics.count("shortlist_degraded_total", kind="StoreUnavailable")
    metrics.count("shortlist_degraded_total", kind="StoreUnavailable")
    assert degradations(text(metrics)) == [{"reason": "StoreUnavailable", "n": 2}]
