"""Reads in threads what a request cannot wait for to its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Lock, Thread
from typing import Generic, TypeVar

from shortlist.lambda_handler import deadline
from shortlist.recsys.errors import ArtefactsUnavailable, LoadFailed

R = TypeVar("R")


class BackgroundReads(Generic[R]):
    """At most one read of a kind at a time, which all who want it wait for.

    A read goes on when those who waited have left, so that a storage that is silent for minutes has
    one thread. What it gives is not kept.
    """

    def __init__(self, read: Callable[[str], R]) -> None:
        """read: blocks, and may raise."""
        self._read = read
        self._lock = Lock()
        self._running: dict[str, Future[R]] = {}

    def result(self, key: str, reserve: float) -> R:
        """What `read` gives for the key.

        reserve: seconds that the request keeps back, of those until its deadline.

        Raises:
            ArtefactsUnavailable: the read would outlast the request.
        """
        if deadline.left() == math.inf:
            return self._read(key)
        with self._lock:
            running = self._running.get(key)
            if running is None:
                running = self._running[key] = self._start(key)
        try:
            return running.result(max(0.0, deadline.left() - reserve))
        except FutureTimeout as error:
            message = f"{key} cannot be read within the request's time: it is tried again"
            raise ArtefactsUnavailable(message) from error

    def _start(self, key: str) -> Future[R]:
        future: Future[R] = Future()
        try:
            # Not a pool: its threads are joined when the interpreter exits.
            Thread(target=self._run, args=(key, future), name="read", daemon=True).start()
        except RuntimeError as error:
            message = f"{key} cannot be read ({error}): it is tried again"
            raise LoadFailed(message) from error
        return future

    def _run(self, key: str, future: Future[R]) -> None:
        try:
            value = self._read(key)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            self._end(key)
            future.set_exception(error)
        else:
            self._end(key)
            future.set_result(value)

    def _end(self, key: str) -> None:
        with self._lock:
            self._running.pop(key, None)
