"""How long the request at hand may still take, from the Lambda's context; without one, as long as it likes."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

MARGIN_SECONDS = 0.25
"""Kept back of the Lambda's time for putting the answer together."""

_ENDS: ContextVar[float] = ContextVar("ends", default=math.inf)


def left() -> float:
    """Seconds until the request at hand should be answered; infinity without a deadline."""
    return _ENDS.get() - time.monotonic()


class Deadlines:
    """Notes each request's deadline; ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sets the deadline for whatever the request calls."""
        remaining = getattr(scope.get("aws.context"), "get_remaining_time_in_millis", None)
        ends = math.inf if remaining is None else time.monotonic() + remaining() / 1000 - MARGIN_SECONDS
        token = _ENDS.set(ends)
        try:
            await self._app(scope, receive, send)
        finally:
            _ENDS.reset(token)
