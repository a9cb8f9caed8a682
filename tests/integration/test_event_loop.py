"""Tests that slow requests do not delay others.

The server has an event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient, Response

from shortlist.lambda_handler import app as app_module
from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import PLAIN, Filters, Ranked
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.executors import PooledExecutor
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.live_cache import LiveCache, digest_of
from shortlist.lambda_handler.metrics import Metrics
from tests.loops import run_in_own_loop

SECONDS = 30
"""After so long a test fails rather than hangs."""


class Gate:
    """Where a thread waits for the test, which knows when it is there."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def wait(self, *_: object) -> None:
        """Called by what takes long."""
        self._reached.set()
        assert self._open.wait(SECONDS)

    async def reached(self) -> None:
        """Called by the test; the event loop goes on meanwhile."""
        assert await asyncio.to_thread(self._reached.wait, SECONDS)

    def open(self) -> None:
        """Called by the test at its end."""
        self._open.set()


class Slow(LivePath):
    """A live path that stops at a gate."""

    def __init__(self, settings: Any, gate: Gate) -> None:
        super().__init__(settings)
        self._gate = gate

    def _bundle(self, version: str) -> Any:
        self._gate.wait()
        return super()._bundle(version)


async def meanwhile(
    app: Any, gate: Gate, slow: Callable[[AsyncClient], Awaitable[Response]], user: str
) -> list[Response]:
    """A cached answer, requested while `slow` waits at the gate, and then that of `slow`."""
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as client:
        first = asyncio.ensure_future(slow(client))
        await gate.reached()
        second = await client.post("/recommend", json={"user_id": user})
        assert not first.done()
        gate.open()
        return [second, await first]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/recommend", {"user_id": "new", "history": ["1"]}),
        ("POST", "/v1/rank", {"user_id": "new", "items": ["1"]}),
        ("GET", "/v1/items/1/similar", None),
        ("GET", "/v1/trending", None),
        ("GET", "/model/info", None),
    ],
)
def test_cached_answer_during_a_live_one(own, published, method, path, body) -> None:
    """It is given while the live path works on another request, which is answered afterwards."""
    settings, store = own
    gate = Gate()
    item = published.dataset.catalogue.ids[0]
    body = (
        None
        if body is None
        else {name: [item] if isinstance(value, list) else value for name, value in body.items()}
    )
    executor = PooledExecutor(Metrics(), SECONDS)
    app = create_app(settings, store, Slow(settings, gate), executor=executor)

    async def slow(client: AsyncClient) -> Response:
        return await client.request(method, path.replace("/1/", f"/{item}/"), json=body)

    answers = run_in_own_loop(meanwhile(app, gate, slow, published.dataset.user_ids[0]))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["source"] == "batch"
    executor.close()


def test_cached_answer_during_a_claim(own, published, monkeypatch) -> None:
    """It is given while a request waits for the result that another process has claimed."""
    settings, store = own
    first, second = published.dataset.user_ids[:2]
    gate = Gate()
    monkeypatch.setattr(app_module, "LiveCache", partial(LiveCache, wait=gate.wait))
    executor = PooledExecutor(Metrics(), SECONDS)
    app = create_app(settings, store, LivePath(settings), executor=executor)
    store.redis.delete(store.keys.list(published.version, first))
    record = store.user_record(first)
    assert record is not None
    store.live_or_claim(published.version, first, digest_of(5, Filters(), PLAIN, record), 60_000)

    async def slow(client: AsyncClient) -> Response:
        return await client.post("/recommend", json={"user_id": first, "k": 5})

    answers = run_in_own_loop(meanwhile(app, gate, slow, second))
    assert [answer.json()["source"] for answer in answers] == ["batch", "live"]
    executor.close()


def test_claim_beyond_the_deadline(own, published) -> None:
    """Without time left a result is computed at once, even if another process has claimed it."""
    _, store = own
    store.live_or_claim(published.version, "user", "digest", 60_000)
    waits: list[float] = []
    cache = LiveCache(store, 60, wait=waits.append)
    made = Ranked((), (), (), 0)
    with deadline.within(0.0):
        assert cache.get(published.version, "user", "digest", lambda: made) == (made, False)
    assert waits == []
