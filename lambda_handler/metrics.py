"""What the service counts and times: one definition, rendered as Prometheus text and as CloudWatch's embedded metric format.

Standard library only, because every cached answer passes here. A metric that is not in METRICS, or
labels that are not its
own, raise: what is on a dashboard cannot be misspelt. Labels take few values (route templates,
never paths or ids), and a metric that has MAX_SERIES of them counts the rest under "other".
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Lock
from typing import Any, Literal

from shortlist.recsys.store.answer_sources import SOURCES

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets, in seconds."""

_CANDIDATES = (0.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10_000.0)
_HOUR = 3600.0
_AGES = tuple(hours * _HOUR for hours in (1, 6, 12, 24, 30, 36, 48, 72, 168))

_RESULTS = ("hit", "miss")
_FAILURES = (
    "StoreUnavailable",
    "ArtefactsUnavailable",
    "BundleMismatch",
    "CorruptArtefact",
    "ReleaseNotFound",
    "UnreadableRecord",
)
_ERRORS = (*_FAILURES, "NothingToServe", "DeadlineExceeded", "Overloaded", "unexpected")
_REFUSED = (
    "busy",
    "queue",
    "memory",
    "large_body",
    "slow_body",
    "slow_head",
    "unread_answer",
    "connections",
)
_POOLS = ("lookup", "live", "health", "admin", "counts")

REMEMBERED = 1000
"""Latest latencies that percentiles are taken from."""

MAX_SERIES = 200
"""Label combinations of one metric; what comes beyond is counted under OTHER."""

OTHER = "other"
NAMESPACE = "Shortlist"
"""In CloudWatch."""

EMF_VALUES = 100
"""Values of one metric that CloudWatch takes in a line."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

Kind = Literal["counter", "gauge", "histogram"]
Series = tuple[str, tuple[str, ...]]
"""A metric's name, and its labels' values in the order of its definition."""


@dataclass(frozen=True, slots=True)
class Metric:
    """kind; help: a sentence; labels: their names; buckets: upper bounds of a histogram; unit: CloudWatch's.

    starts: values of the only label that are told as 0 from the beginning, as Prometheus sees no
    rise in what was not there.
    """

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    unit: str = "Count"
    starts: tuple[str, ...] = ()


def _latency(told: str, *labels: str) -> Metric:
    return Metric("histogram", told, labels, BUCKETS, "Seconds")


METRICS: dict[str, Metric] = {
    "shortlist_requests_total": Metric(
        "counter", "Answers by route template and status.", ("route", "status")
    ),
    "shortlist_request_seconds": _latency(
        "Time from a request to the end of its answer, by route template.", "route"
    ),
    "shortlist_requests_in_flight": Metric("gauge", "Requests that are being answered."),
    "shortlist_refused_total": Metric(
        "counter",
        "Requests, bodies and connections that were turned away, by why.",
        ("reason",),
        starts=_REFUSED,
    ),
    "shortlist_waiting": Metric(
        "gauge", "Work that waits for a thread, by pool.", ("pool",), starts=_POOLS
    ),
    "shortlist_recommend_seconds": _latency("Handler time of recommendations."),
    "shortlist_store_seconds": _latency(
        "Time of the store's commands, failed ones too.", "command"
    ),
    "shortlist_retrieval_seconds": _latency("Retrieval of the candidates in live answers."),
    "shortlist_features_seconds": _latency("The candidates' features in live answers."),
    "shortlist_ranking_seconds": _latency("Ranking of the candidates in live answers."),
    "shortlist_cache_total": Metric(
        "counter",
        "Look-ups of a cached list or result, by whether one was served.",
        ("result",),
        starts=_RESULTS,
    ),
    "shortlist_answers_total": Metric(
        "counter", "Recommendation answers by source.", ("source",), starts=SOURCES
    ),
    "shortlist_impressions_total": Metric(
        "counter",
        "Recommendation answers that showed an item, by release and source.",
        ("source", "version"),
    ),
    "shortlist_events_total": Metric("counter", "Events by what became of them.", ("outcome",)),
    "shortlist_events_waiting": Metric(
        "gauge", "Events that waited for a drain when the latest ones were taken in."
    ),
    "shortlist_degraded_total": Metric(
        "counter", "Answers that fell back, by what failed.", ("kind",), starts=_FAILURES
    ),
    "shortlist_errors_total": Metric(
        "counter",
        "Requests that ended in an error of ours, by its kind.",
        ("kind",),
        starts=_ERRORS,
    ),
    "shortlist_tally_failures_total": Metric(
        "counter", "Times that counts could not be made or sent to Redis; they wait."
    ),
    "shortlist_log_lines_lost_total": Metric(
        "counter", "Lines of a server's log that nobody took in time."
    ),
    "shortlist_candidates": Metric(
        "histogram", "Candidates that a recommendation was chosen from.", (), _CANDIDATES
    ),
    "shortlist_list_age_seconds": Metric(
        "histogram", "Age of the precomputed lists served.", (), _AGES, "Seconds"
    ),
    "shortlist_release_info": Metric("gauge", "1 for the release that serves.", ("version",)),
}
"""Every metric by its name."""


@dataclass(slots=True)
class _Histogram:
    buckets: list[int]
    total: float = 0.0


@dataclass(slots=True)
class _Fresh:
    """What was recorded since the last EMF lines."""

    counts: dict[Series, float] = field(default_factory=dict)
    values: dict[Series, list[float]] = field(default_factory=dict)


class Metrics:
    """What this process has served. With `emf`, it also keeps what `emf_lines` has not told yet."""

    def __init__(self, *, emf: bool = False) -> None:
        self._lock = Lock()
        self._numbers: dict[Series, float] = {
            (name, (v,)): 0 for name, metric in METRICS.items() for v in metric.starts
        }
        self._histograms: dict[Series, _Histogram] = {}
        self._series = {name: len(metric.starts) for name, metric in METRICS.items()}
        self._latest: deque[float] = deque(maxlen=REMEMBERED)
        self._release: str | None = None
        self._fresh = _Fresh() if emf else None

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Adds to a counter."""
        self._add(name, by, labels, "counter")

    def move(self, name: str, by: float, **labels: str) -> None:
        """Moves a gauge."""
        self._add(name, by, labels, "gauge")

    def level(self, name: str, value: float) -> None:
        """Sets a gauge to what was just seen outside this process; CloudWatch is given it as a value."""
        with self._lock:
            series = self._known(name, "gauge", {})
            self._numbers[series] = value
            if self._fresh is not None:
                self._fresh.values[series] = [value]

    def observe(self, seconds: float) -> None:
        """Records the handler time of one recommendation."""
        self.record("shortlist_recommend_seconds", seconds)
        self._latest.append(seconds)

    def record(self, name: str, value: float, **labels: str) -> None:
        """Adds a value to a histogram, in its own unit."""
        with self._lock:
            series = self._known(name, "histogram", labels)
            bounds = METRICS[name].buckets
            histogram = self._histograms.get(series)
            if histogram is None:
                histogram = self._histograms[series] = _Histogram([0] * (len(bounds) + 1))
            histogram.buckets[bisect_left(bounds, value)] += 1
            histogram.total += value
            if self._fresh is not None:
                self._fresh.values.setdefault(series, []).append(value)

    def step(self, name: str, seconds: float) -> None:
        """Records the time of a step of a live answer: retrieval, features or ranking."""
        self.record(f"shortlist_{name}_seconds", seconds)

    def release(self, version: str) -> None:
        """Tells which release serves; the one before is told no more."""
        with self._lock:
            self._numbers.pop(("shortlist_release_info", (self._release or "",)), None)
            self._numbers["shortlist_release_info", (version,)] = 1
            self._release = version

    def percentiles(self) -> dict[str, float | None]:
        """Milliseconds at the 50th and 99th percentile of the latest recommendations; None before the first."""
        ordered = sorted(self._latest.copy())
        if not ordered:
            return {"p50_ms": None, "p99_ms": None}
        at = {
            name: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
            for name, share in (("p50", 0.5), ("p99", 0.99))
        }
        return {f"{name}_ms": round(seconds * 1000, 3) for name, seconds in at.items()}

    def text(self) -> str:
        """Everything since the process started, in the Prometheus text format (version 0.0.4)."""
        with self._lock:
            return "".join(
                f"{line}\n"
                for name, metric in METRICS.items()
                for line in self._lines(name, metric)
            )

    def emf_lines(self, milliseconds: int) -> list[str]:
        """What was counted and timed since the last call, as lines of CloudWatch's embedded metric format.

        milliseconds: unix time. Moving gauges are left out: a frozen container has none. The
        release is a property of each line.
        """
        with self._lock:
            fresh = self._fresh
            if fresh is None:
                return []
            self._fresh = _Fresh()
            told = [(series, [number]) for series, number in fresh.counts.items()] + list(
                fresh.values.items()
            )
            return [_ENCODE(document) for document in _documents(told, milliseconds, self._release)]

    def _add(self, name: str, by: float, labels: dict[str, str], kind: Kind) -> None:
        with self._lock:
            series = self._known(name, kind, labels)
            self._numbers[series] = self._numbers.get(series, 0) + by
            if self._fresh is not None and kind == "counter":
                self._fresh.counts[series] = self._fresh.counts.get(series, 0) + by

    def _known(self, name: str, kind: Kind, labels: dict[str, str]) -> Series:
        """The series of these labels, which is that of OTHER where there are too many."""
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind:
            raise KeyError(f"{name!r} is no {kind} of METRICS: define it there")
        wanted = metric.labels
        if tuple(labels) != wanted:
            if labels.keys() != set(wanted):
                raise KeyError(
                    f"{name} with labels {sorted(labels)}: it has {sorted(wanted)}; change METRICS or the call"
                )
            labels = {label: labels[label] for label in wanted}
        series = (name, tuple(labels.values()))
        if series in self._numbers or series in self._histograms:
            return series
        if self._series[name] >= MAX_SERIES:
            return name, (OTHER,) * len(wanted)
        self._series[name] += 1
        return series

    def _lines(self, name: str, metric: Metric) -> Iterator[str]:
        yield f"# HELP {name} {metric.help}"
        yield f"# TYPE {name} {metric.kind}"
        for series, number in sorted(self._numbers.items()):
            if series[0] == name:
                yield f"{name}{_braced(zip(metric.labels, series[1], strict=True))} {_number(number)}"
        if not metric.labels and metric.kind != "histogram" and (name, ()) not in self._numbers:
            yield f"{name} 0"
        empty = (
            {(name, ()): _Histogram([0] * (len(metric.buckets) + 1))}
            if metric.buckets and not metric.labels
            else {}
        )
        for series, histogram in sorted(
            (empty | self._histograms).items(), key=lambda pair: pair[0]
        ):
            if series[0] == name:
                yield from _histogram_lines(name, metric, series[1], histogram)


def _histogram_lines(
    name: str, metric: Metric, values: tuple[str, ...], histogram: _Histogram
) -> Iterator[str]:
    labels = list(zip(metric.labels, values, strict=True))
    bounds = (*map(_number, metric.buckets), "+Inf")
    running = list(accumulate(histogram.buckets))
    for bound, count in zip(bounds, running, strict=True):
        yield f"{name}_bucket{_braced([*labels, ('le', bound)])} {count}"
    yield f"{name}_sum{_braced(labels)} {_number(histogram.total)}"
    yield f"{name}_count{_braced(labels)} {running[-1]}"


def _braced(labels: Iterable[tuple[str, str]]) -> str:
    told = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{told}}}" if told else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _documents(
    told: Iterable[tuple[Series, list[float]]], milliseconds: int, release: str | None
) -> list[dict[str, Any]]:
    """As few documents as hold all series: within one, a dimension has one value and a metric stands once."""
    documents: list[dict[str, Any]] = []
    for (name, values), numbers in told:
        labels = dict(zip(METRICS[name].labels, values, strict=True))
        for few in (
            numbers[start : start + EMF_VALUES] for start in range(0, len(numbers), EMF_VALUES)
        ):
            home = next(
                (
                    d
                    for d in documents
                    if name not in d and all(d.get(k, v) == v for k, v in labels.items())
                ),
                None,
            )
            if home is None:
                home = {
                    "_aws": {"Timestamp": milliseconds, "CloudWatchMetrics": []},
                    "release": release,
                }
                documents.append(home)
            _declare(home["_aws"]["CloudWatchMetrics"], name, list(labels))
            home.update(labels, **{name: few[0] if len(few) == 1 else few})
    return documents


def _declare(directives: list[dict[str, Any]], name: str, dimensions: list[str]) -> None:
    """Adds a metric to the directive of its dimensions."""
    metric = {"Name": name, "Unit": METRICS[name].unit}
    for directive in directives:
        if directive["Dimensions"] == [dimensions]:
            directive["Metrics"].append(metric)
            return
    directives.append({"Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": [metric]})
