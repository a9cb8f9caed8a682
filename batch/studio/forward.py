"""Forwards requests to a deployed API.

An ASGI app that stands in the place of the API's own. It adds the key that this server was given,
so the page need not know it; whatever the page itself sends, as the admin key, goes along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import urllib3
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shortlist.recsys.errors import InvalidSettings

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
"""Most time to connect, and to wait for an answer: a cold Lambda takes seconds."""

MOST_BYTES = 1 << 20
"""Of a request's body, as the API itself takes."""

SENT = frozenset(
    {
        "accept",
        "content-type",
        "if-none-match",
        "x-api-key",
        "x-shortlist-admin-key",
        "x-shortlist-preview",
    }
)
"""Request headers that are forwarded; others, as cookies, are of this server alone."""

RETURNED = frozenset({"content-type", "etag", "retry-after", "www-authenticate"})
"""Headers of answers that are passed on."""

KEY_HEADER = "x-api-key"


def forwarder(url: str, api_key: str | None) -> ASGIApp:
    """An app that forwards to the API at `url`; api_key: sent where a request has none.

    Raises:
        InvalidSettings: the URL is none of http or https, or would send a key unencrypted.
    """
    address = base_of(url)
    if api_key is not None and not is_private(address):
        raise InvalidSettings(
            f"--api {address}: an API key would be sent unencrypted: give an https:// address"
        )
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    pool = urllib3.PoolManager(maxsize=8, timeout=timeout, retries=False)

    def asked(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            answer = pool.request(
                method, address + target, body=body, headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            # The reason alone: the address of a request may name a user.
            return _unreachable(address, type(error).__name__)
        kept = {n.lower(): value for n, value in answer.headers.items() if n.lower() in RETURNED}
        return Response(answer.data, answer.status, kept)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        request = Request(scope, receive)
        headers = {name: value for name, value in request.headers.items() if name in SENT}
        if api_key is not None:
            headers.setdefault(KEY_HEADER, api_key)
        body = await _body(request)
        if body is None:
            response: Response = _error(413, "body_too_large", f"at most {MOST_BYTES} bytes")
        else:
            target = scope.get("raw_path", request.url.path.encode()).decode("ascii")
            if query := scope["query_string"].decode("ascii"):
                target = f"{target}?{query}"
            response = await run_in_threadpool(asked, request.method, target, headers, body)
        await response(scope, receive, send)

    return app


def base_of(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        InvalidSettings: it is no http:// or https:// address of a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidSettings(f"--api {url!r}: must be http(s)://host, with a base path if any")
    if parts.username is not None:
        raise InvalidSettings("--api: give no user in the address: set STUDIO_API_KEY for a key")
    return url.rstrip("/")


def is_private(url: str) -> bool:
    """Whether nobody else reads what is sent: it is encrypted, or stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


async def _body(request: Request) -> bytes | None:
    """A request's body; None for one that is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    return body


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing is to be started or ended."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _unreachable(address: str, reason: str) -> Response:
    message = (
        f"the API at {address} does not answer ({reason}): see whether it runs, or its address"
    )
    return _error(502, "api_unreachable", message)


def _error(status: int, code: str, message: str) -> Response:
    body = json.dumps({"error": {"code": code, "message": message}})
    return Response(body, status, media_type="application/json")
