"""Tests the adapter by one request in every event kind.

Some events hold no request.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from shortlist.lambda_handler.entry import Adapter, MalformedRequest, is_http, is_warm_up
from tests.aws_events import EVENT_BUILDERS, http_api, load_balancer, rest_api

TARGETS = {
    "/v1/users/a%2520b": "/v1/users/a%20b",
    "/v1/users/a%20b": "/v1/users/a b",
    "/v1/users/a+b": "/v1/users/a+b",
    "/v1/users/a%2Bb": "/v1/users/a+b",
    "/v1/users/%C3%BC%E6%97%A5": "/v1/users/ü日",
    "/v1/users/acme%2F42": "/v1/users/acme/42",
    "/v1/users/100%25": "/v1/users/100%",
    "/v1/users/%252F": "/v1/users/%2F",
    "//v1/users/1": "//v1/users/1",
    "/": "/",
}
"""Request lines, and the paths that uvicorn would make of them."""

QUERIES = [
    "user_id=acme%2F42",
    "user_id=a%2520b",
    "category=a+b&k=3",
    "category=%C3%BC&category=b%26c",
    "k=",
    "category=a%2Cb",
]

WARM = [
    {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    {"source": "aws.scheduler"},
    {"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": "{}"},
    {"source": "serverless-plugin-warmup"},
    {"source": "my.own", "detail-type": "Scheduled Event"},
    {"warmup": True},
    {"warmer": True, "concurrency": 3},
    {"keep_warm": 1},
    {},
]
FOREIGN: list[Any] = [
    {"Records": [{"eventSource": "aws:sqs", "body": "secret-77"}]},
    {"Records": [{"cf": {"request": {"uri": "/"}}}]},
    {"source": "aws.s3", "detail-type": "Object Created"},
    {"warmup": False},
    {"requestContext": {"connectionId": "abc", "routeKey": "$connect"}},
    {
        "version": "2.0",
        "path": "/x",
        "method": "GET",
        "requestContext": {"serviceNetworkArn": "arn:lattice"},
    },
    {"version": "2.0", "requestContext": {"http": None}, "rawPath": "/"},
    {"requestContext": "text"},
    ["a"],
    "text",
    None,
    7,
]


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """An app that is never called."""


ADAPTER = Adapter(_nothing)


def scope_of(event: Any) -> Any:
    """The ASGI scope of an event."""
    assert is_http(event)
    return ADAPTER.infer(event, None).scope


@pytest.mark.parametrize("way", EVENT_BUILDERS)
@pytest.mark.parametrize("target", TARGETS)
def test_a_path_is_decoded_once(way, target) -> None:
    """A path is decoded once, whatever the gateway has decoded already."""
    assert scope_of(EVENT_BUILDERS[way]("GET", target))["path"] == TARGETS[target]


@pytest.mark.parametrize("way", EVENT_BUILDERS)
@pytest.mark.parametrize("query", QUERIES)
def test_a_query_says_the_same(way, query) -> None:
    """All values of a parameter, decoded once; a plain load balancer gives the last one alone."""
    sent = parse_qsl(query, keep_blank_values=True)
    expected = list(dict(sent).items()) if way == "load-balancer" else sent
    got = scope_of(EVENT_BUILDERS[way]("GET", f"/v1/popular?{query}"))["query_string"]
    assert sorted(parse_qsl(got.decode(), keep_blank_values=True)) == sorted(expected)


@pytest.mark.parametrize("way", EVENT_BUILDERS)
def test_the_rest_of_a_request_arrives(way) -> None:
    """Method, headers in lower case, the caller's address, and the body, base64 or not."""
    entry = ADAPTER.infer(EVENT_BUILDERS[way]("POST", "/recommend", {"user_id": "ü"}), None)
    headers = dict(entry.scope["headers"])
    assert (entry.scope["method"], headers[b"content-type"]) == ("POST", b"application/json")
    assert (entry.scope["client"], b"host" in headers) == (("192.0.2.1", 0), True)
    assert json.loads(entry.body) == {"user_id": "ü"}


def test_cookies_are_one_header() -> None:
    """Payload 2.0 has them apart."""
    event = http_api("GET", "/health") | {"cookies": ["a=1", "b=2"]}
    assert dict(scope_of(event)["headers"])[b"cookie"] == b"a=1; b=2"


@pytest.mark.parametrize(
    "host", ["a:b", "a:1:2", "[::1]:80", "", "x" * 1000, "evil.example/@:99999"]
)
def test_a_host_may_be_anything(host) -> None:
    """A load balancer hands on whatever the caller wrote."""
    event = load_balancer("GET", "/health")
    event["headers"] |= {"host": host, "x-forwarded-port": "many", "x-forwarded-proto": "gopher"}
    scope = scope_of(event)
    assert (scope["server"], scope["scheme"], scope["path"]) == (None, "https", "/health")


def test_console_test_event_with_nulls() -> None:
    """A REST API's test invocation has neither headers nor parameters."""
    event = rest_api("GET", "/health")
    event |= {
        "headers": None,
        "multiValueHeaders": None,
        "queryStringParameters": None,
        "body": None,
    }
    event["requestContext"]["identity"] = None
    assert (scope_of(event)["headers"], scope_of(event)["query_string"]) == ([], b"")


@pytest.mark.parametrize(
    "change",
    [
        {"headers": "text"},
        {"headers": {"a": 7}},
        {"body": "%%%", "isBase64Encoded": True},
        {"body": 7},
        {"rawPath": "/v1/users/\ud800"},
        {"rawQueryString": 7},
        {"requestContext": {"http": {}}},
    ],
)
def test_malformed_part_is_not_logged(change) -> None:
    """An impossible part is reported by its error's type, not by its text with ids."""
    with pytest.raises(
        MalformedRequest, match=r"^the event is no HTTP request as AWS makes them: \w*Error$"
    ):
        ADAPTER.infer(http_api("GET", "/v1/users/secret-77") | change, None)


@pytest.mark.parametrize("way", EVENT_BUILDERS)
def test_path_that_is_not_utf8(way) -> None:
    """It is refused, as all such ids would become one after decoding."""
    with pytest.raises(MalformedRequest):
        ADAPTER.infer(EVENT_BUILDERS[way]("DELETE", "/v1/users/%FF"), None)


@pytest.mark.parametrize("event", WARM)
def test_a_schedule_warms(event) -> None:
    """Schedules of AWS and of the usual plug-ins, and an empty event, are warm-ups."""
    assert (is_http(event), is_warm_up(event)) == (False, True)


@pytest.mark.parametrize("event", FOREIGN)
def test_another_event_is_neither(event) -> None:
    """A queue's, a socket's, an edge's, and no event at all."""
    assert (is_http(event), is_warm_up(event)) == (False, False)


@pytest.mark.parametrize("way", EVENT_BUILDERS)
def test_a_request_is_no_warm_up(way) -> None:
    """A caller cannot make one of a request, by a header or a body."""
    event = EVENT_BUILDERS[way]("POST", "/recommend", {"warmup": True, "source": "aws.events"})
    assert is_http(event)
