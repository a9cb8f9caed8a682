"""Opens the socket that a server listens on.

It imports nothing else: `shortlist serve` refuses a taken port before it loads the server.
"""

from __future__ import annotations

import socket

from shortlist.recsys.errors import InvalidSettings

BACKLOG = 2048
"""Connections that may wait for the event loop to accept them."""

MAX_PORTS = 65_535


def listening(host: str, port: int) -> socket.socket:
    """Opens a listening socket; port 0 takes a free one.

    Raises:
        InvalidSettings: there is no such port or host, or it is taken.
    """
    if not 0 <= port <= MAX_PORTS:
        message = f"port {port}: must be from 0 to {MAX_PORTS}, where 0 takes a free one"
        raise InvalidSettings(message)
    try:
        return _bound(host, port)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidSettings(
            f"cannot listen on {host} port {port} ({reason}): choose another, or stop what has it"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = addresses[0]  # the resolver's preference
    # With the protocol named, asyncio sets TCP_NODELAY on the connections.
    listener = socket.socket(family, kind, protocol)
    try:
        # A restart need not wait for the old connections' TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
