"""Counts on their way to Redis: kept in this process, and sent by a thread of their own now and then, after an answer.

A server sends the rest at its end. What a process has not sent when it is killed, as a Lambda's
always is, is lost: at most the counts of SECONDS, or of ANSWERS. A command that Redis
carried out, but whose answer was lost, is counted twice. Both are small beside what is counted, and
no answer waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import ShortlistError
from shortlist.recsys.store.counts import CountLog, Counts, Hash

SECONDS = 60.0
"""Counts are sent no more often than this, unless there were ANSWERS answers."""

ANSWERS = 1000

Source = Callable[[], Counts]
"""Gives what was counted elsewhere since the last call; called in the thread that sends."""

HandOver = Callable[[Callable[[], None]], object]
"""Has a function called, at once or by another thread."""


class CounterBuffer:
    """Counts of this process that Redis has not yet."""

    def __init__(
        self,
        log: CountLog,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        hand_over: HandOver | None = None,
    ) -> None:
        self._log, self._metrics, self._clock = log, metrics, clock
        self._hand_over = InBackground() if hand_over is None else hand_over
        self._lock = Lock()
        self._waiting: dict[Hash, dict[str, int]] = {}
        self._sources: list[Source] = []
        self._answers, self._sent_at = 0, float("-inf")

    def add(self, key: Hash, field: str, by: int = 1) -> None:
        """Adds to a count."""
        with self._lock:
            fields = self._waiting.setdefault(key, {})
            fields[field] = fields.get(field, 0) + by

    def add_source(self, source: Source) -> None:
        """Asks `source` as well, whenever counts are sent."""
        self._sources.append(source)

    def maybe_flush(self) -> None:
        """Has the counts sent if it is time."""
        now = self._clock()
        with self._lock:
            self._answers += 1
            if self._answers < ANSWERS and now - self._sent_at < SECONDS:
                return
            self._answers, self._sent_at = 0, now
        self._hand_over(self.send)

    def send(self) -> None:
        """Sends all counts; those that Redis did not take wait for the next time."""
        try:
            for source in self._sources:
                self._merge(source())
            with self._lock:
                counts, self._waiting = self._waiting, {}
            if counts:
                self._add(counts)
        except ShortlistError:
            self._metrics.count("shortlist_tally_failures_total")

    def _add(self, counts: Counts) -> None:
        try:
            self._log.add(counts)
        except ShortlistError:
            self._merge(counts)
            raise

    def _merge(self, counts: Counts) -> None:
        for key, fields in counts.items():
            for field, number in fields.items():
                self.add(key, field, number)


class InBackground:
    """Calls functions one after the other in a thread, which starts at the first."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, function: Callable[[], None]) -> None:
        """A bug in the function is logged with its traceback, as nobody asks for its result."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="tallies")
        self._pool.submit(function).add_done_callback(Future.result)
