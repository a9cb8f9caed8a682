"""Tests the drain of events from the stream to training.

A kill loses no event and doubles none.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgpack
import polars as pl
import pytest
from click.testing import CliRunner

from shortlist.batch import drain as drain_module
from shortlist.batch.cli import main
from shortlist.batch.drain import drain
from shortlist.recsys import data
from shortlist.recsys.errors import ArtefactsUnavailable, InvalidData, InvalidInput
from shortlist.recsys.store.event_files import (
    DEAD_LETTERS,
    PREFIX,
    UNREADABLE,
    EventFiles,
    open_event_files,
)
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, pack_event, unpack_event
from shortlist.recsys.store.redis import RedisStore, open_store

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from shortlist.batch import drain as module
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.redis import open_store

url, namespace, address, where, after = sys.argv[1:]
files = open_event_files(address)
owners = {"take": EventLog, "acknowledge": EventLog, "write": type(files)}
owners |= {"fsync": os, "replace": Path, "_forget": module}
owner = owners[where]
inner = getattr(owner, where)

def dies(*args, **kwargs):
    if after == "after":
        inner(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, where, dies)
module.drain(EventLog(open_store(url, namespace, 2000)), files, chunk=3)
"""
BAD = {
    "user_id": EventRecord("b", " ", "1", 5),
    "item_id": EventRecord("b", "1", "x" * 257, 5),
    "timestamp": EventRecord("b", "1", "1", -1),
    "weight": EventRecord("b", "1", "1", 5, 1e39),
    "event_id": EventRecord("", "1", "1", 5),
    "position": EventRecord("b", "1", "1", 5, None, "r", 2**63),
    "recommendation_id": EventRecord("b", "1", "1", 5, None, "r" * 257),
}
STEPS = {
    "directory": ("take", "write", "fsync", "replace", "acknowledge", "_forget"),
    "s3": ("take", "write", "acknowledge", "_forget"),
}
KILLS = [
    (place, where, when)
    for place, steps in STEPS.items()
    for where in steps
    for when in ("before", "after")
]


@pytest.fixture
def store(valkey_url, namespace) -> Iterator[RedisStore]:
    """A store in a namespace of the test's own."""
    opened = open_store(valkey_url, namespace, 2000)
    yield opened
    opened.close()


@pytest.fixture(params=list(STEPS))
def address(request, tmp_path) -> str:
    """Where a drain may write to."""
    return (
        f"s3://{request.getfixturevalue('bucket')}/events"
        if request.param == "s3"
        else str(tmp_path / "events")
    )


def event_of(number: int, user: str = "1") -> EventRecord:
    """An event."""
    return EventRecord(
        f"e{number}", user, str(number), 1_000 + number, float(number % 5), "r1", 3, "view"
    )


def read(address: str, directory: Path) -> list[tuple[str, str]]:
    """User and item of every event that a training would learn from.

    The interactions that it needs go to `directory`.
    """
    interactions = directory / "interactions.parquet"
    pl.DataFrame({"user_id": ["0"], "item_id": ["0"], "timestamp": [1]}).write_parquet(interactions)
    dataset = data.load(str(interactions), events=address).dataset
    pairs = zip(dataset.events.user.tolist(), dataset.events.item.tolist(), strict=True)
    return sorted((dataset.user_ids[user], dataset.catalogue.ids[item]) for user, item in pairs)


def test_events_move_to_files(store, address) -> None:
    """Files are named by their first and last entry; a second drain has nothing to do."""
    log, files = EventLog(store), open_event_files(address)
    log.append([event_of(number) for number in range(5)])
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
        "event_type": "view",
    }
    assert drain(log, files) == drain_module.Drained()


@pytest.mark.parametrize(("address", "where", "when"), KILLS, indirect=["address"])
def test_a_killed_drain_loses_nothing(store, tmp_path, address, where, when) -> None:
    """The next drain completes it: a training reads each event once, and the stream is empty."""
    log = EventLog(store)
    *_, bad = log.append([*(event_of(number) for number in range(7)), BAD["timestamp"]])
    url = store.redis.connection_pool.connection_kwargs["path"]
    command = [
        sys.executable,
        "-c",
        KILLED,
        f"unix://{url}",
        store.keys.namespace,
        address,
        where,
        when,
    ]
    killed = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    log.append([event_of(7), event_of(6)])  # one of them sent a second time
    drain(log, open_event_files(address), chunk=4)
    assert read(address, tmp_path) == [("0", "0"), *(("1", str(number)) for number in range(8))]
    assert log.length() == 0
    assert list(tmp_path.rglob(".*.draft")) == []
    assert {letter["stream_id"] for letter in letters(open_event_files(address))} == {bad.decode()}


def test_deleted_users_leave_all_files(store, address) -> None:
    """Of a file that held nobody else nothing is left."""
    log, files = EventLog(store), open_event_files(address)
    for numbers in ((0, 1), (2,)):
        log.append([event_of(number, "2" if number else "1") for number in numbers])
        drain(log, files)
    store.redis.hset(store.keys.deleted(), store.keys.digest("2"), 1)
    log.append([event_of(3, "2"), event_of(4, "1")])
    done = drain(log, files)
    assert (done.events, done.dropped) == (1, 1)
    frames = [pl.read_parquet(files.read(name)) for name in files.names()]
    assert [frame["user_id"].to_list() for frame in frames] == [["1"], ["1"]]


def test_unreachable_s3_leaves_events_waiting(store, bucket, monkeypatch) -> None:
    """They are there for the next drain."""
    log, files = EventLog(store), open_event_files(f"s3://{bucket}/events")
    log.append([event_of(1)])
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patched.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(ArtefactsUnavailable, match=bucket):
            drain(log, open_event_files(f"s3://{bucket}/events"))
    assert (log.length(), drain(log, files).events) == (1, 1)


def test_unreadable_entries_are_kept_apart(store, address) -> None:
    """It holds up nothing, and its bytes are kept."""
    store.redis.xadd(store.keys.events(), {"e": b"\xc1nonsense"})
    EventLog(store).append([event_of(1)])
    files = open_event_files(address)
    done = drain(EventLog(store), files)
    assert (done.events, done.unreadable, len(files.names())) == (1, 1, 1)
    (letter,) = letters(files)
    assert (letter["user_id"], letter["body"]) == (None, b"\xc1nonsense")
    assert letter["stream_id"] in done.files[0]
    assert "not msgpack" in letter["reason"]


def letters(files: EventFiles) -> list[dict[str, Any]]:
    """All dead letters."""
    return [
        row
        for name in files.names(DEAD_LETTERS)
        for row in pl.read_parquet(files.read(name)).to_dicts()
    ]


@pytest.mark.parametrize("field", BAD)
def test_invalid_entries_become_dead_letters(store, address, field) -> None:
    """It has the stream's id, the rule, the user and the bytes; other events are drained."""
    log, files = EventLog(store), open_event_files(address)
    _, at, _ = log.append([event_of(1), BAD[field], event_of(2)])
    done = drain(log, files)
    assert (done.events, done.invalid, done.unreadable, log.length()) == (2, 1, 0, 0)
    assert list(done.letters) == files.names(DEAD_LETTERS)
    (letter,) = letters(files)
    assert (letter["stream_id"], letter["user_id"]) == (at.decode(), BAD[field].user_id)
    assert letter["reason"].startswith(f"{field}: ")
    assert unpack_event(letter["body"]) == BAD[field]


def test_bad_entries_alone_write_no_events(store, tmp_path) -> None:
    """And the stream is empty all the same; a foreign entry keeps its bytes."""
    log, files = EventLog(store), open_event_files(str(tmp_path))
    log.append([BAD["timestamp"]])
    store.redis.xadd(store.keys.events(), {"other": b"\xff"})
    done = drain(log, files, chunk=1)
    assert (done.events, done.files, files.names(), log.length()) == (0, (), [], 0)
    assert (done.invalid, done.unreadable, len(done.letters)) == (1, 1, 2)
    assert letters(files)[1]["body"] == msgpack.packb({b"other": b"\xff"})


def test_old_entries_are_normalised(store, tmp_path) -> None:
    """What was accepted in another spelling is the same user and item afterwards."""
    log, files = EventLog(store), open_event_files(str(tmp_path))
    log.append([EventRecord("e", " 42 ", "7.0", 5, 3)])
    drain(log, files)
    frame = pl.read_parquet(files.read(files.names()[0]))
    assert frame.select("user_id", "item_id", "weight").row(0) == ("42", "7", 3.0)


@pytest.mark.parametrize("spelt", [" 42 ", "42.0", "42"])
def test_deleted_users_go_in_every_spelling(store, tmp_path, spelt) -> None:
    """From new entries, and from files that an earlier release wrote."""
    log, files = EventLog(store), open_event_files(str(tmp_path))
    old = pl.DataFrame(
        [asdict(EventRecord("a", spelt, "1", 5)), asdict(event_of(1))], schema=drain_module.SCHEMA
    )
    old.write_parquet(tmp_path / "events-1-0-2-0.parquet")
    store.redis.hset(store.keys.deleted(), store.keys.digest("42"), 1)
    log.append([EventRecord("b", spelt, "1", 5), EventRecord("", spelt, "1", 5)])
    assert drain(log, files).dropped == 2
    assert pl.read_parquet(tmp_path / "events-1-0-2-0.parquet")["user_id"].to_list() == ["1"]
    assert (files.names(), letters(files)) == (["events-1-0-2-0.parquet"], [])


def test_deleted_users_leave_dead_letters(store, address) -> None:
    """Those of others stay.

    Those of unknown users go with the first deletion that is later than they are.
    """
    log, files = EventLog(store), open_event_files(address)
    damaged = msgpack.packb([1, "e", "2", "1", "soon", None, None])
    for body in (pack_event(BAD["timestamp"]), damaged, b"\xc1"):
        store.redis.xadd(store.keys.events(), {"e": body})
    drain(log, files)
    assert sorted(letter["user_id"] or "" for letter in letters(files)) == ["", "1", "2"]
    store.redis.hset(store.keys.deleted(), store.keys.digest("9"), 1)  # long before they came
    drain(log, files)
    assert len(letters(files)) == 3
    store.redis.hset(store.keys.deleted(), store.keys.digest("2"), 2**40)
    drain(log, files)
    assert [letter["user_id"] for letter in letters(files)] == ["1"]
    store.redis.hset(store.keys.deleted(), store.keys.digest("1"), 2**40)
    drain(log, files)
    assert files.names(DEAD_LETTERS) == []


def test_unreadable_deletion_times_count_as_later(store, tmp_path) -> None:
    """No dead letter of an unknown user outlives it."""
    files = open_event_files(str(tmp_path))
    store.redis.xadd(store.keys.events(), {"e": b"\xc1"})
    store.redis.hset(store.keys.deleted(), store.keys.digest("9"), "soon")
    drain(EventLog(store), files)
    assert files.names(DEAD_LETTERS) == []


def test_older_unreadable_files_go_too(store, address) -> None:
    """No file that cannot be read outlives a later deletion.

    That holds for `unreadable-*.bin`, for files of events and of dead letters.
    """
    log, files = EventLog(store), open_event_files(address)
    names = [
        "unreadable-5000-0.bin",
        "events-5000-0-9000-0.parquet",
        "dead-letters-5000-0-9000-0.parquet",
        "unreadable-x.bin",
    ]
    drain(log, files)
    for name in names:
        files.write(name, b"broken")
    prefixes = (PREFIX, DEAD_LETTERS, UNREADABLE)
    assert drain(log, files).broken == (names[1],)
    assert sorted(name for prefix in prefixes for name in files.names(prefix)) == sorted(names)
    store.redis.hset(store.keys.deleted(), store.keys.digest("9"), 4)
    drain(log, files)
    assert sorted(name for prefix in prefixes for name in files.names(prefix)) == sorted(names[:3])
    store.redis.hset(store.keys.deleted(), store.keys.digest("9"), 5)
    assert drain(log, files).broken == (names[1],)
    assert [name for prefix in prefixes for name in files.names(prefix)] == []


def table(directory: Path, rows: int = 1) -> str:
    """A sound interactions table."""
    path = directory / "interactions.parquet"
    pl.DataFrame(
        {"user_id": ["0"] * rows, "item_id": ["0"] * rows, "timestamp": range(rows)}
    ).write_parquet(path)
    return str(path)


def test_bad_drained_rows_stop_nothing(tmp_path) -> None:
    """Each is rejected by itself, whatever their share.

    They are counted under their file, apart from the table's rows.
    """
    events = tmp_path / "events"
    events.mkdir()
    records = [BAD["user_id"], BAD["item_id"], BAD["timestamp"], BAD["weight"], event_of(1)]
    frame = pl.DataFrame([asdict(r) for r in records], schema=drain_module.SCHEMA)
    frame = frame.with_columns(event_id=pl.Series(["a", "b", "c", "d", "e"]))
    frame.write_parquet(events / "events-1-0-2-0.parquet")
    rejects = tmp_path / "rejects.parquet"
    loaded = data.load(table(tmp_path), events=str(events), rejects=rejects)
    assert (loaded.n_read, loaded.n_drained, len(loaded.dataset.events)) == (1, 5, 2)
    assert loaded.rejects == {
        "events: impossible timestamp": 1,
        "events: impossible weight": 1,
        "events: item_id: at most 256 characters are allowed, use a shorter id": 1,
        "events: null user_id": 1,
    }
    assert pl.read_parquet(rejects)["table"].unique().to_list() == ["events"]
    (note,) = loaded.notes
    assert note.startswith("events: 4 of 5 drained events are left out (")
    assert repr(str(rejects)) in note


def test_bad_table_rows_count_apart(tmp_path) -> None:
    """Many good drained events do not hide that a table is broken."""
    events = tmp_path / "events"
    events.mkdir()
    frame = pl.DataFrame([asdict(event_of(n)) for n in range(100)], schema=drain_module.SCHEMA)
    frame.write_parquet(events / "events-1-0-2-0.parquet")
    path = tmp_path / "i.parquet"
    pl.DataFrame(
        {"user_id": ["1", None], "item_id": ["1", "1"], "timestamp": [1, 2]}
    ).write_parquet(path)
    with pytest.raises(InvalidData, match=r"interactions: 1 of 2 rows \(50\.0%\) break the schema"):
        data.load(str(path), events=str(events))


def test_unreadable_drained_files_are_skipped(store, address, tmp_path) -> None:
    """A note names it; the events of the others are learnt from."""
    log, files = EventLog(store), open_event_files(address)
    log.append([event_of(1)])
    drain(log, files)
    files.write("events-0-0-0-1.parquet", b"PAR1 cut short")
    other = io.BytesIO()
    pl.DataFrame({"event_id": ["x"]}).write_parquet(other)
    files.write("events-0-0-0-2.parquet", other.getvalue())
    loaded = data.load(table(tmp_path), events=address)
    assert (len(loaded.dataset.events), loaded.n_drained) == (2, 1)
    assert [
        "events-0-0-0-1.parquet" in loaded.notes[0],
        "events-0-0-0-2.parquet" in loaded.notes[1],
    ] == [True, True]
    assert all("left out" in note for note in loaded.notes)


def test_unreachable_s3_stops_a_load(bucket, tmp_path, monkeypatch) -> None:
    """A refresh without its events would be a silent loss."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ArtefactsUnavailable):
        data.load(table(tmp_path), events=f"s3://{bucket}/events")


def test_a_place_may_have_any_name(store, tmp_path) -> None:
    """Also one that a glob would read otherwise."""
    place = str(tmp_path / "a[b]*" / "events")
    EventLog(store).append([event_of(1)])
    drain(EventLog(store), open_event_files(place))
    assert data.load(table(tmp_path), events=place).n_drained == 1


def test_other_digits_in_user_ids(store, tmp_path) -> None:
    """Digits that are not ASCII: drained, read and learnt from as they are spelt."""
    wide = "\uff11\uff12\uff13"
    EventLog(store).append([EventRecord("e", wide, wide, 5)])
    events = str(tmp_path / "events")
    drain(EventLog(store), open_event_files(events))
    assert data.load(table(tmp_path), events=events).dataset.user_ids == ("0", wide)


def test_entries_deleted_when_taken_are_skipped(store, tmp_path) -> None:
    """As when a user is deleted between a killed drain and the next."""
    log = EventLog(store)
    first, _ = log.append([event_of(1), event_of(2)])
    log.join()
    log.take(2, again=False)
    store.redis.xdel(store.keys.events(), first)
    assert drain(log, open_event_files(str(tmp_path))).events == 1


def test_two_drains_at_once_are_refused(store, tmp_path) -> None:
    """The error of the second says to wait."""
    files = open_event_files(str(tmp_path))
    with files.draining(), pytest.raises(InvalidInput, match="another drain is at work"):
        drain(EventLog(store), files)


def test_an_unwritable_directory_is_reported(store, tmp_path) -> None:
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
def test_events_join_interactions_of_any_type(store, tmp_path, columns, weights) -> None:
    """Ids may be numbers, times dates, and weights ratings: both mean the same."""
    interactions = tmp_path / "interactions.csv"
    pl.DataFrame(
        {"user_id": [7], "item_id": [9], "timestamp": ["2026-01-01"], **columns}
    ).write_csv(interactions)
    EventLog(store).append([EventRecord("e", "7", "9", 1_800_000_000, 1.0)])
    events = str(tmp_path / "events")
    drain(EventLog(store), open_event_files(events))
    loaded = data.load(str(interactions), events=events).dataset
    assert (loaded.user_ids, loaded.catalogue.ids, loaded.events.time.tolist()) == (
        ("7",),
        ("9",),
        [1767225600, 1800000000],
    )
    assert [None if w != w else w for w in loaded.events.weight.tolist()] == weights  # noqa: PLR0124 - NaN


def test_events_in_both_sources_count_once(store, tmp_path) -> None:
    """The same user, item and second are one event, whatever types the table has.

    Callers may keep a table of what they send.
    """
    interactions = tmp_path / "interactions.csv"
    pl.DataFrame(
        {"user_id": [7, 7], "item_id": [9, 8], "timestamp": ["2026-01-01", "2026-01-02"]}
    ).write_csv(interactions)
    EventLog(store).append(
        [EventRecord("e", "7", "9", 1767225600, None), EventRecord("f", "7", "9", 1767225601, None)]
    )
    events = str(tmp_path / "events")
    drain(EventLog(store), open_event_files(events))
    loaded = data.load(str(interactions), events=events)
    assert (loaded.dataset.events.time.tolist(), loaded.rejects) == (
        [1767225600, 1767225601, 1767312000],
        {},
    )


def test_deleted_users_are_not_loaded(tmp_path) -> None:
    """Nothing of theirs is read, counted or rejected, in either table."""
    frame = pl.DataFrame({"user_id": [1, 2, 2], "item_id": [1, 1, None], "timestamp": [1, 2, 3]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"user_id": [1, 2, 3], "age": [30, 40, 50]}).write_parquet(
        tmp_path / "users.parquet"
    )
    paths = (str(tmp_path / "interactions.parquet"), None, str(tmp_path / "users.parquet"))
    loaded = data.load(*paths, is_forgotten=lambda user: user == "2")
    assert (loaded.dataset.user_ids, loaded.n_read, loaded.rejects) == (("1", "3"), 1, {})


def test_a_place_without_events_adds_nothing(address, tmp_path) -> None:
    """The first run of a new installation has drained nothing yet."""
    assert read(address, tmp_path) == [("0", "0")]


def test_the_command_says_what_it_did(store, valkey_url, tmp_path) -> None:
    """`shortlist events drain --out DIR`."""
    EventLog(store).append([event_of(1)])
    environ = {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": store.keys.namespace}
    done = CliRunner().invoke(
        main, ["events", "drain", "--out", str(tmp_path / "out")], env=environ
    )
    assert (done.exit_code, done.output.split(" in ")[:2]) == (0, ["1 events", "1 files"])
    assert "put aside" not in done.output


def test_the_command_names_dead_letter_files(store, valkey_url, tmp_path) -> None:
    """How many of each kind, and in which file."""
    EventLog(store).append([BAD["weight"]])
    store.redis.xadd(store.keys.events(), {"e": b"\xc1"})
    environ = {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": store.keys.namespace}
    done = CliRunner().invoke(main, ["events", "drain", "--out", str(tmp_path)], env=environ)
    (name,) = open_event_files(str(tmp_path)).names(DEAD_LETTERS)
    assert (
        f"1 entries unreadable and 1 against a rule, put aside in {tmp_path}: {name}" in done.output
    )
