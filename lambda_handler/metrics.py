"""Counters and latency histograms, and their Prometheus text; nothing more than the API needs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from threading import Lock

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency buckets, in seconds."""

REMEMBERED = 1000
"""Latest latencies that percentiles are taken from."""

_HELP = {
    "shortlist_requests_total": "Answers by route template and status.",
    "shortlist_answers_total": "Recommendation answers by source.",
    "shortlist_events_total": "Events by what became of them.",
    "shortlist_degraded_total": "Answers that fell back, by what failed.",
}


class Metrics:
    """What this process has served."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._latest: deque[float] = deque(maxlen=REMEMBERED)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Adds to a counter."""
        told = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        with self._lock:
            self._counts[name, told] += by

    def observe(self, seconds: float) -> None:
        """Records the handler time of one recommendation."""
        with self._lock:
            self._buckets[sum(seconds > bound for bound in BUCKETS)] += 1
            self._seconds += seconds
            self._latest.append(seconds)

    def percentiles(self) -> dict[str, float | None]:
        """Milliseconds at the 50th and 99th percentile of the latest recommendations; None before the first."""
        with self._lock:
            ordered = sorted(self._latest)
        if not ordered:
            return {"p50_ms": None, "p99_ms": None}
        at = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for name, share in (("p50", 0.5), ("p99", 0.99))}
        return {f"{name}_ms": round(seconds * 1000, 3) for name, seconds in at.items()}

    def text(self) -> str:
        """Everything in the Prometheus text format."""
        with self._lock:
            return "\n".join([*self._counter_lines(), *self._histogram_lines()]) + "\n"

    def _counter_lines(self) -> Iterator[str]:
        for name, told in _HELP.items():
            yield f"# HELP {name} {told}"
            yield f"# TYPE {name} counter"
            yield from (f"{n}{{{labels}}} {value}" for (n, labels), value in sorted(self._counts.items()) if n == name)

    def _histogram_lines(self) -> Iterator[str]:
        name = "shortlist_recommend_seconds"
        yield f"# HELP {name} Handler time of recommendations."
        yield f"# TYPE {name} histogram"
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._seconds}"
        yield f"{name}_count {total}"
