"""Pools connections to Redis, and heals after a failover."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.redis_connections import TcpConnection, TlsConnection, UnixConnection
from shortlist.recsys.store.redis_url import RedisAddress

RETRIES = 1
"""Further tries of a command, over a fresh connection.

A second one would be a third wait for a silent server.
"""

MAX_CONNECTIONS = 10_000
"""No real limit: a thread takes one connection at a time, and the service bounds its threads."""


class Pool(ConnectionPool):
    """A pool that gives out connections without a check.

    That takes a tenth of redis-py's time. A broken one is mended by the command's retry. Threads
    share the pool without a lock, since each step on a list or a set is one of the interpreter's.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - as redis-py's
        self._generation = 0
        super().__init__(**{**kwargs, "max_connections": MAX_CONNECTIONS})

    def get_connection(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as redis-py's
        """A connection for this thread, maybe not open yet."""
        if self.pid != os.getpid():  # after a fork, whose child must not share sockets
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
        """Closes idle connections, and those in use when they come back.

        Each new one looks up the host's name again.
        """
        self._generation += 1
        self.disconnect_free_connections()

    def disconnect_free_connections(self, *_: Any, **__: Any) -> None:  # noqa: ANN401 - as redis-py's
        """Closes idle connections.

        Each is taken out first, so that no other thread gets it.
        """
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
        """Closes idle connections, and on request those in use."""
        self.disconnect_free_connections()
        if inuse_connections:
            for connection in set(self._in_use_connections):
                connection.disconnect()


def open_client(
    address: RedisAddress, credentials: Mapping[str, Any], seconds: float, policy: CallPolicy
) -> Any:  # noqa: ANN401 - Redis or RedisCluster
    """A client of redis-py, not connected yet.

    A cluster's has read the topology. credentials: see `credentials_of`; seconds: the time of one
    command, or of one batch of pipelined ones, of which `policy` may allow less.
    """
    place: dict[str, Any]
    base: type[TcpConnection | TlsConnection | UnixConnection]
    if address.path is not None:
        base, place = UnixConnection, {"path": address.path}
    else:
        base = TlsConnection if address.tls else TcpConnection
        place = {"host": address.host, "port": address.port}
    # A subclass of its own, since redis-py makes connections from the class and keyword arguments
    # that it knows.
    kind = type(base.__name__, (base,), {"policy": policy, "seconds": seconds})
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
        dynamic_startup_nodes=False,  # the configured name finds a cluster with all nodes replaced
        connection_pool_class=Pool,
        **common,
    )


def credentials_of(address: RedisAddress) -> dict[str, Any]:
    """The arguments of redis-py by which a connection signs in."""
    if address.iam_cache is None:
        return {"username": address.username, "password": address.password}
    from shortlist.recsys.store.elasticache import IamCredentials

    return {"credential_provider": IamCredentials(str(address.username), address.iam_cache)}


def drop_connections(client: Any) -> None:  # noqa: ANN401 - as above
    """Drops a client's connections, those in use when they come back."""
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
