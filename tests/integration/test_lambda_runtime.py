"""Tests working and failing handlers under the Lambda runtime client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from shortlist.infra.local.runtime_api import LambdaService, http_event

ROOT = str(Path(__file__).parents[2])
KEY = "a-key-for-local-invokes"
EVENTS = Path(ROOT) / "infra" / "events"
FAILING = """
import os, time

def raises(event, context):
    raise ValueError("a handler's own error")

def exits(event, context):
    os._exit(3)

def hangs(event, context):
    while True:
        time.monotonic()

def echoes(event, context):
    left = context.get_remaining_time_in_millis() > 0
    return {"request": context.aws_request_id, "left": left, "event": event}
"""


@pytest.fixture(scope="module")
def service(published) -> Iterator[LambdaService]:
    """The product's handler, over the published release."""
    environ = os.environ | published.environ | {"SHORTLIST_ADMIN_KEY": KEY}
    with LambdaService("shortlist.lambda_handler.handler.handler", ROOT, environ) as running:
        yield running


def answer_of(invoked) -> dict:
    """The JSON body of an answer that must be 200."""
    assert invoked.error is None, invoked.payload
    assert invoked.payload["statusCode"] == 200, invoked.payload
    return json.loads(invoked.payload["body"])


def known_user(published) -> str:
    """A user with a list."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


def test_the_four_sources(service, published) -> None:
    """A hit, a live answer, a session and popular items, through HTTP API events."""
    user = known_user(published)
    bodies = [
        {"user_id": user},
        {"user_id": user, "use_cache": False},
        {"user_id": "fresh", "history": list(published.dataset.catalogue.ids[:3])},
        {"user_id": "nobody"},
    ]
    answers = [answer_of(service.invoke(http_event("POST", "/recommend", body))) for body in bodies]
    assert [a["source"] for a in answers] == ["batch", "live", "session", "popular"]
    assert [len(a["recommendations"]) for a in answers] == [20, 20, 20, 20]
    assert (
        answers[0]["recommendations"][0]["item_id"] == answers[1]["recommendations"][0]["item_id"]
    )


def test_errors_have_the_request_id(service) -> None:
    """The id that the caller gets is the invocation's in the function's log."""
    invoked = service.invoke(http_event("POST", "/recommend", {"user_id": "1", "k": 1000}))
    error = json.loads(invoked.payload["body"])["error"]
    assert (invoked.payload["statusCode"], error["code"], len(error["request_id"])) == (
        422,
        "invalid_request",
        36,
    )


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_documented_event_is_answered(service, path) -> None:
    """The events that the documentation offers for a local invoke work."""
    invoked = service.invoke(json.loads(path.read_text()))
    assert invoked.error is None
    assert invoked.payload == {"ok": True} or invoked.payload["statusCode"] == 200


def test_every_documented_route(service, published) -> None:
    """Each path and method, through HTTP API events; 422 for what no release can do here."""
    document = json.loads(service.invoke(http_event("GET", "/openapi.json")).payload["body"])
    parts = {
        "{user_id}": "a user/ü",
        "{item_id}": published.dataset.catalogue.ids[3],
        "{version}": published.version,
    }
    bodies = {
        "recommend": {"user_id": "1"},
        "rank": {"user_id": "1", "items": list(published.dataset.catalogue.ids[:3])},
        "events": {
            "events": [
                {"event_id": "r1", "user_id": "2", "item_id": "no-such-item", "timestamp": 1}
            ]
        },
        "delete": {"user_id": "a user/ü"},
        "canary": {"percent": 0},
        "block": {"item_id": published.dataset.catalogue.ids[3]},
        "rules": {"version": 0, "rules": {}},
        "unblock": {"item_id": published.dataset.catalogue.ids[3]},
    }
    queries = {
        "/v1/user/recommendations": "user_id=a%20user%2F%C3%BC",
        "/v1/item": f"item_id={published.dataset.catalogue.ids[3]}",
        "/v1/item/similar": f"item_id={published.dataset.catalogue.ids[3]}",
    }
    statuses = {}
    for route, operations in document["paths"].items():
        path = route
        for name, value in parts.items():
            path = path.replace(name, quote(value.replace("/", "-"), safe=""))
        for method in operations:
            body = bodies.get(route.rpartition("/")[2])
            event = http_event(method.upper(), path, body, queries.get(route, ""))
            event["headers"]["x-shortlist-admin-key"] = KEY
            statuses[f"{method.upper()} {route}"] = service.invoke(event).payload["statusCode"]
    expected = dict.fromkeys(statuses, 200) | {
        "POST /v1/releases/rollback": 422,
        "POST /v1/releases/{version}/canary": 422,
    }
    assert statuses == expected
    assert len(statuses) >= 20


def test_etag_and_head(service) -> None:
    """304 for a tag that holds, and no body for HEAD."""
    first = service.invoke(http_event("GET", "/v1/popular", query="k=3")).payload
    event = http_event("GET", "/v1/popular", query="k=3")
    event["headers"]["if-none-match"] = first["headers"]["etag"]
    again, head = (
        service.invoke(event).payload,
        service.invoke(http_event("HEAD", "/v1/popular", query="k=3")).payload,
    )
    assert (again["statusCode"], again.get("body", "")) == (304, "")
    assert (head["statusCode"], head.get("body", ""), head["headers"]["etag"]) == (
        200,
        "",
        first["headers"]["etag"],
    )


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """A module of handlers that misbehave."""
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "broken.py").write_text("raise RuntimeError('no init')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("failing.raises", "ValueError"),
        ("failing.exits", "Runtime.ExitError"),
        ("broken.handler", "RuntimeError"),
    ],
)
def test_unhandled_error(failing, handler, kind) -> None:
    """The answer is Lambda's own with the error's type.

    The next invocation starts a new environment.
    """
    with LambdaService(handler, str(failing), os.environ) as running:
        first, second = running.invoke({}), running.invoke({})
    assert (first.error, first.payload["errorType"]) == ("Unhandled", kind)
    assert (second.error, second.payload["errorType"]) == ("Unhandled", kind)


def test_handler_that_hangs(failing) -> None:
    """It is ended after the function's time-out, with Lambda's words."""
    with LambdaService("failing.hangs", str(failing), os.environ, timeout=1.0) as running:
        running_out = running.invoke({})
    assert "Task timed out after 1.00 seconds" in running_out.payload["errorMessage"]


def test_context_of_the_runtime_client(failing) -> None:
    """Request id and remaining time come from the service's headers."""
    with LambdaService("failing.echoes", str(failing), os.environ) as running:
        invoked = running.invoke({"a": 1})
    assert invoked.payload["event"] == {"a": 1}
    assert invoked.payload["left"] is True
    assert len(invoked.payload["request"]) == 36


def test_the_invoke_command_prints_the_answer(published) -> None:
    """`shortlist invoke` goes the whole way, and prints JSON."""
    command = [
        sys.executable,
        "-m",
        "shortlist.batch.cli",
        "invoke",
        "--user",
        known_user(published),
        "--k",
        "3",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | published.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["source"], len(answer["recommendations"])) == ("batch", 3)


def test_the_serve_command_answers_under_uvicorn(published) -> None:
    """`shortlist serve` runs the same app, and documents it."""
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | published.environ, stderr=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in process.stderr if "Uvicorn running" in line)
        address = line.split("on ")[1].split(" ")[0]
        with urllib.request.urlopen(f"{address}/health", timeout=10) as response:  # noqa: S310 - loopback
            assert json.load(response)["release"] == published.version
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as response:  # noqa: S310 - loopback
            assert "/v1/recommend" in json.load(response)["paths"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
