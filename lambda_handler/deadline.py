"""Holds the current request's deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

MARGIN_SECONDS = 0.25
"""Part of the Lambda's time kept for encoding and sending the answer."""

RESERVED_TIMEOUTS = 3
"""Redis timeouts that a request keeps back, for popular items, while it waits for S3."""

_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)


def left() -> float:
    """Seconds until the current request's deadline; infinity without one."""
    return _DEADLINE.get() - time.monotonic()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Sets a deadline for the block.

    Threads that copy its context have it too.
    """
    # A context variable: each request has its own, and asyncio.to_thread copies it.
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


class Deadlines:
    """Sets each request's deadline; ASGI middleware."""

    def __init__(self, app: ASGIApp, seconds: float = math.inf) -> None:
        """seconds: time limit of a request outside Lambda."""
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the deadline while the request runs."""
        remaining = getattr(scope.get("aws.context"), "get_remaining_time_in_millis", None)
        seconds = self._seconds if remaining is None else remaining() / 1000 - MARGIN_SECONDS
        token = _DEADLINE.set(time.monotonic() + seconds)
        try:
            await self._app(scope, receive, send)
        finally:
            _DEADLINE.reset(token)
