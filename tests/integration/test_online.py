"""Tests the shares that `shortlist online-report` computes from traffic.

The traffic is known, and goes through the API.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from shortlist.batch.cli import main
from shortlist.batch.drain import drain
from shortlist.batch.online import (
    AnswerGroup,
    ImpressionStats,
    Online,
    add_clicks,
    add_impressions,
    drained,
    notes,
    online,
    report,
    tables,
    totals,
)
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.evaluation.proportions import wilson
from shortlist.recsys.store.counts import CountLog, Hash
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.recommendation_id import Origin, new_id, origin_of
from shortlist.recsys.store.records import Canary, EventRecord, ReleasePointer, unpack_event

ROOT = str(Path(__file__).parents[2])
NOW = 1_800_000_000.0
TODAY = int(NOW // 86_400)
DATE = "2027-01-15"


@pytest.fixture
def now() -> list[float]:
    """The time of the service."""
    return [NOW]


@pytest.fixture
def counts(own) -> CounterBuffer:
    """The counts of a process, sent when the test says so."""
    return CounterBuffer(CountLog(own[1]), Metrics(), hand_over=lambda _send: None)


@pytest.fixture
def client(own, counts, now) -> TestClient:
    """The API over a release of the test's own."""
    settings, store = own
    return TestClient(
        create_app(settings, store, LivePath(settings), lambda: now[0], counters=counts)
    )


@pytest.fixture
def users(published) -> list[str]:
    """Users with a list."""
    return list(published.dataset.user_ids[:40])


def ask(client: TestClient, user: str, k: int = 5) -> dict[str, Any]:
    """A recommendation answer."""
    return client.post("/recommend", json={"user_id": user, "k": k}).json()


@pytest.fixture
def click(client) -> Callable[..., None]:
    """Sends an event on an answer, at a position."""
    number = Counter[str]()

    def act(
        answer: dict[str, Any],
        position: int | None = None,
        user: str = "clicker",
        weight: float | None = None,
    ) -> None:
        number["events"] += 1
        item = answer["recommendations"][(position or 1) - 1]["item_id"]
        event = {
            "event_id": f"e{number['events']}",
            "user_id": user,
            "item_id": item,
            "timestamp": int(NOW),
            "weight": weight,
        }
        event |= {"recommendation_id": answer["recommendation_id"]} | (
            {} if position is None else {"position": position}
        )
        figures = client.post("/v1/events", json={"events": [event]}).json()
        assert figures == {"accepted": 1, "duplicates": 0, "rejected": []}

    return act


def test_answers_are_counted_by_group(client, own, counts, published, users) -> None:
    """Once, on its day, in a hash that expires; what shows nothing is not counted."""
    ask(client, users[0])
    ask(client, users[1])
    ask(client, "nobody", 7)
    path = f"/v1/users/{users[2]}/recommendations?k=5"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"if-none-match": tag}).status_code == 304
    assert client.head(path).status_code == 200
    assert client.post("/recommend", json={"user_id": "1", "k": 0}).status_code == 422
    assert client.get("/v1/popular").status_code == 200
    counts.flush()
    key = own[1].keys.impressions(DATE)
    assert CountLog(own[1]).read(key) == {
        f"batch:5:{published.version}": 3,
        f"popular:7:{published.version}": 1,
    }
    assert 0 < own[1].redis.ttl(key) <= 90 * 86_400


def test_a_hit_writes_nothing(client, own, users, monkeypatch) -> None:
    """The answer's counts wait in the process until they are sent."""
    before = set(own[1].redis.scan_iter(f"{own[1].keys.namespace}:*"))
    answer = ask(client, users[0])
    assert answer["source"] == "batch"
    assert set(own[1].redis.scan_iter(f"{own[1].keys.namespace}:*")) == before
    assert origin_of(answer["recommendation_id"]) == Origin(answer["model_version"], "batch", TODAY)


def test_events_keep_their_positions(client, own, users, click) -> None:
    """From 1 to 100; anything else is rejected by itself."""
    click(ask(client, users[0]), 3)
    (entry,) = own[1].redis.xrange(own[1].keys.events())
    assert unpack_event(entry[1][b"e"]).position == 3
    for position in (0, 101, 2.5, "1"):
        event = {
            "event_id": "x",
            "user_id": "u",
            "item_id": "1",
            "timestamp": 1,
            "position": position,
        }
        figures = client.post("/v1/events", json={"events": [event]}).json()
        assert [r["code"] for r in figures["rejected"]] == ["invalid_event"]


def test_older_events_have_no_position() -> None:
    """Records grow at their end."""
    seven = bytes.fromhex("9701a165a175a169" + "01" + "c0" + "a172")
    assert unpack_event(seven) == EventRecord("e", "u", "i", 1, None, "r")


def test_known_traffic_gives_known_shares(
    client, own, counts, published, users, click, tmp_path
) -> None:
    """Forty lists shown, ten acted on, one of them twice.

    Half of the clicks are in drained files, half still in the stream.
    """
    answers = [ask(client, user) for user in users]
    for at, answer in enumerate(answers[:5]):
        click(answer, 1 + at % 2)
    drain(EventLog(own[1]), open_event_files(str(tmp_path)))
    for answer in answers[5:10]:
        click(answer)
    click(answers[0], 4)
    counts.flush()
    counted = online(own[0], 1, str(tmp_path), NOW)
    assert set(counted.groups) == {AnswerGroup(published.version, "batch")}
    shown = counted.groups[AnswerGroup(published.version, "batch")]
    assert (
        totals(counted, published.version, "all"),
        shown.answers(6),
        notes(report(counted)),
    ) == (
        (10, 40),
        0,
        [],
    )
    assert {position: len(ids) for position, ids in shown.at.items()} == {1: 3, 2: 2, 4: 1}
    assert EventLog(own[1]).length() == 6


def test_a_canary_is_compared(own, monkeypatch) -> None:
    """With the difference's interval: here one that does not reach zero."""
    settings, store = own
    store.set_release(ReleasePointer("old", "older", Canary("new", 50.0)))
    groups = {"batch:10:old": 1000, "batch:10:new": 1000}
    clicks = [(new_id("old", "batch", NOW), 1) for _ in range(100)] + [
        (new_id("new", "batch", NOW), 1) for _ in range(150)
    ]
    monkeypatch.setattr("shortlist.batch.online.waiting", lambda *_: iter(clicks))
    CountLog(store).add({hash_today(store): groups})
    counted = online(settings, 1, None, NOW)
    assert (counted.current, counted.other) == ("old", "new")
    figures = report(counted)
    compared = tables(figures)[2]
    cells = [list(column.cells) for column in compared.columns]
    assert cells == [
        ["all", "batch"],
        ["0.1500"] * 2,
        ["0.1000"] * 2,
        ["+0.0500"] * 2,
        ["+0.0210 to +0.0790"] * 2,
    ]
    assert [row | {"source": "all"} for row in figures["differences"]] == [
        figures["differences"][0]
    ] * 2
    assert figures["differences"][0]["difference"] == pytest.approx(
        {"value": 0.05, "low": 0.0210, "high": 0.0790}, abs=5e-5
    )


def hash_today(store) -> Hash:
    """Where today's impressions go."""
    return Hash(store.keys.impressions(DATE), 1000)


def test_a_stopped_server_sends_its_counts(own, published, users) -> None:
    """The first of two answers is counted at once, the other when the server ends."""
    settings, store = own
    environ = (
        os.environ
        | published.environ
        | {"SHORTLIST_NAMESPACE": settings.namespace, "PYTHONPATH": ROOT}
    )
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as process:
        started = next(line for line in process.stderr if "Uvicorn running" in line)
        address = started.split("on ")[1].split(" ")[0]
        for user in users[:2]:
            url = f"{address}/v1/users/{user}/recommendations?k=5"
            urllib.request.urlopen(url, timeout=20).close()  # noqa: S310 - loopback
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    (key,) = store.redis.scan_iter(store.keys.impressions("*"))
    assert CountLog(store).read(key.decode()) == {f"batch:5:{published.version}": 2}


def test_feedback_is_no_click(client, own, published, users, click, tmp_path) -> None:
    """Neither in drained files nor in the stream."""
    liked, disliked = ask(client, users[0]), ask(client, users[1])
    click(liked, 1, weight=1)
    click(disliked, 1, weight=-1)
    groups = [online(own[0], 1, None, NOW).groups]
    drain(EventLog(own[1]), open_event_files(str(tmp_path)))
    groups.append(online(own[0], 1, str(tmp_path), NOW).groups)
    group = AnswerGroup(published.version, "batch")
    assert [each[group].clicked for each in groups] == [{liked["recommendation_id"]}] * 2


def test_days_are_those_of_the_answers(client, own, counts, users, click, now) -> None:
    """A click today on an answer of yesterday counts for yesterday."""
    now[0] = NOW - 86_400
    old = ask(client, users[0])
    now[0] = NOW
    ask(client, users[1])
    click(old, 1)
    counts.flush()
    assert [
        totals(online(own[0], days, None, NOW), old["model_version"], "all") for days in (1, 2)
    ] == [(0, 1), (1, 2)]


def test_lost_counts_and_unrecognised_ids() -> None:
    """More clicks than answers never make a share above one; others' ids are counted apart."""
    groups: dict[AnswerGroup, ImpressionStats] = {}
    add_impressions(groups, {"batch:10:v:1": 1})
    clicks = [
        (new_id("v:1", "batch", NOW), 2),
        (new_id("v:1", "batch", NOW), 2),
        ("r1", 1),
        (None, None),
    ]
    assert add_clicks(groups, clicks, TODAY) == 1
    shown = groups[AnswerGroup("v:1", "batch")]
    assert (shown.answers(), shown.answers(2), shown.answers(3), shown.lost) == (2, 2, 1, 1)


def test_unreadable_impressions_are_an_error() -> None:
    """With what to do about it."""
    for field in ("batch", "batch:x:v1", "bach:1:v1", "batch:1:"):
        with pytest.raises(UnreadableRecord, match="delete that day's hash"):
            add_impressions({}, {field: 1})


def any_event(_event_type: str | None, _weight: float | None) -> bool:
    """Takes every event for a click."""
    return True


def test_older_drained_files_are_read(tmp_path: Path) -> None:
    """They have no positions."""
    pl.DataFrame({"recommendation_id": ["a", None]}).write_parquet(tmp_path / "events-1-2.parquet")
    assert list(drained(str(tmp_path), any_event)) == [("a", None)]
    with pytest.raises(InvalidInput, match="has no events"):
        list(drained(str(tmp_path / "absent"), any_event))


def test_unreadable_files_are_named_and_skipped(tmp_path: Path) -> None:
    """The report names it, and counts the clicks of the others."""
    pl.DataFrame({"recommendation_id": ["a"], "position": [2]}).write_parquet(
        tmp_path / "events-1-2.parquet"
    )
    (tmp_path / "events-0-1.parquet").write_bytes(b"PAR1")
    broken: list[str] = []
    assert list(drained(str(tmp_path), any_event, broken)) == [("a", 2)]
    figures = report(Online(1, {}, None, None, 0, tuple(broken)))
    assert notes(figures) == [
        "events-0-1.parquet cannot be read, and its clicks are not counted: mend or remove it"
    ]


def test_the_command_prints_and_writes(
    client, own, counts, published, users, click, tmp_path, monkeypatch
) -> None:
    """Release, source, position and what a reader should know; the same figures as JSON."""
    settings, store = own
    monkeypatch.setattr("time.time", lambda: NOW)
    store.set_release(replace(store.release(), previous="before"))
    click(ask(client, users[0]), 2)
    EventLog(store).append(
        [EventRecord("f", "u", "i", 1, None, "theirs"), EventRecord("g", "u", "i", 1)]
    )
    store.redis.xadd(store.keys.events(), {"e": b"unreadable"})
    counts.flush()
    environ = published.environ | {"SHORTLIST_NAMESPACE": settings.namespace}
    file = tmp_path / "online.json"
    done = CliRunner().invoke(
        main, ["online-report", "--days", "90", "--json", str(file)], env=environ
    )
    assert done.exit_code == 0, done.output
    assert published.version in done.output
    assert "1 events name a recommendation_id that is not ours" in done.output
    shares = [
        {"answers": 1, "acted_on": hits, "ctr": {"value": float(hits)} | ends(hits)}
        for hits in (1, 0, 1)
    ]
    positions = [{"position": 1} | shares[1], {"position": 2} | shares[2]]
    assert json.loads(file.read_text()) == {
        "days": 90,
        "serving": published.version,
        "other": "before",
        "groups": [
            {"release": published.version, "source": "batch"} | shares[0] | {"positions": positions}
        ],
        "differences": [],
        "lost": 0,
        "foreign": 1,
        "broken": [],
    }


def ends(hits: int) -> dict[str, float]:
    """The interval of one trial."""
    low, high = wilson(hits, 1)
    return {"low": low, "high": high}
