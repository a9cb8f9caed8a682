"""Decides whether a server has the studio, and makes it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp

from shortlist.batch.studio.app import Studio, create_studio
from shortlist.batch.studio.mount import Beside
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

TIMEOUT_MS = 5000
"""How long an endpoint waits for Redis: a person looks on."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def outer(settings: Settings, host: str) -> Callable[[ASGIApp], ASGIApp] | None:
    """What makes the served app from the API's; None where there is no studio.

    The studio shows users' histories. So beyond this machine it is there only where an admin key
    is set, and then every request for data needs the key.
    """
    is_guarded = host not in LOOPBACK
    if is_guarded and settings.admin_key is None:
        return None
    store = open_store(settings.redis_url, settings.namespace, TIMEOUT_MS)
    studio = create_studio(Studio(settings, store, is_guarded=is_guarded))
    return lambda api: Beside(studio, api)
