"""Decodes AWS events into ASGI requests.

A path must be decoded exactly once. The kind of gateway decides what is decoded already:

| | path | query |
|---|---|---|
| HTTP API, payload 2.0 | `rawPath`, decoded | `rawQueryString`, as sent |
| HTTP API, payload 1.0 | `path`, decoded | parameters, decoded |
| REST API | `path`, as sent | parameters, decoded |
| load balancer | `path`, as sent | parameters, as sent |
| function URL (payload 2.0) | `rawPath`, as sent | `rawQueryString`, as sent |

Mangum decodes all of these paths. Behind an HTTP API that would be the second time, and `a%2520b`
would become the user `a b`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlencode

from mangum import Mangum
from mangum.handlers import ALB, APIGateway, HTTPGateway
from mangum.types import ASGI, LambdaConfig, LambdaContext, LambdaEvent, LambdaHandler, Scope

FUNCTION_URL = ".lambda-url."
"""Part of a function URL's domain; its events are else like those of an HTTP API."""

SCHEDULERS = frozenset({"aws.events", "aws.scheduler", "serverless-plugin-warmup"})
"""Values of the field `source` in scheduled events, which have no request."""

WARMERS = ("warmup", "warmer", "warm", "keepwarm")
"""Fields that warm-up plug-ins and hand-written schedules set, in lower case without - and _."""

REPLACED = "\ufffd"
"""The character that replaces bytes which are not UTF-8."""

Headers = list[tuple[bytes, bytes]]


class MalformedRequest(ValueError):
    """An event looks like an HTTP request, but has a part that no gateway makes."""


def is_http(event: object) -> bool:
    """Tells if an event has a readable HTTP request."""
    if not isinstance(event, Mapping) or not isinstance(event.get("requestContext"), Mapping):
        return False
    if event.get("version") == "2.0":
        http = event["requestContext"].get("http")
        return isinstance(http, Mapping) and isinstance(event.get("rawPath"), str)
    return isinstance(event.get("httpMethod"), str) and isinstance(event.get("path"), str)


def is_warm_up(event: object) -> bool:
    """Tells if an event comes from a schedule.

    An empty event counts as one.
    """
    if not isinstance(event, Mapping):
        return False
    source, kind = str(event.get("source", "")), str(event.get("detail-type", ""))
    if source in SCHEDULERS or "schedule" in kind.lower():
        return True
    fields = {re.sub("[_-]", "", str(name).lower()) for name, value in event.items() if value}
    return not event or not fields.isdisjoint(WARMERS)


class Adapter(Mangum):
    """Mangum with this module's event readers in place of its own."""

    def __init__(self, app: ASGI) -> None:
        # The order matters: a load balancer's event looks like a REST API's as well.
        readers: list[type[LambdaHandler]] = [LoadBalancer, HttpApi, RestApi]
        # Mangum would run a lifespan at every invocation.
        super().__init__(app, lifespan="off", custom_handlers=readers)

    def infer(self, event: LambdaEvent, context: LambdaContext) -> LambdaHandler:
        """Returns the reader of an event that `is_http` accepts.

        Raises:
            MalformedRequest: a part of the event has a type or content that no gateway gives it.
        """
        reader = super().infer(event, context)
        try:
            _ = reader.scope, reader.body  # both are cached for Mangum
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            kind = type(error).__name__  # the error's message may have the request's ids
            message = f"the event is no HTTP request as AWS makes them: {kind}"
            raise MalformedRequest(message) from error
        return reader


class HttpApi(HTTPGateway):
    """Payload version 2.0: an HTTP API, or a function URL."""

    @classmethod
    def infer(cls, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> bool:  # noqa: ARG003 - Mangum's
        """Tells if the event has that version."""
        return event.get("version") == "2.0"

    @cached_property
    def scope(self) -> Scope:
        """The ASGI scope."""
        context = self.event["requestContext"]
        path: str = self.event["rawPath"]
        if FUNCTION_URL in (context.get("domainName") or ""):
            path = unquote(path)
        headers = _headers((self.event.get("headers") or {}).items())
        if self.event.get("cookies"):
            headers.append((b"cookie", _bytes("; ".join(self.event["cookies"]))))
        query = self.event.get("rawQueryString") or ""
        http = context["http"]
        return _scope(self, http["method"], path, _bytes(query), headers, http.get("sourceIp"))

    @cached_property
    def body(self) -> bytes:
        """The decoded body."""
        return _body(self.event)


class RestApi(APIGateway):
    """Payload version 1.0: a REST API, or an HTTP API that is set to it."""

    @classmethod
    def infer(cls, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> bool:  # noqa: ARG003 - Mangum's
        """Tells if the event has this version.

        A REST API does not name it.
        """
        return "httpMethod" in event

    @cached_property
    def scope(self) -> Scope:
        """The ASGI scope."""
        event = self.event
        is_http_api = event.get("version") == "1.0"
        path = event["path"] if is_http_api else unquote(event["path"])
        parameters = event.get("multiValueQueryStringParameters") or event.get(
            "queryStringParameters"
        )
        query = urlencode(parameters or {}, doseq=True)
        ip = (event["requestContext"].get("identity") or {}).get("sourceIp")
        return _scope(self, event["httpMethod"], path, query.encode(), _many_headers(event), ip)

    @cached_property
    def body(self) -> bytes:
        """The decoded body."""
        return _body(self.event)


class LoadBalancer(ALB):
    """A target group of an Application Load Balancer, with multi-value headers or without."""

    @classmethod
    def infer(cls, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> bool:  # noqa: ARG003 - Mangum's
        """Tells if the event is a load balancer's."""
        return "elb" in event["requestContext"]

    @cached_property
    def scope(self) -> Scope:
        """The ASGI scope."""
        event = self.event
        parameters = event.get("multiValueQueryStringParameters") or event.get(
            "queryStringParameters"
        )
        query = "&".join(f"{name}={value}" for name, value in _pairs(parameters or {}))
        headers = _many_headers(event)
        ip = dict(headers).get(b"x-forwarded-for", b"").decode()
        return _scope(self, event["httpMethod"], unquote(event["path"]), _bytes(query), headers, ip)

    @cached_property
    def body(self) -> bytes:
        """The decoded body."""
        return _body(self.event)


def _scope(
    reader: HttpApi | RestApi | LoadBalancer,
    method: str,
    path: str,
    query: bytes,
    headers: Headers,
    ip: str | None,
) -> Scope:
    path.encode()  # raises for half of a surrogate pair, which is no text
    if REPLACED in path:  # different ids would become the same one
        raise ValueError("the path has bytes that are no UTF-8")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method.upper(),
        "headers": headers,
        "path": path or "/",
        "raw_path": None,
        "root_path": "",
        "scheme": "https",
        "query_string": query,
        "server": None,  # the Host header may be anything, and nothing here needs it
        "client": (ip, 0),
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "aws.event": reader.event,
        "aws.context": reader.context,
    }


def _many_headers(event: LambdaEvent) -> Headers:
    return _headers(_pairs(event.get("multiValueHeaders") or event.get("headers") or {}))


def _pairs(many: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """One pair for each value.

    A value is a string or a list of strings.
    """
    for name, values in many.items():
        for value in values if isinstance(values, list) else (values,):
            yield name, value


def _headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    return [(_bytes(name.lower()), _bytes(value)) for name, value in pairs]


def _body(event: LambdaEvent) -> bytes:
    body = event.get("body") or ""
    return base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else _bytes(body)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # refused later, with an answer
