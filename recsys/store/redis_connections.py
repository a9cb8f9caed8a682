"""redis-py's connections and pools, bound in time per command and healed after a fail-over.

redis-py limits the wait for each *read*: a reply that comes byte by byte holds its caller for as
long as it likes. Here one
limit covers all that a command needs: looking up the host, connecting, TLS, signing in, sending and
every read. A batch of pipelined commands that is sent at once counts as one command. A server that
says that it is no longer the one to ask, as after a fail-over, is treated as a broken connection:
the configured name is asked again, which may lead elsewhere.
"""

from __future__ import annotations

import math
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
)
from redis.retry import Retry

from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.redis_url import RedisAddress

RETRIES = 1
"""Further tries of a command, over a fresh connection. A second one would be a third wait for a server that is silent."""

MAX_CONNECTIONS = 10_000
"""No limit of its own: a thread takes one connection at a time, and the server's threads are bounded."""

_ROLES = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED")
"""Replies of a server that cannot serve for now, or no longer: another one may have taken its place behind the name."""

_ROLE = re.compile(rf"(?:^|-)({'|'.join(_ROLES)})\b")
_ROLE_OF: tuple[tuple[type[Exception], str], ...] = (
    (ReadOnlyError, "READONLY"),
    (BusyLoadingError, "LOADING"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
)

_POLLING = math.inf
_TOLERANCE = 0.001

Addresses = list[tuple[Any, ...]]
"""What getaddrinfo gives."""


class RoleChanged(Exception):
    """The server answered that it is not the one to ask; the cause of a plain ConnectionError, which tells it apart."""


class _Socket:
    """A socket whose operations share one end in time.

    redis-py's buffer calls `recv`, or hiredis `recv_into`, and `settimeout`; its connection
    `sendall`, `shutdown`, `close`.
    """

    __slots__ = ("_set", "_socket", "ends")

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self.ends, self._set = connected, ends, -1.0

    def recv(self, size: int) -> bytes:
        """Bytes that have come, at the latest when the time is over."""
        self._limit()
        return self._socket.recv(size)

    def recv_into(self, buffer: bytearray) -> int:
        """As `recv`, for hiredis."""
        self._limit()
        return self._socket.recv_into(buffer)

    def sendall(self, data: bytes | memoryview) -> None:
        """Sends everything; a TLS socket's own sendall would begin its wait again with each record."""
        self._limit()
        sent = self._socket.send(data)
        while sent < len(data):
            self._limit()
            sent += self._socket.send(memoryview(data)[sent:])

    def settimeout(self, seconds: float | None) -> None:
        """Of the reader: 0 looks whether anything has come; any other time is this class's own matter."""
        self._set = _POLLING if seconds == 0 else -1.0
        if seconds == 0:
            self._socket.settimeout(0)

    def _limit(self) -> None:
        """Lets the next operation wait for what is left; a millisecond more or less is not worth a system call."""
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
    """What all kinds of connection share: one end in time for a command, and what follows from a change of roles."""

    guard: ClassVar[CallPolicy]
    seconds: ClassVar[float]
    """What a command may take."""

    _sock: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as redis-py's
        super().__init__(*args, **kwargs)
        self.driver_info = self.lib_name = self.lib_version = (
            None  # whose telling costs two replies a connection
        )
        self.is_suspect = False
        """Whether what it met lies with the server, so that the pool's other connections are no better."""
        self.generation = 0
        self._ends = 0.0
        self._opens = False
        self._timed_out = False

    def connect(self) -> None:
        """Opens the connection; looking up, connecting, TLS and signing in share the command's time."""
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
            self.disconnect()  # type: ignore[attr-defined]  # it may stand, and not be signed in
            raise
        finally:
            self._opens = False

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: ANN401, FBT001, FBT002
        """Sends a command, or a batch of them, whose time begins here."""
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
        """The next reply; one that tells of another role breaks the connection."""
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
        seconds = self.guard.allowance(self.seconds)
        if seconds <= 0:
            raise redis.TimeoutError(
                "there is no time left to ask Redis, or it rests after it did not answer"
            )
        self._ends, self._timed_out = time.monotonic() + seconds, False
        if self._sock is not None:
            self._sock.ends = self._ends

    def _note_timeout(self) -> None:
        """Once for each time that a command was given, however often redis-py tries to connect in it."""
        if not self._timed_out:
            self._timed_out = self.is_suspect = True
            self.guard.failed(timed_out=True)

    def _timed(self, connected: socket.socket) -> _Socket:
        return _Socket(connected, self._ends)


def _role_of(error: RedisError) -> str | None:
    """The reply that tells of a change of roles, if it is one; a script's names it after its own place."""
    for kind, role in _ROLE_OF:
        if isinstance(error, kind):
            return role
    found = _ROLE.search(str(error))
    return None if found is None else found[1]


class _Tcp(_Timed):
    """Connects to each of the host's addresses in turn, within the command's time."""

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
                # An address that is silent leaves time for those after it.
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

    port = 0  # which redis-py counts a timeout under, and a unix socket has none

    def _connect(self) -> _Socket:
        self.socket_connect_timeout = _left(self._ends)
        return self._timed(super()._connect())  # type: ignore[no-untyped-call]


def _addresses(host: str, port: int, seconds: float) -> Addresses:
    """The host's addresses, from the resolver in at most so many seconds.

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
        answers.put(OSError("the host's name is none"))


class Pool(ConnectionPool):
    """Gives out connections unlooked at, a tenth of redis-py's time: a broken one is mended by the command's retry.

    Threads share it without a lock, since each step on a list or a set is one of the interpreter's.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - as redis-py's
        self._generation = 0
        super().__init__(**{**kwargs, "max_connections": MAX_CONNECTIONS})

    def get_connection(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as redis-py's
        """A connection of this thread's own, which may have to be opened still."""
        if self.pid != os.getpid():
            self._checkpid()
        connection: Any
        try:
            connection = self._available_connections.pop()
        except IndexError:
            connection = self.make_connection()
        self._in_use_connections.add(connection)
        connection.generation = self._generation
        return connection

    def release(self, connection: Any) -> None:  # noqa: ANN401 - as redis-py's
        """Takes a connection back."""
        try:
            self._in_use_connections.remove(connection)
        except KeyError:  # given back before, or taken before a fork
            return
        if connection.generation != self._generation or connection.should_reconnect():
            connection.disconnect()
        if connection.is_suspect:
            connection.is_suspect = False
            self.drop()
        self._available_connections.append(connection)

    def drop(self) -> None:
        """Closes what is idle, and what is in use when it comes back: the name is looked up for each new connection."""
        self._generation += 1
        self.disconnect_free_connections()

    def disconnect_free_connections(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as redis-py's
        """Closes what is idle, each taken out first, so that no other thread gets it meanwhile."""
        closed = []
        while self._available_connections:
            try:
                connection = self._available_connections.pop()
            except IndexError:  # another thread took the last one
                break
            connection.disconnect()
            closed.append(connection)
        self._available_connections.extend(closed)

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - as redis-py's
        """Closes what is idle, and what is in use if asked to."""
        self.disconnect_free_connections()
        if inuse_connections:
            for connection in set(self._in_use_connections):
                connection.disconnect()


def open_client(
    address: RedisAddress, credentials: Mapping[str, Any], seconds: float, guard: CallPolicy
) -> Any:  # noqa: ANN401 - Redis or RedisCluster
    """A client of redis-py that has asked nothing yet, or that of a cluster, which has asked for the topology.

    credentials: see `credentials_of`; seconds: what one command, or one batch of pipelined ones,
    may take, of which `guard` may allow less.
    """
    own = {"guard": guard, "seconds": seconds}
    place: dict[str, Any]
    if address.path is not None:
        kind, place = type("UnixConnection", (UnixConnection,), own), {"path": address.path}
    else:
        base = TlsConnection if address.tls else TcpConnection
        kind, place = (
            type(base.__name__, (base,), own),
            {"host": address.host, "port": address.port},
        )
    retry = Retry(NoBackoff(), RETRIES)
    # Protocol 2 needs no greeting: a fresh connection of a user without a password costs no reply
    # at all.
    common = {**credentials, **address.options, "connection_class": kind, "protocol": 2}
    if not address.cluster:
        return redis.Redis.from_pool(Pool(**common, **place, db=address.database, retry=retry))
    host = f"[{address.host}]" if ":" in address.host else address.host
    return redis.RedisCluster(
        url=f"redis://{host}:{address.port}",
        retry=retry,
        dynamic_startup_nodes=False,  # the configured name finds a cluster of which every node was replaced
        connection_pool_class=Pool,
        **common,
    )


def credentials_of(address: RedisAddress) -> dict[str, Any]:
    """How a connection signs in, as arguments of redis-py."""
    if address.iam_cache is None:
        return {"username": address.username, "password": address.password}
    from shortlist.recsys.store.elasticache import IamCredentials

    return {"credential_provider": IamCredentials(str(address.username), address.iam_cache)}


def drop_connections(client: Any) -> None:  # noqa: ANN401 - as above
    """Lets go of a client's connections, of those in use when they come back."""
    manager = getattr(client, "nodes_manager", None)
    if manager is None:
        pools = [client.connection_pool]
    else:
        nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
        pools = [
            node.redis_connection.connection_pool
            for node in nodes
            if node.redis_connection is not None
        ]
    for pool in pools:
        if isinstance(pool, Pool):
            pool.drop()
        else:
            pool.disconnect(inuse_connections=False)
