"""Buffers counts and flushes them to Redis in the background.

No answer waits for a flush. A server flushes once more when it stops. A killed process, as a
Lambda's always is, loses what it has not sent: the counts of SECONDS or of ANSWERS at most. A
command that Redis carried out, but whose answer was lost, is counted twice. Both are small against
the totals.
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
"""Least time between two flushes, unless there were ANSWERS answers: one command a minute."""

ANSWERS = 1000
"""Answers after which counts are flushed early, so that a busy process loses few of them."""

Source = Callable[[], Counts]
"""Gives what was counted elsewhere since the last call; called in the thread that flushes."""

HandOver = Callable[[Callable[[], None]], object]
"""Runs a function, at once or in another thread."""


class CounterBuffer:
    """Counts of this process that are not in Redis yet."""

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
        self._answers, self._flushed_at = 0, float("-inf")  # the first answer flushes at once

    def add(self, key: Hash, field: str, by: int = 1) -> None:
        """Adds to a count."""
        with self._lock:
            fields = self._waiting.setdefault(key, {})
            fields[field] = fields.get(field, 0) + by

    def add_source(self, source: Source) -> None:
        """Includes the counts of `source` in every flush."""
        self._sources.append(source)

    def maybe_flush(self) -> None:
        """Counts an answer, and starts a flush if one is due."""
        now = self._clock()
        with self._lock:
            self._answers += 1
            if self._answers < ANSWERS and now - self._flushed_at < SECONDS:
                return
            self._answers, self._flushed_at = 0, now
        self._hand_over(self.flush)

    def flush(self) -> None:
        """Sends all counts.

        Those that Redis does not take wait for the next flush.
        """
        try:
            for source in self._sources:
                self._merge(source())
            with self._lock:  # held briefly: answers must not wait for Redis
                counts, self._waiting = self._waiting, {}
            if counts:
                self._send(counts)
        except ShortlistError:
            self._metrics.count("shortlist_tally_failures_total")

    def _send(self, counts: Counts) -> None:
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
    """Runs functions one after another in a thread, which starts with the first."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, function: Callable[[], None]) -> None:
        """Submits a function."""
        if self._pool is None:
            # One thread, so that two flushes do not send the same counts.
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="counters")
        future = self._pool.submit(function)
        # Nobody awaits the result: asking for it makes a bug's traceback appear in the log.
        future.add_done_callback(Future.result)
