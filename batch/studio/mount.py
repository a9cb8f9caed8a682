"""Serves the studio beside the API, under one address.

The page and its own data stand at `/` and below `/studio/`, and the API's documentation, whose
scripts are on this disk, at `/docs`; every other path is the API's. All are of one origin, so the
page needs no CORS.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROOT = "/studio"
"""Prefix of all that is the studio's own, but for the page at `/`."""

DOCS = "/docs"
DOCS_FILES = Path(__file__).parent / "api_docs"

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # ids of users stand in addresses
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a browser asks whether a file has changed
}
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""A page may load from its own origin alone; images may stand in the page."""

DOCS_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'"
"""Swagger UI's scripts write styles into the page."""


class Beside:
    """An ASGI app of the API, its documentation, and the studio if there is one.

    Start and end of the server are the API's.
    """

    def __init__(self, api: ASGIApp, studio: ASGIApp | None) -> None:
        self._api, self._studio = api, studio
        files = StaticFiles(directory=DOCS_FILES, html=True)
        self._docs = WithHeaders(files, COMMON | {"Content-Security-Policy": DOCS_POLICY})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path == DOCS or path.startswith(f"{DOCS}/"):
            below = path.removeprefix(DOCS) or "/"
            await self._docs({**scope, "path": below, "root_path": ""}, receive, send)
        elif self._studio is not None and is_own(path):
            await self._studio(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def is_own(path: str) -> bool:
    """Whether a path is the studio's."""
    return path in ("/", ROOT) or path.startswith(f"{ROOT}/")


class WithHeaders:
    """An ASGI app whose answers have these headers, unless it sets them itself."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self._app, self._headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in self._headers.items()
                        if name.lower().encode() not in known
                    ),
                ]
            await send(message)

        await self._app(scope, receive, sending)


class OwnPages:
    """An ASGI app that pages of other sites cannot use.

    A page of another site may send requests to this machine, and may make its own name stand for
    this machine's address. Requests of such pages name another host or origin.
    """

    def __init__(self, app: ASGIApp, *, on_loopback: bool) -> None:
        """on_loopback: whether the server listens on this machine alone, whose names are known."""
        self._app, self._on_loopback = app, on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        refusal = None if scope["type"] != "http" else self._refusal(Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": {"code": "other_origin", "message": refusal}})
        await Response(body, 403, media_type="application/json")(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self._on_loopback and urlsplit(f"//{host}").hostname not in LOOPBACK:
            return "the studio answers to this machine's own names: open it at http://127.0.0.1"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "the request is of another site's page: use the studio's own page"
        return None
