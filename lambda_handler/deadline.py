"""How long the request at hand may still take: from the Lambda's context, or from the server's own limit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

MARGIN_SECONDS = 0.25
"""Kept back of the Lambda's time for putting the answer together."""

_ENDS: ContextVar[float] = ContextVar("ends", default=math.inf)


def left() -> float:
    """Seconds until the request at hand should be answered; infinity without a deadline."""
    return _ENDS.get() - time.monotonic()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Sets a deadline for what runs inside, and for the threads that it starts from there."""
    token = _ENDS.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ENDS.reset(token)


class Deadlines:
    """Notes each request's deadline; ASGI middleware."""

    def __init__(self, app: ASGIApp, seconds: float = math.inf) -> None:
        """seconds: of a request where no Lambda tells its remaining time."""
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the deadline for whatever the request calls."""
        remaining = getattr(scope.get("aws.context"), "get_remaining_time_in_millis", None)
        seconds = self._seconds if remaining is None else remaining() / 1000 - MARGIN_SECONDS
        token = _ENDS.set(time.monotonic() + seconds)
        try:
            await self._app(scope, receive, send)
        finally:
            _ENDS.reset(token)
