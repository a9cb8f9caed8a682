"""Bounds body size, arrival time and concurrent requests.

It runs before everything that costs time: a refused request was neither parsed nor looked up.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.lambda_handler.envelope import SOON_SECONDS, refusal
from shortlist.lambda_handler.executors import Seats
from shortlist.lambda_handler.metrics import Metrics

MEBIBYTE = 1 << 20

BODY_BYTES = MEBIBYTE
"""Most bytes of a body: 500 events with the longest ids in ASCII need three quarters of it."""

HELD_BYTES = 64 * MEBIBYTE
"""Most bytes of all bodies still arriving, so that slow callers cannot fill the memory."""

BODY_SECONDS = 10.0
"""Most time from a request's head to the end of its body."""

ALWAYS = frozenset(
    f"{prefix}{path}" for prefix in ("", "/v1") for path in ("/health", "/health/ready", "/metrics")
)
"""Paths that a full server still answers, since operators need them then."""

BUSY = "as many requests are being answered as can be at once: try again later"


class _Refused(Exception):
    """A request is not admitted; the response says why."""

    def __init__(self, response: Response) -> None:
        self.response = response


class Admission:
    """Reads each body whole and admits its request, or refuses it; ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        seats: Seats,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        """seats: limits the requests answered at once; unlimited in Lambda, which has its own."""
        self._app, self._metrics, self._seats = app, metrics, seats
        self._body_seconds, self._held = body_seconds, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers refused requests itself, with 413, 408 or 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_head(scope)
            message = await receive()
            if message.get("more_body", False):  # rare: most bodies come in one message
                message = await self._read_in_time(message, receive)
                self._check_room(scope)  # others may have taken the seats meanwhile
            elif len(message.get("body", b"")) > BODY_BYTES:
                self._check_size(len(message["body"]))
        except _Refused as refused:
            await refused.response(scope, receive, send)
            return
        self._seats.taken += 1
        try:
            await self._app(scope, _replayed(message, receive), send)
        finally:
            self._seats.taken -= 1

    def _check_head(self, scope: Scope) -> None:
        if self._seats.full():
            self._check_room(scope)
        for name, value in scope["headers"]:
            # Refused by its stated length, before a byte is read; chunked bodies have none.
            if name == b"content-length" and value.isdigit():
                self._check_size(int(value))

    def _check_room(self, scope: Scope) -> None:
        # A base path may stand before the route's own.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._seats.full() and path not in ALWAYS:
            raise self._refused("busy", refusal(503, "overloaded", BUSY, retry_after=SOON_SECONDS))

    def _check_size(self, size: int) -> None:
        if size > BODY_BYTES:
            message = f"body: it may have {BODY_BYTES // MEBIBYTE} MiB at most: send it in parts"
            raise self._refused("large_body", refusal(413, "body_too_large", message, close=True))

    async def _read_in_time(self, first: Message, receive: Receive) -> Message:
        """Reads the rest of a body.

        Returns one message with all of it.
        """
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._read_all(first, receive)
        except TimeoutError as error:
            message = f"the body did not arrive within {self._body_seconds:g} s: send it again"
            response = refusal(408, "request_timeout", message, close=True)
            raise self._refused("slow_body", response) from error

    async def _read_all(self, message: Message, receive: Receive) -> Message:
        parts: list[bytes] = []
        size = 0
        try:
            while message["type"] == "http.request":
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._held += len(part)
                self._check_size(size)
                self._check_memory()
                if not message.get("more_body", False):
                    return {"type": "http.request", "body": b"".join(parts)}
                message = await receive()
            return message  # the caller has disconnected
        finally:
            self._held -= size

    def _check_memory(self) -> None:
        if self._held > HELD_BYTES:
            message = "too many bodies are arriving at once: try again later"
            response = refusal(503, "overloaded", message, retry_after=SOON_SECONDS, close=True)
            raise self._refused("memory", response)

    def _refused(self, reason: str, response: Response) -> _Refused:
        self._metrics.count("shortlist_refused_total", reason=reason)
        return _Refused(response)


def _replayed(message: Message, receive: Receive) -> Receive:
    """Receives a message that was read already, then the others."""
    is_replayed = False

    async def replay() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return message

    return replay
