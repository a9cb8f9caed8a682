"""Fuzzes the values in Redis, one at a time.

Every kind of key has its turn. An unreadable value may cost only itself: no 5xx other than a 503
with a reason, and other users are served as before.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack

from shortlist.batch import online, release_admin, release_shift
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
RESTART_EVERY = 12
"""Cases after which the API process is replaced by one with empty caches."""

READ_BY_BATCH_EVERY = 25
"""Cases after which the batch's readers of Redis are called too."""

NOW = 1_700_000_000
ADMIN = {"x-shortlist-admin-key": ADMIN_KEY, "content-type": "application/json"}
TYPES = ("string", "hash", "set", "list", "stream")
BYTES = (b"", b"0", b"-1", b"9" * 30, b"\xff" * 20, b"\xc1", b"\x00" * 100, b"1.5", b"nan")


class StoreFuzz:
    """Mutates the values of one published service."""

    def __init__(self, service: Service) -> None:
        self._service, self._cases = service, 0
        self.counts: Counter[str] = Counter()
        self._redis = service.store.redis
        self._users, self._items = service.worlds.users, service.worlds.items
        self._prepare()

    def _prepare(self) -> None:
        """Writes keys of every kind."""
        for number, user in enumerate(self._users[:12]):
            event = _event(f"e{number}", user, self._items[number], NOW + number)
            self._call("POST", "/v1/events", {"events": [event]})
            self._call("POST", "/recommend", {"user_id": user, "diversity": 0.3})
        self._call("POST", f"/v1/items/{self._items[-1]}/block")
        self._call("DELETE", f"/v1/users/{self._users[-1]}")
        keys, version = self._service.store.keys, str(self._service.store.release().current)
        self._redis.hset(keys.skew(version), mapping={"0:1:2": 5, "aside": 1})
        self._redis.hset(keys.impressions("2026-01-01"), mapping={f"batch:10:{version}": 7})
        self._redis.set(keys.newcomers(NOW // 86_400), 3)
        pattern = f"{self._service.settings.namespace}:*"
        self._keys: dict[str, list[bytes]] = {}
        for key in sorted(self._redis.scan_iter(pattern, count=1000)):
            self._keys.setdefault(_kind(key), []).append(key)

    def case(self, rng: random.Random) -> str:
        """Mutates one value for some requests, and gives the problem, or ""."""
        self._cases += 1
        if self._cases % RESTART_EVERY == 0:
            self._service.start_process(0)
        kind = rng.choice(sorted(self._keys))
        key = rng.choice(self._keys[kind])
        before = self._redis.dump(key)
        try:
            how = self._mutate(key, rng)
            problem = self._call_routes(key, rng)
            if not problem and self._cases % READ_BY_BATCH_EVERY == 0:
                problem = self._read_by_batch()
        finally:
            self._redis.delete(key)
            if before is not None:
                self._redis.restore(key, 0, before)
        return f"{problem}; the key {key!r} was {how}" if problem else ""

    def _mutate(self, key: bytes, rng: random.Random) -> str:
        """Damages or replaces a value, and gives a description."""
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
                return self._mutate_hash(key, rng)
        member = _junk(nasty.text(rng).encode("utf-8", "replace"), rng)
        self._write(key, kind, rng.choice((b"e", b"", b"x")), member)
        return f"given {member[:200]!r}"

    def _mutate_hash(self, key: bytes, rng: random.Random) -> str:
        fields = sorted(self._redis.hkeys(key))
        is_known = rng.random() < 0.9
        field = rng.choice(fields) if is_known else nasty.text(rng).encode("utf-8", "replace")
        value = _junk(self._redis.hget(key, field) or b"", rng)
        self._redis.hset(key, field, value)
        if rng.random() < 0.1:
            self._redis.hdel(key, field)
        return f"given the field {field!r}: {value[:200]!r}"

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

    def _call_routes(self, key: bytes, rng: random.Random) -> str:
        """Calls the routes, and gives the problem of an answer, or ""."""
        match = re.search(rb"\{(.*)\}", key)  # the user id, in keys of one user
        victim = match[1].decode() if match else rng.choice(self._users)
        other = rng.choice([user for user in self._users[:-1] if user != victim])
        for method, target, body in _calls(victim, rng.choice(self._items), rng):
            reply = self._call(method, target, body)
            self.counts["stored values: requests"] += 1
            problem = reply if isinstance(reply, str) else invariants.reply_problem(reply)
            if problem:
                return f"{problem}: {reply} at {method} {target} {body}"
        return self._check_bystander(other) if match else ""

    def _check_bystander(self, user: str) -> str:
        """Checks that another user is served as before."""
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
        except Exception as error:  # noqa: BLE001 - any exception here is a finding
            return f"{type(error).__name__}: {error}"

    def _read_by_batch(self) -> str:
        """Calls the batch's readers of Redis, which may refuse with a message."""
        settings = self._service.settings
        readers: list[Callable[[], object]] = [
            lambda: drain(
                EventLog(self._service.store), open_event_files(str(self._service.events))
            ),
            lambda: release_admin.listing(settings),
            lambda: release_shift.shadow(settings, self._service.store.release().current, 20, 5),
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
            except Exception as error:  # noqa: BLE001 - any exception here is a finding
                return f"the batch: {type(error).__name__}: {error}"
        return ""


def _event(event_id: str, user: str, item: str, timestamp: int) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user, "item_id": item, "timestamp": timestamp}


def _calls(victim: str, item: str, rng: random.Random) -> list[tuple[str, str, Any]]:
    """Four fixed and four drawn requests about a user."""
    event = _event(nasty.text(rng)[:200] or "e", victim, item, NOW)
    live = {"user_id": victim, "k": 5, "use_cache": False, "explain": True}
    always = [
        ("POST", "/recommend", {"user_id": victim, "k": rng.choice((1, 10, 100))}),
        ("POST", "/recommend", live),
        ("POST", "/recommend", {"user_id": victim, "diversity": 0.3}),
        ("POST", "/v1/events", {"events": [event]}),
    ]
    others = [
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
    ]
    return [*always, *rng.sample(others, 4)]


def _kind(key: bytes) -> str:
    """The kind of a key: without the user, release or day in it."""
    return re.sub(rb"\{.*\}|\d{8}T\d{6}Z-\w+|\d+", b"*", key.partition(b":")[2]).decode()


def _junk(value: bytes, rng: random.Random) -> bytes:
    """The value damaged, or another value."""
    kind = rng.random()
    if kind < 0.5 and value:
        return rng.choice(MUTATIONS)(value, rng)
    if kind < 0.6:
        return nasty.text(rng).encode("utf-8", "replace")
    if kind < 0.7 and value:
        return _retyped(value, rng)
    if kind < 0.8:
        return rng.choice(BYTES)
    return msgpack.packb(_packable(nasty.value(rng)), use_bin_type=True)


def _retyped(value: bytes, rng: random.Random) -> bytes:
    """The same msgpack record with another type or size of one field."""
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
    """A value that msgpack can encode: integers within 64 bits, valid Unicode."""
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
