"""Tests the real handler through every entry point.

These are API Gateway's kinds, a load balancer, a function URL and uvicorn.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from shortlist.batch import publish
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.front_door import front_door
from shortlist.infra.local.runtime_api import LambdaService
from shortlist.recsys.store.records import UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.aws_events import EVENT_BUILDERS, http_api, load_balancer

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-every-way-in"
EVERY = [*EVENT_BUILDERS, "uvicorn", "front-door"]
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def world(published) -> Iterator[tuple[dict[str, str], RedisStore]]:
    """A copy of the release that deletions may change, below a base path, with an admin key."""
    settings = replace(published.settings, namespace="ways-in")
    publish.publish(
        published.work / "bundle", published.work / "lists", settings, ProgressReporter()
    )
    more = {
        "SHORTLIST_NAMESPACE": "ways-in",
        "SHORTLIST_ADMIN_KEY": KEY,
        "SHORTLIST_BASE_PATH": "rec/prod, rec",
    }
    store = open_store(settings.redis_url, "ways-in", 2000)
    yield os.environ | published.environ | more, store
    store.close()


@pytest.fixture(scope="module")
def service(world) -> Iterator[LambdaService]:
    """The handler under the real runtime client."""
    with LambdaService("shortlist.lambda_handler.handler.handler", str(ROOT), world[0]) as running:
        yield running


@pytest.fixture(scope="module")
def served(world) -> Iterator[str]:
    """The address of `shortlist serve`."""
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=world[0],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = next(line for line in process.stderr if "Uvicorn running" in line)
        yield line.split("http://")[1].split(" ")[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def door(service) -> Iterator[str]:
    """The address of the local stand-in for API Gateway."""
    with front_door(service, 0) as at:
        yield at.removeprefix("http://")


@pytest.fixture(params=EVERY)
def ask(request, service, served, door) -> Ask:
    """Sends a request line as it stands by one way in; gives status and JSON."""
    if request.param in EVENT_BUILDERS:
        return lambda *line: _invoked(service, EVENT_BUILDERS[request.param](*line))
    address = served if request.param == "uvicorn" else door
    return lambda *line: _over_http(address, *line)


def _invoked(service: LambdaService, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = event.get("multiValueHeaders")
    event["headers"] = (event.get("headers") or {}) | {"x-shortlist-admin-key": KEY}
    if headers:
        headers["x-shortlist-admin-key"] = [KEY]
    invoked = service.invoke(event)
    assert invoked.error is None, invoked.payload
    return invoked.payload["statusCode"], json.loads(invoked.payload["body"] or "null")


def _over_http(
    address: str, method: str, target: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    headers = {"content-type": "application/json", "x-shortlist-admin-key": KEY}
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, headers)
        answered = connection.getresponse()
        return answered.status, json.loads(answered.read())


def users(store: RedisStore, *endings: str) -> list[str]:
    """Users who are known, new for each test and way, with these endings of one name."""
    name = uuid.uuid4().hex[:8]
    made = [f"{name}{ending}" for ending in endings]
    store.merge_users([(user, UserRecord(("1", "2"), (1, 2), (None, None), 2)) for user in made], 0)
    return made


def left(store: RedisStore, named: list[str]) -> list[str]:
    """Those of the users of whom something is stored."""
    return [user for user in named if store.user_record(user) is not None]


def test_only_the_named_user_is_deleted(ask, world) -> None:
    """`a%2520b` in the request line is the user `a%20b` by every way in; `a b` stays."""
    escaped, spaced = both = users(world[1], "a%20b", "a b")
    answer = ask("DELETE", f"/v1/users/{quote(escaped, safe='')}")
    assert answer == (200, {"user_id": escaped, "existed": True})
    assert left(world[1], both) == [spaced]


def test_user_below_each_base_path(ask) -> None:
    """A stage, a mapping, both, and neither; by path and by query."""
    escaped = "a%20b"
    in_path = f"/v1/users/{quote(escaped, safe='')}/recommendations?k=3"
    in_query = f"/v1/user/recommendations?user_id={quote(escaped, safe='')}&k=3"
    answers = [
        ask("GET", f"{base}{line}")
        for base in ("", "/rec", "/rec/prod")
        for line in (in_path, in_query)
    ]
    assert [(status, answer["user_id"]) for status, answer in answers] == [(200, escaped)] * 6
    assert ask("GET", f"/other{in_query}")[0] == 404
    assert ask("GET", f"/recs{in_query}")[0] == 404


def test_id_with_a_slash(ask, world) -> None:
    """By body and query; in a path it would be another route's: 404, and nobody is touched."""
    slashed, plain, ended = three = users(world[1], "acme/42", "acme", "acme/")
    for target in (quote(slashed, safe=""), quote(ended, safe=""), ended):
        assert ask("DELETE", f"/v1/users/{target}")[0] == 404
    assert (
        ask("GET", f"/v1/user/recommendations?user_id={quote(slashed, safe='')}")[1]["user_id"]
        == slashed
    )
    deleted = {"user_id": slashed, "existed": True}
    assert ask("POST", "/v1/user/delete", {"user_id": slashed}) == (200, deleted)
    assert left(world[1], three) == [plain, ended]


def test_repeated_parameters_all_count(service) -> None:
    """All values count, except with a plain load balancer, which passes on the last one."""
    first = _invoked(service, http_api("GET", "/v1/user/recommendations?user_id=nobody&k=3"))[1]
    shown = [item["item_id"] for item in first["recommendations"]]
    target = "/v1/user/recommendations?user_id=nobody&k=3&" + "&".join(
        f"exclude={item}" for item in shown
    )
    for name, event_of in EVENT_BUILDERS.items():
        again = _invoked(service, event_of("GET", target))[1]["recommendations"]
        kept = {item["item_id"] for item in again} & set(shown)
        assert kept == (set(shown[:2]) if name == "load-balancer" else set()), name


def test_foreign_event(service) -> None:
    """It is answered in one sentence without its values; Lambda sees no error to retry."""
    invoked = service.invoke({"Records": [{"eventSource": "aws:sqs", "body": "secret-77"}]})
    assert (invoked.error, invoked.payload["ok"]) == (None, False)
    assert invoked.payload["error"].startswith(
        "the event, of Records, is none that this function answers ("
    )
    assert "secret-77" not in json.dumps(invoked.payload)


@pytest.mark.parametrize("source", ["aws.events", "aws.scheduler", "serverless-plugin-warmup"])
def test_a_schedule_is_answered_as_warm(service, source) -> None:
    """Every known kind of schedule is answered as a warm-up."""
    invoked = service.invoke({"source": source})
    assert (invoked.error, invoked.payload) == (None, {"ok": True})


def test_a_malformed_event_is_a_400(service) -> None:
    """It is a 400 in the envelope of every error."""
    invoked = service.invoke(
        http_api("POST", "/recommend") | {"body": "%%%", "isBase64Encoded": True}
    )
    error = json.loads(invoked.payload["body"])["error"]
    assert (invoked.error, invoked.payload["statusCode"], error["code"]) == (
        None,
        400,
        "malformed_request",
    )


def test_hostile_host_header(service) -> None:
    """It is answered as any other, and is in no redirect: there are none."""
    event = load_balancer("DELETE", "/v1/users/nobody/")
    event["headers"]["host"] = "evil.example:80:80"
    invoked = service.invoke(event)
    assert (invoked.error, invoked.payload["statusCode"]) == (None, 404)
    assert "evil.example" not in json.dumps(invoked.payload)


def test_documentation_below_a_base_path(service) -> None:
    """Its page asks for the document where it is."""
    page = service.invoke(http_api("GET", "/rec/docs")).payload
    assert "'/rec/openapi.json'" in page["body"]
    document = json.loads(service.invoke(http_api("GET", "/rec/openapi.json")).payload["body"])
    assert document["servers"] == [{"url": "/rec"}]
