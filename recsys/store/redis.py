"""The lists, user records and the release pointer in Redis: every key in one place, every command bounded in time.

Works on one node, a replicated primary and a cluster: no command spans two users' keys, and a
user's keys share a hash tag, so they lie in one slot and are read in one round trip.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from shortlist.recsys.errors import CorruptArtefact, StoreUnavailable
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.histories import merge
from shortlist.recsys.store.records import (
    ItemRecord,
    ReleasePointer,
    UserRecord,
    pack_item,
    pack_pointer,
    pack_user,
    unpack_item,
    unpack_pointer,
    unpack_user,
)
from shortlist.recsys.store.redis_client import RedisLink, connector, translate_redis_errors
from shortlist.recsys.store.watermark import position_in

__all__ = [
    "PIPELINE",
    "CallPolicy",
    "Keys",
    "RedisStore",
    "Store",
    "open_store",
    "translate_redis_errors",
]

R = TypeVar("R")

PIPELINE = 500
"""Commands sent to Redis in one go."""

WHOLE = ""
"""The field of a catalogue's rows that says how many there are: no item has an empty id."""

ATTEMPTS = 10
"""How often a user's record that others change at the same moment is merged again."""

MAX_LIVE_RESULTS = 32
"""Live results kept of one user in one release; the next one starts afresh, so that odd questions fill no memory."""

# A record is written only over the one it was made from, and never by a batch with an older lease
# than the one before it: a run that was overtaken may still be writing. The batch's records have no
# time to live. A position that cannot be read is mended. KEYS user; ARGV expected record, new
# record, its latest position, the token of the batch's lease.
_REPLACE = """
if (redis.call('HGET', KEYS[1], 'h') or '') ~= ARGV[1] then return 0 end
if (tonumber(redis.call('HGET', KEYS[1], 'b') or '') or 0) > tonumber(ARGV[4]) then return 1 end
redis.call('HSET', KEYS[1], 'h', ARGV[2], 'b', ARGV[4])
local latest = redis.call('HGET', KEYS[1], 's')
if not latest or #latest > 19 or not string.match(latest, '^%d+$') then redis.call('HSET', KEYS[1], 's', ARGV[3]) end
redis.call('HDEL', KEYS[1], 'n')
redis.call('PERSIST', KEYS[1])
return 1
"""

# A live result is of a record: once that has changed, or its user was deleted, nobody may find the
# result.
# The claim goes last: a script that has written may write on in a server that is full.
_WRITE_LIVE = """
local known = redis.call('HGET', KEYS[2], 'h')
if not known or redis.sha1hex(known) ~= ARGV[1] then
  redis.call('DEL', KEYS[3])
  return 0
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
redis.call('DEL', KEYS[3])
return 1
"""

_FLIP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == 'new' then
  local token = (tonumber(redis.call('GET', KEYS[2])) or 0) + 1
  redis.call('SET', KEYS[2], string.format('%d', token))
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

_FLIP_UNDER_LEASE = """
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -2 end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """What shows that a batch holds the lease: its entry in Redis, and its fencing token."""

    holder: bytes
    token: int


@dataclass(frozen=True, slots=True)
class FlipIf:
    """On what condition the pointer is set.

    expected: the stored bytes that it replaces, None for none; lease: held by the batch that flips,
    its token the newest;
    new_token: draws the next fencing token, so that no batch that runs at this moment may flip the
    pointer afterwards.
    """

    expected: bytes | None
    lease: LeaseProof | None = None
    new_token: bool = False


class Flip(enum.Enum):
    """How a change of the pointer ended."""

    DONE = 1
    CHANGED = 0
    """The pointer was no longer the expected one."""
    LEASE_LOST = -1
    OVERTAKEN = -2
    """Somebody has drawn a newer fencing token."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace; {…} is a cluster hash tag."""

    namespace: str

    def release(self) -> str:
        """Msgpack {current, previous, canary?: {version, percent}}."""
        return f"{self.namespace}:release"

    def lease(self) -> str:
        """Who runs a batch at this moment; lives for a minute. In the pointer's slot, as the tag is the pointer's key."""
        return f"{{{self.release()}}}:lease"

    def fence(self) -> str:
        """The newest fencing token, a whole number; in the pointer's slot."""
        return f"{{{self.release()}}}:fence"

    def list(self, version: str, user: str) -> str:
        """A packed ShortlistRecord."""
        return f"{self.namespace}:{version}:list:{{{user}}}"

    def items(self, version: str) -> str:
        """A hash: item row -> packed ItemRecord."""
        return f"{self.namespace}:{version}:items"

    def rows(self, version: str) -> str:
        """A hash: item id -> item row; "" -> the number of items, which is there once all are."""
        return f"{self.namespace}:{version}:rows"

    def popular(self, version: str) -> str:
        """A packed ShortlistRecord of the most popular items."""
        return f"{self.namespace}:{version}:popular"

    def user(self, user: str) -> str:
        """A hash of a user: s, h, b, e0 and e1.

        s: the position of their latest accepted event in the stream, 0 where all came from the
        batch's table; h: the packed UserRecord; b: the token of the lease under which a batch wrote
        it last; e0, e1: the marks of events sent lately.
        """
        return f"{self.namespace}:user:{{{user}}}"

    def live(self, version: str, user: str) -> str:
        """A hash: digest of what shaped it -> a cached live result."""
        return f"{self.namespace}:live:{version}:{{{user}}}"

    def users(self) -> str:
        """What the keys of users' records start with."""
        return f"{self.namespace}:user:"

    def of_release(self, version: str) -> str:
        """What the keys of a release start with."""
        return f"{self.namespace}:{version}:"

    def claim(self, user: str) -> str:
        """The digest of the live result that some process computes at this moment."""
        return f"{self.namespace}:claim:{{{user}}}"

    def blocked(self) -> str:
        """A set of item ids never to be shown."""
        return f"{self.namespace}:blocked"

    def events(self) -> str:
        """The stream of accepted events, each a packed EventRecord."""
        return f"{self.namespace}:events"

    def newcomers(self, day: int) -> str:
        """A number: users without a record who sent events on that day (since 1970)."""
        return f"{self.namespace}:newcomers:{day}"

    def releases(self) -> str:
        """A hash: version of a release whose lists were written -> msgpack [created_at, ndcg@10]."""
        return f"{self.namespace}:releases"

    def deleted(self) -> str:
        """A hash: digest of a deleted user's id -> unix seconds."""
        return f"{self.namespace}:deleted"

    def skew(self, version: str) -> str:
        """A hash: `stratum:feature:cell` of the training -> sampled rows of live answers in it; `aside` -> the others."""
        return f"{self.namespace}:{version}:skew"

    def impressions(self, day: str) -> str:
        """A hash: `source:length:version` -> recommendation answers of that day (UTC, YYYY-MM-DD), by number of their items."""
        return f"{self.namespace}:impressions:{day}"

    def digest(self, user: str) -> str:
        """What stands for a deleted user, whose id is kept nowhere."""
        return hashlib.sha256(f"{self.namespace}:{user}".encode()).hexdigest()


class Store(Protocol):
    """What the API and the batch need of a store. Every method may raise StoreUnavailable.

    Whatever belongs to a release is kept until the release is retired: no key of a serving release
    expires.
    """

    def ping(self) -> None:
        """Answers if the store does."""

    def release(self) -> ReleasePointer | None:
        """Which release serves, or None before the first."""

    def set_release(self, pointer: ReleasePointer, condition: FlipIf | None = None) -> Flip:
        """Flips the pointer, always or on a condition; gives whether it did."""

    def packed_release(self) -> bytes | None:
        """The pointer as it is stored, readable or not."""

    def read_user(self, version: str, user: str) -> tuple[bytes | None, int | None]:
        """In one round trip: the user's packed list in that release, and the position of their latest accepted event.

        The position is 0 for a user whose events all came by the batch's table; either is None
        where unknown.
        """

    def user_record(self, user: str) -> bytes | None:
        """The user's packed record."""

    def lists(self, version: str, users: Sequence[str]) -> list[bytes | None]:
        """The packed lists of several users."""

    def write_lists(self, version: str, lists: Iterable[tuple[str, bytes]]) -> int:
        """Writes packed lists; gives their number."""

    def merge_users(
        self, records: Iterable[tuple[str, UserRecord]], watermark: int, token: int = 0
    ) -> int:
        """Writes the batch's records, each merged with what the stored one has beyond `watermark`; gives their number.

        token: of the batch's lease; what was written under a later one stays.
        """

    def write_items(self, version: str, items: Iterable[tuple[int, ItemRecord]]) -> None:
        """Writes what answers show of items, by item row."""

    def items(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """What answers show of these item rows; None where unknown or unreadable."""

    def rows_of(self, version: str, item_ids: Sequence[str]) -> tuple[list[int | None], bool]:
        """The rows of several items, and whether the catalogue is there whole: else an absent row proves nothing."""

    def is_whole(self, version: str) -> bool:
        """Whether the release's items and its popular list are there."""

    def write_popular(self, version: str, packed: bytes) -> None:
        """Writes the packed list of popular items."""

    def popular(self, version: str) -> bytes | None:
        """The packed list of popular items."""

    def retire(self, version: str, ttl: int) -> int:
        """Lets all that belongs to a release expire in `ttl` seconds; gives the number of keys that did not expire yet."""

    def restore(self, version: str) -> bool:
        """Keeps what belongs to a release from expiring; gives whether it is whole."""

    def is_retiring(self, version: str) -> bool:
        """Whether what belongs to a release expires."""

    def retire_unknown(self, versions: Sequence[str], ttl: int) -> int:
        """Lets the records of users expire who have no list in any of these releases; gives their number."""

    def blocked(self) -> frozenset[str]:
        """The ids of items never to be shown."""

    def is_deleted(self) -> Callable[[str], bool]:
        """Whether a user's id is one of those deleted so far."""

    def live(self, version: str, user: str, digest: str) -> bytes | None:
        """A cached live result."""

    def write_live(
        self, version: str, user: str, digest: str, packed: bytes, ttl: int, record: bytes
    ) -> bool:
        """Caches a live result for at most ttl seconds, unless the user's packed record is no longer `record`."""

    def live_or_claim(
        self, version: str, user: str, digest: str, milliseconds: int
    ) -> tuple[bytes | None, bool]:
        """A cached live result, and whether this caller may compute it; false while another one has claimed it."""


def open_store(
    url: str, namespace: str, timeout_ms: int, guard: CallPolicy | None = None
) -> RedisStore:
    """The store at `url`; connects at the first command, of which each may take timeout_ms, twice where it is tried again.

    `?cluster=true` for a cluster; `?iam=CACHE` to sign in to that ElastiCache serverless cache as
    the URL's user, by the role.

    Raises:
        InvalidSettings: the URL breaks a rule, see `recsys.store.redis_url`.
    """
    guard = guard or CallPolicy()
    return RedisStore(connector(url, timeout_ms, guard), namespace, guard)


class RedisStore(RedisLink):
    """The store in Redis or Valkey."""

    def __init__(
        self, connect: Callable[[], Any], namespace: str, guard: CallPolicy | None = None
    ) -> None:
        super().__init__(connect, guard)
        self.keys = Keys(namespace)

    @translate_redis_errors
    def ping(self) -> None:
        """See `Store`."""
        self.redis.ping()

    @translate_redis_errors
    def release(self) -> ReleasePointer | None:
        """See `Store`."""
        packed = self.redis.get(self.keys.release())
        return None if packed is None else unpack_pointer(packed)

    @translate_redis_errors
    def set_release(self, pointer: ReleasePointer, condition: FlipIf | None = None) -> Flip:
        """See `Store`."""
        packed = pack_pointer(pointer)
        if condition is None:
            self.redis.set(self.keys.release(), packed)
            return Flip.DONE
        expected, keys = condition.expected or b"", [self.keys.release(), self.keys.fence()]
        if condition.lease is None:
            token = "new" if condition.new_token else ""
            return Flip(self.redis.eval(_FLIP, 2, *keys, expected, packed, token))
        proof = condition.lease
        keys.append(self.keys.lease())
        return Flip(
            self.redis.eval(
                _FLIP_UNDER_LEASE, 3, *keys, expected, packed, proof.holder, proof.token
            )
        )

    @translate_redis_errors
    def packed_release(self) -> bytes | None:
        """See `Store`."""
        return self.redis.get(self.keys.release())

    @translate_redis_errors
    def read_user(self, version: str, user: str) -> tuple[bytes | None, int | None]:
        """See `Store`."""
        packed, latest = self._replies(
            ("GET", self.keys.list(version, user)), ("HGET", self.keys.user(user), "s")
        )
        return packed, position_in(latest)

    @translate_redis_errors
    def user_record(self, user: str) -> bytes | None:
        """See `Store`."""
        return self.redis.hget(self.keys.user(user), "h")

    @translate_redis_errors
    def some_users(self, limit: int) -> list[UserRecord]:
        """Up to `limit` stored users, in the order of their keys' hashes, which is as good as chance."""
        found: list[UserRecord] = []
        for key in self.redis.scan_iter(match=_literal(self.keys.users()) + "*", count=PIPELINE):
            packed = self.redis.hget(key, "h")
            with suppress(CorruptArtefact):  # which the next refresh writes again
                found += [] if packed is None else [unpack_user(packed)]
            if len(found) >= limit:
                break
        return found

    @translate_redis_errors
    def lists(self, version: str, users: Sequence[str]) -> list[bytes | None]:
        """See `Store`."""
        pipe = self.redis.pipeline(transaction=False)
        for user in users:
            pipe.get(self.keys.list(version, user))
        return list(pipe.execute())

    @translate_redis_errors
    def write_lists(self, version: str, lists: Iterable[tuple[str, bytes]]) -> int:
        """See `Store`."""
        written = 0
        for chunk in _chunks(lists):
            pipe = self.redis.pipeline(transaction=False)
            for user, packed in chunk:
                pipe.set(self.keys.list(version, user), packed)
            written += len(pipe.execute())
        return written

    @translate_redis_errors
    def merge_users(
        self, records: Iterable[tuple[str, UserRecord]], watermark: int, token: int = 0
    ) -> int:
        """See `Store`.

        Raises:
            StoreUnavailable: a record changed ATTEMPTS times meanwhile.
        """
        written = 0
        for chunk in _chunks(records):
            left = dict(chunk)
            for _ in range(ATTEMPTS):
                changed = self._merged(left, watermark, token)
                left = {user: left[user] for user in changed}
                if not left:
                    break
            else:
                raise StoreUnavailable(
                    f"{len(left)} users' records changed {ATTEMPTS} times meanwhile: publish again"
                )
            written += len(chunk)
        return written

    def _merged(self, records: Mapping[str, UserRecord], watermark: int, token: int) -> list[str]:
        """One attempt; gives the users whose stored record changed between reading and writing."""
        pipe = self.redis.pipeline(transaction=False)
        for user in records:
            pipe.hget(self.keys.user(user), "h")
        stored = replies_or_none(self, pipe, [self.keys.user(user) for user in records])
        pipe = self.redis.pipeline(transaction=False)
        for (user, record), known in zip(records.items(), stored, strict=True):
            merged = merge(record, _readable(known), watermark)
            latest = max([merged.spilled, *merged.positions])
            arguments = (known or b"", pack_user(merged), latest, token)
            # Not pipe.eval, which redis-py bars in a cluster's pipeline although the key tells the
            # node.
            pipe.execute_command("EVAL", _REPLACE, 1, self.keys.user(user), *arguments)
        return [user for user, done in zip(records, pipe.execute(), strict=True) if not done]

    @translate_redis_errors
    def write_items(self, version: str, items: Iterable[tuple[int, ItemRecord]]) -> None:
        """See `Store`."""
        self.redis.hdel(self.keys.rows(version), WHOLE)  # half a catalogue proves nothing
        number = 0
        for chunk in _chunks(items):
            self.redis.hset(
                self.keys.items(version), mapping={row: pack_item(item) for row, item in chunk}
            )
            self.redis.hset(self.keys.rows(version), mapping={item.id: row for row, item in chunk})
            number += len(chunk)
        self.redis.hset(self.keys.rows(version), WHOLE, number)
        self.redis.persist(self.keys.items(version))  # where a retired release is published again
        self.redis.persist(self.keys.rows(version))

    @translate_redis_errors
    def items(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """See `Store`."""
        if not rows:
            return []
        return [_item(packed) for packed in self.redis.hmget(self.keys.items(version), rows)]

    @translate_redis_errors
    def rows_of(self, version: str, item_ids: Sequence[str]) -> tuple[list[int | None], bool]:
        """See `Store`."""
        return self._rows_of(version, item_ids) if item_ids else ([], True)

    def _rows_of(self, version: str, item_ids: Sequence[str]) -> tuple[list[int | None], bool]:
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(self.keys.rows(version), [*item_ids, WHOLE])
        pipe.hlen(self.keys.rows(version))
        pipe.hlen(self.keys.items(version))
        found, n_rows, n_items = pipe.execute()
        *rows, number = map(_row, found)
        return rows, number is not None and number == n_rows - 1 == n_items

    @translate_redis_errors
    def is_whole(self, version: str) -> bool:
        """See `Store`: a hash is evicted whole or not at all, and its number of items is written last."""
        return self._rows_of(version, [WHOLE])[1] and bool(
            self.redis.exists(self.keys.popular(version))
        )

    @translate_redis_errors
    def write_popular(self, version: str, packed: bytes) -> None:
        """See `Store`."""
        self.redis.set(self.keys.popular(version), packed)

    @translate_redis_errors
    def popular(self, version: str) -> bytes | None:
        """See `Store`."""
        return self.redis.get(self.keys.popular(version))

    @translate_redis_errors
    def retire(self, version: str, ttl: int) -> int:
        """See `Store`: a key whose time runs already keeps its time. The popular list goes first, as `is_retiring` asks it."""
        first = int(self.redis.expire(self.keys.popular(version), ttl, nx=True))
        return first + sum(
            self._of_every_key(version, lambda pipe, key: pipe.expire(key, ttl, nx=True))
        )

    @translate_redis_errors
    def restore(self, version: str) -> bool:
        """See `Store`."""
        for _ in self._of_every_key(version, lambda pipe, key: pipe.persist(key)):
            pass
        return self.is_whole(version)

    def _of_every_key(self, version: str, command: Callable[[Any, bytes], object]) -> Iterator[int]:
        """The replies to a command for each key of a release, its tallies aside."""
        tallies = self.keys.skew(version).encode()
        scanned = self.redis.scan_iter(
            match=_literal(self.keys.of_release(version)) + "*", count=10 * PIPELINE
        )
        for chunk in _chunks(key for key in scanned if key != tallies):
            pipe = self.redis.pipeline(transaction=False)
            for key in chunk:
                command(pipe, key)
            yield from pipe.execute()

    @translate_redis_errors
    def is_retiring(self, version: str) -> bool:
        """See `Store`."""
        return int(self.redis.ttl(self.keys.popular(version))) >= 0

    @translate_redis_errors
    def retire_unknown(self, versions: Sequence[str], ttl: int) -> int:
        """See `Store`: a table that forgets a user is followed, and a record whose time runs already keeps its time."""
        is_deleted = self._is_deleted()
        prefix = self.keys.users()
        number = 0
        for chunk in _chunks(
            self.redis.scan_iter(match=_literal(prefix) + "*", count=10 * PIPELINE)
        ):
            users = [text[len(prefix) + 1 : -1] for text in map(_text, chunk) if text is not None]
            pipe = self.redis.pipeline(transaction=False)
            for user in users:
                for version in versions:
                    pipe.exists(self.keys.list(version, user))
            listed = iter(pipe.execute())
            has_list = {user: any([next(listed) for _ in versions]) for user in users}  # noqa: C419 - all are to be drawn
            pipe = self.redis.pipeline(transaction=False)
            for user in users:
                if is_deleted(
                    user
                ):  # written while they were deleted, by a run that ended before it could know
                    pipe.delete(self.keys.user(user))
                elif not has_list[user]:
                    pipe.expire(self.keys.user(user), ttl, nx=True)
            number += sum(pipe.execute())
        return number

    @translate_redis_errors
    def blocked(self) -> frozenset[str]:
        """See `Store`: a member that is no text can be no item's id."""
        members = self.redis.smembers(self.keys.blocked())
        return frozenset(text for text in map(_text, members) if text is not None)

    @translate_redis_errors
    def is_deleted(self) -> Callable[[str], bool]:
        """See `Store`."""
        return self._is_deleted()

    def _is_deleted(self) -> Callable[[str], bool]:
        digests = frozenset(self.redis.hkeys(self.keys.deleted()))
        return lambda user: self.keys.digest(user).encode() in digests

    @translate_redis_errors
    def live(self, version: str, user: str, digest: str) -> bytes | None:
        """See `Store`."""
        return self.redis.hget(self.keys.live(version, user), digest)

    @translate_redis_errors
    def live_or_claim(
        self, version: str, user: str, digest: str, milliseconds: int
    ) -> tuple[bytes | None, bool]:
        """See `Store`."""
        pipe = self.redis.pipeline(transaction=False)
        pipe.hget(self.keys.live(version, user), digest)
        pipe.set(self.keys.claim(user), digest, nx=True, px=milliseconds, get=True)
        packed, holder = pipe.execute()
        return packed, holder != digest.encode()

    @translate_redis_errors
    def write_live(
        self, version: str, user: str, digest: str, packed: bytes, ttl: int, record: bytes
    ) -> bool:
        """See `Store`."""
        keys = (self.keys.live(version, user), self.keys.user(user), self.keys.claim(user))
        of_record = hashlib.sha1(record, usedforsecurity=False).hexdigest()
        return bool(
            self.redis.eval(
                _WRITE_LIVE, len(keys), *keys, of_record, digest, packed, ttl, MAX_LIVE_RESULTS
            )
        )


def replies_or_none(store: RedisStore, pipe: Any, keys: Sequence[str | None]) -> list[Any]:  # noqa: ANN401 - redis-py's
    """The replies to one command for each of `keys`; None for a user's key of another type, which is removed.

    Such a key is nobody's record, and must not cost the users of the same round trip theirs. What a
    command for None is refused for is raised.
    """
    from redis.exceptions import ResponseError

    replies = pipe.execute(raise_on_error=False)
    for at, reply in enumerate(replies):
        key = keys[at]
        if key is not None and isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply):
            store.redis.delete(key)
            replies[at] = None
        elif isinstance(reply, Exception):
            raise reply
    return list(replies)


def _chunks(values: Iterable[R]) -> Iterator[list[R]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, PIPELINE)):
        yield chunk


def _readable(packed: bytes | None) -> UserRecord | None:
    """A stored record; None for one that cannot be read, which the batch's takes the place of."""
    try:
        return None if packed is None else unpack_user(packed)
    except CorruptArtefact:
        return None


def _item(packed: bytes | None) -> ItemRecord | None:
    """An item's record; one that cannot be read is missing by itself, and none of its neighbours."""
    try:
        return None if packed is None else unpack_item(packed)
    except CorruptArtefact:
        return None


def _row(digits: bytes | None) -> int | None:
    """An item's row; None for what is no number."""
    return int(digits) if digits is not None and digits.isdigit() and len(digits) < 10 else None  # noqa: PLR2004 - int32


def _text(value: bytes) -> str | None:
    """A text; None for bytes that are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _literal(text: str) -> str:
    """A pattern of SCAN that matches just this text."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)
