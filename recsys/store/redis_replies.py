"""Asks one Redis node several commands in one round trip.

A pipeline of redis-py takes twice as long on one node, and five times on a cluster, which counts
for a look-up.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterError,
    ConnectionError,  # noqa: A004 - redis-py's own
    RedisClusterException,
    ResponseError,
    TimeoutError,  # noqa: A004 - redis-py's own
    TryAgainError,
)

Commands = tuple[tuple[str, ...], ...]

BROKEN = (ConnectionError, TimeoutError)
"""The connection gave no reply, so another one may."""

MOVED = (*BROKEN, AskError, ClusterError, RedisClusterException, TryAgainError)
"""The node no longer has the slot, not yet all of it, or does not answer."""


def replies_to(client: Any, commands: Commands) -> list[Any]:  # noqa: ANN401 - redis-py's, of a node or a cluster
    """Raw replies to commands whose keys, the second part of each, lie in one slot."""
    if hasattr(client, "nodes_manager"):
        return _of_cluster(client, commands)
    return _from(client.connection_pool, commands, tries=2)


def _of_cluster(client: Any, commands: Commands) -> list[Any]:  # noqa: ANN401 - redis-py's
    """Asks the slot's node.

    Where that fails, as during a move of slots, redis-py's own pipeline follows the redirections
    and learns the new topology.
    """
    try:
        node = client.nodes_manager.get_node_from_slot(client.keyslot(commands[0][1]))
        return _from(client.get_redis_connection(node).connection_pool, commands, tries=1)
    except MOVED:
        pipe = client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        return list(pipe.execute())


def _from(pool: Any, commands: Commands, tries: int) -> list[Any]:  # noqa: ANN401 - redis-py's
    """Replies over one connection, which is opened again for a further try."""
    connection = pool.get_connection()
    try:
        for _ in range(tries - 1):
            with suppress(*BROKEN):
                return _over(connection, commands)
        return _over(connection, commands)
    finally:
        pool.release(connection)


def _over(connection: Any, commands: Commands) -> list[Any]:  # noqa: ANN401 - redis-py's
    """Replies to all commands; raises the first refusal among them."""
    replies: list[Any] = []
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except ResponseError as refusal:  # its connection is good, as where a slot moves
                replies.append(refusal)
    except BaseException:
        connection.disconnect()  # so that the replies to the other commands are never read
        raise
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies
