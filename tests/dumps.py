"""Copies what a publication left in Redis to other namespaces and servers.

To publish a release takes half a second, most of it for checks; to copy its keys takes a hundredth.
"""

from __future__ import annotations

import redis

Dumped = tuple[tuple[bytes, bytes], ...]
"""Keys, with @ for the name of their namespace, and their dumps."""


def dumped(url: str, namespace: str) -> Dumped:
    """What a namespace holds. Nothing of it may expire, as nothing of a serving release does."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter(f"*{namespace}:*"))
        assert {client.ttl(key) for key in keys} == {-1}
        return tuple((key.replace(namespace.encode(), b"@", 1), client.dump(key)) for key in keys)


def put_back(url: str, namespace: str, keys: Dumped) -> None:
    """Writes it into another namespace, perhaps on another server."""
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for key, dump in keys:
            pipe.restore(key.replace(b"@", namespace.encode(), 1), 0, dump)
        pipe.execute()
