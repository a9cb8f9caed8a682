"""Counts that many processes add up in expiring Redis hashes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import translate_redis_errors

_UNCOUNTABLE = (
    "WRONGTYPE",
    "hash value is not an integer",
    "increment or decrement would overflow",
)
"""Messages of the server for a field that holds no count, or a key that is no hash."""


class Hash(NamedTuple):
    """A hash of counts; ttl: seconds from the first."""

    key: str
    ttl: int


Counts = Mapping[Hash, Mapping[str, int]]
"""Counts by hash and field."""


class CountLog:
    """Counts in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    @translate_redis_errors
    def add(self, counts: Counts) -> None:
        """Adds to hashes, in one round trip.

        A count whose field holds something else is dropped by itself: kept for the next time, it
        would fail for ever, and have the others, which were added, added again and again.
        """
        # Not a transaction: the hashes may lie in different slots of a cluster.
        pipe = self.store.redis.pipeline(transaction=False)
        for (key, ttl), fields in counts.items():
            for field, number in fields.items():
                pipe.hincrby(key, field, number)
            pipe.expire(key, ttl, nx=True)  # nx: from the first count, not the latest
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not _is_uncountable(reply):
                raise reply

    @translate_redis_errors
    def read(self, key: str) -> dict[str, int]:
        """The readable counts of a hash."""
        counts: dict[str, int] = {}
        for field, number in self.store.redis.hgetall(key).items():
            with suppress(ValueError):  # which UnicodeDecodeError is as well
                counts[field.decode()] = int(number)
        return counts


def _is_uncountable(error: Exception) -> bool:
    return any(words in str(error) for words in _UNCOUNTABLE)
