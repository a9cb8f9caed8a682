"""The proxy does to connections what its faults say, and nothing without one."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import NONE, ConnectionFault, Proxy, before_port


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes."""

    def handle(self) -> None:
        """Until the other side ends."""
        while piece := self.request.recv(1000):
            self.request.sendall(piece)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before an echo."""
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
    """A connection."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as made:
        yield made


def asked(client: socket.socket, size: int) -> bytes:
    """What comes back of so many bytes, until as many are there or the connection ends."""
    client.sendall(b"x" * size)
    got = b""
    while len(got) < size and (piece := client.recv(size)):
        got += piece
    return got


def asked_again_and_again(client: socket.socket) -> None:
    """Until that fails."""
    while True:
        asked(client, 10)


def test_without_a_fault_all_passes(proxy, client) -> None:
    """Both ways, again and again."""
    assert (asked(client, 10), asked(client, 100_000)) == (b"x" * 10, b"x" * 100_000)


def test_silence_ends_with_its_fault(proxy, client) -> None:
    """What was held back comes late, and nothing is lost."""
    proxy.fault = ConnectionFault(silent_after=3)
    client.settimeout(0.2)
    client.sendall(b"x" * 10)
    assert client.recv(10) == b"xxx"
    with pytest.raises(TimeoutError):
        client.recv(10)
    proxy.fault = NONE
    client.settimeout(30.0)
    assert client.recv(10) == b"x" * 7


def test_a_reply_is_cut_short(proxy, client) -> None:
    """And the connection ends as if all had been said."""
    proxy.fault = ConnectionFault(cut_after=4)
    assert (asked(client, 10), client.recv(10)) == (b"xxxx", b"")


def test_a_connection_is_reset(proxy, client) -> None:
    """In the middle of a reply."""
    proxy.fault = ConnectionFault(reset_after=4)
    with pytest.raises(ConnectionResetError):
        asked_again_and_again(client)


def test_a_reply_drips(proxy, client) -> None:
    """All of it comes, one byte after the other; and nothing before the time of the first."""
    proxy.fault = ConnectionFault(drip=0.001)
    assert asked(client, 50) == b"x" * 50
    proxy.fault = ConnectionFault(drip=3600.0)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        asked(client, 1)


def test_connections_are_refused(proxy, client) -> None:
    """Those that are open end, and new ones do not begin."""
    proxy.fault = ConnectionFault(refuse=True)
    for each in (client, socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0)):
        with each, pytest.raises((ConnectionResetError, BrokenPipeError)):
            asked_again_and_again(each)


def test_an_answer_of_its_own(proxy) -> None:
    """The server behind is not asked."""
    proxy.fault = ConnectionFault(reply=b"no")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as client:
        assert asked(client, 10) == b"no"


def test_a_share_of_the_connections(proxy) -> None:
    """About half of them are harmed, drawn by the seed."""
    proxy.fault = ConnectionFault(cut_after=0, share=0.5)
    got = []
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=30.0) as client:
            got.append(asked(client, 3))
    assert 5 < got.count(b"") < 35
    assert got.count(b"xxx") == 40 - got.count(b"")
