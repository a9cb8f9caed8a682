"""Bounds the time of a command over redis-py's connections.

redis-py limits the wait for each *read*: a reply that comes byte by byte holds its caller for as
long as it likes. Here one limit covers everything that a command needs: looking up the host,
connecting, TLS, signing in, sending and every read. A batch of pipelined commands that is sent at
once counts as one command. A server that is no longer the primary, as after a fail-over, counts as
a broken connection: the configured name is looked up again, which may lead elsewhere.
"""

from __future__ import annotations

import math
import queue
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
)

from shortlist.recsys.store.circuit import CallPolicy

_ROLES = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED")
"""Replies of a server that cannot serve now, or no longer.

Another one may have taken its name.
"""

_ROLE = re.compile(rf"(?:^|-)({'|'.join(_ROLES)})\b")
_ROLE_OF: tuple[tuple[type[Exception], str], ...] = (
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
)

_POLLING = math.inf
"""Stands for a socket's timeout of 0."""

_TOLERANCE = 0.001
"""Seconds that a socket's timeout may be off: setting it is a system call."""

Addresses = list[tuple[Any, ...]]
"""The result of getaddrinfo."""


class RoleChanged(Exception):
    """The server is no longer the primary.

    It is the cause of a plain ConnectionError, and so tells that one apart.
    """


class _Socket:
    """A socket whose operations share one end in time.

    redis-py's buffer calls `recv`, or hiredis `recv_into`, and `settimeout`; its connection
    `sendall`, `shutdown`, `close`.
    """

    __slots__ = ("_set", "_socket", "ends")

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self.ends, self._set = connected, ends, -1.0

    def recv(self, size: int) -> bytes:
        """Bytes that have come. Raises TimeoutError at the deadline."""
        self._limit()
        return self._socket.recv(size)

    def recv_into(self, buffer: bytearray) -> int:
        """As `recv`, for hiredis."""
        self._limit()
        return self._socket.recv_into(buffer)

    def sendall(self, data: bytes | memoryview) -> None:
        """Sends everything.

        A TLS socket's own sendall would begin its wait again with each record.
        """
        self._limit()
        sent = self._socket.send(data)
        while sent < len(data):
            self._limit()
            sent += self._socket.send(memoryview(data)[sent:])

    def settimeout(self, seconds: float | None) -> None:
        """Respects 0, by which a reader polls; any other time is for this class to choose."""
        self._set = _POLLING if seconds == 0 else -1.0
        if seconds == 0:
            self._socket.settimeout(0)

    def _limit(self) -> None:
        """Gives the next operation the remaining time."""
        if self._set == _POLLING:
            return
        left = _left(self.ends)
        if not -_TOLERANCE < left - self._set < _TOLERANCE:
            self._socket.settimeout(left)
            self._set = left

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the socket has
        return getattr(self._socket, name)


def _left(ends: float) -> float:
    """Seconds until `ends`; raises TimeoutError where there are none."""
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time for this command is over")
    return seconds


class _Timed:
    """A connection with one deadline for a command.

    It breaks at a change of roles.
    """

    policy: ClassVar[CallPolicy]
    seconds: ClassVar[float]
    """The time of a command."""

    _sock: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as redis-py's
        super().__init__(*args, **kwargs)
        # redis-py would send these to the server, at the cost of two replies a connection.
        self.driver_info = self.lib_name = self.lib_version = None
        self.is_suspect = False
        """Whether its failure lies with the server, so that the pool's others are no better."""
        self.generation = 0
        self._ends = 0.0
        self._opens = False
        self._timed_out = False

    def connect(self) -> None:
        """Opens the connection within the command's time.

        Look-up, TLS and signing in share it.
        """
        if self._opens:
            super().connect()  # type: ignore[misc]
            return
        self._begin()
        self._opens = True
        try:
            super().connect()  # type: ignore[misc]
        except redis.TimeoutError:
            self._note_timeout()
            raise
        except BaseException:
            self.disconnect()  # type: ignore[attr-defined]  # it may be open and not signed in
            raise
        finally:
            self._opens = False

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002
        """Sends a command or batch; its time begins."""
        if not self._opens:
            if self._sock is None:
                self.connect()
            else:
                self._begin()
        try:
            super().send_packed_command(command, check_health)  # type: ignore[misc]
        except redis.TimeoutError:
            self._note_timeout()
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """The next reply; another role breaks the connection."""
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except redis.TimeoutError:
            self._note_timeout()
            raise
        except RedisError as error:
            role = _role_of(error)
            if role is None:
                raise
        self.is_suspect = True
        self.disconnect()  # type: ignore[attr-defined]
        # Exactly this class: redis-py's cluster tries again after it alone, and not after a class
        # derived from it.
        raise redis.ConnectionError(f"the server answered {role}") from RoleChanged(role)

    def _begin(self) -> None:
        seconds = self.policy.allowance(self.seconds)
        if seconds <= 0:
            raise redis.TimeoutError(
                "there is no time left for Redis, or the circuit is open after failures"
            )
        self._ends, self._timed_out = time.monotonic() + seconds, False
        if self._sock is not None:
            self._sock.ends = self._ends

    def _note_timeout(self) -> None:
        """Counts one timeout for a command.

        redis-py may try to connect several times in its time.
        """
        if not self._timed_out:
            self._timed_out = self.is_suspect = True
            self.policy.failed(timed_out=True)

    def _timed(self, connected: socket.socket) -> _Socket:
        return _Socket(connected, self._ends)


def _role_of(error: RedisError) -> str | None:
    """The code of a change of roles, or None."""
    for kind, role in _ROLE_OF:
        if isinstance(error, kind):
            return role
    match = _ROLE.search(str(error))  # a script's error names the script first
    return None if match is None else match[1]


class _Tcp(_Timed):
    """Connects to the host's addresses in turn, all within the command's time."""

    host: str
    port: int
    socket_type: int
    socket_keepalive: bool
    socket_keepalive_options: Mapping[int, int | bytes]

    def _tcp(self) -> socket.socket:
        addresses = _addresses(self.host, self.port, _left(self._ends))
        failure: OSError = OSError("the host has no address")
        for at, (family, kind, protocol, _, address) in enumerate(addresses):
            opened = socket.socket(family, kind, protocol)
            try:
                # A silent address leaves time for those after it.
                opened.settimeout(_left(self._ends) / (len(addresses) - at))
                self._connected(opened, address)
            except OSError as error:
                opened.close()
                failure = error
            else:
                return opened
        raise failure

    def _connected(self, opened: socket.socket, address: Any) -> None:  # noqa: ANN401 - of its family
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket_keepalive:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self.socket_keepalive_options.items():
                opened.setsockopt(socket.IPPROTO_TCP, option, value)
        opened.connect(address)


class TcpConnection(_Tcp, Connection):  # type: ignore[misc]
    """Plain TCP."""

    def _connect(self) -> _Socket:
        return self._timed(self._tcp())


class TlsConnection(_Tcp, SSLConnection):  # type: ignore[misc]
    """TLS over TCP."""

    def _connect(self) -> _Socket:
        plain = self._tcp()
        try:
            plain.settimeout(_left(self._ends))
            return self._timed(self._wrap_socket_with_ssl(plain))  # type: ignore[no-untyped-call]
        except BaseException:
            plain.close()
            raise


class UnixConnection(_Timed, UnixDomainSocketConnection):  # type: ignore[misc]
    """A unix socket."""

    port = 0  # redis-py counts timeouts by port, and a unix socket has none

    def _connect(self) -> _Socket:
        self.socket_connect_timeout = _left(self._ends)
        return self._timed(super()._connect())  # type: ignore[no-untyped-call]


def _addresses(host: str, port: int, seconds: float) -> Addresses:
    """The host's addresses, in at most so many seconds.

    Raises:
        OSError: the host is unknown; a TimeoutError where the resolver took too long.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:  # a name
        pass
    answers: queue.SimpleQueue[Addresses | OSError] = queue.SimpleQueue()
    # The resolver takes no timeout. A thread that it keeps ends by itself, and the circuit keeps
    # them few.
    threading.Thread(target=_look_up, args=(host, port, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        answer = TimeoutError("looking up the host took too long")
    if isinstance(answer, OSError):
        raise answer
    return answer


def _look_up(host: str, port: int, answers: queue.SimpleQueue[Addresses | OSError]) -> None:
    try:
        answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        answers.put(error)
    except UnicodeError:
        answers.put(OSError("the host's name is not valid"))
