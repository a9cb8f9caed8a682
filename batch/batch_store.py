"""Opens the batch's Redis store for a block."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing

from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import RedisStore, open_store

# A refresh writes gigabytes in one go and nobody waits for it, so it is patient with a Redis that
# is busy with a snapshot or a failover; a request (SHORTLIST_REDIS_TIMEOUT_MS) may not be.
TIMEOUT_MS = 30_000


def batch_store(
    settings: Settings, timeout_ms: int = TIMEOUT_MS
) -> AbstractContextManager[RedisStore]:
    """Opens the store of these settings for a block."""
    return closing(open_store(settings.redis_url, settings.namespace, timeout_ms))
