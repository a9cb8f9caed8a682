"""Serves HTTP as API Gateway does in front of Lambda.

Requests become HTTP API events, and the handler's answers become responses, as in
`sam local start-api`, but over the real runtime client instead of a container.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from shortlist.infra.local.runtime_api import LambdaService, http_event

FAILED = {
    "statusCode": 500,
    "headers": {"content-type": "application/json"},
    "body": '{"message":"Internal Server Error"}',
}
"""API Gateway's answer where the function failed."""


def event_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The event of payload version 2.0 that API Gateway makes of a request."""
    # Not urlsplit, which takes `//x` for a host: here it is a path.
    path, _, raw_query = target.partition("?")
    event = http_event(method, path, query=raw_query)
    lowered = {name.lower(): value for name, value in headers.items()}
    cookies = lowered.pop("cookie", None)
    event["headers"] = lowered
    if cookies is not None:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw_query, keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value
    if query:
        event["queryStringParameters"] = query
    if body:
        event |= _body(body)
    return event


def response_of(payload: object) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body that API Gateway makes of a handler's answer."""
    if not isinstance(payload, dict) or "statusCode" not in payload:
        return 200, {"content-type": "application/json"}, json.dumps(payload).encode()
    body = payload.get("body") or ""
    data = base64.b64decode(body) if payload.get("isBase64Encoded") else body.encode()
    return int(payload["statusCode"]), dict(payload.get("headers") or {}), data


@contextmanager
def front_door(service: LambdaService, port: int) -> Iterator[str]:
    """Serves the handler on loopback; yields the address. Port 0 takes a free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler_class(service))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _body(body: bytes) -> dict[str, Any]:
    try:
        return {"body": body.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Joins the values of repeated headers with commas, as API Gateway does."""
    joined: dict[str, str] = {}
    for name, value in headers:
        lowered = name.lower()
        between = "; " if lowered == "cookie" else ","
        joined[lowered] = f"{joined[lowered]}{between}{value}" if lowered in joined else value
    return joined


def _handler_class(service: LambdaService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request_headers = _joined(self.headers.items())
            invoked = service.invoke(event_of(self.command, self.path, request_headers, body))
            payload = invoked.payload if invoked.error is None else FAILED
            status, headers, data = response_of(payload)
            headers = {name.lower(): value for name, value in headers.items()}
            headers["content-length"] = str(len(data))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        # The names by which http.server calls them.
        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815
        do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

    return Handler
