"""Values in Redis that are not what they should be: one at a time, of every key that the service has.

A value that cannot be read costs itself. Nobody gets a 5xx but a 503 that says why, and users whom
it does not concern get what they got before.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack

from shortlist.batch import online, release_admin
from shortlist.batch.drain import drain
from shortlist.batch.publish import retire_superseded
from shortlist.batch.served_skew import served_skew
from shortlist.recsys.errors import ShortlistError
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from tests.chaos import invariants, nasty
from tests.chaos.bundle_mutations import MUTATIONS
from tests.chaos.caller import Reply
from tests.chaos.service import ADMIN_KEY, Service

SECONDS = 20.0
FRESH = 12
"""Cases after which a process begins anew, that remembers nothing."""

BATCH = 25
"""Cases after which the batch's readers of Redis have a turn."""

NOW = 1_700_000_000
ADMIN = {"x-shortlist-admin-key": ADMIN_KEY, "content-type": "application/json"}
TYPES = ("string", "hash", "set", "list", "stream")


class StoreFuzz:
    """Mutates the values of one published service."""

    def __init__(self, service: Service) -> None:
        self._service, self._cases = service, 0
        self.counts: Counter[str] = Counter()
        self._redis = service.store.redis
        self._users, self._items = service.worlds.users, service.worlds.items
        self._prepare()

    def _prepare(self) -> None:
        """Something of every kind: events, marks, live results, a blocked item, tallies, a canary's and a lease's place."""
        for number, user in enumerate(self._users[:12]):
            events = [
                {
                    "event_id": f"e{number}",
                    "user_id": user,
                    "item_id": self._items[number],
                    "timestamp": NOW + number,
                }
            ]
            self._call("POST", "/v1/events", {"events": events})
            self._call("POST", "/recommend", {"user_id": user, "diversity": 0.3})
        self._call("POST", f"/v1/items/{self._items[-1]}/block")
        self._call("DELETE", f"/v1/users/{self._users[-1]}")
        keys, version = self._service.store.keys, str(self._service.store.release().current)
        self._redis.hset(keys.skew(version), mapping={"0:1:2": 5, "aside": 1})
        self._redis.hset(keys.impressions("2026-01-01"), mapping={f"batch:10:{version}": 7})
        self._redis.set(keys.newcomers(NOW // 86_400), 3)
        found = sorted(self._redis.scan_iter(f"{self._service.settings.namespace}:*", count=1000))
        self._keys: dict[str, list[bytes]] = {}
        for key in found:
            self._keys.setdefault(_kind(key), []).append(key)

    def case(self, rng: random.Random) -> str:
        """Mutates a value, drives the routes, and puts the value back; gives what is wrong."""
        self._cases += 1
        if self._cases % FRESH == 0:
            self._service.start_process(0)
        kind = rng.choice(sorted(self._keys))
        key = rng.choice(self._keys[kind])
        before = self._redis.dump(key)
        try:
            how = self._mutate(key, rng)
            wrong = self._driven(key, rng)
            if not wrong and self._cases % BATCH == 0:
                wrong = self._read_by_batch()
        finally:
            self._redis.delete(key)
            if before is not None:
                self._redis.restore(key, 0, before)
        return f"{wrong}; the key {key!r} was {how}" if wrong else ""

    def _mutate(self, key: bytes, rng: random.Random) -> str:
        kind = self._redis.type(key).decode()
        if rng.random() < 0.12:
            other = rng.choice([t for t in TYPES if t != kind])
            self._redis.delete(key)
            self._write(key, other, nasty.text(rng).encode("utf-8", "replace"), _junk(b"", rng))
            return f"replaced by a {other}"
        match kind:
            case "string":
                value = _junk(self._redis.get(key), rng)
                self._redis.set(key, value)
                return f"set to {value[:200]!r}"
            case "hash":
                fields = sorted(self._redis.hkeys(key))
                field = (
                    rng.choice(fields)
                    if rng.random() < 0.9
                    else nasty.text(rng).encode("utf-8", "replace")
                )
                value = _junk(self._redis.hget(key, field) or b"", rng)
                self._redis.hset(key, field, value)
                if rng.random() < 0.1:
                    self._redis.hdel(key, field)
                return f"given the field {field!r}: {value[:200]!r}"
        member = _junk(nasty.text(rng).encode("utf-8", "replace"), rng)
        self._write(key, kind, rng.choice((b"e", b"", b"x")), member)
        return f"given {member[:200]!r}"

    def _write(self, key: bytes, kind: str, name: bytes, value: bytes) -> None:
        writers: dict[str, Callable[[], Any]] = {
            "string": lambda: self._redis.set(key, value),
            "hash": lambda: self._redis.hset(key, name, value),
            "set": lambda: self._redis.sadd(key, value),
            "list": lambda: self._redis.rpush(key, value),
            "stream": lambda: self._redis.xadd(key, {name: value}),
        }
        if kind in writers:
            writers[kind]()

    def _driven(self, key: bytes, rng: random.Random) -> str:
        """What is wrong with the answers while the value is what it is."""
        named = re.search(rb"\{(.*)\}", key)
        victim = named[1].decode() if named else rng.choice(self._users)
        other = rng.choice([user for user in self._users[:-1] if user != victim])
        item = rng.choice(self._items)
        event = {
            "event_id": nasty.text(rng)[:200] or "e",
            "user_id": victim,
            "item_id": item,
            "timestamp": NOW,
        }
        calls: list[tuple[str, str, Any]] = [
            ("POST", "/recommend", {"user_id": victim, "k": rng.choice((1, 10, 100))}),
            (
                "POST",
                "/recommend",
                {"user_id": victim, "k": 5, "use_cache": False, "explain": True},
            ),
            ("POST", "/recommend", {"user_id": victim, "diversity": 0.3}),
            ("POST", "/v1/events", {"events": [event]}),
            *rng.sample(
                [
                    ("GET", f"/v1/users/{victim}/recommendations?k=10", None),
                    ("POST", "/v1/rank", {"user_id": victim, "items": [item]}),
                    ("POST", "/recommend", {"user_id": victim, "history": [item]}),
                    ("GET", f"/v1/items/{item}", None),
                    ("GET", f"/v1/items/{item}/similar", None),
                    ("GET", "/v1/popular?k=30", None),
                    ("GET", "/v1/trending", None),
                    ("GET", "/health", None),
                    ("GET", "/health/ready", None),
                    ("GET", "/model/info", None),
                    ("GET", "/metrics", None),
                    ("GET", "/v1/releases", None),
                    ("POST", f"/v1/items/{item}/unblock", None),
                ],
                4,
            ),
        ]
        for method, target, body in calls:
            reply = self._call(method, target, body)
            self.counts["stored values: requests"] += 1
            wrong = reply if isinstance(reply, str) else invariants.reply_problem(reply)
            if wrong:
                return f"{wrong}: {reply} at {method} {target} {body}"
        return self._bystander(other) if named else ""

    def _bystander(self, user: str) -> str:
        """Whether somebody whom the value does not concern is served as before."""
        reply = self._call("POST", "/recommend", {"user_id": user, "k": 5})
        if isinstance(reply, str):
            return reply
        sound = (
            reply.status == 200
            and not reply.body["degraded"]
            and reply.body["source"] in ("batch", "live")
        )
        return "" if sound else f"another user, {user}, is affected: {reply}"

    def _call(self, method: str, target: str, body: Any = None) -> Reply | str:
        raw = b"" if body is None else nasty.json.dumps(body).encode()
        try:
            return self._service.processes[0].request_http(method, target, raw, ADMIN, SECONDS)
        except Exception as error:  # noqa: BLE001 - any exception here is what is looked for
            return f"{type(error).__name__}: {error}"

    def _read_by_batch(self) -> str:
        """What the batch reads: it may refuse, in words."""
        settings = self._service.settings
        readers: list[Callable[[], object]] = [
            lambda: drain(
                EventLog(self._service.store), open_event_files(str(self._service.events))
            ),
            lambda: list(release_admin.listing(settings)),
            lambda: release_admin.shadow(settings, self._service.store.release().current, 20, 5),
            lambda: retire_superseded(self._service.store, 1000, lambda: None),
            lambda: served_skew(settings),
            lambda: online.report(
                online.online(settings, 7, str(self._service.events), float(NOW))
            ),
        ]
        for read in readers:
            try:
                with suppress(ShortlistError):
                    read()
            except Exception as error:  # noqa: BLE001 - any exception here is what is looked for
                return f"the batch: {type(error).__name__}: {error}"
        return ""


def _kind(key: bytes) -> str:
    """Keys that differ by user, release or day alone are of one kind."""
    return re.sub(rb"\{.*\}|\d{8}T\d{6}Z-\w+|\d+", b"*", key.partition(b":")[2]).decode()


def _junk(value: bytes, rng: random.Random) -> bytes:
    """The value damaged, or another one."""
    kind = rng.random()
    if kind < 0.5 and value:
        return rng.choice(MUTATIONS)(value, rng)
    if kind < 0.6:
        return nasty.text(rng).encode("utf-8", "replace")
    if kind < 0.7 and value:
        return _retyped(value, rng)
    if kind < 0.8:
        return rng.choice(
            (b"", b"0", b"-1", b"9" * 30, b"\xff" * 20, b"\xc1", b"\x00" * 100, b"1.5", b"nan")
        )
    return msgpack.packb(_packable(nasty.value(rng)), use_bin_type=True)


def _retyped(value: bytes, rng: random.Random) -> bytes:
    """The same record, one field of which is of another kind or size."""
    try:
        record = msgpack.unpackb(value, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return value[::-1]
    if isinstance(record, list) and record:
        record[rng.randrange(len(record))] = _packable(nasty.value(rng))
    elif isinstance(record, dict) and record:
        record[rng.choice(sorted(record, key=str))] = _packable(nasty.value(rng))
    return msgpack.packb(record, use_bin_type=True)


def _packable(value: Any) -> Any:
    """Whole numbers within 64 bits, texts that are texts."""
    match value:
        case bool() | None | float():
            return value
        case int():
            return max(-(2**63), min(value, 2**64 - 1))
        case str():
            return value.encode("utf-8", "replace").decode()
        case list():
            return [_packable(each) for each in value]
        case dict():
            return {_packable(name): _packable(each) for name, each in value.items()}
    return None
