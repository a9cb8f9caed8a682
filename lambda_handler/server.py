"""The API as a process of its own: uvicorn, with a bound on whatever a caller, Redis or S3 could make it wait for.

What bounds what is in one table in docs/operations.md. Lambda needs none of this: it reads whole
requests, one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from functools import partial
from queue import Empty, Full, Queue
from types import FrameType
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from shortlist.lambda_handler.admission import ALWAYS, BODY_BYTES, BUSY, MEBIBYTE
from shortlist.lambda_handler.envelope import SOON_SECONDS
from shortlist.lambda_handler.executors import PooledExecutor, Seats
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.settings import Settings

HEAD_SECONDS = 10.0
"""From a connection's beginning, or a later request's first byte, to the end of the request's head."""

WRITE_SECONDS = 10.0
"""For how long a caller may leave an answer unread that does not fit into the buffers between."""

IDLE_SECONDS = 65
"""For how long a connection waits for its next request: longer than a load balancer's usual 60."""

CONNECTIONS = 1000
"""At once. A new one beyond them takes the place of that which has waited longest without a request."""

SPARE_FILES = 100
"""File descriptors that connections leave to Redis, S3 and the bundle."""

UNREAD_BYTES = 1 << 18
"""Of a body that is thrown away after its request was answered; a longer one costs the connection."""

RAW_BYTES = 2 * BODY_BYTES + (1 << 16)
"""Of a request as it is sent, with its head, and the sizes and extensions of chunks around its body."""

RAW_LINES = 10_000
"""Line ends in a request as it is sent. Each chunk has two, and costs the event loop as much as a kilobyte: a mebibyte that
came byte by byte would hold it up for seconds. 500 events with a line for each field have half as
many."""

LINGER_SECONDS = 1.0
"""For how long a refused body is thrown away, so that its sender comes to read why."""

GRACE_SECONDS = 5
"""For what is being answered when the server is told to stop."""

STOP_SECONDS = 9.0
"""After which a server that was told to stop ends, whatever still runs: grace, last counts and log take no longer."""

LINES = 10_000
"""Of the log, that wait for whoever reads standard output; beyond them lines are lost, and counted."""

BACKLOG = 2048
"""Connections that wait for the event loop to take them."""

SWITCH_SECONDS = 0.001
"""After which a thread that computes lets the event loop on; Python's own 5 ms would let it wait for each of them."""

MAX_PORTS = 65_535


def run(host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM; never returns.

    Raises:
        InvalidSettings: a setting breaks its rule, or nobody can listen there.
    """
    settings = Settings.from_env(os.environ)
    listener = listening(host, port)
    from shortlist.lambda_handler.handler import (
        build,
    )  # which reads the environment, once it is known to be right

    sys.setswitchinterval(SWITCH_SECONDS)
    metrics = Metrics()
    log = LogWriter(sys.stdout.write, sys.stdout.flush, metrics)
    work = PooledExecutor(metrics, settings.request_timeout_ms / 1000)
    app = build(metrics, work, log.say)
    Server(configured(app, metrics, work.seats)).run([listener])
    log.close()
    os._exit(0)  # without waiting for threads whose server does not answer


def configured(app: Any, metrics: Metrics, seats: Seats, most: int = CONNECTIONS) -> uvicorn.Config:  # noqa: ANN401 - an ASGI app
    """How uvicorn runs the app. seats: those that the app itself keeps; most: connections at once."""
    protocol = cast(
        "type[asyncio.Protocol]", partial(Connection, metrics, seats, _within_files(most))
    )
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_level="info",
        access_log=False,  # the app logs
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        InvalidSettings: there is no such port or host, or it is taken.
    """
    if not 0 <= port <= MAX_PORTS:
        raise InvalidSettings(
            f"port {port}: must be from 0 to {MAX_PORTS}, where 0 takes a free one"
        )
    try:
        return _bound(host, port)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidSettings(
            f"cannot listen on {host} port {port} ({reason}): choose another, or stop what has it"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(
        family, kind, protocol
    )  # asyncio sends at once where the protocol is TCP, and says so
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _within_files(connections: int) -> int:
    """As many connections as the limit of open files admits."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        connections
        if files == resource.RLIM_INFINITY
        else max(1, min(connections, files - SPARE_FILES))
    )


class Server(uvicorn.Server):
    """Uvicorn's server, which tells where it listens, and ends in time once it is told to."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which says nothing of sockets that it is given."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            uvicorn.server.logger.info(
                "Uvicorn running on http://%s:%d (Press CTRL+C to quit)", shown, port
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end. The signal is not raised again afterwards, as uvicorn's own is: the log is written yet."""
        del sig, frame
        if not self.should_exit:
            _end_after(STOP_SECONDS)
        self.force_exit = self.should_exit
        self.should_exit = True


def _end_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


_REFUSAL = (
    b'{"error":{"type":"server_error","code":"overloaded","message":"%b","request_id":"%%b"}}'
    % BUSY.encode()
)
_REFUSAL_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: %b\r\ncontent-length: %%d\r\n\r\n"
    % SOON_SECONDS.encode()
)
_SPLIT = (
    b'{"error":{"type":"invalid_request_error","code":"body_too_large","message":"body: it may take %d MiB and %d lines and '
    b'chunks at most as it is sent: send it in larger chunks, or in parts","request_id":"%%b"}}'
) % (RAW_BYTES // MEBIBYTE, RAW_LINES // 2)
_SPLIT_HEAD = b"HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
_UNPLAIN = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers of requests that take the long way: the answer depends on them."""
_ALWAYS = tuple(path.encode() for path in ALWAYS)
"""Ends of paths that the app itself looks at, as it knows which base path may stand before them."""

WORDS = 3
"""Of a request line."""


class Connection(H11Protocol):
    """A connection that ends where its caller neither finishes a request nor reads an answer."""

    def __init__(self, metrics: Metrics, seats: Seats, most: int, **uvicorns: Any) -> None:  # noqa: ANN401 - see H11Protocol
        super().__init__(**uvicorns)
        self._metrics, self._seats, self._most = metrics, seats, most
        self._has_part = False
        self._since = self.loop.time()
        self._unread = self._raw = self._lines = 0
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a head from now on, and makes room where there are too many connections."""
        super().connection_made(cast("asyncio.Transport", _Lingering(transport, self)))
        self._await_head()
        if len(self.connections) > self._most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_head()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, but no body that nobody wants any longer."""
        if self.transport.lingering:  # type: ignore[attr-defined]
            return
        if self._owes_only_body():
            self._unread += len(data)
            if self._unread > UNREAD_BYTES:
                self.transport.close()
                return
        if self._seats.full() and self._refuse(data):
            return
        self._raw += len(data)
        self._lines += data.count(b"\n")
        if self._raw > RAW_BYTES or self._lines > RAW_LINES:
            self._refuse_rest()
            return
        super().data_received(data)
        self._has_part = self.is_waiting()
        if self._has_part:
            self._await_head()
        else:
            self._unread = 0
            self._stop_head()

    def _refuse(self, data: bytes) -> bool:
        """Turns a request away before it is parsed, as a busy server has no time for more; false for one that is not plain.

        It costs a tenth of what the same answer by the app costs, so that what is left is spent on
        the others.
        """
        is_new = not self._has_part and self.is_waiting() and self.conn.their_state is h11.IDLE
        if not is_new or not _is_plain(data):
            return False
        self._stop_head()
        self._unset_keepalive_if_required()
        self._since = self.loop.time()
        self._metrics.count("shortlist_refused_total", reason="busy")
        self._metrics.count("shortlist_requests_total", route="unmatched", status="503")
        body = _REFUSAL % uuid.uuid4().hex.encode()
        self.transport.write(_REFUSAL_HEAD % len(body) + body)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        return True

    def _refuse_rest(self) -> None:
        """Ends a request that is sent in too many pieces before these are parsed; with 413, unless its answer has begun."""
        cycle = None if self.is_waiting() else self.cycle
        if self._owes_only_body() or (cycle is not None and cycle.response_started):
            self._drop("split_body")
            return
        self._stop_head()
        self._metrics.count("shortlist_refused_total", reason="split_body")
        body = _SPLIT % uuid.uuid4().hex.encode()
        self.transport.write(_SPLIT_HEAD % len(body) + body)
        if cycle is not None:  # the app gives up, and writes nothing more
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.linger()  # type: ignore[attr-defined]

    def on_response_complete(self) -> None:
        """Waits for the next request from now on."""
        self._since = self.loop.time()
        self._raw = self._lines = 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not read as fast as is written."""
        super().pause_writing()
        self._write = self.loop.call_later(WRITE_SECONDS, self._drop, "unread_answer")

    def resume_writing(self) -> None:
        """The caller reads again."""
        super().resume_writing()
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def owes_data(self) -> bool:
        """Whether the caller is in the midst of sending something."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _owes_only_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.is_waiting()

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._drop, "slow_head")

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _make_room(self) -> None:
        others = [other for other in self._others() if other.is_waiting()]
        oldest = min(others, key=lambda other: other._since, default=self)  # noqa: SLF001 - one of its own kind
        oldest._drop("connections")  # noqa: SLF001 - likewise

    def _others(self) -> list[Connection]:
        return [
            other
            for other in self.connections
            if isinstance(other, Connection) and other is not self
        ]

    def _drop(self, reason: str) -> None:
        self._metrics.count("shortlist_refused_total", reason=reason)
        self.connections.discard(self)  # now, and not when the transport tells
        self.transport.abort()


def _is_plain(data: bytes) -> bool:
    """Whether this is one whole request over HTTP/1.1 with a body of a stated length, or without one.

    Not a browser's, whose answer needs more headers, and not an operator's.
    """
    head, ended, body = data.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    words = line.split(b" ")
    if (
        not ended
        or len(words) != WORDS
        or words[2] != b"HTTP/1.1"
        or words[0] not in (b"GET", b"POST", b"DELETE")
    ):
        return False
    fields = dict(field.partition(b":")[::2] for field in headers.lower().split(b"\r\n"))
    if not _UNPLAIN.isdisjoint(fields) or words[1].partition(b"?")[0].endswith(_ALWAYS):
        return False
    if fields.get(b"connection", b"keep-alive").strip() != b"keep-alive":
        return False
    length = fields.get(b"content-length", b"0").strip()
    return length.isdigit() and int(length) == len(body)


class _Lingering:
    """A transport that closes for writing first, while its caller is still sending.

    Closed at once, the unread rest would reset the connection, and the caller would see no answer.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.lingering = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)

    def close(self) -> None:
        """Closes; a second call does at once."""
        if (
            self.lingering
            or not self._connection.owes_data()
            or not self._transport.can_write_eof()
        ):
            self._transport.close()
            return
        self.linger()

    def linger(self) -> None:
        """Closes for writing, and a little later for reading; what comes meanwhile is thrown away."""
        self.lingering = True
        self._transport.write_eof()
        self._connection.flow.resume_reading()
        self._connection.loop.call_later(LINGER_SECONDS, self._transport.abort)


class LogWriter:
    """Writes lines in a thread of its own, so that no request waits for whoever reads the log."""

    def __init__(
        self, write: Callable[[str], object], flush: Callable[[], object], metrics: Metrics
    ) -> None:
        self._write, self._flush, self._metrics = write, flush, metrics
        self._lines: Queue[str | None] = Queue(LINES)
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Takes a line; one that finds no room is lost."""
        try:
            self._lines.put_nowait(f"{line}\n")
        except Full:
            self._metrics.count("shortlist_log_lines_lost_total")

    def close(self, seconds: float = 1.0) -> None:
        """Waits for what is left to be written, at most so long."""
        try:
            self._lines.put(None, timeout=seconds)
        except Full:
            return
        self._thread.join(seconds)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            lines = [line]
            while (more := self._more()) is not None:
                lines.append(more)
            self._put_out(lines)

    def _more(self) -> str | None:
        """A further line, if there is one; the end of the log stays where it is."""
        try:
            line = self._lines.get_nowait()
        except Empty:
            return None
        if line is None:
            self._lines.put_nowait(None)
        return line

    def _put_out(self, lines: list[str]) -> None:
        try:
            self._write("".join(lines))
            self._flush()
        except OSError:  # nobody reads any more
            self._metrics.count("shortlist_log_lines_lost_total", len(lines))


def main() -> None:
    """Serves, as `shortlist serve` does, where the command line is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m shortlist.lambda_handler.server", description="Serves the API."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8000, type=int)
    told = parser.parse_args()
    try:
        run(told.host, told.port)
    except InvalidSettings as error:
        parser.exit(2, f"shortlist: InvalidSettings: {error}\n")


if __name__ == "__main__":
    main()
