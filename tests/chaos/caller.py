"""Calls the app as a server or as Lambda would.

`Caller(app).request_http(...)` speaks ASGI to the app; `invoke_lambda(event, seconds)` goes through
the Lambda adapter. Both give a `Reply` or raise `Overdue`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message

from shortlist.lambda_handler.entry import Adapter, MalformedRequest
from shortlist.lambda_handler.handler import _malformed

SLACK_SECONDS = 5.0
"""Delay that a busy machine may add without anything being wrong."""

NEVER_SECONDS = 60.0
"""Time limit of a request that has no other."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. raw: its body; seconds: until it was there."""

    status: int
    headers: dict[str, str]
    raw: bytes
    seconds: float

    @property
    def body(self) -> Any:
        """The parsed JSON body, or None."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


class Overdue(Exception):
    """A request did not end within its time and SLACK_SECONDS."""


class Context:
    """A Lambda context, as the adapter needs it."""

    aws_request_id = "request"

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends the invocation."""
        return max(0, int((self._ends - time.monotonic()) * 1000))


class Caller:
    """Sends requests to an app from a thread with its own event loop."""

    def __init__(self, app: ASGIApp, ended: Callable[[], None] = lambda: None) -> None:
        """ended: called when the caller is closed."""
        self._app, self._closed = app, ended
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(self._loop))
        self._adapter = self._pool.submit(Adapter, app).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and its event loop."""
        shutdown = self._loop.shutdown_default_executor()
        self._pool.submit(self._loop.run_until_complete, shutdown).result()
        self._pool.shutdown()
        self._loop.close()
        self._closed()

    def request_http(
        self,
        method: str,
        target: str | bytes,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        limit: float = NEVER_SECONDS,
    ) -> Reply:
        """Sends a request as a server would.

        target: path and query as in the request line.

        Raises:
            Overdue: no answer within `limit` seconds and SLACK_SECONDS.
            Exception: whatever the app did not catch.
        """
        scope = _scope(method, target, headers or {"content-type": "application/json"})
        exchange = _exchange(self._app, scope, body)
        return self._wait(self._pool.submit(self._loop.run_until_complete, exchange), limit)

    def invoke_lambda(self, event: dict[str, Any], seconds: float) -> Reply:
        """Sends an event as Lambda would, with `seconds` until the invocation is ended.

        Raises:
            Overdue: as `request_http`.
        """
        return self._wait(self._pool.submit(self._invoke, event, seconds), seconds)

    def _invoke(self, event: dict[str, Any], seconds: float) -> Reply:
        started = time.perf_counter()
        context: Any = Context(seconds)
        try:
            response: dict[str, Any] = self._adapter(event, context)
        except MalformedRequest as error:  # as the handler answers it
            response = _malformed(error, context)
        body = response.get("body") or ""
        raw = base64.b64decode(body) if response.get("isBase64Encoded") else body.encode()
        seconds = time.perf_counter() - started
        return Reply(response["statusCode"], _headers(response), raw, seconds)

    def _wait(self, future: Future[Reply], limit: float) -> Reply:
        if not wait([future], limit + SLACK_SECONDS).done:
            raise Overdue(f"no answer after {limit + SLACK_SECONDS:.1f} s")
        return future.result()


def _headers(response: dict[str, Any]) -> dict[str, str]:
    """A response's headers by lower-case name; the first value of multi-value headers."""
    headers = dict(response.get("headers") or {})
    for name, values in (response.get("multiValueHeaders") or {}).items():
        headers[name] = values[0]
    return {name.lower(): value for name, value in headers.items()}


def with_headers(event: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """The event with these headers added, in the fields that its kind has."""
    if "headers" in event:
        event["headers"] |= headers
    if "multiValueHeaders" in event:
        event["multiValueHeaders"] |= {name: [value] for name, value in headers.items()}
    return event


def _scope(method: str, target: str | bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    raw = target if isinstance(target, bytes) else target.encode()
    path, _, query = raw.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


async def _exchange(app: ASGIApp, scope: dict[str, Any], body: bytes) -> Reply:
    started = time.perf_counter()
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    parts: list[bytes] = []
    status, headers = 0, {}

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message["headers"]
            }
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Reply(status, headers, b"".join(parts), time.perf_counter() - started)
