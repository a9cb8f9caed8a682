"""Prepares the snapshot of SnapStart, and renews its copies.

Lambda starts the function once, keeps a snapshot of its memory, and restores that for each new
environment. What is imported before is there at once; what must be a copy's own is made after it.
Nothing is read from Redis or S3 before a snapshot: all copies would take it for fresh.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath
    from shortlist.recsys.store.redis import RedisStore


def add_hooks(store: RedisStore, live: LivePath) -> None:
    """Has Lambda call `prepare` and `renew`; elsewhere there are no snapshots."""
    try:
        # A part of Lambda's own runtimes for Python, and of no package that is deployed.
        from snapshot_restore_py import register_after_restore, register_before_snapshot
    except ImportError:
        return
    register_before_snapshot(prepare, live)
    register_after_restore(renew, store, live)


def prepare(live: LivePath) -> None:
    """Imports the live path, which takes most of a cold start.

    Raises:
        LoadFailed: it cannot be opened; Lambda then publishes no version of the function.
    """
    live.prepare()


def renew(store: RedisStore, live: LivePath) -> None:
    """Drops connections, and gives this copy random numbers of its own.

    Request and recommendation ids come from the system, which is new in each copy.
    """
    store.close()
    random.seed()  # redis-py spreads its attempts by it: copies must not try in step
    live.renew()
