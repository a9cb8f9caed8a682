"""A token bucket for each caller, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_SECONDS = 2.0
"""How many seconds' worth may come at once: a page that opens asks for several lists together."""


class RateLimit:
    """Lets each caller make so many requests a second.

    It is used on the event loop alone, and so takes no lock.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        """rate: requests a second, above 0; now: seconds of a clock that never goes back."""
        self._rate, self._now = rate, now
        self._most = max(1.0, rate * BURST_SECONDS)
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def seconds_to_wait(self, caller: str) -> float:
        """0 and one token fewer, or how long the caller must wait for the next token.

        caller: of a bounded set, since each has a bucket for as long as the process lives.
        """
        now = self._now()
        tokens, counted = self._buckets.get(caller, (self._most, now))
        tokens = min(self._most, tokens + (now - counted) * self._rate)
        if tokens < 1.0:
            self._buckets[caller] = tokens, now
            return (1.0 - tokens) / self._rate
        self._buckets[caller] = tokens - 1.0, now
        return 0.0
