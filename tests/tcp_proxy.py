"""Proxies a server over loopback and harms its connections.

`with TcpProxy(address) as proxy:` listens at `proxy.url`. A test sets `target`, `delay`, `drip`,
`silent` or `resets` at any moment, ends all connections with `cut()`, and undoes it all with
`recover()`. `free_port()` gives a port that nothing listens on.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path
from typing import Self

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

NO_LINGER = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing the socket sends RST instead of FIN."""

CHUNK_BYTES = 65_536


class TcpProxy:
    """Forwards each new connection to where `target` points at that moment."""

    def __init__(self, target: Address, path: Path | None = None) -> None:
        """path: a Unix socket to listen on, instead of a port of 127.0.0.1."""
        self.target = target
        self.resets = 0.0
        """Probability that a connection is reset when its client sends something."""
        self.delay = 0.0
        """Seconds before each piece of a reply."""
        self.drip: float | None = None
        """Seconds between any two bytes of a reply; None passes replies on whole."""
        self.silent = False
        """Whether replies are dropped."""
        self.opened = 0
        """Number of connections so far."""
        self._rng = random.Random(17)  # noqa: S311 - which packet is lost is no secret
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = _listen(path)
        self.place: Address = self._listener.getsockname()

    @property
    def url(self) -> str:
        """A plain Redis URL of this proxy."""
        if isinstance(self.place, str):
            return f"unix://{self.place}"
        host, port = self.place
        return f"redis://{host}:{port}"

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Closes all open connections."""
        for each in self._sockets:
            _close(each)

    def recover(self) -> None:
        """Ends every fault; clients have to connect again."""
        self.resets, self.delay, self.drip, self.silent = 0.0, 0.0, None, False
        self.cut()

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.opened += 1
            try:
                server = _connect(self.target)
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._run(self._forward_requests, client, server)
            self._run(self._forward_replies, server, client)

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        while data := _receive(client):
            if self.resets and self._rng.random() < self.resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                client.close()
                break
            _send(server, data)
        _close(server)

    def _forward_replies(self, server: socket.socket, client: socket.socket) -> None:
        while data := _receive(server):
            if self.silent:
                continue
            if self.delay and self._ended.wait(self.delay):
                break
            if not self._deliver(client, data):
                break
        _close(client)

    def _deliver(self, client: socket.socket, data: bytes) -> bool:
        """Sends a piece of a reply; False where the client is gone."""
        step = len(data) if self.drip is None else 1
        for start in range(0, len(data), step):
            if self.drip is not None and self._ended.wait(self.drip):
                return False
            if not _send(client, data[start : start + step]):
                return False
        return True


def _listen(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _connect(address: Address) -> socket.socket:
    if isinstance(address, str):
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(address)
        return connected
    return socket.create_connection(address)


def _receive(connected: socket.socket) -> bytes:
    """The next bytes; none where the connection has ended, whichever way."""
    try:
        return connected.recv(CHUNK_BYTES)
    except OSError:
        return b""


def _send(connected: socket.socket, data: bytes) -> bool:
    try:
        connected.sendall(data)
    except OSError:
        return False
    return True


def _close(connected: socket.socket) -> None:
    # `shutdown` first: closing alone does not wake the thread that waits in `recv`.
    with contextlib.suppress(OSError):  # the other side may have closed it
        connected.shutdown(socket.SHUT_RDWR)
    connected.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
