"""Serves the studio beside the API, under one address.

The page and its own data stand at `/` and below `/studio/`; every other path is the API's. Both
also answer under the same origin, so the page needs no CORS.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

ROOT = "/studio"
"""Prefix of all that is the studio's own, but for the page at `/`."""

DOCS = "/docs"
"""The API's documentation, whose scripts the studio has on its own disk."""


class Beside:
    """An ASGI app of two: the studio, and the API for all else.

    Start and end of the server are the API's.
    """

    def __init__(self, studio: ASGIApp, api: ASGIApp) -> None:
        self._studio, self._api = studio, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        app = self._studio if scope["type"] == "http" and is_own(scope["path"]) else self._api
        await app(scope, receive, send)


def is_own(path: str) -> bool:
    """Whether a path is the studio's."""
    return path in ("/", ROOT, DOCS) or path.startswith(f"{ROOT}/")
