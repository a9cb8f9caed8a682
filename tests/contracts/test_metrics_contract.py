"""Tests exact counts of known traffic in Prometheus and logs.

The logs are those that Lambda writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.lambda_handler.admission import BODY_BYTES
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import METRICS, Metrics
from shortlist.recsys.errors import ShortlistError
from shortlist.recsys.store.redis import open_store
from tests.exposition import Samples, parse, value

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of one process."""
    return Metrics()


@pytest.fixture
def client(published, metrics) -> TestClient:
    """The API over the published release, which does not raise what it answers with 500."""
    store = open_store(published.settings.redis_url, "published", 500)
    app = create_app(
        published.settings, store, LivePath(published.settings, metrics.step), metrics=metrics
    )
    return TestClient(app, raise_server_exceptions=False)


def drive(client: TestClient, published) -> Samples:
    """Sends requests of each source, a bad one and an unknown path; returns the metrics."""
    known = published.dataset.user_ids[int(published.dataset.events.user[0])]
    for body in (
        {"user_id": known, "k": 3},
        {"user_id": known, "k": 4},
        {"user_id": known, "k": 5, "use_cache": False},
        {"user_id": "fresh", "history": [published.dataset.catalogue.ids[0]]},
        {"user_id": "nobody"},
    ):
        assert client.post("/recommend", json=body).status_code == 200
    assert client.post("/recommend", json={"user_id": known, "k": 0}).status_code == 422
    assert client.get("/no/such/path/7").status_code == 404
    return parse(client.get("/metrics").text)[1]


def test_known_traffic_leaves_exact_counts(client, published) -> None:
    """Each request, answer, look-up and step is counted once, and nothing else is."""
    samples = drive(client, published)
    counted = {
        key: number for key, number in samples.items() if key[0].endswith("_total") and number
    }
    assert counted == {
        ("shortlist_requests_total", (("route", "/recommend"), ("status", "200"))): 5,
        ("shortlist_requests_total", (("route", "/recommend"), ("status", "422"))): 1,
        ("shortlist_requests_total", (("route", "unmatched"), ("status", "404"))): 1,
        ("shortlist_answers_total", (("source", "batch"),)): 2,
        ("shortlist_answers_total", (("source", "live"),)): 1,
        ("shortlist_answers_total", (("source", "session"),)): 1,
        ("shortlist_answers_total", (("source", "popular"),)): 1,
        ("shortlist_cache_total", (("result", "hit"),)): 2,
        ("shortlist_cache_total", (("result", "miss"),)): 1,
        ("shortlist_impressions_total", (("source", "batch"), ("version", published.version))): 2,
        ("shortlist_impressions_total", (("source", "live"), ("version", published.version))): 1,
        ("shortlist_impressions_total", (("source", "session"), ("version", published.version))): 1,
        ("shortlist_impressions_total", (("source", "popular"), ("version", published.version))): 1,
    }


@pytest.mark.parametrize(("sent", "counted"), [("1", 0), ("0", 2), ("", 2)])
def test_previews_are_no_impressions(client, published, sent, counted) -> None:
    """What no user sees is answered alike, and leaves no impression; other values mean nothing."""
    user = published.dataset.user_ids[0]
    path, headers = f"/v1/users/{user}/recommendations?k=3", {"X-Shortlist-Preview": sent}
    listed = client.get(path, headers=headers).json()
    posted = client.post("/recommend", json={"user_id": user, "k": 3}, headers=headers).json()
    assert len(listed["recommendations"]) == len(posted["recommendations"]) == 3
    samples = parse(client.get("/metrics").text)[1]
    shown = value(samples, "shortlist_impressions_total", source="batch", version=published.version)
    assert (shown or 0) == counted
    assert value(samples, "shortlist_answers_total", source="batch") == 2


def test_known_traffic_is_timed(client, published) -> None:
    """Steps count once a live answer, list ages once a list, candidates once an answer."""
    samples = drive(client, published)
    counts = {
        name: value(samples, f"shortlist_{name}_count")
        for name in ("retrieval_seconds", "features_seconds", "candidates")
    }
    counts |= {
        n: value(samples, f"shortlist_{n}_count")
        for n in ("ranking_seconds", "list_age_seconds", "recommend_seconds")
    }
    assert counts == {
        "retrieval_seconds": 2,
        "features_seconds": 2,
        "ranking_seconds": 2,
        "list_age_seconds": 2,
        "candidates": 5,
        "recommend_seconds": 5,
    }
    assert value(samples, "shortlist_request_seconds_count", route="/recommend") == 6
    reads = {
        command: value(samples, "shortlist_store_seconds_count", command=command)
        for command in ("read_user", "read_whole_user", "user_record")
    }
    assert reads == {"read_user": 3, "read_whole_user": 1, "user_record": 1}
    assert value(samples, "shortlist_release_info", version=published.version) == 1


def test_a_lost_record_is_asked_for_once(own, published, metrics) -> None:
    """The list is what is left of such a user, and one round trip says so."""
    settings, store = own
    known = published.dataset.user_ids[int(published.dataset.events.user[0])]
    store.redis.hdel(store.keys.user(known), "h")
    app = create_app(settings, store, LivePath(settings, metrics.step), metrics=metrics)
    client = TestClient(app)
    answer = client.post("/recommend", json={"user_id": known, "explain": True}).json()
    assert (answer["source"], answer["recommendations"] != []) == ("stale", True)
    samples = parse(client.get("/metrics").text)[1]
    commands = {dict(labels).get("command") for (_, labels) in samples}
    assert ("read_whole_user" in commands, "user_record" in commands) == (True, False)


def test_steps_are_parts_of_the_whole(client, published) -> None:
    """Steps take no longer than recommendations, and those no longer than requests."""
    samples = drive(client, published)
    steps = [
        value(samples, f"shortlist_{step}_seconds_sum")
        for step in ("retrieval", "features", "ranking", "recommend")
    ]
    assert min(steps) > 0
    assert (
        sum(steps[:3])
        <= steps[3]
        <= value(samples, "shortlist_request_seconds_sum", route="/recommend")
    )


def test_every_metric_has_data(client, published, metrics, monkeypatch) -> None:
    """After traffic, a broken store and a bug, no family is empty."""
    drive(client, published)
    fail_once(client, monkeypatch, RuntimeError("a bug"))
    fail_once(client, monkeypatch, ShortlistError("one of our errors"))
    metrics.count(
        "shortlist_degraded_total", kind="StoreUnavailable"
    )  # how it comes about is tested with the API
    metrics.count("shortlist_events_total", outcome="accepted")  # likewise
    metrics.level("shortlist_events_waiting", 1)  # likewise
    metrics.count("shortlist_tally_failures_total")  # tested with `shortlist skew`
    metrics.count(
        "shortlist_log_lines_lost_total"
    )  # tested with the server, which alone has these two
    metrics.move("shortlist_waiting", 1, pool="live")
    assert client.post("/recommend", content=b"x" * (BODY_BYTES + 1)).status_code == 413
    _, samples = parse(metrics.text())
    with_data = {name.removesuffix("_count") for (name, _), number in samples.items() if number > 0}
    assert set(METRICS) - with_data == {"shortlist_requests_in_flight"}


def fail_once(client: TestClient, monkeypatch, error: Exception) -> int:
    """The status of a request in which reading the store raises `error`."""

    def raises(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("shortlist.recsys.store.redis.RedisStore.rows_of", raises)
        return client.get("/v1/items/1").status_code


def test_errors_are_counted_by_kind(client, metrics, monkeypatch) -> None:
    """A bug is a 500, one of our errors a 503.

    Each is counted once, and the gauge returns to zero.
    """
    statuses = [
        fail_once(client, monkeypatch, error)
        for error in (RuntimeError("a bug"), ShortlistError("ours"))
    ]
    assert statuses == [500, 503]
    _, samples = parse(metrics.text())
    assert value(samples, "shortlist_requests_in_flight") == 0
    errors = {
        labels[0][1]: number
        for (name, labels), number in samples.items()
        if name == "shortlist_errors_total" and number
    }
    assert errors == {"unexpected": 1, "ShortlistError": 1}
    assert (
        value(samples, "shortlist_requests_total", route="/v1/items/{item_id}", status="500") == 1
    )
    assert (
        value(samples, "shortlist_requests_total", route="/v1/items/{item_id}", status="503") == 1
    )


def test_requests_in_flight(client) -> None:
    """The request for the metrics counts itself, and no other."""
    client.get("/health")
    _, samples = parse(client.get("/metrics").text)
    assert value(samples, "shortlist_requests_in_flight") == 1


def test_counts_in_lambdas_log(published, tmp_path) -> None:
    """Under the real runtime client, each invocation prints its metrics as EMF."""
    known = published.dataset.user_ids[int(published.dataset.events.user[0])]
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        LambdaService(
            "shortlist.lambda_handler.handler.handler",
            ROOT,
            os.environ | published.environ,
            log=file.fileno(),
        ) as service,
    ):
        for k in (3, 4):
            service.invoke(http_event("POST", "/recommend", {"user_id": known, "k": k}))
    documents = [
        json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"_aws"')
    ]
    totals: dict[tuple[str, str], float] = {}
    for document in documents:
        for directive in document["_aws"]["CloudWatchMetrics"]:
            labels = [document[name] for name in directive["Dimensions"][0]]
            for name in (metric["Name"] for metric in directive["Metrics"]):
                values = document[name]
                count = len(values) if isinstance(values, list) else 1
                totals[name, ",".join(labels)] = totals.get((name, ",".join(labels)), 0) + count
    assert {d["release"] for d in documents} == {published.version}
    assert {key: n for key, n in totals.items() if key[0] != "shortlist_store_seconds"} == {
        ("shortlist_requests_total", "/recommend,200"): 2,
        ("shortlist_request_seconds", "/recommend"): 2,
        ("shortlist_recommend_seconds", ""): 2,
        ("shortlist_cache_total", "hit"): 2,
        ("shortlist_answers_total", "batch"): 2,
        ("shortlist_impressions_total", f"batch,{published.version}"): 2,
        ("shortlist_candidates", ""): 2,
        ("shortlist_list_age_seconds", ""): 2,
    }
