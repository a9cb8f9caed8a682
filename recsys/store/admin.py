"""Changes by operators: deletions, blocked items, notes on releases."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack

from shortlist.recsys.errors import InvalidInput, RulesChanged, UnreadableRecord
from shortlist.recsys.store.event_log import stream_ids
from shortlist.recsys.store.redis import RedisStore, replies_or_none
from shortlist.recsys.store.redis_client import translate_redis_errors
from shortlist.recsys.store.rules_reading import (
    StoredRules,
    pack_rules,
    rules_of,
    unpack_rules,
)

MAX_BLOCKED = 10_000
"""Blocked items, which every process keeps in memory."""

ATTEMPTS = 10
"""How often rules that others replace at the same moment are read again."""

# KEYS rules; ARGV the stored ones, the new ones.
_REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class ReleaseNote:
    """A release with lists; ndcg: of its report, at 10."""

    version: str
    created_at: int
    ndcg: float | None


class AdminStore:
    """Changes in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @translate_redis_errors
    def note_release(self, note: ReleaseNote) -> None:
        """Notes a release before its keys are written."""
        packed = msgpack.packb([note.created_at, note.ndcg])
        self.store.redis.hset(self.store.keys.releases(), note.version, packed)

    @translate_redis_errors
    def releases(self) -> list[ReleaseNote]:
        """The releases whose lists are alive, oldest first.

        An unreadable note is left out.
        """
        redis, keys = self.store.redis, self.store.keys
        notes: list[ReleaseNote] = []
        for name, packed in sorted(redis.hgetall(keys.releases()).items()):
            with suppress(UnreadableRecord, UnicodeDecodeError):
                notes.append(_note(name.decode(), packed))
        return [note for note in notes if redis.exists(keys.popular(note.version))]

    @translate_redis_errors
    def forget_release(self, version: str) -> None:
        """Drops the note on a release without keys."""
        self.store.redis.hdel(self.store.keys.releases(), version)

    @translate_redis_errors
    def versions(self) -> list[str]:
        """Every release with keys, oldest first.

        Those of interrupted publications are among them.
        """
        versions: set[str] = set()
        with suppress(UnreadableRecord):  # such a pointer names none, and the notes still do
            pointer = self.store.release()
            versions.update(() if pointer is None else pointer.versions)
        for name in self.store.redis.hkeys(self.store.keys.releases()):
            with suppress(UnicodeDecodeError):  # no release has such a version
                versions.add(name.decode())
        return sorted(versions)

    @translate_redis_errors
    def delete_user(self, user: str, now: int) -> bool:
        """Deletes a user from every release and the stream.

        Gives whether anything was there. The digest of the id stays, first of all, so that neither
        a batch that runs at this moment nor the next training brings the user back.
        """
        redis, keys = self.store.redis, self.store.keys
        # First: a batch that reads deletions from here on will not write the user again.
        redis.hsetnx(keys.deleted(), keys.digest(user), now)
        pipe = redis.pipeline(transaction=False)
        pipe.hmget(keys.user(user), "e0", "e1")
        waiting = stream_ids(replies_or_none(self.store, pipe, [keys.user(user)])[0] or ())
        if waiting:
            redis.xdel(keys.events(), *waiting)
        pipe = redis.pipeline(transaction=False)
        for version in self.versions():
            pipe.delete(keys.list(version, user))
            pipe.delete(keys.live(version, user))
        pipe.delete(keys.user(user))
        pipe.delete(keys.claim(user))
        return sum(pipe.execute()) > 0

    @translate_redis_errors
    def deletions(self) -> dict[bytes, bytes]:
        """Digests of deleted users' ids -> decimal unix seconds."""
        return dict(self.store.redis.hgetall(self.store.keys.deleted()))

    @translate_redis_errors
    def add_deletions(self, deletions: Mapping[bytes, bytes]) -> None:
        """Adds deletions; the first time of each holds."""
        pipe = self.store.redis.pipeline(transaction=False)
        for digest, when in deletions.items():
            pipe.hsetnx(self.store.keys.deleted(), digest, when)
        pipe.execute()

    @translate_redis_errors
    def block(self, item_id: str) -> None:
        """Keeps an item out of every answer.

        Raises:
            InvalidInput: so many are blocked already that every answer would pay for it.
        """
        if self.store.redis.scard(self.store.keys.blocked()) >= MAX_BLOCKED:
            raise InvalidInput(
                f"{MAX_BLOCKED} items are blocked, which is the most: "
                "take some out of the items table instead"
            )
        self.store.redis.sadd(self.store.keys.blocked(), item_id)

    @translate_redis_errors
    def unblock(self, item_id: str) -> None:
        """Lets an item be shown again."""
        self.store.redis.srem(self.store.keys.blocked(), item_id)

    @translate_redis_errors
    def rules(self) -> StoredRules:
        """The business rules; unreadable ones count as none, and are replaced."""
        return _rules(self.store.packed_rules())

    @translate_redis_errors
    def write_rules(
        self, plain: Mapping[str, Any], by: str, now: int, replaces: int | None = None
    ) -> StoredRules:
        """Replaces the business rules; gives the new ones.

        replaces: the version that the writer has read; None for whichever there is.

        Raises:
            InvalidInput: they break a rule.
            RulesChanged: there is another version by now.
        """
        rules_of(plain)
        for _ in range(ATTEMPTS):
            packed = self.store.packed_rules()
            known = _rules(packed)
            if replaces is not None and known.version != replaces:
                break
            new = StoredRules(known.version + 1, plain, by, now)
            keys, arguments = [self.store.keys.rules()], (packed or b"", pack_rules(new))
            if self.store.redis.eval(_REPLACE, len(keys), *keys, *arguments):
                return new
        raise RulesChanged(
            f"version {replaces} of the rules is replaced, and there is version {known.version} "
            f"by now, of {known.by}: read them again, and apply the change to those"
        )

    @translate_redis_errors
    def restore_rules(self, packed: bytes) -> None:
        """Puts back a copy of the rules where there are none."""
        self.store.redis.eval(_REPLACE, 1, self.store.keys.rules(), b"", packed)


def _rules(packed: bytes | None) -> StoredRules:
    try:
        return StoredRules() if packed is None else unpack_rules(packed)[0]
    except UnreadableRecord:
        return StoredRules()


def _note(version: str, packed: bytes) -> ReleaseNote:
    """Reads a note on a release. Raises UnreadableRecord."""
    try:
        match msgpack.unpackb(packed):
            case [int(created_at), (float() | int() | None) as ndcg]:
                return ReleaseNote(version, created_at, ndcg)
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise UnreadableRecord(f"the note on release {version} cannot be read: publish it again")
