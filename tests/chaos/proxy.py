"""Proxies Redis or S3 and injects faults into connections.

Connections are refused, slowed, silenced, cut or reset (`ConnectionFault`). A fault holds for new
and open connections from the moment it is set, so it can break a connection in the middle of a
reply. Unlike `tests/tcp_proxy.py` it can harm a random share of the connections, and count bytes.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PIECE = 1 << 16
"""Most bytes that are passed on at once."""

POLL_SECONDS = 0.01
"""How often a silent connection checks whether its fault is over."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER without time: closing sends RST."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Stream]]


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """A fault of the replies.

    refuse: connections are reset as soon as they are made.
    reply: bytes that are sent in place of the server's reply.
    delay: seconds before each piece.
    drip: seconds between single bytes.
    silent_after, cut_after, reset_after: bytes of a connection's replies after which it goes
        silent, or is closed, or reset.
    share: share of the connections that are harmed.
    """

    refuse: bool = False
    reply: bytes | None = None
    delay: float = 0.0
    drip: float = 0.0
    silent_after: int | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    share: float = 1.0


NONE = ConnectionFault()
SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Forwards connections to one server.

    `fault` may be set at any time, from any thread.
    """

    def __init__(self, connect: Connect, rng: random.Random) -> None:
        self._connect, self._rng = connect, rng
        self._fault = NONE
        self._turn = 0
        # asyncio itself keeps only weak references to tasks.
        self._open: set[asyncio.Task[None] | None] = set()
        self.port = 0
        self.connections = 0

    @property
    def fault(self) -> ConnectionFault:
        """The current fault."""
        return self._fault

    @fault.setter
    def fault(self, fault: ConnectionFault) -> None:
        self._fault = fault
        self._turn += 1  # each open connection draws again whether it is harmed

    async def run(self, ready: Callable[[], None], ended: asyncio.Event) -> None:
        """Serves until `ended` is set."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await ended.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):  # so that the transports can close before the loop does
            await asyncio.sleep(0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(asyncio.current_task())
        try:
            if self._fault.refuse and self._is_harmed():
                _reset(writer)
            elif self._fault.reply is not None and self._is_harmed():
                await reader.read(PIECE)
                writer.write(self._fault.reply)
                await writer.drain()
            else:
                await self._forward(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # either side has closed
        finally:
            writer.close()
            self._open.discard(asyncio.current_task())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies, requests = await self._connect()
        forwarding = asyncio.ensure_future(_copy(reader, requests))
        try:
            await self._forward_replies(replies, writer)
        finally:
            forwarding.cancel()
            requests.close()

    async def _forward_replies(
        self, replies: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        passed, turn, harmed = 0, -1, False
        while piece := await replies.read(PIECE):
            at = 0
            while at < len(piece):
                if turn != self._turn:  # another fault was set: its limits count from here
                    turn, harmed, passed = self._turn, self._is_harmed(), 0
                fault = self._fault if harmed else NONE
                if fault.silent_after is not None and passed >= fault.silent_after:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                if _is_over(fault.cut_after, passed):
                    return
                if fault.refuse or _is_over(fault.reset_after, passed):
                    _reset(writer)
                    return
                await asyncio.sleep(fault.drip or fault.delay)
                size = _allowed(fault, passed, len(piece) - at)
                writer.write(piece[at : at + size])
                await writer.drain()
                at, passed = at + size, passed + size

    def _is_harmed(self) -> bool:
        return self._rng.random() < self._fault.share


def _is_over(limit: int | None, passed: int) -> bool:
    return limit is not None and passed >= limit


def _allowed(fault: ConnectionFault, passed: int, size: int) -> int:
    """Number of bytes that may be passed on at once."""
    if fault.drip:
        return 1
    limits = (fault.silent_after, fault.cut_after, fault.reset_after)
    return min([size, *(limit - passed for limit in limits if limit is not None)])


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE):
        writer.write(piece)
        await writer.drain()
    writer.close()


@contextmanager
def _running(connect: Connect, seed: int) -> Iterator[Proxy]:
    proxy = Proxy(connect, random.Random(seed))
    ready, loop, ended = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(proxy.run(ready.set, ended)))
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@contextmanager
def before_socket(path: str, seed: int = 0) -> Iterator[Proxy]:
    """Proxies the server at a Unix socket."""
    with _running(lambda: asyncio.open_unix_connection(path), seed) as proxy:
        yield proxy


@contextmanager
def before_port(port: int, seed: int = 0) -> Iterator[Proxy]:
    """Proxies the server at a port of loopback."""
    with _running(lambda: asyncio.open_connection("127.0.0.1", port), seed) as proxy:
        yield proxy
