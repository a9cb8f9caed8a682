"""Requests that the document describes, and others: by each way in, to each route, with values that break things.

Whatever comes is answered, by an error in the envelope where it must be; never by a traceback, nor
by another 5xx than a 503 that says why.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from typing import Any
from urllib.parse import quote

from tests.aws_events import EVENT_BUILDERS
from tests.chaos import invariants, nasty
from tests.chaos.caller import Caller, Reply, with_headers
from tests.chaos.service import ADMIN_KEY, Service

CLIENT_ERROR = 400
RATES = (0.0, 0.02, 0.1, 0.4)
"""How often a part of a request is replaced by something else."""

SECONDS = 20.0
KEYS = (ADMIN_KEY, ADMIN_KEY, ADMIN_KEY, "", "wrong", ADMIN_KEY + " ", "é", "x" * 5000)
HEADERS = {
    "if-none-match": ("*", '"a"', 'W/"a", "b"', "", ",", '"' * 1000, "\x80"),
    "origin": ("https://example.org", "null", "", "https://example.org\x80"),
    "accept": ("application/json", "text/html", "", "*/*;q=0"),
    "authorization": ("Bearer x", "Bearer " + "a." * 2000, "Basic !", ""),
    "x-api-key": ("", "x" * 300),
    "host": ("localhost", "evil.example", "a b", "[::1", ""),
    "content-length": ("0", "-1", "99999999999", "x"),
    "content-encoding": ("gzip", "br", "x"),
    "x-forwarded-for": ("1.2.3.4", "x" * 5000),
    "x-amzn-trace-id": ("Root=1-2-3", "", "\x80"),
    "x-request-id": ("a", "a\x80b", "x" * 5000),
    "transfer-encoding": ("chunked",),
    "range": ("bytes=0-1",),
    "expect": ("100-continue",),
}


class ApiFuzz:
    """Sends generated requests to one process of a service."""

    def __init__(self, service: Service, process: Caller) -> None:
        self._process = process
        self.counts: Counter[str] = Counter()
        document = process.request_http("GET", "/openapi.json").body
        assert document is not None
        self._components = document["components"]["schemas"]
        self._texts = [*service.worlds.users, *service.worlds.items]
        self._routes = [
            (path, method.upper(), operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]

    def case(self, rng: random.Random) -> str:
        """Sends one request; gives what is wrong with its answer, or nothing."""
        path, method, operation = rng.choice(self._routes)
        rate = rng.choice(RATES)
        target = self._target(path, operation, rng, rate)
        if rng.random() < 0.05:
            method = rng.choice(
                (
                    "GET",
                    "HEAD",
                    "POST",
                    "PUT",
                    "PATCH",
                    "DELETE",
                    "OPTIONS",
                    "TRACE",
                    "QUERY",
                    "get",
                    "X" * 50,
                )
            )
        body = (
            self._body(operation, rng, rate)
            if "requestBody" in operation or rng.random() < 0.05
            else b""
        )
        headers = _headers(rng, rate)
        try:
            reply = self._sent(method, target, body, headers, rng)
        except Exception as error:  # noqa: BLE001 - any exception here is what is looked for
            return (
                f"{type(error).__name__}: {error} at {method} {target!r} {headers} {body[:500]!r}"
            )
        self.counts[f"api: {reply.status}"] += 1
        wrong = _wrong(reply, method)
        return f"{wrong}: {reply} at {method} {target!r} {headers} {body[:500]!r}" if wrong else ""

    def _sent(
        self, method: str, target: bytes, body: bytes, headers: dict[str, str], rng: random.Random
    ) -> Reply:
        """By a server, or by one of the ways into a Lambda."""
        way = rng.choice((None, None, None, *EVENT_BUILDERS.values()))
        if way is None:
            return self._process.request_http(method, target, body, headers, SECONDS)
        event = way(method, target.decode("utf-8", "replace"))
        encoded = rng.random() < 0.5
        event["body"] = (
            base64.b64encode(body).decode() if encoded else body.decode("utf-8", "replace")
        )
        event["isBase64Encoded"] = encoded
        return self._process.invoke_lambda(with_headers(event, headers), SECONDS)

    def _target(
        self, path: str, operation: dict[str, Any], rng: random.Random, rate: float
    ) -> bytes:
        parts = []
        for part in path.split("/"):
            named = part.startswith("{")
            plain = rng.choice(self._texts) if named and rng.random() > rate else nasty.text(rng)
            parts.append(
                nasty.segment(plain, rng) if named or rng.random() < rate / 4 else part.encode()
            )
        pairs = [
            (p["name"], p["schema"]) for p in operation.get("parameters", ()) if p["in"] == "query"
        ]
        query = []
        for name, schema in pairs:
            if rng.random() < 0.5:
                content = self._schemas(rng, rate).value(schema)
                values = content if isinstance(content, list) else [content]
                query += [
                    f"{name}={quote(str(value).encode('utf-8', 'replace'))}".encode()
                    for value in values
                ]
        if rng.random() < rate:
            query.append(
                nasty.segment(nasty.text(rng), rng) + b"=" + nasty.segment(nasty.text(rng), rng)
            )
        return b"/".join(parts) + (b"?" + b"&".join(query) if query else b"")

    def _schemas(self, rng: random.Random, rate: float) -> nasty.Schemas:
        return nasty.Schemas(self._components, self._texts, rng, rate)

    def _body(self, operation: dict[str, Any], rng: random.Random, rate: float) -> bytes:
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        made = self._schemas(rng, rate).value(content.get("schema", {}))
        return nasty.body(made, rng) if rng.random() < rate * 2 else nasty.json.dumps(made).encode()


def _headers(rng: random.Random, rate: float) -> dict[str, str]:
    kind = rng.choice(nasty.TYPES) if rng.random() < rate else "application/json"
    headers = {"content-type": kind, "x-shortlist-admin-key": rng.choice(KEYS)}
    for name, values in HEADERS.items():
        if rng.random() < rate / 3:
            headers[name] = rng.choice(values)
    return {
        name: value.encode("utf-8", "replace").decode("latin-1") for name, value in headers.items()
    }


def _wrong(reply: Reply, method: str) -> str:
    wrong = invariants.reply_problem(reply)
    if wrong or reply.status < CLIENT_ERROR or method == "HEAD":
        return wrong
    error = (reply.body or {}).get("error") if isinstance(reply.body, dict) else None
    if not isinstance(error, dict) or not error.get("code") or not error.get("message"):
        return "an error outside the envelope"
    return ""
