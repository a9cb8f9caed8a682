"""Events on their way in: what a user did is told to their record at once, and to the next training through a stream.

The stream and a user's record lie in different slots of a cluster, so no transaction spans both.
The stream comes first and the record, with the marks of the events that it took, second: a process
that dies between the two leaves an event that the caller sends again, and that whoever reads the
stream meets twice under one id. Nothing is lost, and readers tell doubles by their id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgpack

from shortlist.recsys.store.records import EventRecord, UserRecord, pack_event, pack_user
from shortlist.recsys.store.redis import RedisStore, replies_or_none, translate_redis_errors
from shortlist.recsys.store.watermark import BEGINNING, position_of, readable_position

DAY_SECONDS = 86_400

WINDOW_SECONDS = 7 * 24 * 3600
"""An event id is known for one to two windows after it was first sent."""

MAX_DEDUP_KEYS = 5000
"""Events of one user in one window; more are refused."""

GROUP = "batch"
CONSUMER = "drain"

# The record changes only as it was read, and a newcomer's record goes by itself unless the batch
# takes it over: KEYS user; ARGV expected record, new record, position, marks' field, marks, seconds
# that a newcomer's record lives.
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
    """What the store has of a user: the packed record, the marks of this window and of the one before.

    position: of their latest accepted event in the stream, 0 where there is none.
    """

    packed: bytes | None
    position: int
    marks: DedupKeys
    earlier: DedupKeys
    deleted: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A user's record with new events in it; it holds only while the stored one is still `expected`.

    position: of the latest of the events in the stream.
    """

    user: str
    expected: bytes | None
    record: UserRecord
    marks: DedupKeys
    position: int


def dedup_key_of(event_id: str) -> bytes:
    """The twelve bytes by which a user's event is known again."""
    return hashlib.sha256(event_id.encode()).digest()[:12]


def window_of(now: float) -> int:
    """The number of the window that `now`, unix seconds, lies in."""
    return int(now // WINDOW_SECONDS)


class EventLog:
    """Events in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @translate_redis_errors
    def known(self, users: Sequence[str], window: int) -> tuple[dict[str, Known], int]:
        """What is known of each user, and how many events wait in the stream, in one round trip."""
        pipe = self.store.redis.pipeline(transaction=False)
        for user in users:
            pipe.hmget(self.store.keys.user(user), "h", "s", _field(window), _field(window - 1))
            pipe.hexists(self.store.keys.deleted(), self.store.keys.digest(user))
        pipe.xlen(self.store.keys.events())
        keys = [key for user in users for key in (self.store.keys.user(user), None)]
        *replies, waiting = replies_or_none(self.store, pipe, [*keys, None])
        known: dict[str, Known] = {}
        for user, fields, deleted in zip(users, replies[::2], replies[1::2], strict=True):
            packed, position, now, before = fields or (None,) * 4
            marks = _marks(now, window), _marks(before, window - 1)
            known[user] = Known(packed, readable_position(position), *marks, bool(deleted))
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
        """Puts events into the stream; gives their ids there."""
        pipe = self.store.redis.pipeline(transaction=False)
        for event in events:
            pipe.xadd(self.store.keys.events(), {"e": pack_event(event)})
        return list(pipe.execute())

    @translate_redis_errors
    def withdraw(self, stream_ids: Sequence[bytes]) -> None:
        """Takes events out of the stream that turned out to be nobody's."""
        if stream_ids:
            self.store.redis.xdel(self.store.keys.events(), *stream_ids)

    @translate_redis_errors
    def commit(self, changes: Sequence[Change], window: int, newcomer_seconds: int) -> list[bool]:
        """Writes each change, with its user's marks of the window, if the record is still the expected one.

        A record that no batch has written lives `newcomer_seconds` after its latest event.
        """
        pipe = self.store.redis.pipeline(transaction=False)
        for change in changes:
            record, expected = change.record, change.expected or b""
            marks = msgpack.packb([window, change.marks])
            key = self.store.keys.user(change.user)
            # Not pipe.eval, which redis-py bars in a cluster's pipeline although the key tells the
            # node.
            fields = (change.position, _field(window), marks)
            pipe.execute_command(
                "EVAL", _COMMIT, 1, key, expected, pack_user(record), *fields, newcomer_seconds
            )
        return [done == 1 for done in pipe.execute()]

    @translate_redis_errors
    def admit(self, newcomers: int, day: int, limit: int) -> int:
        """How many of so many users without a record may have one on `day` (since 1970), at most `limit` in all."""
        key = self.store.keys.newcomers(day)
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.incrby(key, newcomers)
        pipe.expire(key, 2 * DAY_SECONDS, nx=True)
        total = int(pipe.execute()[0])
        return max(0, min(newcomers, limit - (total - newcomers)))

    @translate_redis_errors
    def drained_up_to(self) -> int:
        """The position up to which every event has left the stream for the drain's files."""
        from redis.exceptions import ResponseError

        key = self.store.keys.events()
        try:
            groups = self.store.redis.xinfo_groups(key)
        except ResponseError:  # no stream, so nothing was ever drained
            return BEGINNING
        delivered = {group["name"]: group["last-delivered-id"] for group in groups}.get(
            GROUP.encode()
        )
        if delivered is None:
            return BEGINNING
        taken = self.store.redis.xpending(key, GROUP)[
            "min"
        ]  # taken by a drain that was killed before its file stood
        return position_of(delivered) if taken is None else position_of(taken) - 1

    @translate_redis_errors
    def join(self) -> None:
        """Makes the consumer group that drains the stream, from its beginning."""
        from redis.exceptions import ResponseError

        try:
            self.store.redis.xgroup_create(self.store.keys.events(), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    @translate_redis_errors
    def take(self, count: int, *, again: bool) -> list[tuple[bytes, Mapping[bytes, bytes] | None]]:
        """Up to `count` entries, (id, fields): new ones, or `again` those taken before and never acknowledged."""
        streams = {self.store.keys.events(): "0" if again else ">"}
        told = self.store.redis.xreadgroup(GROUP, CONSUMER, streams, count=count)
        return list(told[0][1]) if told else []

    @translate_redis_errors
    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Takes entries out of the stream for good; what is deleted and not acknowledged is taken again without its fields."""
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.xdel(self.store.keys.events(), *ids)
        pipe.xack(self.store.keys.events(), GROUP, *ids)
        pipe.execute()

    @translate_redis_errors
    def waiting(self, after: bytes, count: int) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Up to `count` entries behind the one of the id `after` (b"0": the first ones), which stay where they are."""
        return list(
            self.store.redis.xrange(self.store.keys.events(), min=b"(" + after, count=count)
        )

    @translate_redis_errors
    def length(self) -> int:
        """How many events wait in the stream."""
        return int(self.store.redis.xlen(self.store.keys.events()))


def stream_ids(packed: Sequence[bytes | None]) -> list[bytes]:
    """The ids in the stream of all events that a user's fields e0 and e1 have marks of."""
    return [stream_id for field in packed for stream_id in _window_and_marks(field)[1].values()]


def _field(window: int) -> str:
    """Where the marks of a window are: two fields take turns."""
    return f"e{window % 2}"


def _marks(packed: bytes | None, window: int) -> DedupKeys:
    of_window, marks = _window_and_marks(packed)
    return marks if of_window == window else {}


def _window_and_marks(packed: bytes | None) -> tuple[int | None, DedupKeys]:
    """A field of marks. One that cannot be read has none: its events may be taken twice, and none is refused for it."""
    if packed is None:
        return None, {}
    try:
        content = msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None, {}
    match content:
        case [int(window), dict(marks)]:
            entries = marks.items()
            return window, {
                k: v for k, v in entries if isinstance(k, bytes) and isinstance(v, bytes)
            }
    return None, {}
