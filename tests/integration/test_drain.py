"""From the stream to the next training: nothing lost and nothing doubled, whatever is killed when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from batch import drain as drain_module
from batch.cli import main
from batch.drain import drain
from recsys import data
from recsys.errors import ArtefactsUnavailable, InvalidInput
from recsys.event_files import open_event_files
from recsys.event_log import EventLog
from recsys.store import RedisStore, open_store
from recsys.wire import EventRecord

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from batch import drain as module
from recsys.event_files import open_event_files
from recsys.event_log import EventLog
from recsys.store import open_store

url, namespace, address, where, after = sys.argv[1:]
files = open_event_files(address)
owners = {"take": EventLog, "acknowledge": EventLog, "write": type(files), "fsync": os, "rename": Path, "_forget": module}
owner = owners[where]
inner = getattr(owner, where)

def dies(*args, **kwargs):
    if after == "after":
        inner(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, where, dies)
module.drain(EventLog(open_store(url, namespace, 2000)), files, chunk=3)
"""
STEPS = {
    "directory": ("take", "write", "fsync", "rename", "acknowledge", "_forget"),
    "s3": ("take", "write", "acknowledge", "_forget"),
}
KILLS = [(place, where, when) for place, steps in STEPS.items() for where in steps for when in ("before", "after")]


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 2000)
    yield opened
    opened.close()


@pytest.fixture(params=list(STEPS))
def address(request, tmp_path) -> str:
    """Where a drain may write to."""
    return f"s3://{request.getfixturevalue('bucket')}/events" if request.param == "s3" else str(tmp_path / "events")


def told(number: int, user: str = "1") -> EventRecord:
    """An event."""
    return EventRecord(f"e{number}", user, str(number), 1_000 + number, float(number % 5), "r1", 3)


def read(address: str, directory: Path) -> list[tuple[str, str]]:
    """User and item of every event that a training would learn from; the interactions that it needs go to `directory`."""
    interactions = directory / "interactions.parquet"
    pl.DataFrame({"user_id": ["0"], "item_id": ["0"], "timestamp": [1]}).write_parquet(interactions)
    dataset = data.load(str(interactions), events=address).dataset
    pairs = zip(dataset.events.user.tolist(), dataset.events.item.tolist(), strict=True)
    return sorted((dataset.user_ids[user], dataset.catalogue.ids[item]) for user, item in pairs)


def test_events_become_files_and_leave_the_stream(store, address) -> None:
    """In chunks named by their first and last entry, with every field; a second drain finds nothing."""
    log, files = EventLog(store), open_event_files(address)
    log.append([told(number) for number in range(5)])
    done = drain(log, files, chunk=3)
    assert (done.events, list(done.files), log.length()) == (5, files.names(), 0)
    frame = pl.concat(pl.read_parquet(files.read(name)) for name in done.files)
    assert frame.row(1, named=True) == {
        "event_id": "e1",
        "user_id": "1",
        "item_id": "1",
        "timestamp": 1001,
        "weight": 1.0,
        "recommendation_id": "r1",
        "position": 3,
    }
    assert drain(log, files) == drain_module.Drained()


@pytest.mark.parametrize(("address", "where", "when"), KILLS, indirect=["address"])
def test_a_drain_killed_at_any_step_loses_and_doubles_nothing(store, tmp_path, address, where, when) -> None:
    """The next drain completes it: a training reads each event once, and the stream is empty."""
    log = EventLog(store)
    log.append([told(number) for number in range(7)])
    url = store.redis.connection_pool.connection_kwargs["path"]
    command = [sys.executable, "-c", KILLED, f"unix://{url}", store.keys.namespace, address, where, when]
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    log.append([told(7), told(6)])  # one of them sent a second time
    drain(log, open_event_files(address), chunk=4)
    assert read(address, tmp_path) == [("0", "0"), *(("1", str(number)) for number in range(8))]
    assert log.length() == 0
    assert list(tmp_path.rglob(".*.draft")) == []


def test_a_deleted_users_events_are_dropped_and_taken_out_of_earlier_files(store, address) -> None:
    """Of a file that held nobody else nothing is left."""
    log, files = EventLog(store), open_event_files(address)
    for numbers in ((0, 1), (2,)):
        log.append([told(number, "2" if number else "1") for number in numbers])
        drain(log, files)
    store.redis.hset(store.keys.deleted(), store.keys.digest("2"), 1)
    log.append([told(3, "2"), told(4, "1")])
    done = drain(log, files)
    assert (done.events, done.dropped) == (1, 1)
    frames = [pl.read_parquet(files.read(name)) for name in files.names()]
    assert [frame["user_id"].to_list() for frame in frames] == [["1"], ["1"]]


def test_s3_that_does_not_answer_leaves_the_events_in_the_stream(store, bucket, monkeypatch) -> None:
    """They are there for the next drain."""
    log, files = EventLog(store), open_event_files(f"s3://{bucket}/events")
    log.append([told(1)])
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patched.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(ArtefactsUnavailable, match=bucket):
            drain(log, open_event_files(f"s3://{bucket}/events"))
    assert (log.length(), drain(log, files).events) == (1, 1)


def test_an_entry_that_cannot_be_read_is_put_aside(store, address) -> None:
    """It holds up nothing, and its bytes are kept."""
    store.redis.xadd(store.keys.events(), {"e": b"\xc1nonsense"})
    EventLog(store).append([told(1)])
    files = open_event_files(address)
    done = drain(EventLog(store), files)
    assert (done.events, done.unreadable, len(files.names())) == (1, 1, 1)
    assert files.read(f"unreadable-{'-'.join(done.files[0].split('-')[1:3])}.bin") == b"\xc1nonsense"


def test_an_entry_deleted_after_it_was_taken_is_passed_over(store, tmp_path) -> None:
    """As when a user is deleted between a killed drain and the next."""
    log = EventLog(store)
    first, _ = log.append([told(1), told(2)])
    log.join()
    log.take(2, again=False)
    store.redis.xdel(store.keys.events(), first)
    assert drain(log, open_event_files(str(tmp_path))).events == 1


def test_two_drains_into_one_directory_are_refused(store, tmp_path) -> None:
    """The second is told to wait."""
    files = open_event_files(str(tmp_path))
    with files.draining(), pytest.raises(InvalidInput, match="another drain is at work"):
        drain(EventLog(store), files)


def test_a_directory_that_cannot_be_written_says_so(store, tmp_path) -> None:
    """With the path and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="free or mend the disk"):
        drain(EventLog(store), open_event_files(str(tmp_path / "file")))


@pytest.mark.parametrize(
    ("columns", "weights"),
    [
        ({"rating": [3.0]}, [3.0, 1.0]),
        ({"weight": [3.0]}, [3.0, 1.0]),
        ({"rating": [4.0], "weight": [3.0]}, [3.0, 1.0]),
        ({}, [None, 1.0]),
    ],
)
def test_events_join_interactions_of_any_columns_and_types(store, tmp_path, columns, weights) -> None:
    """Numbers as ids, dates as times, ratings or weights: an event means what an interaction means."""
    interactions = tmp_path / "interactions.csv"
    pl.DataFrame({"user_id": [7], "item_id": [9], "timestamp": ["2026-01-01"], **columns}).write_csv(interactions)
    EventLog(store).append([EventRecord("e", "7", "9", 1_800_000_000, 1.0)])
    events = str(tmp_path / "events")
    drain(EventLog(store), open_event_files(events))
    loaded = data.load(str(interactions), events=events).dataset
    assert (loaded.user_ids, loaded.catalogue.ids, loaded.events.time.tolist()) == (("7",), ("9",), [1767225600, 1800000000])
    assert [None if w != w else w for w in loaded.events.weight.tolist()] == weights  # noqa: PLR0124 - NaN


def test_an_event_that_the_table_has_too_counts_once(store, tmp_path) -> None:
    """As where the caller keeps what it sends: the same user, item and second, in whatever types the table has them."""
    interactions = tmp_path / "interactions.csv"
    pl.DataFrame({"user_id": [7, 7], "item_id": [9, 8], "timestamp": ["2026-01-01", "2026-01-02"]}).write_csv(interactions)
    EventLog(store).append([EventRecord("e", "7", "9", 1767225600, None), EventRecord("f", "7", "9", 1767225601, None)])
    events = str(tmp_path / "events")
    drain(EventLog(store), open_event_files(events))
    loaded = data.load(str(interactions), events=events)
    assert (loaded.dataset.events.time.tolist(), loaded.rejects) == ([1767225600, 1767225601, 1767312000], {})


def test_deleted_users_are_kept_out_of_a_load(tmp_path) -> None:
    """Of neither table is anything read, counted or set aside."""
    frame = pl.DataFrame({"user_id": [1, 2, 2], "item_id": [1, 1, None], "timestamp": [1, 2, 3]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"user_id": [1, 2, 3], "age": [30, 40, 50]}).write_parquet(tmp_path / "users.parquet")
    paths = (str(tmp_path / "interactions.parquet"), None, str(tmp_path / "users.parquet"))
    loaded = data.load(*paths, is_forgotten=lambda user: user == "2")
    assert (loaded.dataset.user_ids, loaded.n_read, loaded.rejects) == (("1", "3"), 1, {})


def test_a_place_without_events_adds_nothing(address, tmp_path) -> None:
    """The first run of a new installation has drained nothing yet."""
    assert read(address, tmp_path) == [("0", "0")]


def test_the_command_says_what_it_did(store, valkey_url, tmp_path) -> None:
    """`shortlist events drain --out DIR`."""
    EventLog(store).append([told(1)])
    environ = {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": store.keys.namespace}
    done = CliRunner().invoke(main, ["events", "drain", "--out", str(tmp_path / "out")], env=environ)
    assert (done.exit_code, done.output.split(" in ")[:2]) == (0, ["1 events", "1 files"])
