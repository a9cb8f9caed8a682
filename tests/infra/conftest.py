"""Provides stores under the template's access rules.

A real server applies the access strings.
"""

from __future__ import annotations

import pytest
import redis

from shortlist.recsys.store.redis import RedisStore
from tests.template import access


@pytest.fixture
def store_of(valkey_url, namespace):
    """Stores that a real server lets in under the template's access strings."""
    admin, opened = redis.Redis.from_url(valkey_url), []

    def open_as(user: str, *, with_admin: bool = False) -> RedisStore:
        admin.execute_command(
            "ACL", "SETUSER", user, "reset", *access(user, namespace, admin=with_admin), ">secret"
        )
        client = redis.Redis.from_url(valkey_url, username=user, password="secret")  # noqa: S106 - of this test
        opened.append((user, client))
        return RedisStore(lambda: client, namespace)

    yield open_as
    for user, client in opened:
        client.close()
        admin.execute_command("ACL", "DELUSER", user)
    admin.close()
