"""Tests the metrics: exact counts, bounded labels, checked names.

The counts are exact in both formats.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from threading import Thread

import pytest

from shortlist.lambda_handler.metrics import MAX_SERIES, METRICS, Metrics
from shortlist.lambda_handler.timed_store import timed
from tests.exposition import parse, value


def driven(*, emf: bool = False) -> Metrics:
    """Metrics with a little of every kind."""
    metrics = Metrics(emf=emf)
    for status in ("200", "200", "404"):
        metrics.count("shortlist_requests_total", route="/recommend", status=status)
    for seconds in (0.0004, 0.001, 0.02, 99.0):
        metrics.observe(seconds)
    metrics.record("shortlist_store_seconds", 0.003, command="read_user")
    metrics.move("shortlist_requests_in_flight", 1)
    metrics.release("r1")
    return metrics


def test_counts_are_exact() -> None:
    """What was counted is what is read back."""
    _, samples = parse(driven().text())
    assert value(samples, "shortlist_requests_total", route="/recommend", status="200") == 2
    assert value(samples, "shortlist_requests_total", route="/recommend", status="404") == 1
    assert value(samples, "shortlist_requests_in_flight") == 1
    assert value(samples, "shortlist_store_seconds_count", command="read_user") == 1
    assert value(samples, "shortlist_store_seconds_sum", command="read_user") == 0.003


def test_histogram_buckets() -> None:
    """A bound belongs to its bucket; what is beyond the last is in +Inf alone."""
    _, samples = parse(driven().text())
    name = "shortlist_recommend_seconds_bucket"
    buckets = {
        bound: value(samples, name, le=bound)
        for bound in ("0.0005", "0.001", "0.01", "0.025", "10.0", "+Inf")
    }
    assert buckets == {"0.0005": 1, "0.001": 2, "0.01": 2, "0.025": 3, "10.0": 3, "+Inf": 4}
    assert value(samples, "shortlist_recommend_seconds_sum") == pytest.approx(99.0214)


def test_every_metric_before_the_first_request() -> None:
    """Each family, and each known label value at zero, is exposed from the start."""
    kinds, samples = parse(Metrics().text())
    assert value(samples, "shortlist_errors_total", kind="unexpected") == 0
    assert value(samples, "shortlist_answers_total", source="stale") == 0
    assert kinds == {name: metric.kind for name, metric in METRICS.items()}
    assert value(samples, "shortlist_requests_in_flight") == 0
    assert value(samples, "shortlist_candidates_count") == 0


def test_promtool_accepts_the_text() -> None:
    """Prometheus's own linter finds nothing to say."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=driven().text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_labels_are_escaped() -> None:
    """A label's quotes, backslashes and line ends come back as they were."""
    metrics = Metrics()
    metrics.count("shortlist_degraded_total", kind='a"b\\c\nd')
    _, samples = parse(metrics.text())
    assert value(samples, "shortlist_degraded_total", kind='a"b\\c\nd') == 1


def test_only_the_serving_release_is_exposed() -> None:
    """A new release takes the place of the old one."""
    metrics = driven()
    metrics.release("r2")
    metrics.release("r2")
    _, samples = parse(metrics.text())
    assert {key: v for key, v in samples.items() if key[0] == "shortlist_release_info"} == {
        ("shortlist_release_info", (("version", "r2"),)): 1
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.count("shortlist_request_total", route="/", status="200"),
        lambda m: m.count("shortlist_requests_in_flight"),
        lambda m: m.count("shortlist_requests_total", route="/"),
        lambda m: m.count("shortlist_requests_total", route="/", status="200", user="7"),
        lambda m: m.record("shortlist_answers_total", 1, source="batch"),
        lambda m: m.step("thinking", 1.0),
    ],
)
def test_undefined_metrics_raise(call) -> None:
    """A misspelt name, another kind, and a label too few or too many raise KeyError."""
    with pytest.raises(KeyError, match="METRICS"):
        call(Metrics())


def test_labels_are_bounded() -> None:
    """After MAX_SERIES combinations of labels, the rest is one series, and no count is lost."""
    metrics = Metrics()
    for user in range(MAX_SERIES + 50):
        metrics.count("shortlist_requests_total", route=str(user), status="200")
    metrics.count("shortlist_requests_total", route="0", status="200")
    _, samples = parse(metrics.text())
    assert len(samples) - len(parse(Metrics().text())[1]) == MAX_SERIES + 1
    assert value(samples, "shortlist_requests_total", route="other", status="other") == 50
    assert value(samples, "shortlist_requests_total", route="0", status="200") == 2


def test_threads_lose_no_count() -> None:
    """Eight threads of a thousand requests each are eight thousand."""
    metrics = Metrics()

    def serve() -> None:
        for _ in range(1000):
            metrics.count("shortlist_answers_total", source="batch")
            metrics.record("shortlist_candidates", 60)

    threads = [Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, samples = parse(metrics.text())
    assert value(samples, "shortlist_answers_total", source="batch") == 8000
    assert value(samples, "shortlist_candidates_bucket", le="100.0") == 8000


def test_percentiles() -> None:
    """Percentiles are milliseconds of the latest recommendations; None before the first."""
    metrics = Metrics()
    assert metrics.percentiles() == {"p50_ms": None, "p99_ms": None}
    for milliseconds in range(100):
        metrics.observe(milliseconds / 1000)
    assert metrics.percentiles() == {"p50_ms": 50.0, "p99_ms": 99.0}


def recorded_in(lines: list[str]) -> list[tuple[str, str, dict[str, str], object]]:
    """What CloudWatch extracts from EMF lines: name, unit, dimensions and value or values."""
    out = []
    for line in lines:
        document = json.loads(line)
        for directive in document["_aws"]["CloudWatchMetrics"]:
            assert directive["Namespace"] == "Shortlist"
            for metric in directive["Metrics"]:
                for dimensions in directive["Dimensions"]:
                    labels = {name: document[name] for name in dimensions}
                    out.append((metric["Name"], metric["Unit"], labels, document[metric["Name"]]))
    return sorted(out, key=repr)


def test_emf_lines_are_written_once() -> None:
    """EMF lines have counts and values in their units, with the release; a second call has none."""
    metrics = driven(emf=True)
    lines = metrics.emf_lines(1_785_542_400_123)
    assert recorded_in(lines) == [
        ("shortlist_recommend_seconds", "Seconds", {}, [0.0004, 0.001, 0.02, 99.0]),
        ("shortlist_requests_total", "Count", {"route": "/recommend", "status": "200"}, 2),
        ("shortlist_requests_total", "Count", {"route": "/recommend", "status": "404"}, 1),
        ("shortlist_store_seconds", "Seconds", {"command": "read_user"}, 0.003),
    ]
    documents = [json.loads(line) for line in lines]
    assert len(documents) == 2  # one would need two statuses
    assert {d["_aws"]["Timestamp"] for d in documents} == {1_785_542_400_123}
    assert {d["release"] for d in documents} == {"r1"}
    assert metrics.emf_lines(1_785_542_400_124) == []


def test_emf_and_prometheus_agree() -> None:
    """Over several flushes, the sums are the same for every counter and histogram."""
    metrics = driven(emf=True)
    recorded = recorded_in(metrics.emf_lines(1))
    metrics.count("shortlist_requests_total", route="/recommend", status="200")
    metrics.observe(0.5)
    recorded += recorded_in(metrics.emf_lines(2))
    _, samples = parse(metrics.text())
    sums: dict[tuple[str, str], float] = {}
    for name, _, labels, values in recorded:
        key = (
            name if METRICS[name].kind == "counter" else f"{name}_sum",
            str(tuple(sorted(labels.items()))),
        )
        sums[key] = sums.get(key, 0) + (sum(values) if isinstance(values, list) else values)
    expected = {
        (name, str(labels)): number
        for (name, labels), number in samples.items()
        if (name, str(labels)) in sums
    }
    assert sums == pytest.approx(expected)
    assert len(sums) == 4


def test_emf_lines_hold_100_values() -> None:
    """A line has at most the 100 values of a metric that CloudWatch takes; none is lost."""
    metrics = Metrics(emf=True)
    for i in range(250):
        metrics.observe(i / 1000)
    parts = [values for *_, values in recorded_in(metrics.emf_lines(1))]
    assert sorted(len(part) for part in parts) == [50, 100, 100]
    assert sorted(v for part in parts for v in part) == [i / 1000 for i in range(250)]


def test_no_emf_without_lambda() -> None:
    """A server that Prometheus scrapes does not gather values for ever."""
    assert driven().emf_lines(1) == []


class Flaky:
    """A store with a command that answers, and one that fails."""

    name = "flaky"

    def ping(self) -> str:
        """Answers."""
        return "pong"

    def release(self) -> None:
        """Fails."""
        raise OSError("gone")


def test_failed_commands_are_timed() -> None:
    """Each command is timed under its own name; what is no command passes through."""
    metrics = Metrics()
    store = timed(Flaky(), metrics)  # type: ignore[arg-type]
    assert (store.ping(), store.ping(), store.name) == ("pong", "pong", "flaky")
    with pytest.raises(OSError, match="gone"):
        store.release()
    _, samples = parse(metrics.text())
    assert value(samples, "shortlist_store_seconds_count", command="ping") == 2
    assert value(samples, "shortlist_store_seconds_count", command="release") == 1


def test_multiprocess_variable_is_ignored() -> None:
    """prometheus-client's files for several workers are not written, even if a variable asks."""
    code = "from shortlist.lambda_handler.metrics import Metrics; Metrics().text()"
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": "/no/such/directory"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=False)
    assert done.returncode == 0
