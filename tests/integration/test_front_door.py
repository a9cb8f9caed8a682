"""Tests the local gateway before the handler.

Its HTTP requests reach the handler under the real runtime client.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.batch.local import serve
from shortlist.infra.local.front_door import event_of, front_door, response_of
from shortlist.infra.local.runtime_api import LambdaService

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(published) -> Iterator[str]:
    """Where the API of the published release is served."""
    service = LambdaService(
        "shortlist.lambda_handler.handler.handler", str(ROOT), os.environ | published.environ
    )
    with service, front_door(service, 0) as at:
        yield at


def ask(address: str, path: str, body: dict | None = None) -> tuple[int, dict]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{address}{path}", data, headers)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=30) as answered:  # noqa: S310 - loopback
            return answered.status, json.load(answered)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_request_is_answered(address, published) -> None:
    """A list, over HTTP, through an event and back."""
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    status, answer = ask(address, "/recommend", {"user_id": user, "k": 3})
    assert (status, answer["source"], len(answer["recommendations"])) == (200, "batch", 3)


def test_an_error_keeps_its_status(address) -> None:
    """What the handler refuses is refused to the caller."""
    status, answer = ask(address, "/recommend", {"user_id": "1", "k": 1000})
    assert (status, answer["error"]["code"]) == (422, "invalid_request")


def test_head_is_answered_without_a_body(address) -> None:
    """The headers of the GET, ETag and all, and the connection goes on."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    answers = {}
    for method in ("HEAD", "GET"):
        connection.request(method, "/v1/popular?k=1")
        answered = connection.getresponse()
        answers[method] = (answered.status, answered.headers["etag"], bool(answered.read()))
    connection.close()
    status, etag, _ = answers["GET"]
    assert answers == {"HEAD": (200, etag, False), "GET": (status, etag, True)}


def test_failing_handler(tmp_path) -> None:
    """It is a 500 in API Gateway's words."""
    (tmp_path / "failing.py").write_text("def handler(event, context):\n    raise ValueError\n")
    service = LambdaService("failing.handler", str(tmp_path), os.environ)
    with service, front_door(service, 0) as at:
        assert ask(at, "/") == (500, {"message": "Internal Server Error"})


def test_event_of_a_request() -> None:
    """It has path, query, cookies, headers and body, in payload version 2.0."""
    headers = {"Content-Type": "text/plain", "Cookie": "a=1; b=2"}
    event = event_of("POST", "/v1/items/a%20b?k=1&k=2&x=", headers, b"text")
    assert (event["rawPath"], event["rawQueryString"]) == ("/v1/items/a b", "k=1&k=2&x=")
    assert event["queryStringParameters"] == {"k": "1,2", "x": ""}
    assert (event["cookies"], event["headers"]) == (["a=1", "b=2"], {"content-type": "text/plain"})
    assert (event["body"], event["isBase64Encoded"]) == ("text", False)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/v1/users/a%2520b", "/v1/users/a%20b", ""),
        ("/v1/users/a+b%2B?x=%2B", "/v1/users/a+b+", "x=%2B"),
        ("/v1/users/a%3Fb?k=1", "/v1/users/a", "k=1"),
        ("//v1/users/1", "//v1/users/1", ""),
        ("//[v1/users/1", "//[v1/users/1", ""),
        ("/v1/users/a?b?c#d", "/v1/users/a", "b?c#d"),
    ],
)
def test_path_is_decoded_once(target, path, query) -> None:
    """It is decoded as by API Gateway, and cut at an encoded question mark; the query is not."""
    event = event_of("GET", target, {}, b"")
    assert (event["rawPath"], event["requestContext"]["http"]["path"]) == (path, path)
    assert event["rawQueryString"] == query


def test_repeated_headers_are_one(address) -> None:
    """Their values come with commas between, so that each of two tags counts."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("GET", "/v1/popular?k=1")
    tag = connection.getresponse().headers["etag"]
    connection.close()
    connection.putrequest("GET", "/v1/popular?k=1")
    for value in (tag, '"another"'):
        connection.putheader("If-None-Match", value)
    connection.endheaders()
    assert connection.getresponse().status == 304
    connection.close()


def test_bytes_travel_as_base64() -> None:
    """Both ways."""
    event = event_of("POST", "/", {}, b"\xff\xfe")
    assert (event["body"], event["isBase64Encoded"]) == ("//4=", True)
    assert response_of({"statusCode": 201, "body": "//4=", "isBase64Encoded": True}) == (
        201,
        {},
        b"\xff\xfe",
    )


def test_answer_without_a_status() -> None:
    """API Gateway takes a bare value for a JSON body."""
    assert response_of({"ok": True}) == (200, {"content-type": "application/json"}, b'{"ok": true}')


def test_a_release_is_served_locally(published) -> None:
    """`shortlist local` serves the tree, or a package, over what is published."""
    answers = []
    environ = os.environ | published.environ
    serve(
        published.settings,
        None,
        0,
        environ,
        lambda address: answers.append(ask(address, "/health")),
    )
    assert [(status, answer["release"]) for status, answer in answers] == [(200, published.version)]
