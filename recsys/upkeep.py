"""What operators change in the store: deleted users, blocked items, and the list of the releases that have lists."""

from __future__ import annotations

from dataclasses import dataclass

import msgpack

from recsys.errors import CorruptArtefact, InvalidInput
from recsys.event_log import stream_ids
from recsys.store import RedisStore, bounded

MOST_BLOCKED = 10_000
"""Blocked items, which every process keeps in memory."""


@dataclass(frozen=True, slots=True)
class ReleaseNote:
    """A release whose lists were written; ndcg: of its report, at 10."""

    version: str
    created_at: int
    ndcg: float | None


class Upkeep:
    """Changes in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @bounded
    def note_release(self, note: ReleaseNote) -> None:
        """Remembers that a release's lists are in the store."""
        packed = msgpack.packb([note.created_at, note.ndcg])
        self.store.redis.hset(self.store.keys.releases(), note.version, packed)

    @bounded
    def releases(self) -> list[ReleaseNote]:
        """The releases whose lists were written and have not expired, oldest first; expired ones are forgotten."""
        told = self.store.redis.hgetall(self.store.keys.releases())
        notes = [_note(version.decode(), packed) for version, packed in sorted(told.items())]
        alive = [note for note in notes if self.store.redis.exists(self.store.keys.popular(note.version))]
        gone = {note.version for note in notes} - {note.version for note in alive}
        if gone:
            self.store.redis.hdel(self.store.keys.releases(), *gone)
        return alive

    @bounded
    def delete_user(self, user: str, now: int) -> bool:
        """Deletes all that is stored of a user in any release, and what waits in the stream; gives whether there was any.

        The digest of the id stays, first of all, so that neither a batch that runs at this moment nor the next training
        brings the user back.
        """
        redis, keys = self.store.redis, self.store.keys
        redis.hsetnx(keys.deleted(), keys.digest(user), now)
        waiting = stream_ids(redis.hmget(keys.user(user), "e0", "e1"))
        if waiting:
            redis.xdel(keys.events(), *waiting)
        pipe = redis.pipeline(transaction=False)
        for version in self._versions():
            pipe.delete(keys.list(version, user))
            pipe.delete(keys.live(version, user))
        pipe.delete(keys.user(user))
        pipe.delete(keys.claim(user))
        return sum(pipe.execute()) > 0

    def _versions(self) -> set[str]:
        pointer = self.store.release()
        known = () if pointer is None else (pointer.current, pointer.previous)
        noted = {version.decode() for version in self.store.redis.hkeys(self.store.keys.releases())}
        return noted.union(version for version in known if version is not None)

    @bounded
    def block(self, item_id: str) -> None:
        """Keeps an item out of every answer.

        Raises:
            InvalidInput: so many are blocked already that every answer would pay for it.
        """
        if self.store.redis.scard(self.store.keys.blocked()) >= MOST_BLOCKED:
            raise InvalidInput(f"{MOST_BLOCKED} items are blocked, which is the most: take some out of the items table instead")
        self.store.redis.sadd(self.store.keys.blocked(), item_id)

    @bounded
    def unblock(self, item_id: str) -> None:
        """Lets an item be shown again."""
        self.store.redis.srem(self.store.keys.blocked(), item_id)


def _note(version: str, packed: bytes) -> ReleaseNote:
    try:
        created_at, ndcg = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptArtefact(f"the note on release {version} cannot be read ({error}): publish it again") from error
    return ReleaseNote(version, created_at, ndcg)
