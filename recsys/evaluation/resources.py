"""Measures a run's seconds per stage and its peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Records the seconds of named stages; a name used again adds to its seconds.

    `seconds` maps a stage's name to its seconds, in the order in which they ended; a stage that
    fails is recorded too.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the body as the stage `name`."""
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - start

    def summary(self) -> dict[str, object]:
        """{"seconds": {stage: s}, "seconds_total": s, "peak_memory_bytes": {…}}, for a report."""
        return {
            "seconds": dict(self.seconds),
            "seconds_total": sum(self.seconds.values()),
            "peak_memory_bytes": peak_memory(),
        }


def peak_memory() -> dict[str, int]:
    """The greatest resident sizes so far, in bytes: of this process and of its largest child.

    A child counts once it has ended. Together they bound the peak from above while one child runs
    at a time.
    """
    # getrusage counts kibibytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "largest_child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit,
    }
