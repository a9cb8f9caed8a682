"""Tests alerts, dashboard and compose file against service and Prometheus."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shortlist.lambda_handler.metrics import METRICS
from tests.prometheus import MONITORING, alert_queries, tool

ROOT = Path(__file__).parents[2]
SECONDS = 60
"""How long a server may take to be ready."""

SUFFIXES = ("_bucket", "_sum", "_count")


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    return json.loads((MONITORING / "grafana" / "dashboards" / "shortlist.json").read_text())


def panel_queries() -> dict[str, str]:
    """The expression of each query of each panel."""
    return {
        f"{p['title']} {t['refId']}": t["expr"] for p in dashboard()["panels"] for t in p["targets"]
    }


def test_queried_metrics_are_defined() -> None:
    """No query uses a metric that is not exposed; histograms are queried by their parts."""
    defined = {n for n, m in METRICS.items() if m.kind != "histogram"}
    defined |= {
        f"{n}{suffix}" for n, m in METRICS.items() if m.kind == "histogram" for suffix in SUFFIXES
    }
    queries = {
        **alert_queries(),
        **panel_queries(),
        "annotation": dashboard()["annotations"]["list"][0]["expr"],
    }
    unknown = {
        where: set(re.findall(r"shortlist_\w+", query)) - defined
        for where, query in queries.items()
    }
    assert {where: names for where, names in unknown.items() if names} == {}


def test_queried_labels_are_defined() -> None:
    """A label that no metric of the query has would silently match nothing."""
    for where, query in {**alert_queries(), **panel_queries()}.items():
        names = {
            re.sub(r"_(bucket|sum|count)$", "", name)
            for name in re.findall(r"shortlist_\w+", query)
        }
        known = {"job", "instance", "le"}.union(
            *(METRICS.get(n, METRICS["shortlist_candidates"]).labels for n in names)
        )
        used = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", query)
            for label in group.split(",")
        }
        used |= set(re.findall(r"[{,]\s*(\w+)=", query))
        assert used <= known, where


def test_every_metric_is_on_the_dashboard() -> None:
    """Nothing is gathered that nobody can see."""
    queries = " ".join(panel_queries().values())
    assert {name for name in METRICS if name not in queries} == set()


def test_metrics_and_alerts_are_documented() -> None:
    """docs/monitoring.md has a row for each, and no others."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    labels = {
        name: ", ".join(f"`{label}`" for label in metric.labels) for name, metric in METRICS.items()
    }
    rows = [
        f"| `{name}` | {metric.kind} | {labels[name]} | {metric.help} |"
        for name, metric in METRICS.items()
    ]
    assert [line for line in page.splitlines() if line.startswith("| `shortlist_")] == rows
    assert re.findall(r"^\| `(Shortlist\w+)` \|", page, re.MULTILINE) == list(alert_queries())


def test_panels() -> None:
    """Each panel has its own place, a description, and the provisioned data source."""
    source = yaml.safe_load(
        (MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]["uid"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        assert panel["description"]
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {source}
        taken |= cells


def test_promtool_accepts_the_configuration() -> None:
    """The configuration and the rules that it names."""
    done = subprocess.run(
        [tool("promtool"), "check", "config", "prometheus.yml"],
        cwd=MONITORING,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alert_thresholds() -> None:
    """Promtool replays tests.yml: each alert fires above its threshold and not below."""
    cases = yaml.safe_load((MONITORING / "tests.yml").read_text())["tests"]
    fired = {
        case["alertname"] for one in cases for case in one["alert_rule_test"] if case["exp_alerts"]
    }
    silent = {case["alertname"] for case in cases[0]["alert_rule_test"] if not case["exp_alerts"]}
    assert fired == silent == set(alert_queries())
    done = subprocess.run(
        [tool("promtool"), "test", "rules", "tests.yml"],
        cwd=MONITORING,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> Any:
    """The JSON, or text, that a GET gives."""
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
        body = response.read().decode()
    return json.loads(body) if body.startswith("{") else body


def ask(api: str, body: dict[str, Any], path: str = "/recommend") -> None:
    """One request; errors are answers too."""
    payload = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{api}{path}", payload, headers)  # noqa: S310 - loopback
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Asks again until it is so, the process ends, or SECONDS have passed."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        with contextlib.suppress(OSError):
            if ready():
                return
    pytest.fail(f"{process.args} was not ready after {SECONDS} s")


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with (
        log.open("wb") as file,
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=file, stderr=file) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def api(published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API as the compose file starts it, but for its address, over the published release."""
    port = free_port()
    dockerfile = yaml.safe_load((MONITORING / "docker-compose.yml").read_text())["services"]["api"][
        "build"
    ]["dockerfile_inline"]
    arguments = json.loads(dockerfile.rpartition("CMD ")[2])
    assert arguments[3:] == ["--host", "0.0.0.0", "--port", "8000"]  # noqa: S104 - of a container
    command = [sys.executable, *arguments[1:], "--host", "127.0.0.1", "--port", str(port)]
    environ = {"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | published.environ
    with running(command, tmp_path_factory.mktemp("api") / "log", environ) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: get(f"{url}/health")["status"] == "ok", process)
        yield url


@pytest.fixture(scope="module")
def prometheus(api, published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus with our configuration, which scrapes the API five times a second."""
    directory, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "200ms",
        "scrape_timeout": "200ms",
        "evaluation_interval": "200ms",
    }
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [api.removeprefix("http://")]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITORING / "alerts.yml", directory)
    flags = [
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
    ]
    command = [tool("prometheus"), *flags, f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, directory / "log") as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: bool(values(url, 'up{job="shortlist"} == 1')), process)
        until(lambda: drive(api, published) or has_rates(url), process)
        yield url


def drive(api: str, published) -> None:
    """Gets a cached answer, a live one, a session, an unknown user's, and a rejected event."""
    event = {"event_id": "1", "user_id": "nobody", "item_id": "no such item", "timestamp": 1}
    ask(api, {"events": [event]}, "/v1/events")
    known = published.dataset.user_ids[int(published.dataset.events.user[0])]
    for body in (
        {"user_id": known},
        {"user_id": known, "use_cache": False},
        {"user_id": "fresh", "history": [published.dataset.catalogue.ids[0]]},
        {"user_id": "nobody"},
    ):
        ask(api, body)


def has_rates(url: str) -> bool:
    """Tells if the last series, live answers and request times, were scraped enough for a rate."""
    parts = (
        "ranking_seconds_count",
        "list_age_seconds_count",
        'request_seconds_count{route="/recommend"}',
    )
    return bool(
        values(url, " and on() ".join(f"(rate(shortlist_{part}[5m]) > 0)" for part in parts))
    )


def values(url: str, query: str) -> list[float]:
    """The values of an instant query."""
    answer = get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    assert answer["status"] == "success"
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


@pytest.mark.parametrize("panel", panel_queries())
def test_dashboard_queries_have_data(prometheus, panel: str) -> None:
    """After the driven traffic, a real Prometheus answers each with at least one number."""
    assert any(math.isfinite(number) for number in values(prometheus, panel_queries()[panel]))


def test_prometheus_scrapes_without_a_complaint(prometheus, api) -> None:
    """The target is up, and its metrics' types are those of the definition."""
    targets = get(f"{prometheus}/api/v1/targets")["data"]["activeTargets"]
    assert [(t["health"], t["lastError"]) for t in targets] == [("up", "")]
    metadata = get(f"{prometheus}/api/v1/metadata")["data"]
    assert {n: m[0]["type"] for n, m in metadata.items() if n.startswith("shortlist_")} == {
        n: m.kind for n, m in METRICS.items()
    }


def test_prometheus_loads_every_alert(prometheus) -> None:
    """Each rule is evaluated without an error."""
    groups = get(f"{prometheus}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == set(alert_queries())
    assert {rule.get("lastError", "") for rule in rules} == {""}
