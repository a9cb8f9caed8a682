"""Tests the server's limits on excessive, slow or silent callers."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shortlist.lambda_handler import admission, server
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.executors import PooledExecutor, Seats
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.store.redis import open_store
from tests.exposition import parse, value
from tests.servers import ROOT, SECONDS, as_process, in_thread

HEAD = b"Host: a\r\nContent-Type: application/json\r\n"


class Running:
    """A server, its seats and its metrics."""

    def __init__(self, port: int, seats: Seats, metrics: Metrics) -> None:
        self.port, self.seats, self.metrics = port, seats, metrics

    def refused(self, reason: str) -> float:
        """How many were."""
        return value(parse(self.metrics.text())[1], "shortlist_refused_total", reason=reason)


@pytest.fixture
def running(published) -> Iterator[Any]:
    """Starts the server over the published release."""
    with contextlib.ExitStack() as ends:

        def started(most: int = server.CONNECTIONS) -> Running:
            metrics, seats = Metrics(), Seats(8)
            store = ends.enter_context(
                contextlib.closing(open_store(published.settings.redis_url, "published", 500))
            )
            live = LivePath(published.settings)
            app = create_app(
                published.settings,
                store,
                live,
                metrics=metrics,
                executor=PooledExecutor(metrics, SECONDS, seats),
            )
            return Running(ends.enter_context(in_thread(app, metrics, seats, most)), seats, metrics)

        yield started


def opened(port: int) -> socket.socket:
    """A connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def asks(client: socket.socket, request: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of the answer."""
    client.sendall(request)
    return answer(client)


def answer(client: socket.socket) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The next one on a connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(65536)
        assert part, "the connection ended without an answer"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += client.recv(65536)
    return int(lines[0].split(" ")[1]), headers, json.loads(body)


def ends(client: socket.socket) -> bool:
    """Whether the server ends the connection, which it is waited for."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def post(body: bytes, more: bytes = b"") -> bytes:
    """A request for recommendations."""
    return (
        b"POST /recommend HTTP/1.1\r\n"
        + HEAD
        + more
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


GOOD = post(b'{"user_id": "nobody", "k": 3}')


@pytest.mark.parametrize("chunked", [False, True])
def test_large_body(running, chunked) -> None:
    """A caller who sends all of it before reading gets the 413; the connection ends."""
    with opened(running().port) as client:
        if chunked:
            client.sendall(
                b"POST /v1/events HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
            )
            part = b"%x\r\n%b\r\n" % (1 << 20, b"x" * (1 << 20))
            rest = part * 8 + b"0\r\n\r\n"
        else:
            rest = post(b"x" * (8 << 20))
        status, headers, answer = asks(client, rest)
        assert (status, answer["error"]["code"], headers["connection"]) == (
            413,
            "body_too_large",
            "close",
        )
        assert ends(client)


SMALL = b"1\r\n \r\n"


@pytest.mark.parametrize("chunks", [SMALL * 200_000, (b"1;a=%b\r\n \r\n" % (b"b" * 2000)) * 1500])
@pytest.mark.parametrize("at_once", [False, True])
def test_body_in_many_pieces(running, chunks, at_once) -> None:
    """It is a 413 before it is parsed, as is one whose chunks are mostly extensions."""
    process = running()
    head = b"POST /v1/events HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with opened(process.port) as client:
        if not at_once:
            client.sendall(head + SMALL)
        status, headers, answer = asks(client, chunks if not at_once else head + chunks)
        assert (status, answer["error"]["code"], headers["connection"]) == (
            413,
            "body_too_large",
            "close",
        )
        assert ends(client)
    assert process.refused("split_body") == 1


def test_small_chunks_are_counted_by_request(running, monkeypatch) -> None:
    """Some are sound, in each of several requests on a connection."""
    monkeypatch.setattr(server, "RAW_LINES", 100)
    with opened(running().port) as client:
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"user_id": "nobody", "k": 3}')
        for _ in range(3):
            head = b"POST /recommend HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
            assert asks(client, head + chunks + b"0\r\n\r\n")[0] == 200


def test_expect_100_continue(running) -> None:
    """The answer to `Expect: 100-continue` is 413 at once."""
    with opened(running().port) as client:
        head = (
            b"POST /recommend HTTP/1.1\r\n"
            + HEAD
            + b"Expect: 100-continue\r\nContent-Length: 268435456\r\n\r\n"
        )
        assert asks(client, head)[0] == 413


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /recommend HTTP/1.1\r\nHost: a\r\n"])
def test_endless_head(running, monkeypatch, sent) -> None:
    """It ends the connection after HEAD_SECONDS, also for a second request on it."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    process = running()
    with opened(process.port) as first, opened(process.port) as second:
        first.sendall(sent)
        assert asks(second, GOOD)[0] == 200
        second.sendall(sent or b"P")
        assert ends(first)
        assert ends(second)
    assert process.refused("slow_head") == 2


def test_dripping_head(running, monkeypatch) -> None:
    """The time runs from the first byte."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    process, stop = running(), threading.Event()
    with opened(process.port) as client:

        def drips() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    client.sendall(b"a")

        dripping = threading.Thread(target=drips)
        dripping.start()
        assert ends(client)
        stop.set()
        dripping.join()


def test_absent_body(running, monkeypatch) -> None:
    """It is a 408 and takes no seat meanwhile: nine such callers block nobody on eight seats."""
    monkeypatch.setattr(admission.Admission.__init__, "__defaults__", (0.5,))
    process = running()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(opened(process.port)) for _ in range(9)]
        for client in clients:
            client.sendall(GOOD[:-1])
        with opened(process.port) as other:
            assert asks(other, GOOD)[0] == 200
        assert {answer(client)[0] for client in clients} == {408}
        assert all(ends(client) for client in clients)
    assert process.seats.taken == 0


def test_idle_connections_shut_nobody_out(running) -> None:
    """Thirty on a server of ten: a new caller replaces the one that has been idle longest."""
    process = running(10)
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(opened(process.port))
        assert asks(keeper, GOOD)[0] == 200
        idle = [stack.enter_context(opened(process.port)) for _ in range(30)]
        with opened(process.port) as other:
            assert asks(other, GOOD)[0] == 200
        assert all(ends(client) for client in idle[:20])
        assert ends(keeper)  # which has been idle for longest
    assert process.refused("connections") == 22


def test_unread_answer(running, monkeypatch) -> None:
    """An answer that does not fit into the buffers waits for WRITE_SECONDS and no longer."""
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.2)
    process = running()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", process.port))
        with contextlib.suppress(OSError):
            while process.refused("unread_answer") == 0:
                client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    assert process.refused("unread_answer") == 1


def test_busy_server(running) -> None:
    """It answers 503 on a connection that stays.

    Operators are answered, and all once there is a seat.
    """
    process = running()
    with opened(process.port) as client:
        process.seats.taken = 8
        browsers = post(b"{}", b"Origin: https://a.example\r\n")
        for request in (GOOD, GOOD, browsers, b"GET /v1/popular HTTP/1.1\r\nHost: a\r\n\r\n"):
            status, headers, answer = asks(client, request)
            assert (status, headers["retry-after"], answer["error"]["code"]) == (
                503,
                "1",
                "overloaded",
            )
            assert set(answer["error"]) == {"type", "code", "message", "request_id"}
        for path in (b"/health", b"/rec/health?a=b", b"/rec/v1/metrics"):
            assert server._is_plain(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path) is False
        assert asks(client, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
        process.seats.taken = 0
        assert asks(client, GOOD)[0] == 200
    assert process.refused("busy") == 4


@pytest.mark.parametrize("cut", [1, 40, len(GOOD) - 1])
def test_busy_server_and_split_requests(running, cut) -> None:
    """A request in two parts is one request, whatever its parts look like."""
    process = running()
    with opened(process.port) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(GOOD[:cut])
        process.seats.taken = 8
        assert asks(client, GOOD[cut:])[0] == 503
        process.seats.taken = 0
        assert asks(client, GOOD)[0] == 200


def test_stop_with_stuck_callers(own, published) -> None:
    """It ends in time with callers within heads and bodies, and the last counts are sent."""
    settings, store = own
    environ = published.environ | {"SHORTLIST_NAMESPACE": settings.namespace}
    with as_process(environ) as (process, port), contextlib.ExitStack() as stack:
        for sent in (b"", b"POST /rec", GOOD[:-1]):
            stack.enter_context(opened(port)).sendall(sent)
        with opened(port) as client:
            for _ in range(2):
                assert asks(client, GOOD)[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    (key,) = store.redis.scan_iter(store.keys.impressions("*"))
    assert sum(map(int, store.redis.hvals(key))) == 2


def test_stop_with_a_stuck_shutdown(monkeypatch) -> None:
    """A process whose shutdown hangs is ended."""
    code = (
        "import threading\nfrom shortlist.lambda_handler.server import _exit_after\n"
        "_exit_after(0.1)\nthreading.Event().wait()"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=False, timeout=SECONDS
        ).returncode
        == 1
    )


@pytest.mark.parametrize("port", [-1, 99_999, "taken"])
def test_unusable_address(port) -> None:
    """It is an error of one sentence with exit status 2, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = str(taken.getsockname()[1] if port == "taken" else port)
        for module in ("shortlist.batch.cli serve", "shortlist.lambda_handler.server"):
            command = [sys.executable, "-m", *module.split(), "--port", shown]
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
            )
            assert (done.returncode, done.stdout) == (2, "")
            (line,) = done.stderr.splitlines()
            assert line.startswith("shortlist: ")
            assert shown in line
