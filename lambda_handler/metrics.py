"""Defines the metrics, for Prometheus and CloudWatch.

`prometheus-client` keeps the series and writes the text. The table of metrics, the cap on series
and EMF are ours: a metric that is not in METRICS, or labels that are not its own, raise, so that
nothing on a dashboard can be misspelt. Label values are few (route templates, never paths or ids);
beyond MAX_SERIES combinations a metric counts the rest under "other".
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from threading import Lock
from typing import Any, Literal

# Its files for several processes would cost a request more than a lookup may, and one process
# serves: the variable that asks for them is read by this import, and must not be there.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from shortlist.recsys.store.answer_sources import SOURCES

# Counters' and histograms' creation times would double the series, and nothing here reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

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
"""Latest latencies that percentiles are computed from: ten of them are beyond the 99th."""

MAX_SERIES = 200
"""Label combinations of one metric; further ones are counted under OTHER."""

OTHER = "other"
NAMESPACE = "Shortlist"
"""In CloudWatch."""

EMF_VALUES = 100
"""Most values of one metric in a line, by CloudWatch's specification of the format."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode

Kind = Literal["counter", "gauge", "histogram"]
Series = tuple[str, tuple[str, ...]]
"""A metric's name, and its labels' values in the order of its definition."""


@dataclass(frozen=True, slots=True)
class Metric:
    """help: a sentence; labels: names; buckets: a histogram's upper bounds; unit: CloudWatch's.

    starts: values of the only label that are exposed as 0 from the start, since Prometheus sees no
    increase in a series that did not exist.
    """

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    unit: str = "Count"
    starts: tuple[str, ...] = ()


def _latency(help_: str, *labels: str) -> Metric:
    return Metric("histogram", help_, labels, BUCKETS, "Seconds")


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
        "Requests that ended in an internal error, by its kind.",
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
class _Pending:
    """What was recorded since the last EMF lines."""

    counts: dict[Series, float] = field(default_factory=dict)
    values: dict[Series, list[float]] = field(default_factory=dict)


class Metrics:
    """The metrics of one process. With `emf`, also what `emf_lines` has not written yet.

    Measured for the twelve updates of a cached answer: 15 us with the children of
    prometheus-client kept here by series, 21 us with its `labels()` at each update, 12 us for a
    registry of dicts. The whole request took 0.293 ms with the dicts and takes 0.300 ms now; the
    import takes 15 ms. The library's files for several workers would need 29 us and cannot remove
    the series of an old release. They are not used, as a server is one process.
    """

    def __init__(self, *, emf: bool = False) -> None:
        self._lock = Lock()
        self._registry = CollectorRegistry()
        self._families = {
            name: _family(name, metric, self._registry) for name, metric in METRICS.items()
        }
        self._children: dict[Series, Any] = {}
        self._sizes = dict.fromkeys(METRICS, 0)
        for name, metric in METRICS.items():
            for value in metric.starts:
                self._add_child((name, (value,)))
        # Percentiles of the raw values: those from buckets would be as coarse as the buckets.
        self._latest: deque[float] = deque(maxlen=REMEMBERED)
        self._release: str | None = None
        self._pending = _Pending() if emf else None

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Adds to a counter."""
        series, child = self._child(name, "counter", labels)
        child.inc(by)
        if self._pending is not None:
            with self._lock:
                counts = self._pending.counts
                counts[series] = counts.get(series, 0) + by

    def move(self, name: str, by: float, **labels: str) -> None:
        """Moves a gauge."""
        _, child = self._child(name, "gauge", labels)
        child.inc(by)

    def level(self, name: str, value: float) -> None:
        """Sets a gauge to a value seen outside this process.

        CloudWatch receives it too.
        """
        series, child = self._child(name, "gauge", {})
        child.set(value)
        if self._pending is not None:
            with self._lock:
                self._pending.values[series] = [value]

    def observe(self, seconds: float) -> None:
        """Records the handler time of one recommendation."""
        self.record("shortlist_recommend_seconds", seconds)
        self._latest.append(seconds)

    def record(self, name: str, value: float, **labels: str) -> None:
        """Adds a value to a histogram, in its own unit."""
        series, child = self._child(name, "histogram", labels)
        child.observe(value)
        if self._pending is not None:
            with self._lock:
                self._pending.values.setdefault(series, []).append(value)

    def step(self, name: str, seconds: float) -> None:
        """Records a step's time; steps are retrieval, features and ranking."""
        self.record(f"shortlist_{name}_seconds", seconds)

    def release(self, version: str) -> None:
        """Exposes which release serves, in place of the one before."""
        with self._lock:
            if version == self._release:
                return  # the usual case, every few seconds
            family = self._families["shortlist_release_info"]
            if self._release is not None:
                family.remove(self._release)
            family.labels(version).set(1)
            self._release = version

    def percentiles(self) -> dict[str, float | None]:
        """Percentiles of the latest recommendations in milliseconds.

        None before the first.
        """
        ordered = sorted(self._latest.copy())
        return {"p50_ms": _quantile(ordered, 0.5), "p99_ms": _quantile(ordered, 0.99)}

    def text(self) -> str:
        """All metrics in the Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry).decode()

    def emf_lines(self, milliseconds: int) -> list[str]:
        """EMF lines of what was recorded since the last call.

        milliseconds: unix time. Gauges that move are left out: a frozen container has none. The
        release is a property of each line.
        """
        with self._lock:
            pending = self._pending
            if pending is None:
                return []
            self._pending = _Pending()
        recorded = [(series, [number]) for series, number in pending.counts.items()]
        recorded += pending.values.items()
        lines = _lines(tuple([(series, len(numbers)) for series, numbers in recorded]))
        release = json.dumps(self._release)
        return [line.text(milliseconds, release, recorded) for line in lines]

    def _child(self, name: str, kind: Kind, labels: dict[str, str]) -> tuple[Series, Any]:
        """The labels' series and its counter, or those of OTHER where there are too many."""
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind:
            raise KeyError(f"{name!r} is no {kind} of METRICS: define it there")
        if tuple(labels) != metric.labels:
            labels = _in_order(name, labels, metric.labels)
        series = (name, tuple(labels.values()))
        child = self._children.get(series)
        return self._add_child(series) if child is None else (series, child)

    def _add_child(self, series: Series) -> tuple[Series, Any]:
        name, values = series
        with self._lock:
            if series not in self._children:  # another thread may have added it
                if self._sizes[name] >= MAX_SERIES:  # memory and scrapes stay bounded
                    series = (name, (OTHER,) * len(values))
                else:
                    self._sizes[name] += 1
            if series not in self._children:
                family = self._families[name]
                self._children[series] = family.labels(*series[1]) if values else family
            return series, self._children[series]


def _family(name: str, metric: Metric, registry: CollectorRegistry) -> Any:  # noqa: ANN401 - of the three kinds
    if metric.kind == "histogram":
        return Histogram(
            name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
        )
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(name, metric.help, metric.labels, registry=registry)


def _in_order(name: str, labels: dict[str, str], defined: tuple[str, ...]) -> dict[str, str]:
    """Orders labels as defined; raises KeyError for any others."""
    if labels.keys() != set(defined):
        message = (
            f"{name} with labels {sorted(labels)}: it has {sorted(defined)}; "
            "change METRICS or the call"
        )
        raise KeyError(message)
    return {label: labels[label] for label in defined}


def _quantile(ordered: list[float], share: float) -> float | None:
    """A quantile of sorted seconds, in milliseconds.

    None for no values.
    """
    if not ordered:
        return None
    place = min(len(ordered) - 1, int(len(ordered) * share))
    return round(ordered[place] * 1000, 3)


class _Line:
    """An EMF line but for its time, its release and its numbers."""

    def __init__(self) -> None:
        self._directives: list[dict[str, Any]] = []
        self._labels: dict[str, str] = {}
        self._places: dict[str, tuple[int, int]] = {}
        """Of each metric, the place of its series, and that of its first number there."""

    def fits(self, name: str, labels: dict[str, str]) -> bool:
        """Tells if it may take a metric: it must lack it and have no other value of a label."""
        if name in self._places:
            return False
        return all(self._labels.get(label, value) == value for label, value in labels.items())

    def add(self, name: str, labels: dict[str, str], place: tuple[int, int]) -> None:
        """Adds a metric, to the directive of its dimensions."""
        self._labels.update(labels)
        self._places[name] = place
        metric, dimensions = {"Name": name, "Unit": METRICS[name].unit}, [list(labels)]
        for directive in self._directives:
            if directive["Dimensions"] == dimensions:
                directive["Metrics"].append(metric)
                return
        self._directives.append(
            {"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": [metric]}
        )

    @cached_property
    def _encoded(self) -> tuple[str, str]:
        """The JSON of directives and labels, which is the same in each line of this shape."""
        labels = "".join(f",{_ENCODE(name)}:{_ENCODE(v)}" for name, v in self._labels.items())
        return _ENCODE(self._directives), labels

    def text(
        self, milliseconds: int, release: str, recorded: Sequence[tuple[Series, list[float]]]
    ) -> str:
        """The line's JSON; release: as JSON."""
        directives, labels = self._encoded
        numbers = [
            recorded[at][1][first : first + EMF_VALUES] for at, first in self._places.values()
        ]
        values = "".join(
            f',"{name}":{each[0]}' if len(each) == 1 else f',"{name}":{_ENCODE(each)}'
            for name, each in zip(self._places, numbers, strict=True)
        )
        head = f'"_aws":{{"Timestamp":{milliseconds},"CloudWatchMetrics":{directives}}}'
        return f'{{{head},"release":{release}{labels}{values}}}'


@lru_cache(maxsize=256)  # what an invocation records depends on its route and outcome: few differ
def _lines(shape: tuple[tuple[Series, int], ...]) -> tuple[_Line, ...]:
    """As few EMF lines as hold all series, of each so many numbers.

    Within a line a dimension has one value, and a metric occurs once.
    """
    lines: list[_Line] = []
    for at, ((name, values), length) in enumerate(shape):
        labels = dict(zip(METRICS[name].labels, values, strict=True))
        for first in range(0, length, EMF_VALUES):
            line = next((each for each in lines if each.fits(name, labels)), None)
            if line is None:
                line = _Line()
                lines.append(line)
            line.add(name, labels, (at, first))
    return tuple(lines)
