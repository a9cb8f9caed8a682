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
from recsys.errors import InvalidInput
from recsys.event_log import EventLog
from recsys.store import RedisStore, open_store
from recsys.wire import EventRecord

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from batch import drain as module
from recsys.event_log import EventLog
from recsys.store import open_store

url, namespace, directory, where, after = sys.argv[1:]
owner = {"take": EventLog, "acknowledge": EventLog}.get(where, Path if where == "rename" else module)
inner = getattr(owner, where)

def dies(*args, **kwargs):
    if after == "after":
        inner(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, where, dies)
module.drain(EventLog(open_store(url, namespace, 2000)), Path(directory), chunk=3)
"""
STEPS = [
    (where, when)
    for where in ("take", "write_durably", "_settle", "rename", "acknowledge", "_forget")
    for when in ("before", "after")
]


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 2000)
    yield opened
    opened.close()


def told(number: int, user: str = "1") -> EventRecord:
    """An event."""
    return EventRecord(f"e{number}", user, str(number), 1_000 + number, float(number % 5), "r1", 3)


def read(directory: Path) -> list[tuple[str, str]]:
    """User and item of every event that a training would learn from."""
    interactions = directory.parent / "interactions.parquet"
    pl.DataFrame({"user_id": ["0"], "item_id": ["0"], "timestamp": [1]}).write_parquet(interactions)
    dataset = data.load(str(interactions), events=directory).dataset
    pairs = zip(dataset.events.user.tolist(), dataset.events.item.tolist(), strict=True)
    return sorted((dataset.user_ids[user], dataset.catalogue.ids[item]) for user, item in pairs)


def test_events_become_files_and_leave_the_stream(store, tmp_path) -> None:
    """In chunks named by their first and last entry, with every field; a second drain finds nothing."""
    log = EventLog(store)
    log.append([told(number) for number in range(5)])
    done = drain(log, tmp_path / "events", chunk=3)
    assert (done.events, len(done.files), log.length()) == (5, 2, 0)
    frame = pl.concat(pl.read_parquet(path) for path in done.files)
    assert frame.row(1, named=True) == {
        "event_id": "e1",
        "user_id": "1",
        "item_id": "1",
        "timestamp": 1001,
        "weight": 1.0,
        "recommendation_id": "r1",
        "position": 3,
    }
    assert drain(log, tmp_path / "events") == drain_module.Drained()


@pytest.mark.parametrize(("where", "when"), STEPS)
def test_a_drain_killed_at_any_step_loses_and_doubles_nothing(store, tmp_path, where, when) -> None:
    """The next drain completes it: a training reads each event once, and the stream is empty."""
    log = EventLog(store)
    log.append([told(number) for number in range(7)])
    directory = tmp_path / "events"
    url = store.redis.connection_pool.connection_kwargs["path"]
    command = [sys.executable, "-c", KILLED, f"unix://{url}", store.keys.namespace, str(directory), where, when]
    killed = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    log.append([told(7), told(6)])  # one of them sent a second time
    drain(log, directory, chunk=4)
    assert read(directory) == [("0", "0"), *(("1", str(number)) for number in range(8))]
    assert log.length() == 0
    assert list(directory.glob(".*.draft")) == []


def test_a_deleted_users_events_are_dropped_and_taken_out_of_earlier_files(store, tmp_path) -> None:
    """Of a file that held nobody else nothing is left."""
    log = EventLog(store)
    for numbers in ((0, 1), (2,)):
        log.append([told(number, "2" if number else "1") for number in numbers])
        drain(log, tmp_path)
    store.redis.hset(store.keys.deleted(), store.keys.digest("2"), 1)
    log.append([told(3, "2"), told(4, "1")])
    done = drain(log, tmp_path)
    assert (done.events, done.dropped) == (1, 1)
    frames = [pl.read_parquet(path) for path in sorted(tmp_path.glob("events-*.parquet"))]
    assert [frame["user_id"].to_list() for frame in frames] == [["1"], ["1"]]


def test_an_entry_that_cannot_be_read_is_put_aside(store, tmp_path) -> None:
    """It holds up nothing, and its bytes are kept."""
    store.redis.xadd(store.keys.events(), {"e": b"\xc1nonsense"})
    EventLog(store).append([told(1)])
    done = drain(EventLog(store), tmp_path)
    assert (done.events, done.unreadable) == (1, 1)
    assert [path.read_bytes() for path in tmp_path.glob("unreadable-*.bin")] == [b"\xc1nonsense"]


def test_an_entry_deleted_after_it_was_taken_is_passed_over(store, tmp_path) -> None:
    """As when a user is deleted between a killed drain and the next."""
    log = EventLog(store)
    first, _ = log.append([told(1), told(2)])
    log.join()
    log.take(2, again=False)
    store.redis.xdel(store.keys.events(), first)
    assert drain(log, tmp_path).events == 1


def test_two_drains_into_one_directory_are_refused(store, tmp_path) -> None:
    """The second is told to wait."""
    with drain_module._locked(tmp_path), pytest.raises(InvalidInput, match="another drain is at work"):
        drain(EventLog(store), tmp_path)


def test_a_directory_that_cannot_be_written_says_so(store, tmp_path) -> None:
    """With the path and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="free or mend the disk"):
        drain(EventLog(store), tmp_path / "file")


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
    drain(EventLog(store), tmp_path / "events")
    loaded = data.load(str(interactions), events=tmp_path / "events").dataset
    assert (loaded.user_ids, loaded.catalogue.ids, loaded.events.time.tolist()) == (("7",), ("9",), [1767225600, 1800000000])
    assert [None if w != w else w for w in loaded.events.weight.tolist()] == weights  # noqa: PLR0124 - NaN


def test_deleted_users_are_kept_out_of_a_load(tmp_path) -> None:
    """Of neither table is anything read, counted or set aside."""
    frame = pl.DataFrame({"user_id": [1, 2, 2], "item_id": [1, 1, None], "timestamp": [1, 2, 3]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"user_id": [1, 2, 3], "age": [30, 40, 50]}).write_parquet(tmp_path / "users.parquet")
    paths = (str(tmp_path / "interactions.parquet"), None, str(tmp_path / "users.parquet"))
    loaded = data.load(*paths, is_forgotten=lambda user: user == "2")
    assert (loaded.dataset.user_ids, loaded.n_read, loaded.rejects) == (("1", "3"), 1, {})


def test_an_empty_directory_of_events_adds_nothing(tmp_path) -> None:
    """The first run of a new installation has drained nothing yet."""
    (tmp_path / "none").mkdir()
    assert read(tmp_path / "none") == [("0", "0")]


def test_the_command_says_what_it_did(store, valkey_url, tmp_path) -> None:
    """`shortlist events drain --out DIR`."""
    EventLog(store).append([told(1)])
    environ = {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": store.keys.namespace}
    done = CliRunner().invoke(main, ["events", "drain", "--out", str(tmp_path / "out")], env=environ)
    assert (done.exit_code, done.output.split(" in ")[:2]) == (0, ["1 events", "1 files"])
