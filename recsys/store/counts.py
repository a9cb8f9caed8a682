"""Counts that many processes add up in Redis: hashes of whole numbers, which expire by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from shortlist.recsys.store.redis import RedisStore, translate_redis_errors

_UNCOUNTABLE = (
    "WRONGTYPE",
    "hash value is not an integer",
    "increment or decrement would overflow",
)
"""How the server says that a field holds no count, or that a key is no hash."""


class Hash(NamedTuple):
    """Where counts are kept, and for how many seconds from the first of them."""

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
        pipe = self.store.redis.pipeline(transaction=False)
        for (key, ttl), fields in counts.items():
            for field, number in fields.items():
                pipe.hincrby(key, field, number)
            pipe.expire(key, ttl, nx=True)
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not any(
                words in str(reply) for words in _UNCOUNTABLE
            ):
                raise reply

    @translate_redis_errors
    def read(self, key: str) -> dict[str, int]:
        """The counts of a hash, without those that cannot be read; none where it is not there."""
        counts: dict[str, int] = {}
        for field, number in self.store.redis.hgetall(key).items():
            with suppress(ValueError):  # which UnicodeDecodeError is as well
                counts[field.decode()] = int(number)
        return counts
