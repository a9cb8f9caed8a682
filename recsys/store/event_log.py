"""Appends events to the stream and updates users' records.

The stream and a user's record lie in different slots of a cluster, so no transaction spans both.
The stream comes first and the record, with the dedup keys of its new events, second: a process that
dies between the two leaves an event that the caller sends again, and that a reader of the stream
meets twice under one id. Nothing is lost, and readers drop doubles by their id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgpack

from shortlist.recsys.store.records import EventRecord, UserRecord, pack_event, pack_user
from shortlist.recsys.store.redis import RedisStore, replies_or_none
from shortlist.recsys.store.redis_client import translate_redis_errors
from shortlist.recsys.store.watermark import BEGINNING, readable_position, stream_position

DAY_SECONDS = 86_400

WINDOW_SECONDS = 7 * 24 * 3600
"""An event id is known for one to two windows after it was first sent."""

MAX_DEDUP_KEYS = 5000
"""Events of one user in one window; more are refused."""

GROUP = "batch"
CONSUMER = "drain"

# The record changes only as it was read, and a newcomer's record goes by itself unless the batch
# takes it over: KEYS user; ARGV expected record, new record, position, field of the dedup keys, the
# dedup keys, seconds that a newcomer's record lives.
_COMMIT = """
local known = redis.call('HGET', KEYS[1], 'h') or ''
if known ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 's', ARGV[3], ARGV[4], ARGV[5])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'h', ARGV[2]) end
if known == '' or redis.call('TTL', KEYS[1]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
return 1
"""

DedupKeys = dict[bytes, bytes]
"""The digest of an event id -> the stream's id of the event."""


@dataclass(frozen=True, slots=True)
class Known:
    """A user as stored: record and dedup keys.

    position: of their latest accepted event in the stream, 0 where there is none; dedup_keys: of
    this window; earlier: of the one before.
    """

    packed: bytes | None
    position: int
    dedup_keys: DedupKeys
    earlier: DedupKeys
    deleted: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A user's record with new events.

    It is written only over the stored record `expected`. position: of the latest of the events in
    the stream.
    """

    user: str
    expected: bytes | None
    record: UserRecord
    dedup_keys: DedupKeys
    position: int


def dedup_key_of(event_id: str) -> bytes:
    """The twelve bytes that recognise a user's event."""
    return hashlib.sha256(event_id.encode()).digest()[:12]


def window_of(now: float) -> int:
    """The window's number; now: unix seconds."""
    return int(now // WINDOW_SECONDS)


class EventLog:
    """Events in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @translate_redis_errors
    def known(self, users: Sequence[str], window: int) -> tuple[dict[str, Known], int]:
        """Users as stored and the stream's length, in one round trip."""
        keys = self.store.keys
        pipe = self.store.redis.pipeline(transaction=False)
        user_keys: list[str | None] = []
        for user in users:
            pipe.hmget(keys.user(user), "h", "s", _field(window), _field(window - 1))
            pipe.hexists(keys.deleted(), keys.digest(user))
            user_keys += [keys.user(user), None]
        pipe.xlen(keys.events())
        *replies, waiting = replies_or_none(self.store, pipe, [*user_keys, None])
        known: dict[str, Known] = {}
        for user, fields, deleted in zip(users, replies[::2], replies[1::2], strict=True):
            packed, position, now, before = fields or (None,) * 4
            known[user] = Known(
                packed,
                readable_position(position),
                _keys_of_window(now, window),
                _keys_of_window(before, window - 1),
                bool(deleted),
            )
        return known, int(waiting)

    @translate_redis_errors
    def deleted_among(self, users: Sequence[str]) -> list[str]:
        """Those of the users who are deleted."""
        if not users:
            return []
        keys = self.store.keys
        times = self.store.redis.hmget(keys.deleted(), [keys.digest(user) for user in users])
        return [user for user, when in zip(users, times, strict=True) if when is not None]

    @translate_redis_errors
    def append(self, events: Sequence[EventRecord]) -> list[bytes]:
        """Appends events to the stream; gives their ids there."""
        pipe = self.store.redis.pipeline(transaction=False)
        for event in events:
            pipe.xadd(self.store.keys.events(), {"e": pack_event(event)})
        return list(pipe.execute())

    @translate_redis_errors
    def withdraw(self, stream_ids: Sequence[bytes]) -> None:
        """Takes a deleted user's events out of the stream."""
        if stream_ids:
            self.store.redis.xdel(self.store.keys.events(), *stream_ids)

    @translate_redis_errors
    def commit(self, changes: Sequence[Change], window: int, newcomer_seconds: int) -> list[bool]:
        """Writes each change whose expected record still holds.

        Gives which were written. A record that no batch has written lives `newcomer_seconds` after
        its latest event.
        """
        pipe = self.store.redis.pipeline(transaction=False)
        for change in changes:
            arguments = (
                change.expected or b"",
                pack_user(change.record),
                change.position,
                _field(window),
                msgpack.packb([window, change.dedup_keys]),
                newcomer_seconds,
            )
            # Not pipe.eval: redis-py bars it in a cluster's pipeline, although the key names the
            # node.
            pipe.execute_command("EVAL", _COMMIT, 1, self.store.keys.user(change.user), *arguments)
        return [done == 1 for done in pipe.execute()]

    @translate_redis_errors
    def admit(self, newcomers: int, day: int, limit: int) -> int:
        """How many of these newcomers may have a record.

        newcomers: users without a record; day: since 1970; limit: records of newcomers on a day.
        """
        key = self.store.keys.newcomers(day)
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.incrby(key, newcomers)
        pipe.expire(key, 2 * DAY_SECONDS, nx=True)
        total = int(pipe.execute()[0])
        return max(0, min(newcomers, limit - (total - newcomers)))

    @translate_redis_errors
    def drained_up_to(self) -> int:
        """The position up to which all events are drained."""
        from redis.exceptions import ResponseError

        key = self.store.keys.events()
        try:
            groups = self.store.redis.xinfo_groups(key)
        except ResponseError:  # no stream, so nothing was ever drained
            return BEGINNING
        last_ids = {group["name"]: group["last-delivered-id"] for group in groups}
        delivered = last_ids.get(GROUP.encode())
        if delivered is None:
            return BEGINNING
        # Entries taken by a drain that was killed before its file was written.
        first_pending = self.store.redis.xpending(key, GROUP)["min"]
        if first_pending is not None:
            return stream_position(first_pending) - 1
        return stream_position(delivered)

    @translate_redis_errors
    def join(self) -> None:
        """Makes the consumer group that drains the stream."""
        from redis.exceptions import ResponseError

        try:
            self.store.redis.xgroup_create(self.store.keys.events(), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    @translate_redis_errors
    def take(self, count: int, *, again: bool) -> list[tuple[bytes, Mapping[bytes, bytes] | None]]:
        """Takes up to `count` new entries (id, fields).

        again: those that were taken before and never acknowledged, instead.
        """
        streams = {self.store.keys.events(): "0" if again else ">"}
        reply = self.store.redis.xreadgroup(GROUP, CONSUMER, streams, count=count)
        return list(reply[0][1]) if reply else []

    @translate_redis_errors
    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Takes entries out of the stream for good.

        A deleted entry that was not acknowledged would be taken again, without its fields.
        """
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.xdel(self.store.keys.events(), *ids)
        pipe.xack(self.store.keys.events(), GROUP, *ids)
        pipe.execute()

    @translate_redis_errors
    def waiting(self, after: bytes, count: int) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Reads up to `count` entries after an id.

        after: b"0" for the first ones. The entries stay in the stream.
        """
        first = b"(" + after  # the bracket excludes the id itself
        return list(self.store.redis.xrange(self.store.keys.events(), min=first, count=count))

    @translate_redis_errors
    def length(self) -> int:
        """How many events wait in the stream."""
        return int(self.store.redis.xlen(self.store.keys.events()))


def stream_ids(packed: Sequence[bytes | None]) -> list[bytes]:
    """The stream's ids in a user's fields e0 and e1."""
    return [stream_id for field in packed for stream_id in _window_and_keys(field)[1].values()]


def _field(window: int) -> str:
    """The field of a window; two take turns."""
    return f"e{window % 2}"


def _keys_of_window(packed: bytes | None, window: int) -> DedupKeys:
    of_window, dedup_keys = _window_and_keys(packed)
    return dedup_keys if of_window == window else {}


def _window_and_keys(packed: bytes | None) -> tuple[int | None, DedupKeys]:
    """Reads a field of dedup keys.

    An unreadable one has none: its events may be taken twice, and none is refused for it.
    """
    if packed is None:
        return None, {}
    try:
        content = msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None, {}
    match content:
        case [int(window), dict(entries)]:
            return window, {
                key: stream_id
                for key, stream_id in entries.items()
                if isinstance(key, bytes) and isinstance(stream_id, bytes)
            }
    return None, {}
