"""Where the functions run that wait for Redis or S3, or compute: on the spot in a Lambda, in pools of threads in a server.

A Lambda answers one request at a time, so that a look-up on the event loop holds up nobody. A
server's loop
must wait for nothing: each kind of work has threads of its own there, and a request leaves when its
deadline has passed, whatever its thread waits for.
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
"""lookup: a few commands of Redis; live: the bundle and the CPU; health: for load balancers; admin: releases, with S3."""

THREADS: dict[Kind, int] = {"lookup": 16, "live": 4, "health": 2, "admin": 2}
"""Look-ups wait for Redis most of their time, live answers compute: more threads of these would only share the cores."""

IN_FLIGHT = 64
"""Requests that a server answers at once: a tenth of a second of its work, and enough to keep every pool busy."""

SMOOTHING = 0.1
"""Weight of the latest time in the mean time of a pool's work: the last ten or twenty of them count."""


@dataclass(slots=True)
class Seats:
    """How many requests are being answered, and how many may be at once; infinity for any number."""

    most: float = math.inf
    taken: int = 0

    def full(self) -> bool:
        """Whether no further request may be let in."""
        return self.taken >= self.most


class Work(Protocol):
    """Runs functions for requests."""

    seconds: float
    """What a request may take where no Lambda tells its remaining time; infinity for no limit."""
    seats: Seats
    """For the requests that are answered at once."""

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What the function gives.

        Raises:
            DeadlineExceeded: the request's time is over; the function may still be running.
            Overloaded: it was not begun, because too much waits before it.
        """

    def close(self) -> None:
        """Ends the threads that have nothing to do."""


class OnTheSpot:
    """Look-ups on the event loop, and in a thread what may take longer; for one request at a time."""

    seconds = math.inf

    def __init__(self) -> None:
        self.seats = Seats()

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Work`. A look-up is bounded by the store's own limits alone."""
        if kind in ("lookup", "health"):
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
        """Nothing is kept."""


class InPools:
    """Every kind in a pool of its own, so that none waits for another; for a server."""

    def __init__(
        self,
        metrics: Metrics,
        seconds: float,
        seats: Seats | None = None,
        threads: dict[Kind, int] = THREADS,
    ) -> None:
        """seconds: for each request; seats: IN_FLIGHT of them, unless others are given."""
        self.seconds, self.seats = seconds, Seats(IN_FLIGHT) if seats is None else seats
        self._pools = {kind: Pool(kind, number, metrics) for kind, number in threads.items()}

    async def run(
        self, kind: Kind, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """See `Work`."""
        return await self._pools[kind].run(function, *args, **kwargs)

    def close(self) -> None:
        """See `Work`."""
        for pool in self._pools.values():
            pool.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """ends: on the monotonic clock; after it nobody waits for the result."""

    call: Callable[[], Any]
    context: Context
    ends: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def give(self, result: object, error: BaseException | None) -> None:
        """Hands the outcome to the event loop, if both are still there."""
        try:
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)
        except RuntimeError:  # the loop has ended meanwhile
            return


class Pool:
    """At most so many daemon threads, which begin when needed; and a queue that takes only what can be begun in time.

    They are daemons because a thread that waits for a dead server must not keep the process from
    ending.
    """

    def __init__(
        self, name: str, threads: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._threads, self._metrics, self._clock = name, threads, metrics, clock
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = Lock()
        self._started = 0
        self._running: dict[int, float] = {}
        self._mean = 0.0

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `Work.run`."""
        left, wait = deadline.left(), self.expected_wait()
        if wait > 0 and wait >= left:
            self._metrics.count("shortlist_refused_total", reason="queue")
            raise Overloaded(
                f"{wait:.1f} s of work wait already, and the request has {left:.1f} s: send it again later"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        ends = self._clock() + left
        self._put(_Job(partial(function, *args, **kwargs), copy_context(), ends, loop, future))
        timer = None if left == math.inf else loop.call_later(max(0.0, left), _expire, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()

    def expected_wait(self) -> float:
        """Seconds until work that comes now would begin, from how long work takes lately."""
        waiting = self._queue.qsize()
        if waiting == 0:
            return 0.0
        return waiting * max(self._mean, self._least_age()) / self._threads

    def close(self) -> None:
        """Ends the threads once they have done what waits."""
        with self._lock:
            for _ in range(self._started):
                self._queue.put(None)
            self._started = 0

    def _least_age(self) -> float:
        """How long the youngest running work takes by now, where every thread is at work: none will be free sooner."""
        begun = list(self._running.values())
        return self._clock() - max(begun) if len(begun) >= self._threads else 0.0

    def _put(self, job: _Job) -> None:
        if (
            self._started < self._threads
            and len(self._running) + self._queue.qsize() >= self._started
        ):
            self._start()
        self._metrics.move("shortlist_waiting", 1, pool=self._name)
        self._queue.put(job)

    def _start(self) -> None:
        """Adds a thread where there may be one more; raises Overloaded where there is none and none can begin."""
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
                return  # the threads that there are will come to it
            self._started += 1  # counted only now: one that never began would never take work

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._metrics.move("shortlist_waiting", -1, pool=self._name)
            begun = self._clock()
            if not job.future.done() and begun < job.ends:  # else nobody waits for it any more
                self._running[get_ident()] = begun
                self._carry_out(job)
                del self._running[get_ident()]
                self._learn(self._clock() - begun)
            del job  # and with it what it holds, while this thread waits for the next

    def _carry_out(self, job: _Job) -> None:
        result, error = None, None
        try:
            result = job.context.run(job.call)
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the result is awaited
            error = raised
        job.give(result, error)

    def _learn(self, seconds: float) -> None:
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
        "the request's time is over before its work: send it again; what it asked for may still be done"
    )
