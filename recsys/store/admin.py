"""Changes by operators: deletions, blocked items, notes on releases."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgpack

from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.store.event_log import stream_ids
from shortlist.recsys.store.redis import RedisStore, replies_or_none
from shortlist.recsys.store.redis_client import translate_redis_errors

MAX_BLOCKED = 10_000
"""Blocked items, which every process keeps in memory."""


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


def _note(version: str, packed: bytes) -> ReleaseNote:
    """Reads a note on a release. Raises UnreadableRecord."""
    try:
        match msgpack.unpackb(packed):
            case [int(created_at), (float() | int() | None) as ndcg]:
                return ReleaseNote(version, created_at, ndcg)
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise UnreadableRecord(f"the note on release {version} cannot be read: publish it again")
