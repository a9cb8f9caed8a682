"""Runs the API under uvicorn with limits on all waits.

Callers, Redis and S3 can each make a server wait; docs/operations.md has one table of the limits.
Lambda needs none of them: it reads whole requests, one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from shortlist.lambda_handler.listening import listening
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.settings import Settings

HEAD_SECONDS = 10.0
"""Most time for a request's head, from its first byte or the start of the connection."""

WRITE_SECONDS = 10.0
"""Most time that an answer too large for the socket's buffers may stay unread."""

IDLE_SECONDS = 65
"""Most time between requests of a connection: longer than a load balancer's usual 60 s."""

CONNECTIONS = 1000
"""Most connections at once; a further one replaces the one that has been idle longest."""

SPARE_FILES = 100
"""File descriptors kept for Redis, S3 and the bundle."""

UNREAD_BYTES = 1 << 18
"""Most bytes discarded of a body after its answer; a longer one ends the connection."""

RAW_BYTES = 2 * BODY_BYTES + (1 << 16)
"""Most bytes of a request as sent, with its head and the framing of its chunks."""

RAW_LINES = 10_000
"""Most line ends in a request as sent; 500 events with a line for each field have half as many.

Each chunk has two, and costs the event loop as much as a kilobyte: a mebibyte in chunks of one
byte would block it for seconds.
"""

LINGER_SECONDS = 1.0
"""How long a refused body is discarded, so that its sender reads the answer."""

GRACE_SECONDS = 5
"""Time for requests in progress when the server stops."""

STOP_SECONDS = 9.0
"""Time until a stopping server exits whatever still runs; grace, counts and log take 8 s."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell has it."""

LINES = 10_000
"""Most log lines that wait for standard output; further ones are lost, and counted."""

SWITCH_SECONDS = 0.001
"""Time slice of a computing thread; Python's 5 ms would delay the event loop for each of them."""


def run(
    host: str,
    port: int,
    outer: Callable[[Any], Any] | None = None,
    listens: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; never returns.

    outer: makes the ASGI app to serve from the API's own; None serves that alone. listens: called
    with the address once connections are accepted.

    Raises:
        InvalidSettings: a setting breaks its rule, or the address cannot be used.
    """
    settings = Settings.from_env(os.environ)
    listener = listening(host, port)
    # The module reads the environment when it is imported, so only after it was checked.
    from shortlist.lambda_handler.handler import build

    metrics = Metrics()
    log = LogWriter(sys.stdout.write, sys.stdout.flush, metrics)
    executor = PooledExecutor(metrics, settings.request_timeout_ms / 1000)
    app: Any = build(metrics, executor, log.say)
    if outer is not None:
        app = outer(app)
    _run(listener, configured(app, metrics, executor.seats), listens, log)


def serve(
    app: Any,  # noqa: ANN401 - an ASGI app
    host: str,
    port: int,
    listens: Callable[[str], None] | None = None,
) -> None:
    """Serves another app with the same limits until SIGINT or SIGTERM; never returns.

    Raises:
        InvalidSettings: the address cannot be used.
    """
    listener = listening(host, port)
    metrics = Metrics()
    log = LogWriter(sys.stdout.write, sys.stdout.flush, metrics)
    _run(listener, configured(app, metrics, Seats()), listens, log)


def _run(
    listener: socket.socket,
    config: uvicorn.Config,
    listens: Callable[[str], None] | None,
    log: LogWriter,
) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    server = Server(config, listens)
    server.run([listener])
    log.close()
    sys.stderr.write("shortlist: stopped\n")
    sys.stderr.flush()
    # Does not wait for threads that wait for Redis or S3.
    os._exit(INTERRUPTED if server.stopped_by == signal.SIGINT else 0)


def configured(app: Any, metrics: Metrics, seats: Seats, most: int = CONNECTIONS) -> uvicorn.Config:  # noqa: ANN401 - an ASGI app
    """Uvicorn's configuration; seats: the app's own; most: connections at once."""
    protocol = cast(
        "type[asyncio.Protocol]", partial(Connection, metrics, seats, _within_files(most))
    )
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",  # the API has none
        lifespan="on",  # an error at the start must end the server
        log_level="info",
        access_log=False,  # the app has its own
        server_header=False,  # says nothing about versions
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _within_files(connections: int) -> int:
    """As many connections as the limit on open files allows."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return connections
    return max(1, min(connections, files - SPARE_FILES))


class Server(uvicorn.Server):
    """Uvicorn's server, which logs its address and ends in time."""

    stopped_by: int | None = None
    """The signal that stopped it."""

    def __init__(
        self, config: uvicorn.Config, listens: Callable[[str], None] | None = None
    ) -> None:
        """listens: called with the address once connections are accepted."""
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and logs the address.

        Uvicorn does not log that of a given socket.
        """
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            uvicorn.server.logger.info(
                "Uvicorn running on http://%s:%d (Press CTRL+C to quit)", shown, port
            )
            if self._listens is not None:
                self._listens(f"http://{shown}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals until the process ends.

        Uvicorn gives them back and raises them again at its end, before the log is written.
        """
        if threading.current_thread() is threading.main_thread():
            for number in uvicorn.server.HANDLED_SIGNALS:
                signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the shutdown; a second signal does not wait for requests, and is the last."""
        del frame
        if self.stopped_by is None:
            # First, as the second signal may come before the next line, and asks for more silence.
            uvicorn.server.logger.setLevel(logging.WARNING)  # of the stop, one line is enough
            self.stopped_by = sig
            self.should_exit = True
            _exit_after(STOP_SECONDS)
            return
        for number in uvicorn.server.HANDLED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # The app is cancelled, which is no error to log.
        uvicorn.server.logger.setLevel(logging.CRITICAL)
        self.force_exit = True


def _exit_after(seconds: float) -> None:
    # os._exit: threads that wait for Redis or S3 would keep a normal exit waiting.
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


_REFUSAL = (
    b'{"error":{"type":"server_error","code":"overloaded","message":"%b","request_id":"%%b"}}'
    % BUSY.encode()
)
_REFUSAL_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
    b"retry-after: %b\r\ncontent-length: %%d\r\n\r\n"
) % SOON_SECONDS.encode()
_SPLIT = (
    b'{"error":{"type":"invalid_request_error","code":"body_too_large","message":'
    b'"body: it may take %d MiB and %d lines and chunks at most as it is sent: '
    b'send it in larger chunks, or in parts","request_id":"%%b"}}'
) % (RAW_BYTES // MEBIBYTE, RAW_LINES // 2)
_SPLIT_HEAD = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)
_UNPLAIN = frozenset({b"origin", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers on which a refusal depends: requests with them go through the app."""
_ALWAYS = tuple(path.encode() for path in ALWAYS)
"""Ends of paths that go through the app, which knows the base paths."""

WORDS = 3
"""Of a request line: method, target and version."""


class Connection(H11Protocol):
    """A connection that ends if its caller neither finishes a request nor reads an answer."""

    def __init__(self, metrics: Metrics, seats: Seats, most: int, **uvicorns: Any) -> None:  # noqa: ANN401 - see H11Protocol
        super().__init__(**uvicorns)
        self._metrics, self._seats, self._most = metrics, seats, most
        self._has_part = False
        self._since = self.loop.time()
        self._unread = self._raw = self._lines = 0
        self._head: asyncio.TimerHandle | None = None
        self._write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a head.

        Makes room if there are too many connections.
        """
        super().connection_made(cast("asyncio.Transport", _Lingering(transport, self)))
        self._await_head()
        if len(self.connections) > self._most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the timers."""
        self._stop_head()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads data.

        The rest of an answered request's body is discarded.
        """
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
        """Refuses a request before it is parsed.

        Returns False for one that is not plain.

        It costs a tenth of the same answer by the app, and a busy server needs the time for others.
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
        """Ends a request in too many pieces before they are parsed.

        It answers 413, unless the answer has begun.
        """
        cycle = None if self.is_waiting() else self.cycle
        if self._owes_only_body() or (cycle is not None and cycle.response_started):
            self._drop("split_body")
            return
        self._stop_head()
        self._metrics.count("shortlist_refused_total", reason="split_body")
        body = _SPLIT % uuid.uuid4().hex.encode()
        self.transport.write(_SPLIT_HEAD % len(body) + body)
        if cycle is not None:  # the app stops, and writes nothing more
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.linger()  # type: ignore[attr-defined]

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._since = self.loop.time()
        self._raw = self._lines = 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Starts a timer.

        The caller reads more slowly than the app writes.
        """
        super().pause_writing()
        self._write = self.loop.call_later(WRITE_SECONDS, self._drop, "unread_answer")

    def resume_writing(self) -> None:
        """Stops the timer: the caller reads again."""
        super().resume_writing()
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def is_waiting(self) -> bool:
        """Tells if no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def owes_data(self) -> bool:
        """Tells if the caller has sent a part of a request."""
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
        connections = [each for each in self.connections if isinstance(each, Connection)]
        return [each for each in connections if each is not self]

    def _drop(self, reason: str) -> None:
        self._metrics.count("shortlist_refused_total", reason=reason)
        self.connections.discard(self)  # at once: the transport reports it later
        self.transport.abort()


def _is_plain(data: bytes) -> bool:
    """Tells if this is one whole HTTP/1.1 request of stated length.

    A browser's is not plain, as its answer needs more headers, nor is an operator's.
    """
    head, ended, body = data.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    words = line.split(b" ")
    if not ended or len(words) != WORDS:
        return False
    method, target, http_version = words
    if http_version != b"HTTP/1.1" or method not in (b"GET", b"POST", b"PUT", b"DELETE"):
        return False
    fields = dict(field.partition(b":")[::2] for field in headers.lower().split(b"\r\n"))
    if not _UNPLAIN.isdisjoint(fields) or target.partition(b"?")[0].endswith(_ALWAYS):
        return False
    if fields.get(b"connection", b"keep-alive").strip() != b"keep-alive":
        return False
    length = fields.get(b"content-length", b"0").strip()
    return length.isdigit() and int(length) == len(body)


class _Lingering:
    """A transport that closes for writing first while its caller is still sending.

    An immediate close with unread data resets the connection, and the caller would see no answer.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport, self._connection = transport, connection
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.lingering = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)

    def close(self) -> None:
        """Closes; a second call closes at once."""
        if (
            self.lingering
            or not self._connection.owes_data()
            or not self._transport.can_write_eof()
        ):
            self._transport.close()
            return
        self.linger()

    def linger(self) -> None:
        """Closes for writing, and later for reading.

        Data until then is discarded.
        """
        self.lingering = True
        self._transport.write_eof()
        self._connection.flow.resume_reading()
        self._connection.loop.call_later(LINGER_SECONDS, self._transport.abort)


class LogWriter:
    """Writes lines in its own thread, so that no request waits for the log's reader."""

    def __init__(
        self, write: Callable[[str], object], flush: Callable[[], object], metrics: Metrics
    ) -> None:
        self._write, self._flush, self._metrics = write, flush, metrics
        self._lines: Queue[str | None] = Queue(LINES)
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def say(self, line: str) -> None:
        """Queues a line.

        It is lost if the queue is full.
        """
        try:
            self._lines.put_nowait(f"{line}\n")
        except Full:
            self._metrics.count("shortlist_log_lines_lost_total")

    def close(self, seconds: float = 1.0) -> None:
        """Waits `seconds` at most for queued lines to be written."""
        try:
            self._lines.put(None, timeout=seconds)
        except Full:
            return
        self._thread.join(seconds)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            lines = [line]
            while (more := self._next_queued()) is not None:
                lines.append(more)
            self._write_all(lines)

    def _next_queued(self) -> str | None:
        """The next queued line, if any.

        The end marker stays in the queue.
        """
        try:
            line = self._lines.get_nowait()
        except Empty:
            return None
        if line is None:
            self._lines.put_nowait(None)
        return line

    def _write_all(self, lines: list[str]) -> None:
        try:
            self._write("".join(lines))
            self._flush()
        except OSError:  # the reader has gone
            self._metrics.count("shortlist_log_lines_lost_total", len(lines))


def main() -> None:
    """Serves as `shortlist serve` does, without the command line's packages."""
    parser = argparse.ArgumentParser(
        prog="python -m shortlist.lambda_handler.server", description="Serves the API."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8000, type=int)
    args = parser.parse_args()
    try:
        run(args.host, args.port)
    except InvalidSettings as error:
        parser.exit(2, f"shortlist: InvalidSettings: {error}\n")


if __name__ == "__main__":
    main()
