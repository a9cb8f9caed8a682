"""Tests `shortlist serve`, and the Lambda, over slow parts.

Deadlines hold, and other requests are quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.servers import SECONDS, as_process
from tests.tcp_proxy import TcpProxy

DEADLINE = 1.5
ENDS = 8.0
"""Generous for a busy machine: without deadlines these requests took a minute."""

LAMBDA = """
import json, os, sys, time
from shortlist.infra.local.runtime_api import http_event
from shortlist.lambda_handler.handler import handler
class Context:
    aws_request_id = "slow"
    def __init__(self):
        self.began = time.monotonic()
    def spent(self):
        return time.monotonic() - self.began
    def get_remaining_time_in_millis(self):
        return int(1000 * (float(sys.argv[1]) - self.spent()))
answers = []
for path, body in json.load(sys.stdin):
    context = Context()
    answer = handler(http_event("POST", path, body), context)
    answers.append((answer["statusCode"], answer["body"], context.spent()))
print(json.dumps(answers), flush=True)
os._exit(0)
"""
"""A Lambda that answers requests, each within the seconds that it is given."""


@dataclass
class World:
    """A server and the Redis before it, with a known user and an item."""

    port: int
    redis: TcpProxy
    user: str
    item: str

    def ask(
        self, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any], float]:
        """Status, body and seconds of an answer."""
        started = time.monotonic()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answered:  # noqa: S310 - loopback
                status, raw = answered.status, answered.read()
        except urllib.error.HTTPError as error:
            with error:
                status, raw = error.code, error.read()
        answer = json.loads(raw) if raw.startswith(b"{") else {"text": raw.decode()}
        return status, answer, time.monotonic() - started


@pytest.fixture(scope="module")
def world(published) -> Iterator[World]:
    """One server for all tests, over a Redis that each of them makes slow."""
    redis = TcpProxy(published.environ["REDIS_URL"].removeprefix("unix://"))
    own = {
        "REDIS_URL": redis.url,
        "SHORTLIST_REQUEST_TIMEOUT_MS": str(int(DEADLINE * 1000)),
        "SHORTLIST_RELEASE_CACHE_SECONDS": "1",
    }
    with redis, as_process(published.environ | own) as (_, port):
        ids = published.dataset
        yield World(port, redis, ids.user_ids[0], ids.catalogue.ids[3])


@pytest.fixture
def slow(world) -> Iterator[World]:
    """The same, which is repaired at the end, and healthy again."""
    yield world
    world.redis.recover()
    ends = time.monotonic() + SECONDS
    while world.ask("/recommend", {"user_id": world.user})[1].get("source") != "batch":
        assert time.monotonic() < ends, "it does not recover"


def crowd(world: World, number: int) -> list[tuple[int, dict[str, Any], float]]:
    """Answers to callers at the same time, for each kind of request that waits for Redis."""
    event = {"event_id": "e", "user_id": "clicker", "item_id": world.item, "timestamp": 1}
    kinds: list[tuple[str, dict[str, Any] | None]] = [
        ("/recommend", {"user_id": world.user}),
        ("/v1/events", {"events": [event]}),
        (f"/v1/items/{world.item}", None),
        ("/v1/popular", None),
        ("/v1/rank", {"user_id": world.user, "items": [world.item]}),
        ("/health", None),
    ]
    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(world.ask, *kinds[at % len(kinds)]) for at in range(number)]
        status, answer, _ = world.ask("/metrics")
        assert (status, "shortlist_requests_in_flight" in answer["text"]) == (200, True)
        return [future.result() for future in futures]


def checked(answers: list[tuple[int, dict[str, Any], float]]) -> None:
    """Each is an answer or a 503 in the envelope, in time."""
    for status, answer, seconds in answers:
        assert status in (200, 503), answer
        assert seconds < ENDS
        assert status == 200 or answer["error"]["code"] in ("deadline", "unavailable", "overloaded")


def test_slow_redis(slow) -> None:
    """Three tenths of a second for each reply: eight callers are answered in time."""
    slow.redis.delay = 0.3
    answers = crowd(slow, 8)
    checked(answers)
    assert 200 in [status for status, _, _ in answers]


def test_a_redis_that_drips_freezes_nobody(slow) -> None:
    """A reply byte by byte outlasts every socket timeout; a request leaves at its deadline."""
    slow.redis.drip = 0.2  # less than a socket's timeout, which begins again with each byte
    checked(crowd(slow, 24))


def test_silent_s3(published) -> None:
    """Cached and popular answers are as before.

    Live ones are flagged popular items, or 503 in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as s3:
        threading.Thread(target=held, args=(s3,), daemon=True).start()
        own = {
            "SHORTLIST_ARTEFACTS": "s3://bucket/releases",
            "SHORTLIST_BUNDLE_DIR": str(published.work / "none"),
            "SHORTLIST_REQUEST_TIMEOUT_MS": str(int(DEADLINE * 1000)),
            "SHORTLIST_REDIS_TIMEOUT_MS": "200",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with as_process(published.environ | own) as (process, port):
            world = World(
                port, None, published.dataset.user_ids[0], published.dataset.catalogue.ids[3]
            )  # type: ignore[arg-type]
            live = {"user_id": "new", "history": [world.item]}
            with ThreadPoolExecutor(12) as pool:
                waiting = [pool.submit(world.ask, "/recommend", live) for _ in range(12)]
                cached = [world.ask("/recommend", {"user_id": world.user}) for _ in range(3)]
                popular = [world.ask("/v1/popular") for _ in range(3)]
                answers = [future.result() for future in waiting]
            checked(answers)
            assert {answer["source"] for status, answer, _ in answers if status == 200} == {
                "popular"
            }
            assert [(status, answer["source"]) for status, answer, _ in cached] == [
                (200, "batch")
            ] * 3
            assert [(status, answer["degraded"]) for status, answer, _ in popular] == [
                (200, False)
            ] * 3
            process.terminate()
            assert process.wait(SECONDS) == 0


def test_silent_s3_under_lambda(published, own) -> None:
    """Redis has lost what the data mean: answers that need it leave in time, flagged or 503."""
    settings, store = own
    store.redis.delete(store.keys.facts(published.version))
    ids = published.dataset
    items = list(ids.catalogue.ids[:3])
    asked = [
        ("/recommend", {"history": items}),
        ("/v1/rank", {"user_id": ids.user_ids[0], "items": items}),
    ]
    with socket.create_server(("127.0.0.1", 0)) as s3:
        threading.Thread(target=held, args=(s3,), daemon=True).start()
        environ = {
            "SHORTLIST_NAMESPACE": settings.namespace,
            "SHORTLIST_ARTEFACTS": "s3://bucket/releases",
            "SHORTLIST_BUNDLE_DIR": str(published.work / "none"),
            "SHORTLIST_REDIS_TIMEOUT_MS": "200",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        done = subprocess.run(
            [sys.executable, "-c", LAMBDA, str(DEADLINE)],
            input=json.dumps(asked),
            env=os.environ | published.environ | environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    for status, body, seconds in json.loads(done.stdout.splitlines()[-1]):
        answer = json.loads(body)
        assert (status, answer.get("source")) == (200, "popular") or (
            status == 503 and answer["error"]["code"] in ("deadline", "unavailable")
        )
        assert seconds < DEADLINE


def held(s3: socket.socket) -> None:
    """Takes connections and says nothing on them."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(s3.accept())
