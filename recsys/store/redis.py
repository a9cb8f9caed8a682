"""Reads and writes lists, user records and pointer in Redis.

Works on one node, a replicated primary and a cluster: no command spans the keys of two users. Every
command is bounded in time, and its failure becomes one error, see `redis_client`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.flip import Flip, FlipIf
from shortlist.recsys.store.histories import ALL_ALIKE, merge
from shortlist.recsys.store.keys import Keys
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

R = TypeVar("R")

PIPELINE = 500
"""Commands sent to Redis in one go."""

WHOLE = ""
"""The field of a catalogue's rows that holds their number: no item has an empty id."""

ATTEMPTS = 10
"""How often a user's record that others change at the same moment is merged again."""

MAX_LIVE_RESULTS = 32
"""Live results kept of one user in one release.

The next one starts afresh, so that odd requests fill no memory.
"""

_MAX_ROW_DIGITS = 9
"""Of an item's row: models number items in 32 bits."""

# A record is written only over the one it was made from, and never by a batch with an older lease
# than the one before it: a run that was overtaken may still be writing. The batch's records have no
# time to live. A position that cannot be read is mended. KEYS user; ARGV expected record, new
# record, its latest position, the token of the batch's lease.
_REPLACE = """
if (redis.call('HGET', KEYS[1], 'h') or '') ~= ARGV[1] then return 0 end
if (tonumber(redis.call('HGET', KEYS[1], 'b') or '') or 0) > tonumber(ARGV[4]) then return 1 end
redis.call('HSET', KEYS[1], 'h', ARGV[2], 'b', ARGV[4])
local latest = redis.call('HGET', KEYS[1], 's')
if not latest or #latest > 19 or not string.match(latest, '^%d+$') then
  redis.call('HSET', KEYS[1], 's', ARGV[3])
end
redis.call('HDEL', KEYS[1], 'n')
redis.call('PERSIST', KEYS[1])
return 1
"""

# A live result belongs to a record: once that has changed, or its user was deleted, nobody may find
# the result. The claim goes last: a script that has written may write on in a server that is full.
# KEYS live results, user, claim; ARGV SHA-1 of the record, digest, result, ttl, most results.
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

# The replies of both flips are the values of `Flip`. KEYS pointer, fence; ARGV expected pointer,
# new pointer, 'new' to draw the next token.
_FLIP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == 'new' then
  local token = (tonumber(redis.call('GET', KEYS[2])) or 0) + 1
  redis.call('SET', KEYS[2], string.format('%d', token))
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""

# KEYS pointer, fence, lease; ARGV expected pointer, new pointer, holder, token.
_FLIP_UNDER_LEASE = """
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -2 end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


def open_store(
    url: str, namespace: str, timeout_ms: int, policy: CallPolicy | None = None
) -> RedisStore:
    """The store at `url`, which connects at its first command.

    A command may take timeout_ms, and once more where it is retried. `?cluster=true` for a cluster;
    `?iam=CACHE` to sign in to that ElastiCache serverless cache as the URL's user, by the role.

    Raises:
        InvalidSettings: the URL breaks a rule, see `recsys.store.redis_url`.
    """
    policy = policy or CallPolicy()
    return RedisStore(connector(url, timeout_ms, policy), namespace, policy)


class RedisStore(RedisLink):
    """The store in Redis or Valkey.

    Every method may raise StoreUnavailable. Everything of a release is kept until the release is
    retired: no key of a serving release expires.
    """

    def __init__(
        self, connect: Callable[[], Any], namespace: str, policy: CallPolicy | None = None
    ) -> None:
        super().__init__(connect, policy)
        self.keys = Keys(namespace)

    @translate_redis_errors
    def ping(self) -> None:
        """Answers if Redis does."""
        self.redis.ping()

    @translate_redis_errors
    def release(self) -> ReleasePointer | None:
        """The release pointer, or None before the first release.

        Raises:
            UnreadableRecord: the stored value is no pointer.
        """
        packed = self.redis.get(self.keys.release())
        return None if packed is None else unpack_pointer(packed)

    @translate_redis_errors
    def packed_release(self) -> bytes | None:
        """The pointer as it is stored, readable or not."""
        return self.redis.get(self.keys.release())

    @translate_redis_errors
    def set_release(self, pointer: ReleasePointer, condition: FlipIf | None = None) -> Flip:
        """Flips the pointer, always or on a condition; gives the outcome."""
        packed = pack_pointer(pointer)
        if condition is None:
            self.redis.set(self.keys.release(), packed)
            return Flip.DONE
        keys = [self.keys.release(), self.keys.fence()]
        pointers = (condition.expected or b"", packed)
        if condition.lease is None:
            token = "new" if condition.new_token else ""
            return Flip(self.redis.eval(_FLIP, len(keys), *keys, *pointers, token))
        proof = condition.lease
        keys.append(self.keys.lease())
        reply = self.redis.eval(
            _FLIP_UNDER_LEASE, len(keys), *keys, *pointers, proof.holder, proof.token
        )
        return Flip(reply)

    @translate_redis_errors
    def read_user(self, version: str, user: str) -> tuple[bytes | None, int | None]:
        """The user's packed list and latest position, in one round trip.

        The position is that of their latest accepted event, 0 for a user whose events all came by
        the batch's table; either is None where unknown.
        """
        packed, latest = self._replies(
            ("GET", self.keys.list(version, user)), ("HGET", self.keys.user(user), "s")
        )
        return packed, position_in(latest)

    @translate_redis_errors
    def read_whole_user(
        self, version: str, user: str
    ) -> tuple[bytes | None, int | None, bytes | None]:
        """As `read_user`, and the user's packed record in the same round trip."""
        key = self.keys.user(user)
        packed, latest, record = self._replies(
            ("GET", self.keys.list(version, user)), ("HGET", key, "s"), ("HGET", key, "h")
        )
        return packed, position_in(latest), record

    @translate_redis_errors
    def user_record(self, user: str) -> bytes | None:
        """The user's packed record."""
        (record,) = self._replies(("HGET", self.keys.user(user), "h"))
        return record

    @translate_redis_errors
    def some_users(self, limit: int) -> list[UserRecord]:
        """Up to `limit` users, in the order of hashes.

        That is as good as random.
        """
        records: list[UserRecord] = []
        for key in self.redis.scan_iter(match=_literal(self.keys.users()) + "*", count=PIPELINE):
            record = _readable_user(self.redis.hget(key, "h"))
            if record is not None:
                records.append(record)
            if len(records) >= limit:
                break
        return records

    def user_ids(self) -> Iterator[str]:
        """The ids of all users with a record, in no order."""
        chunks = _chunks(self._user_keys())

        # Each step may fail by itself, and says so under the method's name.
        @translate_redis_errors
        def user_ids(store: RedisStore) -> list[str] | None:
            keys = next(chunks, None)
            return None if keys is None else store._users_of(keys)

        while (ids := user_ids(self)) is not None:
            yield from ids

    def _user_keys(self) -> Iterator[bytes]:
        pattern = _literal(self.keys.users()) + "*"
        yield from self.redis.scan_iter(match=pattern, count=10 * PIPELINE)

    @translate_redis_errors
    def user_records(self, users: Sequence[str]) -> list[UserRecord | None]:
        """The records of several users; None for none or an unreadable one."""
        pipe = self.redis.pipeline(transaction=False)
        for user in users:
            pipe.hget(self.keys.user(user), "h")
        replies = replies_or_none(self, pipe, [self.keys.user(user) for user in users])
        return [_readable_user(packed) for packed in replies]

    @translate_redis_errors
    def record_sizes(self, users: Sequence[str]) -> list[int]:
        """Bytes of several users' packed records, 0 for none."""
        pipe = self.redis.pipeline(transaction=False)
        for user in users:
            pipe.hget(self.keys.user(user), "h")
        replies = replies_or_none(self, pipe, [self.keys.user(user) for user in users])
        return [len(packed or b"") for packed in replies]

    @translate_redis_errors
    def lists(self, version: str, users: Sequence[str]) -> list[bytes | None]:
        """The packed lists of several users."""
        pipe = self.redis.pipeline(transaction=False)
        for user in users:
            pipe.get(self.keys.list(version, user))
        return list(pipe.execute())

    @translate_redis_errors
    def write_lists(self, version: str, lists: Iterable[tuple[str, bytes]]) -> int:
        """Writes packed lists; gives their number."""
        written = 0
        for chunk in _chunks(lists):
            pipe = self.redis.pipeline(transaction=False)
            for user, packed in chunk:
                pipe.set(self.keys.list(version, user), packed)
            written += len(pipe.execute())
        return written

    @translate_redis_errors
    def merge_users(
        self,
        records: Iterable[tuple[str, UserRecord]],
        watermark: int,
        token: int = 0,
        rules: EventRules = ALL_ALIKE,
    ) -> int:
        """Merges the batch's records into the stored ones; gives their number.

        A stored record keeps its events beyond `watermark`. token: of the batch's lease; a record
        that was written under a later one stays. rules: how the release reads events.

        Raises:
            StoreUnavailable: a record changed ATTEMPTS times meanwhile.
        """
        written = 0
        for chunk in _chunks(records):
            left = dict(chunk)
            for _ in range(ATTEMPTS):
                changed = self._merged(left, watermark, token, rules)
                left = {user: left[user] for user in changed}
                if not left:
                    break
            else:
                raise StoreUnavailable(
                    f"{len(left)} users' records changed {ATTEMPTS} times meanwhile: publish again"
                )
            written += len(chunk)
        return written

    def _merged(
        self, records: Mapping[str, UserRecord], watermark: int, token: int, rules: EventRules
    ) -> list[str]:
        """One attempt; gives the users to try again.

        Their records changed between reading and writing.
        """
        pipe = self.redis.pipeline(transaction=False)
        for user in records:
            pipe.hget(self.keys.user(user), "h")
        stored = replies_or_none(self, pipe, [self.keys.user(user) for user in records])
        pipe = self.redis.pipeline(transaction=False)
        for (user, record), known in zip(records.items(), stored, strict=True):
            merged = merge(record, _readable_user(known), watermark, rules)
            latest = max(
                [merged.spilled, *merged.positions, *(each.position for each in merged.negatives)]
            )
            arguments = (known or b"", pack_user(merged), latest, token)
            # Not pipe.eval: redis-py bars it in a cluster's pipeline, although the key names the
            # node.
            pipe.execute_command("EVAL", _REPLACE, 1, self.keys.user(user), *arguments)
        return [user for user, done in zip(records, pipe.execute(), strict=True) if not done]

    @translate_redis_errors
    def write_items(self, version: str, items: Iterable[tuple[int, ItemRecord]]) -> None:
        """Writes the catalogue, by item row."""
        items_key, rows_key = self.keys.items(version), self.keys.rows(version)
        self.redis.hdel(rows_key, WHOLE)  # half a catalogue proves nothing
        number = 0
        for chunk in _chunks(items):
            self.redis.hset(items_key, mapping={row: pack_item(item) for row, item in chunk})
            self.redis.hset(rows_key, mapping={item.id: row for row, item in chunk})
            number += len(chunk)
        self.redis.hset(rows_key, WHOLE, number)
        self.redis.persist(items_key)  # a retired release may be published again
        self.redis.persist(rows_key)

    @translate_redis_errors
    def items(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """Records by item row; None where unknown or unreadable."""
        if not rows:
            return []
        packed = self.redis.hmget(self.keys.items(version), rows)
        return [_readable_item(record) for record in packed]

    @translate_redis_errors
    def rows_of(self, version: str, item_ids: Sequence[str]) -> tuple[list[int | None], bool]:
        """Items' rows, and whether the catalogue is whole.

        Where it is not, an absent row proves nothing.
        """
        return self._rows_of(version, item_ids) if item_ids else ([], True)

    def _rows_of(self, version: str, item_ids: Sequence[str]) -> tuple[list[int | None], bool]:
        pipe = self.redis.pipeline(transaction=False)
        pipe.hmget(self.keys.rows(version), [*item_ids, WHOLE])
        pipe.hlen(self.keys.rows(version))
        pipe.hlen(self.keys.items(version))
        fields, n_rows, n_items = pipe.execute()
        *rows, number = map(_row, fields)
        is_whole = number is not None and number == n_rows - 1 == n_items
        return rows, is_whole

    @translate_redis_errors
    def is_whole(self, version: str) -> bool:
        """Whether the release's items and its popular list are there.

        A hash is evicted whole or not at all, and its number of items is written last.
        """
        has_catalogue = self._rows_of(version, [WHOLE])[1]
        return has_catalogue and bool(self.redis.exists(self.keys.popular(version)))

    @translate_redis_errors
    def write_popular(self, version: str, packed: bytes) -> None:
        """Writes the packed list of popular items."""
        self.redis.set(self.keys.popular(version), packed)

    @translate_redis_errors
    def popular(self, version: str) -> bytes | None:
        """The packed list of popular items."""
        return self.redis.get(self.keys.popular(version))

    @translate_redis_errors
    def write_facts(self, version: str, packed: bytes) -> None:
        """Writes the packed facts of a release."""
        self.redis.set(self.keys.facts(version), packed)

    @translate_redis_errors
    def facts(self, version: str) -> bytes | None:
        """The packed facts of a release."""
        return self.redis.get(self.keys.facts(version))

    @translate_redis_errors
    def retire(self, version: str, ttl: int) -> int:
        """Lets a release expire in `ttl` seconds.

        Gives the number of keys that did not expire before. A key that expires already keeps its
        time. The popular list goes first, as `is_retiring` looks at it.
        """
        first = int(self.redis.expire(self.keys.popular(version), ttl, nx=True))
        others = self._of_every_key(version, lambda pipe, key: pipe.expire(key, ttl, nx=True))
        return first + sum(others)

    @translate_redis_errors
    def restore(self, version: str) -> bool:
        """Keeps a release from expiring; gives whether it is whole."""
        for _ in self._of_every_key(version, lambda pipe, key: pipe.persist(key)):
            pass
        return self.is_whole(version)

    def _of_every_key(self, version: str, command: Callable[[Any, bytes], object]) -> Iterator[int]:
        """Replies to a command for each key of a release.

        Its skew counts, which have a time to live of their own, are left out.
        """
        counts = self.keys.skew(version).encode()
        pattern = _literal(self.keys.of_release(version)) + "*"
        scanned = self.redis.scan_iter(match=pattern, count=10 * PIPELINE)
        for chunk in _chunks(key for key in scanned if key != counts):
            pipe = self.redis.pipeline(transaction=False)
            for key in chunk:
                command(pipe, key)
            yield from pipe.execute()

    @translate_redis_errors
    def is_retiring(self, version: str) -> bool:
        """Whether a release expires."""
        return int(self.redis.ttl(self.keys.popular(version))) >= 0

    @translate_redis_errors
    def retire_unknown(self, versions: Sequence[str], ttl: int) -> int:
        """Lets records of users without a list expire.

        versions: the releases whose lists count. Gives the number of records. A user who has left
        the table leaves the store by this. A record that expires already keeps its time, and that
        of a deleted user, written by a run that could not know, is removed.
        """
        is_deleted = self._is_deleted()
        number = 0
        pattern = _literal(self.keys.users()) + "*"
        for chunk in _chunks(self.redis.scan_iter(match=pattern, count=10 * PIPELINE)):
            users = self._users_of(chunk)
            listed = self._with_list(users, versions)
            pipe = self.redis.pipeline(transaction=False)
            for user in users:
                if is_deleted(user):
                    pipe.delete(self.keys.user(user))
                elif user not in listed:
                    pipe.expire(self.keys.user(user), ttl, nx=True)
            number += sum(pipe.execute())
        return number

    def _users_of(self, keys: Iterable[bytes]) -> list[str]:
        """The ids in keys of users' records.

        A key that is no text has none.
        """
        start = len(self.keys.users()) + 1  # and the hash tag's brace
        texts = (_text(key) for key in keys)
        return [text[start:-1] for text in texts if text is not None]

    def _with_list(self, users: Sequence[str], versions: Sequence[str]) -> set[str]:
        """The users with a list in any of the releases."""
        pairs = [(user, version) for user in users for version in versions]
        pipe = self.redis.pipeline(transaction=False)
        for user, version in pairs:
            pipe.exists(self.keys.list(version, user))
        replies = pipe.execute()
        return {user for (user, _), has_list in zip(pairs, replies, strict=True) if has_list}

    @translate_redis_errors
    def blocked(self) -> frozenset[str]:
        """The ids of items never to be shown.

        A member that is no text can be no item's id.
        """
        members = self.redis.smembers(self.keys.blocked())
        return frozenset(text for text in map(_text, members) if text is not None)

    @translate_redis_errors
    def packed_rules(self) -> bytes | None:
        """The packed business rules."""
        return self.redis.get(self.keys.rules())

    @translate_redis_errors
    def is_deleted(self) -> Callable[[str], bool]:
        """A test whether a user's id is deleted."""
        return self._is_deleted()

    def _is_deleted(self) -> Callable[[str], bool]:
        digests = frozenset(self.redis.hkeys(self.keys.deleted()))
        return lambda user: self.keys.digest(user).encode() in digests

    @translate_redis_errors
    def live(self, version: str, user: str, digest: str) -> bytes | None:
        """A cached live result."""
        return self.redis.hget(self.keys.live(version, user), digest)

    @translate_redis_errors
    def live_or_claim(
        self, version: str, user: str, digest: str, milliseconds: int
    ) -> tuple[bytes | None, bool]:
        """A live result, and whether to compute it.

        False while another caller has claimed it, for at most so many milliseconds.
        """
        pipe = self.redis.pipeline(transaction=False)
        pipe.hget(self.keys.live(version, user), digest)
        pipe.set(self.keys.claim(user), digest, nx=True, px=milliseconds, get=True)
        packed, holder = pipe.execute()
        return packed, holder != digest.encode()

    @translate_redis_errors
    def write_live(
        self, version: str, user: str, digest: str, packed: bytes, ttl: int, record: bytes
    ) -> bool:
        """Caches a live result for at most ttl seconds.

        Does nothing, and gives False, where the user's packed record is no longer `record`.
        """
        keys = (self.keys.live(version, user), self.keys.user(user), self.keys.claim(user))
        # SHA-1 because Redis computes it in a script; it tells records apart and guards nothing.
        of_record = hashlib.sha1(record, usedforsecurity=False).hexdigest()
        arguments = (of_record, digest, packed, ttl, MAX_LIVE_RESULTS)
        return bool(self.redis.eval(_WRITE_LIVE, len(keys), *keys, *arguments))


def replies_or_none(store: RedisStore, pipe: Any, keys: Sequence[str | None]) -> list[Any]:  # noqa: ANN401 - redis-py's
    """The pipeline's replies; None for keys of another type.

    keys: the user's key of each command; None for a command whose refusal is raised. A user's key
    of another type is nobody's record: it is removed, and must not cost the users of the same round
    trip theirs.
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


def _readable_user(packed: bytes | None) -> UserRecord | None:
    """A record; None for an unreadable one.

    The next refresh writes it again.
    """
    if packed is None:
        return None
    try:
        return unpack_user(packed)
    except UnreadableRecord:
        return None


def _readable_item(packed: bytes | None) -> ItemRecord | None:
    """A record; None for an unreadable one, which is missing without its neighbours."""
    if packed is None:
        return None
    try:
        return unpack_item(packed)
    except UnreadableRecord:
        return None


def _row(digits: bytes | None) -> int | None:
    """An item's row; None for a value that is no number."""
    if digits is None or not digits.isdigit() or len(digits) > _MAX_ROW_DIGITS:
        return None
    return int(digits)


def _text(value: bytes) -> str | None:
    """A text; None for bytes that are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _literal(text: str) -> str:
    """A pattern of SCAN that matches just this text."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)
