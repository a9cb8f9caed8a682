"""Circuit breaker for Redis, aware of the request's remaining time.

One lost packet says nothing about a server, and is mended by another try; a server that fails time
after time is left alone, so that requests fall back at once instead of waiting for it one by one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from shortlist.recsys.errors import StoreUnavailable

MAX_FAILURES = 3
"""Operations that fail in a row, each after its retry, before the circuit opens.

They cost next to no time, as of a refused connection.
"""

MAX_TIMEOUTS = 2
"""Timeouts in a row before the circuit opens: an old connection's, and a fresh one's."""

WINDOW_SECONDS = 10.0
"""Failures further apart than this are not in a row."""


class CircuitBreaker:
    """Opens after too many failures in a row.

    After a cooldown it lets one thread try again. Any thread may call any method.
    """

    def __init__(
        self, cooldown_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """cooldown_seconds: how long it stays open before a trial; 0 for never open."""
        self._cooldown, self._clock = cooldown_seconds, clock
        self._lock = threading.Lock()
        self._failures = self._timeouts = 0
        self._last_failure = -math.inf
        self._open_until: float | None = None  # None while closed
        self._trial: int | None = None  # the thread that tries whether the server is back

    def wait(self) -> float:
        """Seconds until this thread may send a command."""
        if self._open_until is None:
            return 0.0
        with self._lock:
            if self._open_until is None or self._trial == threading.get_ident():
                return 0.0
            now = self._clock()
            if now < self._open_until:
                return self._open_until - now
            # A trial that never ends, as of a thread that was stopped, gives way to another one
            # after a further cooldown.
            self._trial, self._open_until = threading.get_ident(), now + self._cooldown
            return 0.0

    def succeeded(self) -> None:
        """Closes the circuit: the server answered."""
        if self._failures == 0 and self._open_until is None:
            return
        with self._lock:
            self._failures = self._timeouts = 0
            self._open_until = self._trial = None

    def failed(self, *, timed_out: bool = False) -> None:
        """Notes a failed operation, or a single timeout."""
        with self._lock:
            now = self._clock()
            if now - self._last_failure > WINDOW_SECONDS:
                self._failures = self._timeouts = 0
            self._last_failure = now
            self._failures += 1
            self._timeouts += timed_out
            is_trial = self._trial == threading.get_ident()
            too_many = self._failures >= MAX_FAILURES or self._timeouts >= MAX_TIMEOUTS
            if is_trial or too_many:
                self._open_until, self._trial = now + self._cooldown, None


class CallPolicy:
    """Decides for how long a command may run.

    time_left: seconds that the caller still has; needed: how many of them one operation may take,
    its retry included.
    """

    def __init__(
        self,
        cooldown_seconds: float = 0.0,
        time_left: Callable[[], float] = lambda: math.inf,
        needed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._circuit = CircuitBreaker(cooldown_seconds, clock)
        self._needed = needed
        self.time_left = time_left

    def check(self) -> None:
        """Raises StoreUnavailable where no operation may begin."""
        wait = self._circuit.wait()
        if wait > 0:
            raise StoreUnavailable(
                f"Redis did not answer a moment ago: it is asked again in {wait:.1f} s"
            )
        left = self.time_left()
        if left < self._needed:
            raise StoreUnavailable(
                f"the request has {left:.2f} s left, and Redis may take {self._needed:.2f} s: "
                "give the function more time"
            )

    def allowance(self, seconds: float) -> float:
        """The time for a command now, at most `seconds`; 0 where none may be sent."""
        if self._circuit.wait() > 0:
            return 0.0
        return min(seconds, self.time_left())

    def answered(self) -> None:
        """Notes an answer of Redis, be it a refusal."""
        self._circuit.succeeded()

    def failed(self, *, timed_out: bool = False) -> None:
        """Notes a failure of Redis, see `CircuitBreaker.failed`."""
        # A command that the end of the request's time cut off says nothing about the server.
        if self.time_left() > 0:
            self._circuit.failed(timed_out=timed_out)
