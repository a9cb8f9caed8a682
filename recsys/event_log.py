"""Events on their way in: what a user did is told to their record at once, and to the next training through a stream.

The stream and a user's record lie in different slots of a cluster, so no transaction spans both. The stream comes first and
the record, with the marks of the events that it took, second: a process that dies between the two leaves an event that the
caller sends again, and that whoever reads the stream meets twice under one id. Nothing is lost, and readers tell doubles by
their id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgpack

from recsys.errors import CorruptArtefact
from recsys.store import RedisStore, bounded
from recsys.wire import EventRecord, UserRecord, pack_event, pack_user

WINDOW_SECONDS = 7 * 24 * 3600
"""An event id is known for one to two windows after it was first sent."""

MOST_MARKS = 5000
"""Events of one user in one window; more are refused."""

GROUP = "batch"
CONSUMER = "drain"

_COMMIT = """
local known = redis.call('HGET', KEYS[1], 'h')
if (known or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'n', ARGV[2], 'h', ARGV[3], ARGV[4], ARGV[5])
return 1
"""

Marks = dict[bytes, bytes]
"""The digest of an event id -> the stream's id of the event."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the store has of a user: events ever, the packed record, the marks of this window and of the one before."""

    n_events: int
    packed: bytes | None
    marks: Marks
    earlier: Marks
    deleted: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A user's record with new events in it; it holds only while the stored one is still `expected`."""

    user: str
    expected: bytes | None
    record: UserRecord
    marks: Marks


def mark_of(event_id: str) -> bytes:
    """The twelve bytes by which a user's event is known again."""
    return hashlib.sha256(event_id.encode()).digest()[:12]


def window_of(now: float) -> int:
    """The number of the window that `now`, unix seconds, lies in."""
    return int(now // WINDOW_SECONDS)


class EventLog:
    """Events in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @bounded
    def known(self, users: Sequence[str], window: int) -> dict[str, Known]:
        """What is known of each user, in one round trip."""
        pipe = self.store.redis.pipeline(transaction=False)
        for user in users:
            pipe.hmget(self.store.keys.user(user), "n", "h", _field(window), _field(window - 1))
            pipe.hexists(self.store.keys.deleted(), self.store.keys.digest(user))
        told = pipe.execute()
        found = zip(users, told[::2], told[1::2], strict=True)
        return {
            user: Known(_count(n_events), packed, _marks(now, window), _marks(before, window - 1), bool(deleted))
            for user, (n_events, packed, now, before), deleted in found
        }

    @bounded
    def deleted_among(self, users: Sequence[str]) -> list[str]:
        """Those of the users who are deleted."""
        if not users:
            return []
        keys = self.store.keys
        times = self.store.redis.hmget(keys.deleted(), [keys.digest(user) for user in users])
        return [user for user, when in zip(users, times, strict=True) if when is not None]

    @bounded
    def append(self, events: Sequence[EventRecord]) -> list[bytes]:
        """Puts events into the stream; gives their ids there."""
        pipe = self.store.redis.pipeline(transaction=False)
        for event in events:
            pipe.xadd(self.store.keys.events(), {"e": pack_event(event)})
        return list(pipe.execute())

    @bounded
    def commit(self, changes: Sequence[Change], window: int) -> list[bool]:
        """Writes each change, with its user's marks of the window, if the record is still the expected one."""
        pipe = self.store.redis.pipeline(transaction=False)
        for change in changes:
            record, expected = change.record, change.expected or b""
            marks = msgpack.packb([window, change.marks])
            key = self.store.keys.user(change.user)
            # Not pipe.eval, which redis-py bars in a cluster's pipeline although the key tells the node.
            told = (expected, record.n_events, pack_user(record), _field(window), marks)
            pipe.execute_command("EVAL", _COMMIT, 1, key, *told)
        return [done == 1 for done in pipe.execute()]

    @bounded
    def join(self) -> None:
        """Makes the consumer group that drains the stream, from its beginning."""
        from redis.exceptions import ResponseError

        try:
            self.store.redis.xgroup_create(self.store.keys.events(), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    @bounded
    def take(self, count: int, *, again: bool) -> list[tuple[bytes, Mapping[bytes, bytes] | None]]:
        """Up to `count` entries, (id, fields): new ones, or `again` those taken before and never acknowledged."""
        streams = {self.store.keys.events(): "0" if again else ">"}
        told = self.store.redis.xreadgroup(GROUP, CONSUMER, streams, count=count)
        return list(told[0][1]) if told else []

    @bounded
    def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Takes entries out of the stream for good; what is deleted and not acknowledged is taken again without its fields."""
        pipe = self.store.redis.pipeline(transaction=False)
        pipe.xdel(self.store.keys.events(), *ids)
        pipe.xack(self.store.keys.events(), GROUP, *ids)
        pipe.execute()

    @bounded
    def waiting(self, after: bytes, count: int) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Up to `count` entries behind the one of the id `after` (b"0": the first ones), which stay where they are."""
        return list(self.store.redis.xrange(self.store.keys.events(), min=b"(" + after, count=count))

    @bounded
    def length(self) -> int:
        """How many events wait in the stream."""
        return int(self.store.redis.xlen(self.store.keys.events()))


def _count(told: bytes | None) -> int:
    """A number of events; 0 for what is none."""
    return int(told) if told is not None and told.isdigit() else 0


def stream_ids(packed: Sequence[bytes | None]) -> list[bytes]:
    """The ids in the stream of all events that a user's fields e0 and e1 have marks of."""
    found: list[bytes] = []
    for told in packed:
        with suppress(ValueError, TypeError, msgpack.UnpackException):  # what cannot be read names no event
            found += [] if told is None else msgpack.unpackb(told, strict_map_key=False)[1].values()
    return found


def _field(window: int) -> str:
    """Where the marks of a window are: two fields take turns."""
    return f"e{window % 2}"


def _marks(packed: bytes | None, window: int) -> Marks:
    if packed is None:
        return {}
    try:
        told_window, marks = msgpack.unpackb(packed, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptArtefact(f"a user's event marks cannot be read ({error}): delete the user's field") from error
    return dict(marks) if told_window == window else {}
