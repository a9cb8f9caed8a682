"""Fuzzes every route of the API through every entry point.

Requests are drawn from the OpenAPI document. Every one must get an answer, and an error must be in
the envelope. No traceback, and no 5xx other than a 503 with a reason.
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
"""Probabilities that a part of a request is replaced by something else."""

SECONDS = 20.0
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"),
    *("get", "X" * 50),
)
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
    """Sends generated requests to one API process."""

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
        """Sends one request, and gives the problem of its answer, or ""."""
        path, method, operation = rng.choice(self._routes)
        rate = rng.choice(RATES)
        target = self._target(path, operation, rng, rate)
        if rng.random() < 0.05:
            method = rng.choice(METHODS)
        body = b""
        if "requestBody" in operation or rng.random() < 0.05:
            body = self._body(operation, rng, rate)
        headers = _headers(rng, rate)
        request = f"{method} {target!r} {headers} {body[:500]!r}"
        try:
            reply = self._sent(method, target, body, headers, rng)
        except Exception as error:  # noqa: BLE001 - any exception here is a finding
            return f"{type(error).__name__}: {error} at {request}"
        self.counts[f"api: {reply.status}"] += 1
        problem = _problem(reply, method)
        return f"{problem}: {reply} at {request}" if problem else ""

    def _sent(
        self, method: str, target: bytes, body: bytes, headers: dict[str, str], rng: random.Random
    ) -> Reply:
        """Sends a request over HTTP, or through one of the Lambda's entry points."""
        build = rng.choice((None, None, None, *EVENT_BUILDERS.values()))
        if build is None:
            return self._process.request_http(method, target, body, headers, SECONDS)
        event = build(method, target.decode("utf-8", "replace"))
        event["isBase64Encoded"] = rng.random() < 0.5
        if event["isBase64Encoded"]:
            event["body"] = base64.b64encode(body).decode()
        else:
            event["body"] = body.decode("utf-8", "replace")
        return self._process.invoke_lambda(with_headers(event, headers), SECONDS)

    def _target(
        self, path: str, operation: dict[str, Any], rng: random.Random, rate: float
    ) -> bytes:
        """Path and query of a request."""
        parts = []
        for part in path.split("/"):
            is_parameter = part.startswith("{")
            is_valid = is_parameter and rng.random() > rate
            content = rng.choice(self._texts) if is_valid else nasty.text(rng)
            replaced = is_parameter or rng.random() < rate / 4
            parts.append(nasty.segment(content, rng) if replaced else part.encode())
        query = self._query(operation, rng, rate)
        return b"/".join(parts) + (b"?" + b"&".join(query) if query else b"")

    def _query(self, operation: dict[str, Any], rng: random.Random, rate: float) -> list[bytes]:
        parameters = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
        query = []
        for parameter in parameters:
            if rng.random() < 0.5:
                content = self._schemas(rng, rate).value(parameter["schema"])
                for value in content if isinstance(content, list) else [content]:
                    quoted = quote(str(value).encode("utf-8", "replace"))
                    query.append(f"{parameter['name']}={quoted}".encode())
        if rng.random() < rate:
            name = nasty.segment(nasty.text(rng), rng)
            query.append(name + b"=" + nasty.segment(nasty.text(rng), rng))
        return query

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


def _problem(reply: Reply, method: str) -> str:
    problem = invariants.reply_problem(reply)
    if problem or reply.status < CLIENT_ERROR or method == "HEAD":
        return problem
    error = (reply.body or {}).get("error") if isinstance(reply.body, dict) else None
    if not isinstance(error, dict) or not error.get("code") or not error.get("message"):
        return "an error outside the envelope"
    return ""
