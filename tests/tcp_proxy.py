"""A loopback wire to a server, which a test points elsewhere, cuts, slows or silences: it plays a name and a network."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

Place = tuple[str, int] | str
"""An address of TCP, or the path of a unix socket."""

AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""


class TcpProxy:
    """Passes on what comes to `place`, to wherever `target` is when a connection is opened."""

    def __init__(self, target: Place, path: Path | None = None) -> None:
        """path: a unix socket to listen on, instead of a port of 127.0.0.1."""
        self.target = target
        self.resets = 0.0
        """Share of what clients send at which their connection is reset instead."""
        self.drip: float | None = None
        """Seconds between any two bytes of a reply; None passes replies on whole."""
        self.silent = False
        """Whether replies are kept back."""
        self.opened = 0
        """Connections so far."""
        self._chance = random.Random(17)  # noqa: S311 - which packet is lost is no secret
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self._listener = _listen(path)
        self.place: Place = self._listener.getsockname()

    @property
    def url(self) -> str:
        """A plain Redis URL of this end."""
        return (
            f"unix://{self.place}"
            if isinstance(self.place, str)
            else f"redis://{self.place[0]}:{self.place[1]}"
        )

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Ends all connections that there are."""
        for end in self._ends:
            _close(end)

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
                server = _connected(self.target)
            except OSError:
                client.close()
                continue
            self._ends += [client, server]
            self._run(self._forth, client, server)
            self._run(self._back, server, client)

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        while sent := _received(client):
            if self.resets and self._chance.random() < self.resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                client.close()
                break
            _send(server, sent)
        _close(server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        while replied := _received(server):
            if self.silent:
                continue
            step = len(replied) if self.drip is None else 1
            for at in range(0, len(replied), step):
                if self.drip is not None and self._ended.wait(self.drip):
                    break
                if not _send(client, replied[at : at + step]):
                    break
        _close(client)


def _listen(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _connected(place: Place) -> socket.socket:
    if isinstance(place, str):
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(place)
        return connected
    return socket.create_connection(place)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65_536)
    except OSError:
        return b""


def _send(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by the other side
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
