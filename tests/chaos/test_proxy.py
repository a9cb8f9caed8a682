"""Tests each fault that the chaos proxy injects.

Without a fault it changes nothing.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import NONE, ConnectionFault, Proxy, before_port


class Echo(socketserver.BaseRequestHandler):
    """Sends back all bytes it receives."""

    def handle(self) -> None:
        """Echoes until the other side closes."""
        while piece := self.request.recv(1000):
            self.request.sendall(piece)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy of an echo server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with before_port(server.server_address[1]) as made:
            yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy) -> Iterator[socket.socket]:
    """A connection through the proxy."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as made:
        yield made


def echoed(client: socket.socket, size: int) -> bytes:
    """Sends `size` bytes, and gives those that come back before the connection ends."""
    client.sendall(b"x" * size)
    got = b""
    while len(got) < size and (piece := client.recv(size)):
        got += piece
    return got


def echo_until_error(client: socket.socket) -> None:
    """Sends bytes until that fails."""
    while True:
        echoed(client, 10)


def test_no_fault_passes_everything(proxy, client) -> None:
    """Without a fault, small and large messages pass."""
    assert (echoed(client, 10), echoed(client, 100_000)) == (b"x" * 10, b"x" * 100_000)


def test_silence_ends_with_fault(proxy, client) -> None:
    """A silent connection delivers the rest when the fault ends."""
    proxy.fault = ConnectionFault(silent_after=3)
    client.settimeout(0.2)
    client.sendall(b"x" * 10)
    assert client.recv(10) == b"xxx"
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.fault = NONE
    client.settimeout(30.0)
    assert client.recv(10) == b"x" * 7


def test_reply_is_cut_short(proxy, client) -> None:
    """A cut connection closes after some bytes, as if the reply were complete."""
    proxy.fault = ConnectionFault(cut_after=4)
    assert (echoed(client, 10), client.recv(10)) == (b"xxxx", b"")


def test_connection_is_reset(proxy, client) -> None:
    """A connection is reset in the middle of a reply."""
    proxy.fault = ConnectionFault(reset_after=4)
    with pytest.raises(ConnectionResetError):
        echo_until_error(client)


def test_reply_drips(proxy, client) -> None:
    """A dripping reply arrives byte by byte, and no byte before its time."""
    proxy.fault = ConnectionFault(drip=0.001)
    assert echoed(client, 50) == b"x" * 50
    proxy.fault = ConnectionFault(drip=3600.0)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        echoed(client, 1)


def test_connections_are_refused(proxy, client) -> None:
    """Open connections end, and new ones are reset."""
    proxy.fault = ConnectionFault(refuse=True)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        echo_until_error(client)

    def connect_and_echo() -> None:  # the reset may reach even the call that connects
        address = ("127.0.0.1", proxy.port)
        with socket.create_connection(address, timeout=30.0) as new:
            echo_until_error(new)

    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connect_and_echo()


def test_reply_of_the_proxy(proxy) -> None:
    """The proxy replies in place of the server."""
    proxy.fault = ConnectionFault(reply=b"no")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as client:
        assert echoed(client, 10) == b"no"


def test_share_of_connections_is_harmed(proxy) -> None:
    """About half of the connections are harmed, drawn by the seed."""
    proxy.fault = ConnectionFault(cut_after=0, share=0.5)
    got = []
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as client:
            got.append(echoed(client, 3))
    assert 5 < got.count(b"") < 35
    assert got.count(b"xxx") == 40 - got.count(b"")
