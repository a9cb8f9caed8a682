"""Runs blocking functions, inline or in thread pools.

A Lambda answers one request at a time, so an answer may block its event loop. A server's loop must
never block: each kind of work has its own threads there, and a request leaves at its deadline
whatever its thread waits for.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import DeadlineExceeded, Overloaded

P = ParamSpec("P")
R = TypeVar("R")
Kind = Literal["lookup", "live", "health", "admin"]
"""lookup: Redis; live: bundle and CPU; health: load balancers' checks; admin: releases, with S3."""

THREADS: dict[Kind, int] = {"lookup": 16, "live": 4, "health": 2, "admin": 2}
"""Look-ups mostly wait for Redis; live answers compute, and more of them would share the cores."""

IN_FLIGHT = 64
"""Requests that a server answers at once: 0.1 s of its work, enough to keep every pool busy."""

SMOOTHING = 0.1
"""Weight of the latest duration in a pool's moving average, which spans the last 10 to 20."""


@dataclass(slots=True)
class Seats:
    """How many requests are being answered, and how many may be; infinity for no limit."""

    most: float = math.inf
    taken: int = 0

    def full(self) -> bool:
        """Tells if no further request may be admitted."""
        return self.taken >= self.most


class Executor(Protocol):
    """Runs functions for requests."""

    seconds: float
    """Time limit of a request outside Lambda; infinity for none."""
    seats: Seats
    """Of the requests that are answered at once."""

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Returns the function's result.

        Raises:
            DeadlineExceeded: the request's time is over; the function may still be running.
            Overloaded: the function was not started, because too much work waits before it.
        """

    def close(self) -> None:
        """Ends idle threads."""


class InlineExecutor:
    """Runs all but administration on the event loop; for one request at a time.

    What takes long in a live answer waits for the deadline itself: the bundle has a thread of its
    own, and the store has timeouts. A hop to a thread and back would cost more than a look-up.
    """

    seconds = math.inf

    def __init__(self) -> None:
        self.seats = Seats()

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Executor`."""
        if kind != "admin":
            return function(*args, **kwargs)
        left = deadline.left()
        running = asyncio.to_thread(function, *args, **kwargs)
        if left == math.inf:
            return await running
        try:
            return await asyncio.wait_for(running, max(0.0, left))
        except TimeoutError as error:
            raise _late() from error

    def close(self) -> None:
        """Does nothing: no thread is kept."""


class PooledExecutor:
    """Runs each kind of work in its own thread pool, so that none waits for another."""

    def __init__(
        self,
        metrics: Metrics,
        seconds: float,
        seats: Seats | None = None,
        threads: dict[Kind, int] = THREADS,
    ) -> None:
        """seconds: time limit of a request; seats: IN_FLIGHT by default."""
        self.seconds, self.seats = seconds, Seats(IN_FLIGHT) if seats is None else seats
        self._pools = {kind: Pool(kind, number, metrics) for kind, number in threads.items()}

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Executor`."""
        return await self._pools[kind].run(function, *args, **kwargs)

    def close(self) -> None:
        """See `Executor`."""
        for pool in self._pools.values():
            pool.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """A call to run; after `ends`, in monotonic seconds, nobody awaits its result."""

    call: Callable[[], Any]
    context: Context
    ends: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def deliver(self, result: object, error: BaseException | None) -> None:
        """Hands the outcome to the event loop, unless that has ended."""
        try:
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)
        except RuntimeError:  # the loop is closed
            return


class Pool:
    """A bounded thread pool whose queue takes only work that can start in time.

    Threads start when needed. They are daemons, so that one that waits for a dead server does not
    keep the process from ending.
    """

    def __init__(
        self, name: str, threads: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._threads, self._metrics, self._clock = name, threads, metrics, clock
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()  # None ends a thread
        self._lock = Lock()
        self._started = 0
        self._running: dict[int, float] = {}
        """When each thread's current job began, by thread."""
        self._mean = 0.0

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Executor.run`."""
        left, wait = deadline.left(), self.expected_wait()
        if wait > 0 and wait >= left:  # refused now, rather than after a vain wait
            self._metrics.count("shortlist_refused_total", reason="queue")
            raise Overloaded(
                f"{wait:.1f} s of work wait already, and the request has {left:.1f} s: "
                "send it again later"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        ends = self._clock() + left
        # The context takes the deadline and the request's facts into the thread.
        self._put(_Job(partial(function, *args, **kwargs), copy_context(), ends, loop, future))
        timer = None if left == math.inf else loop.call_later(max(0.0, left), _expire, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()

    def expected_wait(self) -> float:
        """Estimates the seconds until new work would start, from recent durations."""
        waiting = self._queue.qsize()
        if waiting == 0:
            return 0.0
        return waiting * max(self._mean, self._least_age()) / self._threads

    def close(self) -> None:
        """Ends the threads once the queue is empty."""
        with self._lock:
            for _ in range(self._started):
                self._queue.put(None)
            self._started = 0

    def _least_age(self) -> float:
        """Age of the youngest job if all threads are busy, else 0.

        No thread has been free for that long, so jobs may take longer than the average says.
        """
        begun = list(self._running.values())
        return self._clock() - max(begun) if len(begun) >= self._threads else 0.0

    def _put(self, job: _Job) -> None:
        has_idle_thread = len(self._running) + self._queue.qsize() < self._started
        if self._started < self._threads and not has_idle_thread:
            self._start()
        self._metrics.move("shortlist_waiting", 1, pool=self._name)
        self._queue.put(job)

    def _start(self) -> None:
        """Adds a thread, up to the limit.

        Raises Overloaded if the first one cannot start.
        """
        with self._lock:
            if self._started >= self._threads:
                return
            name = f"{self._name}-{self._started + 1}"
            try:
                Thread(target=self._work, name=name, daemon=True).start()
            except (RuntimeError, MemoryError) as error:  # no thread or no memory is left
                if self._started == 0:
                    self._metrics.count("shortlist_refused_total", reason="queue")
                    message = f"no thread can begin ({error}): send it again later"
                    raise Overloaded(message) from error
                return  # the other threads will do the job
            self._started += 1  # only now: a thread that never began would never take work

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._metrics.move("shortlist_waiting", -1, pool=self._name)
            begun = self._clock()
            if not job.future.done() and begun < job.ends:  # else nobody awaits it any more
                self._running[get_ident()] = begun
                self._run_job(job)
                del self._running[get_ident()]
                self._update_mean(self._clock() - begun)
            del job  # frees what it holds while this thread waits for the next

    def _run_job(self, job: _Job) -> None:
        result, error = None, None
        try:
            result = job.context.run(job.call)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
            error = raised
        job.deliver(result, error)

    def _update_mean(self, seconds: float) -> None:
        self._mean = seconds if self._mean == 0 else self._mean + SMOOTHING * (seconds - self._mean)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(_late())


def _late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the request's time is over before its work: send it again; "
        "what it asked for may still be done"
    )
