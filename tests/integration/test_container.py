"""Runs the batch in a container: log, exit status, resumption."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgpack
import polars as pl
import pytest

from shortlist.batch import container
from shortlist.batch.checkpoints import Checkpoints
from shortlist.batch.run_log import RunLog
from shortlist.recsys.errors import ArtefactsUnavailable, InvalidSettings
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord
from shortlist.recsys.store.redis import open_store
from tests.smallest import smallest_config

ROOT = Path(__file__).parents[2]
STAGES = [
    "features",
    "train-embeddings",
    "build-index",
    "train-ranker",
    "evaluate",
    "precompute",
    "publish",
]


@pytest.fixture
def environ(tables, valkey_url, namespace, tmp_path, s3_environ, bucket) -> dict[str, str]:
    """What the template tells the container, for a small world."""
    return s3_environ | {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_INTERACTIONS": str(tables / "interactions.parquet"),
        "SHORTLIST_ITEMS": str(tables / "items.parquet"),
        "SHORTLIST_WORK": str(tmp_path / "work"),
        "SHORTLIST_RUN_ID": f"run-{namespace}",
        "SHORTLIST_EVENTS": f"s3://{bucket}/events",
        "SHORTLIST_CHECKPOINTS": f"s3://{bucket}/runs",
        "SHORTLIST_GATE": "off",
        "SHORTLIST_THREADS": "1",
        "EMBEDDING_DIM": "8",
        "TOP_K_CANDIDATES": "30",
        "LGBM_N_ESTIMATORS": "5",
        "SHORTLIST_CONFIG": str(smallest_config(tmp_path)),
    }


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Puts back what a container replaces in the process."""
    hook, handler = sys.excepthook, signal.getsignal(signal.SIGTERM)
    yield
    sys.excepthook = hook
    signal.signal(signal.SIGTERM, handler)


def lines(text: str) -> list[dict]:
    """The log's lines."""
    return [json.loads(line) for line in text.splitlines()]


def start(environ: dict[str, str]) -> subprocess.Popen[str]:
    """A container's process."""
    command = [sys.executable, "-m", "shortlist.batch", "refresh"]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environ, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def stream(valkey_url, namespace) -> Iterator[EventLog]:
    """The stream of events."""
    with closing(open_store(valkey_url, namespace, 2000)) as store:
        yield EventLog(store)


def users_learnt_from(work: Path) -> list[str]:
    """The users of the run's data."""
    return list(msgpack.unpackb((work / "dataset.msgpack").read_bytes())["user_ids"])


@pytest.mark.usefixtures("keep_signals")
def test_events_over_http_are_learnt_from(environ, stream, tables, tmp_path) -> None:
    """The run drains the stream to S3 first.

    The next run, which finds nothing new in the stream, learns from the files.
    """
    item = str(pl.read_parquet(tables / "items.parquet")["item_id"][0])
    stream.append(
        [EventRecord("e1", "new-user", item, 1_900_000_000), EventRecord("e2", " ", item, 5)]
    )
    for run in ("monday", "tuesday"):
        work = tmp_path / run
        out = io.StringIO()
        changes = {"SHORTLIST_RUN_ID": run, "SHORTLIST_WORK": str(work)}
        status = container.main(environ | changes, out)
        drained = next(entry for entry in lines(out.getvalue()) if entry["stage"] == "drain")
        assert (status, drained["event"], drained["events"]) == (
            0,
            "finished",
            int(run == "monday"),
        )
        assert ("new-user" in users_learnt_from(work), stream.length()) == (True, 0)
        assert (drained["invalid"], len(drained["letters"])) == (int(run == "monday"),) * 2
        assert drained["place"] == environ["SHORTLIST_EVENTS"]


def test_a_stopped_refresh_resumes_elsewhere(environ, stream, tables, tmp_path) -> None:
    """SIGTERM after two stages: it ends with 75, and another machine goes on.

    With the run's id alone it skips those two stages and publishes.

    What came over HTTP meanwhile waits for the next run.
    """
    process = start(environ)
    for line in process.stderr:
        entry = json.loads(line)
        if (entry["stage"], entry["event"]) == ("build-index", "started"):
            process.send_signal(signal.SIGTERM)
            break
    rest = lines(process.communicate(timeout=60)[1])
    assert (process.returncode, rest[-1]["event"]) == (75, "interrupted")

    item = str(pl.read_parquet(tables / "items.parquet")["item_id"][0])
    stream.append([EventRecord("e1", "new-user", item, 1_900_000_000)])
    again = start(environ | {"SHORTLIST_WORK": str(tmp_path / "other-machine")})
    log = lines(again.communicate(timeout=120)[1])
    assert again.returncode == 0
    skipped = [entry["stage"] for entry in log if entry["event"] == "skipped"]
    assert (skipped[:2], stream.length()) == (["features", "train-embeddings"], 1)
    assert skipped + [entry["stage"] for entry in log if entry["event"] == "finished"] == STAGES
    assert (log[-1]["event"], {entry["run"] for entry in log}) == (
        "published",
        {environ["SHORTLIST_RUN_ID"]},
    )


@pytest.mark.usefixtures("keep_signals")
@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"SHORTLIST_INTERACTIONS": ""}, 2, "SHORTLIST_INTERACTIONS is unset"),
        ({"SHORTLIST_INTERACTIONS": "/nowhere.parquet"}, 2, "/nowhere.parquet"),
        ({"SHORTLIST_DATA": "/nowhere.toml"}, 2, "SHORTLIST_DATA names all tables"),
        (
            {"SHORTLIST_INTERACTIONS": "", "SHORTLIST_ITEMS": "", "SHORTLIST_DATA": "/no.toml"},
            2,
            "there is no file '/no.toml'",
        ),
        ({"EMBEDDING_DIM": "none"}, 2, "EMBEDDING_DIM"),
        ({"SHORTLIST_CHECKPOINTS": "/a/directory"}, 2, "write s3://bucket/prefix"),
        ({"SHORTLIST_EVENTS": "s3:///events"}, 2, "write s3://bucket/prefix"),
        (
            {"SHORTLIST_EVENTS": "s3://no-such-bucket/events"},
            75,
            "check its name, the network and permissions",
        ),
        (
            {"SHORTLIST_INTERACTIONS": "s3://no-such-bucket/a.csv"},
            2,
            "S3 has no 's3://no-such-bucket/a.csv'",
        ),
        (
            {"SHORTLIST_CHECKPOINTS": "s3://no-such-bucket/runs"},
            75,
            "check its name, the network and permissions",
        ),
    ],
)
def test_exit_statuses_of_failures(environ, change, status, said) -> None:
    """2: correct the input; 75: try again. The last line says why."""
    out = io.StringIO()
    assert container.main(environ | change, out) == status
    last = lines(out.getvalue())[-1]
    assert (last["event"], said in last["message"]) == ("failed", True)


@pytest.mark.usefixtures("keep_signals")
def test_uncaught_errors_are_logged(environ, monkeypatch) -> None:
    """A bug is in the log with its trace, and is not tried again."""
    out = io.StringIO()
    monkeypatch.setattr(container, "_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        container.main(environ, out)
    sys.excepthook(raised.type, raised.value, raised.tb)
    last = lines(out.getvalue())[-1]
    assert (last["event"], last["error"], "_run" in last["trace"]) == (
        "broken",
        "ZeroDivisionError",
        True,
    )


def test_the_heartbeat_is_logged() -> None:
    """Lines come by themselves, so that silence means a fault."""
    beaten = threading.Event()

    class Heard(RunLog):
        def __call__(self, event: str, **fields: object) -> None:
            if (event, "seconds" in fields) == ("heartbeat", True):
                beaten.set()

    with Heard("r", io.StringIO()).heartbeat(every=0.001):
        assert beaten.wait(10)


@pytest.mark.usefixtures("keep_signals")
def test_libraries_log_json_lines_too(environ, monkeypatch) -> None:
    """Each warning, log from WARNING on and trace of a library is one line, fields in order."""
    out = io.StringIO()

    def run(*_: object) -> None:
        library = logging.getLogger("a.library")
        library.info("left out")
        library.warning("took %d s", 3)
        try:
            int("bad")
        except ValueError:
            library.exception("gave up")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("is deprecated", UserWarning, stacklevel=1)

    monkeypatch.setattr(container, "_run", run)
    assert container.main(environ, out) == 0
    took, gave_up, deprecated, published = lines(out.getvalue())
    assert list(took) == ["time", "run", "stage", "event", "logger", "level", "message"]
    assert [took[name] for name in ("event", "logger", "level", "message")] == [
        "log",
        "a.library",
        "WARNING",
        "took 3 s",
    ]
    assert (gave_up["level"], gave_up["trace"].splitlines()[-1]) == (
        "ERROR",
        "ValueError: invalid literal for int() with base 10: 'bad'",
    )
    assert deprecated["logger"] == "py.warnings"
    assert "UserWarning: is deprecated" in deprecated["message"]
    assert list(published) == ["time", "run", "stage", "event"]


@pytest.fixture
def checkpoints(bucket) -> Checkpoints:
    """Those of a run of this test's own."""
    return Checkpoints(f"s3://{bucket}/c", "run")


def test_only_what_changed_is_saved(checkpoints, tmp_path) -> None:
    """Files that are there already are not sent again, and drafts never."""
    (tmp_path / "done").mkdir()
    for name in ("a", "done/a", "half.draft", ".hidden"):
        (tmp_path / name).write_text("1")
    assert (checkpoints.save(tmp_path), checkpoints.save(tmp_path)) == (2, 0)
    (tmp_path / "a").write_text("22")
    assert checkpoints.save(tmp_path) == 1
    other = tmp_path / "other"
    assert checkpoints.restore(other) == 2
    assert ((other / "a").read_text(), (other / "done" / "a").read_text()) == ("22", "1")


def test_marks_are_saved_last(checkpoints, tmp_path, monkeypatch) -> None:
    """A mark that is in S3 speaks the truth, wherever the upload stopped."""
    (tmp_path / "done").mkdir()
    for name in ("done/a", "z", "a"):
        (tmp_path / name).write_text("1")
    sent = []
    monkeypatch.setattr(
        checkpoints._client, "upload_file", lambda path, *_: sent.append(Path(path).name)
    )
    checkpoints.save(tmp_path)
    assert sent == ["a", "z", "a"]


def test_checkpoints_need_s3(checkpoints, tmp_path) -> None:
    """Elsewhere they would be lost with the machine."""
    with pytest.raises(InvalidSettings, match="write s3://"):
        Checkpoints("here", "run")
    with pytest.raises(ArtefactsUnavailable, match="check its name"):
        Checkpoints("s3://no-such-bucket", "run").restore(tmp_path)
