"""Tests the request log in Lambda, uvicorn and the app.

The requests are known.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.request_log import warn_once
from shortlist.recsys.errors import StoreUnavailable

ROOT = str(Path(__file__).parents[2])
BROKEN = """
from shortlist.lambda_handler import handler as module
from shortlist.recsys.store.redis import RedisStore

def raises(*_):
    raise RuntimeError("a bug")

RedisStore.rows_of = raises
handler = module.handler
app = module.app
"""


def user_of(published) -> str:
    """A user with a list."""
    return published.dataset.user_ids[int(published.dataset.events.user[0])]


def lines_of(log: Path) -> list[str]:
    """What the function wrote, but for its metrics."""
    return [line for line in log.read_text().splitlines() if not line.startswith('{"_aws"')]


def invoked(
    published,
    log: Path,
    *events: dict[str, Any],
    handler: str = "shortlist.lambda_handler.handler.handler",
    **more: str,
) -> Any:
    """The lines of the function's log after these events, with standard error."""
    environ = os.environ | published.environ | more
    root = f"{ROOT}:{log.parent}"
    with log.open("wb") as file:
        python = ("/bin/sh", "-c", 'exec "$0" "$@" 2>&1', sys.executable)
        with LambdaService(
            handler, ROOT, environ | {"PYTHONPATH": root}, python=python, log=file.fileno()
        ) as service:
            for event in events:
                service.invoke(event)
    return lines_of(log)


def steady(line: str) -> dict[str, Any]:
    """A line as it is every time: the milliseconds and the id are looked at, and taken out."""
    fields = json.loads(line)
    assert 0 < fields.pop("ms") < 60_000
    assert len(fields.pop("request_id")) == 36
    return fields


def test_one_line_a_request_in_lambda(published, tmp_path) -> None:
    """These lines and no others, whatever the outcome of the request; none has a user."""
    user = user_of(published)
    events = (
        http_event("POST", "/recommend", {"user_id": user}),
        http_event("GET", f"/v1/users/{user}/recommendations"),
        http_event("POST", "/recommend", {"user_id": "nobody", "k": 1000}),
        http_event("GET", "/no/such/path"),
        http_event("GET", "/v1/popular"),
    )
    of_release = {"level": "info", "status": 200, "release": published.version, "degraded": False}
    of_none = {"level": "info", "release": None, "source": None, "degraded": False}
    assert [steady(line) for line in invoked(published, tmp_path / "log", *events)] == [
        of_release | {"route": "/recommend", "source": "batch"},
        of_release | {"route": "/v1/users/{user_id}/recommendations", "source": "batch"},
        of_none | {"route": "/recommend", "status": 422},
        of_none | {"route": "unmatched", "status": 404},
        of_release | {"route": "/v1/popular", "source": "popular"},
    ]
    assert user not in {
        str(value) for line in lines_of(tmp_path / "log") for value in json.loads(line).values()
    }


def test_a_degraded_answer_says_why(published, tmp_path) -> None:
    """The log has the error that the answer fell back from; a sound answer's line has none."""
    session = {"user_id": "new", "history": [published.dataset.catalogue.ids[0]]}
    events = (
        http_event("POST", "/recommend", session),
        http_event("POST", "/recommend", {"user_id": user_of(published)}),
    )
    nowhere = str(tmp_path / "nowhere")
    lines = invoked(published, tmp_path / "log", *events, SHORTLIST_ARTEFACTS=nowhere)
    degraded, sound = (steady(line) for line in lines)
    assert (degraded["degraded"], sound["degraded"], "why" in sound) == (True, False, False)
    assert degraded["why"].startswith("ArtefactsUnavailable: the artefact directory")
    assert nowhere in degraded["why"]


def test_users_are_named_when_asked_for(published, tmp_path) -> None:
    """SHORTLIST_LOG_USERS=on logs the user, from the body or the path."""
    user = user_of(published)
    events = (http_event("POST", "/recommend", {"user_id": user}), http_event("GET", "/health"))
    lines = invoked(published, tmp_path / "log", *events, SHORTLIST_LOG_USERS="on")
    assert [steady(line)["user"] for line in lines] == [user, None]


def test_one_line_a_bug_in_lambda(published, tmp_path) -> None:
    """It has the request id that the caller got, and the traceback; Mangum writes nothing more."""
    (tmp_path / "broken.py").write_text(BROKEN)
    (line,) = invoked(
        published, tmp_path / "log", http_event("GET", "/v1/items/1"), handler="broken.handler"
    )
    fields = steady(line)
    assert (fields["level"], fields["status"], fields["route"]) == (
        "error",
        500,
        "/v1/items/{item_id}",
    )
    assert fields["error"] == "RuntimeError"
    assert fields["traceback"].startswith("Traceback (most recent call last):\n")
    assert fields["traceback"].endswith('raise RuntimeError("a bug")\nRuntimeError: a bug\n')


def test_one_line_a_request_under_uvicorn(published, tmp_path) -> None:
    """With `shortlist serve`: nothing on standard error, and no line for its start and end."""
    environ = os.environ | published.environ | {"PYTHONPATH": ROOT}
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", "0"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as process:
        started = next(line for line in process.stderr if "Uvicorn running" in line)
        address = started.split("on ")[1].split(" ")[0]
        for path in ("/health", "/v1/popular?k=3"):
            urllib.request.urlopen(f"{address}{path}", timeout=20).close()  # noqa: S310 - loopback
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(t["route"], t["status"], t["source"]) for t in lines] == [
        ("/health", 200, None),
        ("/v1/popular", 200, "popular"),
    ]
    assert [line for line in err.splitlines() if "/health" in line or "popular" in line] == []


@pytest.fixture
def said() -> list[str]:
    """The lines of the app's log."""
    return []


@pytest.fixture
def client(own, said) -> TestClient:
    """The API, whose log the test reads."""
    app = create_app(own[0], own[1], LivePath(own[0]), say=said.append)
    return TestClient(app, raise_server_exceptions=False)


def test_error_and_line_share_an_id(client, said, monkeypatch) -> None:
    """A bug and an unavailable store alike."""
    for error in (RuntimeError("a bug"), OSError("gone")):
        with monkeypatch.context() as patched:
            patched.setattr(
                "redis.client.Pipeline.execute",
                lambda *_, error=error: (_ for _ in ()).throw(error),
            )
            answer = client.get("/v1/items/1").json()
        assert json.loads(said[-1])["request_id"] == answer["error"]["request_id"]
    assert [(json.loads(line)["status"], json.loads(line)["error"]) for line in said] == [
        (500, "RuntimeError"),
        (503, "StoreUnavailable"),
    ]


def test_line_of_a_degraded_answer(client, said, monkeypatch) -> None:
    """The line has the flag of the answer."""
    client.post("/recommend", json={"user_id": "nobody"})
    with monkeypatch.context() as patched:
        patched.setattr(
            "shortlist.recsys.store.redis.RedisStore.popular",
            lambda *_: (_ for _ in ()).throw(StoreUnavailable("gone")),
        )
        client.post("/recommend", json={"user_id": "nobody"})
    assert [json.loads(line)["degraded"] for line in said] == [False, True]


def test_logged_exceptions_are_not_repeated(client, said, monkeypatch, caplog) -> None:
    """Any other exception, as of the server itself, is still logged by the server."""
    warn_once()
    logged, other = RuntimeError("logged"), RuntimeError("other")
    with monkeypatch.context() as patched:
        patched.setattr(
            "shortlist.recsys.store.redis.RedisStore.rows_of",
            lambda *_: (_ for _ in ()).throw(logged),
        )
        client.get("/v1/items/1")
    server = logging.getLogger("uvicorn.error")
    as_new = {
        "handlers": [caplog.handler],
        "propagate": False,
        "level": logging.ERROR,
        "disabled": False,
        "_cache": {},
    }
    for name, value in as_new.items():  # whatever a server in this process made of its loggers
        monkeypatch.setattr(server, name, value)
    for error in (logged, other):
        server.error("Exception in ASGI application", exc_info=error)
    assert [record.exc_info[1] for record in caplog.records if record.name == "uvicorn.error"] == [
        other
    ]
