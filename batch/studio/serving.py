"""Decides whether a server has the studio, and makes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread

from starlette.types import ASGIApp

from shortlist.batch.studio.app import Studio, create_studio
from shortlist.batch.studio.call import call
from shortlist.batch.studio.mount import LOOPBACK, Beside, OwnPages
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

TIMEOUT_MS = 5000
"""How long an endpoint waits for Redis: a person looks on."""


def is_offered(settings: Settings, host: str) -> bool:
    """Whether a server at this host may have the studio.

    The studio shows users' histories: beyond this machine it needs an admin key.
    """
    return host in LOOPBACK or settings.admin_key is not None


def beside(
    settings: Settings, host: str, api_url: str | None = None, *, warm: bool = False
) -> Callable[[ASGIApp], ASGIApp]:
    """What makes the served app from the API's, or from what forwards to the API at `api_url`.

    warm: loads the serving release at once, for somebody who is about to look at it. Otherwise a
    server that nobody looks at holds no second copy of it.
    """

    def made(api: ASGIApp) -> ASGIApp:
        on_loopback, ask = host in LOOPBACK, partial(call, api)
        if api_url is not None:  # a request of another site's page must not get this server's key
            api = OwnPages(api, on_loopback=on_loopback)
        if not is_offered(settings, host):
            return Beside(api, None)
        studio = Studio(
            settings,
            open_store(settings.redis_url, settings.namespace, TIMEOUT_MS),
            ask,
            api_url=api_url,
            is_guarded=is_guarded(settings, host),
            timeout_ms=TIMEOUT_MS,
        )
        if warm:
            Thread(target=studio.warm, daemon=True).start()
        return Beside(api, OwnPages(create_studio(studio), on_loopback=on_loopback))

    return made


def is_guarded(settings: Settings, host: str) -> bool:
    """Whether every request for data needs the admin key.

    It does beyond this machine, and where an admin key is set and the API asks its callers for
    keys: data that are guarded there are guarded here.
    """
    if settings.admin_key is None:
        return False
    asks_callers = bool(settings.api_keys) or settings.jwt_user_claim is not None
    return host not in LOOPBACK or asks_callers
