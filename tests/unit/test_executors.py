"""Tests the executors: bounded pools, early refusals, and deadlines."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.executors import InlineExecutor, Pool, PooledExecutor
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import DeadlineExceeded, Overloaded
from tests.exposition import parse, value
from tests.loops import run_in_own_loop

SECONDS = 30


@pytest.fixture
def gate():
    """What holds work up until the test lets it go, and at its end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def metrics() -> Metrics:
    """Of one process."""
    return Metrics()


def test_pool_size_is_a_limit(metrics, gate) -> None:
    """Two of three run; the third begins when one of them is done."""
    pool, at_work = Pool("live", 2, metrics), threading.Semaphore(0)

    def work() -> str:
        at_work.release()
        assert gate.wait(SECONDS)
        return threading.current_thread().name

    async def three() -> list[str]:
        tasks = [asyncio.ensure_future(pool.run(work)) for _ in range(3)]
        for _ in range(2):
            assert await asyncio.to_thread(at_work.acquire, timeout=SECONDS)
        assert not at_work.acquire(blocking=False)
        _, samples = parse(metrics.text())
        assert value(samples, "shortlist_waiting", pool="live") == 1
        gate.set()
        return await asyncio.gather(*tasks)

    assert len(set(run_in_own_loop(three()))) == 2
    pool.close()


def test_result_error_and_context_pass(metrics) -> None:
    """A call in a pool behaves as if it were made in place."""
    pool, variable = Pool("live", 1, metrics), ContextVar("variable", default="")

    async def calls() -> list[object]:
        variable.set("seen")
        results = [await pool.run(variable.get), await pool.run(int, "7", base=8)]
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run(int, "x")
        return results

    assert run_in_own_loop(calls()) == ["seen", 7]
    pool.close()


@pytest.mark.parametrize("kind", ["lookup", "live", "health", "admin"])
def test_request_leaves_at_its_deadline(metrics, gate, kind) -> None:
    """A request leaves at its deadline whatever its thread waits for.

    Loop and other pools go on.
    """
    work = PooledExecutor(metrics, 0.05)
    other = "live" if kind != "live" else "lookup"

    async def late() -> str:
        with deadline.within(0.05), pytest.raises(DeadlineExceeded):
            await work.run(kind, gate.wait, SECONDS)
        return await work.run(other, lambda: "done")

    assert run_in_own_loop(late()) == "done"
    work.close()


def test_expired_work_is_not_started(metrics, gate) -> None:
    """Work whose request left while it was queued is not started."""
    pool, begun = Pool("live", 1, metrics), []

    async def calls() -> None:
        first = asyncio.ensure_future(pool.run(gate.wait, SECONDS))
        await asyncio.sleep(0)
        with deadline.within(0.05), pytest.raises(DeadlineExceeded):
            await pool.run(begun.append, "late")
        gate.set()
        assert await first
        await pool.run(begun.append, "next")

    run_in_own_loop(calls())
    assert begun == ["next"]
    pool.close()


def test_late_work_is_refused_at_once(metrics, gate) -> None:
    """Work that could not start in time is refused and counted; without a queue none is."""
    now = [0.0]
    pool = Pool("live", 1, metrics, lambda: now[0])
    begun = threading.Event()

    def work() -> None:
        begun.set()
        assert gate.wait(SECONDS)

    async def calls() -> None:
        tasks = [asyncio.ensure_future(pool.run(work))]
        assert await asyncio.to_thread(begun.wait, SECONDS)
        tasks.append(asyncio.ensure_future(pool.run(int)))
        await asyncio.sleep(0)
        assert pool.expected_wait() == 0.0
        now[0] = 3.0  # the one thread has been at work for three seconds
        assert pool.expected_wait() == 3.0
        with deadline.within(2.0), pytest.raises(Overloaded, match="of work wait already"):
            await pool.run(int)
        gate.set()
        await asyncio.gather(*tasks)
        assert pool.expected_wait() == 0.0

    run_in_own_loop(calls())
    _, samples = parse(metrics.text())
    assert value(samples, "shortlist_refused_total", reason="queue") == 1
    pool.close()


def test_inline_executor(gate) -> None:
    """An answer costs no thread; administration leaves before the function's own end."""
    work = InlineExecutor()

    async def calls() -> bool:
        own = {await work.run(kind, threading.current_thread) for kind in ("lookup", "live")}
        try:
            with deadline.within(0.05), pytest.raises(DeadlineExceeded):
                await work.run("admin", gate.wait, SECONDS)
        finally:
            gate.set()  # as asyncio waits for its threads at the end
        return own == {threading.current_thread()}

    assert run_in_own_loop(calls())


def test_thread_that_cannot_start(metrics, gate, monkeypatch) -> None:
    """Without any thread work is refused; with some it waits, and later threads can start."""
    pool, left = Pool("live", 2, metrics), [0]

    class Scarce(threading.Thread):
        def start(self) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            super().start()

    monkeypatch.setattr("shortlist.lambda_handler.executors.Thread", Scarce)

    async def calls() -> None:
        with pytest.raises(Overloaded, match="no thread can begin"):
            await pool.run(int)
        _, samples = parse(metrics.text())
        assert value(samples, "shortlist_waiting", pool="live") == 0
        left[0] = 1
        first = asyncio.ensure_future(pool.run(gate.wait, SECONDS))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(pool.run(int, "7"))  # the second thread cannot begin
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.wait_for(first, SECONDS)
        assert await asyncio.wait_for(second, SECONDS) == 7

    run_in_own_loop(calls())
    pool.close()
