"""Limits each caller's rate by a token bucket."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_SECONDS = 2.0
"""Seconds' worth of requests allowed at once: an opening page asks for several lists."""


class RateLimit:
    """Allows each caller a number of requests a second.

    It is used on the event loop alone, and needs no lock.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        """rate: requests a second, above 0; now: monotonic seconds."""
        self._rate, self._now = rate, now
        self._capacity = max(1.0, rate * BURST_SECONDS)  # below 1 nothing could ever pass
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when counted

    def seconds_to_wait(self, caller: str) -> float:
        """Takes a token.

        Returns 0, or the seconds until there is one.

        caller: from a bounded set, since each has a bucket for as long as the process lives.
        """
        now = self._now()
        tokens, counted = self._buckets.get(caller, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - counted) * self._rate)
        if tokens < 1.0:
            self._buckets[caller] = tokens, now
            return (1.0 - tokens) / self._rate
        self._buckets[caller] = tokens - 1.0, now
        return 0.0
