"""Counts that many processes add up in Redis: hashes of whole numbers, which expire by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from recsys.store import RedisStore, bounded


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

    @bounded
    def add(self, counts: Counts) -> None:
        """Adds to hashes, in one round trip."""
        pipe = self.store.redis.pipeline(transaction=False)
        for (key, ttl), fields in counts.items():
            for field, number in fields.items():
                pipe.hincrby(key, field, number)
            pipe.expire(key, ttl, nx=True)
        pipe.execute()

    @bounded
    def read(self, key: str) -> dict[str, int]:
        """The counts of a hash; none where it is not there."""
        return {field.decode(): int(number) for field, number in self.store.redis.hgetall(key).items()}
