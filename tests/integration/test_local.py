"""Starts, stops and restarts the service on one machine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from shortlist.batch import cli, job, local
from shortlist.batch.cli import local as local_commands
from shortlist.infra.local import runtime_api, valkey
from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.infra.local.valkey import kept
from shortlist.recsys.data.datasets import MAPPING
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import Change, EventLog
from shortlist.recsys.store.records import EventRecord, UserRecord
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.smallest import smallest

SOURCE = str(Path(__file__).parents[2] / "src")
SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "20",
    "LGBM_N_ESTIMATORS": "5",
    "SHORTLIST_THREADS": "1",
    "SHORTLIST_GATE": "off",
}


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Puts back what a command replaces in the process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_embedded_data_survives_a_restart(tmp_path: Path) -> None:
    """Lists, users and events outlive the process."""
    counts = []
    for _ in range(2):
        with kept({}, tmp_path) as url, redis.Redis.from_url(url) as client:
            counts.append(client.incr("starts"))
    assert counts == [1, 2]


NAME = b"a-user-who-left-7f3a"


def fill(url: str) -> RedisStore:
    """A store with two users, their events between each other's in the stream."""
    store = open_store(url, "local", 5000)
    log = EventLog(store)
    for user in ("stays", NAME.decode(), "stays"):
        store.merge_users([(user, UserRecord(("i",), (1,), (None,), 1, (), {}))], 0)
        marks = {user.encode(): log.append([EventRecord(f"e-{user}", user, "i", 1)])[0]}
        record = UserRecord(("i", "i"), (1, 1), (None, None), 2, (), {})
        log.commit([Change(user, store.user_record(user), record, marks, 1)], 1, 600)
    # While the file is flushed to a slow disk, further writes wait in memory.
    assert store.redis.execute_command("WAITAOF", 1, 0, 30_000)[0] == 1
    return store


def holding(directory: Path) -> list[str]:
    """The files that hold the user's id."""
    return [
        path.name for path in directory.rglob("*") if path.is_file() and NAME in path.read_bytes()
    ]


@pytest.mark.parametrize("when", ["at its stop", "at its next start", "while it runs"])
def test_deleted_user_leaves_the_files(tmp_path, monkeypatch, when) -> None:
    """Records, events, and the commands that deleted them; the others stay."""
    if when == "at its next start":  # the process was killed
        monkeypatch.setattr(valkey, "rewrite", lambda _: None)
    with kept({}, tmp_path) as url:
        store = fill(url)
        assert holding(tmp_path)
        AdminStore(store).delete_user(NAME.decode(), 1)
        assert holding(tmp_path)
        if when == "while it runs":
            valkey.rewrite(store.redis)
            assert holding(tmp_path) == []
        store.close()
    monkeypatch.undo()
    if when == "at its next start":
        assert holding(tmp_path)
    with kept({}, tmp_path) as url:
        assert when == "at its next start" or holding(tmp_path) == []
        store = open_store(url, "local", 5000)
        assert (store.user_record(NAME.decode()), EventLog(store).length()) == (None, 2)
        assert store.user_record("stays") is not None
        store.close()
    assert holding(tmp_path) == []


def test_append_only_file_is_rewritten_repeatedly(tmp_path, monkeypatch) -> None:
    """At the start, then each hour; here, without a pause."""
    times, rewritten = threading.Semaphore(0), valkey.rewrite

    def rewrite(client: redis.Redis) -> None:
        rewritten(client)
        times.release()

    monkeypatch.setattr(valkey, "REWRITE_SECONDS", 0.0)
    monkeypatch.setattr(valkey, "rewrite", rewrite)
    with kept({}, tmp_path):
        assert [times.acquire(timeout=30) for _ in range(3)] == [True] * 3


def test_second_start_trains_nothing(tables, tmp_path, capfd, monkeypatch) -> None:
    """The finished stages are done already; the release serves both times."""
    shutil.copytree(tables, tmp_path / "data")
    sections = [f'[{t}]\npaths = ["{t}.parquet"]\n' for t in ("interactions", "items", "users")]
    (tmp_path / "data" / MAPPING).write_text("".join(sections))
    environ = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ
    } | SMALL
    monkeypatch.setattr(job, "fit_params", smallest)
    health = []

    def ask(address: str) -> None:
        with urllib.request.urlopen(f"{address}/health", timeout=30) as answered:  # noqa: S310 - loopback
            health.append(json.load(answered))

    local.run(tmp_path, None, 0, environ, ask)
    assert "done already" not in capfd.readouterr().err
    local.run(tmp_path, None, 0, environ, ask)
    assert capfd.readouterr().err.count("done already") == 6
    assert (
        [answer["status"] for answer in health],
        len({answer["release"] for answer in health}),
    ) == (
        ["ok", "ok"],
        1,
    )


HANDLERS = """
import json, sys

def echoes(event, context):
    left = context.get_remaining_time_in_millis()
    return {"event": event, "request": len(context.aws_request_id), "left": left > 0}

def raises(event, context):
    raise ValueError("a handler's own error")

def lists_modules(event, context):
    import valkey
    return [valkey.OWNER, "awslambdaric" in sys.modules]
"""


@pytest.fixture
def without_runtime_client(monkeypatch) -> None:
    """A machine on which `awslambdaric` is not installed, such as a Mac."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        runtime_api.importlib.util,
        "find_spec",
        lambda name: None if name == "awslambdaric" else real(name),
    )


@pytest.mark.usefixtures("without_runtime_client")
@pytest.mark.parametrize(
    ("name", "payload", "error"),
    [
        ("echoes", {"event": {"ping": "é"}, "request": 36, "left": True}, None),
        ("raises", "a handler's own error", "Unhandled"),
        ("lists_modules", ["the package's own", False], None),
        ("missing", "module 'handlers' has no attribute 'missing'", "Unhandled"),
    ],
)
def test_handler_without_runtime_client(tmp_path, name, payload, error) -> None:
    """Answers, errors and a missing handler, as under the real client; ours hides no module."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "valkey.py").write_text('OWNER = "the package\'s own"\n')
    environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    with LambdaService(f"handlers.{name}", str(tmp_path), environ) as service:
        invoked = [service.invoke({"ping": "é"}) for _ in range(2)]
    assert [one.error for one in invoked] == [error] * 2
    for one in invoked:
        assert (one.payload if error is None else one.payload["errorMessage"]) == payload


@pytest.mark.usefixtures("without_runtime_client")
def test_api_without_runtime_client(published) -> None:
    """The product's own handler answers from a release."""
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    environ = os.environ | published.environ
    with LambdaService("shortlist.lambda_handler.handler.handler", SOURCE, environ) as service:
        invoked = service.invoke(http_event("POST", "/recommend", {"user_id": user}))
    assert json.loads(invoked.payload["body"])["source"] == "batch"


class Signalled:
    """An event for which nobody waits: SIGTERM comes instead."""

    def wait(self) -> None:
        """Does not return."""
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()


@pytest.mark.usefixtures("keep_signals")
def test_a_signal_ends_the_service(monkeypatch) -> None:
    """While it serves, everything stops in order; before that, the computation is left."""
    ended = []

    def run(directory: Path, package: Path | None, port: int, environ: object, until) -> None:
        until("http://127.0.0.1:1")
        ended.append("in order")

    monkeypatch.setattr(local_commands, "fetch_data", lambda *_: None)
    monkeypatch.setattr(local, "run", run)
    monkeypatch.setattr(threading, "Event", Signalled)
    assert (CliRunner().invoke(cli.main, ["local"]).exit_code, ended) == (0, ["in order"])
    monkeypatch.setattr(local_commands, "fetch_data", lambda *_: Signalled().wait())
    assert (CliRunner().invoke(cli.main, ["local"]).exit_code, ended) == (130, ["in order"])
