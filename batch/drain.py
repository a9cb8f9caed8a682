"""Moves events from the stream in Redis to Parquet files, from which the next training learns.

Entries leave the stream only once their file is on the disk for good. Whoever is killed before that finds the same entries
again; whoever is killed after it but before the acknowledgement writes them once more, and the reader of the files takes
each (user, event id) once.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from recsys.errors import CorruptArtefact, InvalidInput
from recsys.event_log import EventLog
from recsys.wire import EventRecord, unpack_event

CHUNK = 10_000
"""Events in one file, at most."""

SCHEMA = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,
    "weight": pl.Float64,
    "recommendation_id": pl.String,
    "position": pl.Int64,
}

Entry = tuple[bytes, Mapping[bytes, bytes] | None]
Forgotten = Callable[[str], bool]
"""Whether a user was deleted."""


@dataclass(frozen=True, slots=True)
class Drained:
    """events: how many were written; files: their files; unreadable: entries that were put aside; dropped: of deleted users."""

    events: int = 0
    files: tuple[Path, ...] = ()
    unreadable: int = 0
    dropped: int = 0


def drain(log: EventLog, directory: Path, chunk: int = CHUNK) -> Drained:
    """Moves everything that waits in the stream into files in `directory`, and deleted users out of all of them.

    Raises:
        InvalidInput: the directory cannot be written, or another drain is at work in it.
    """
    with _locked(directory):
        for draft in directory.glob(".*.draft"):
            draft.unlink()
        log.join()
        is_forgotten = log.store.is_deleted()
        told = Drained()
        for entries in _chunks(log, chunk):
            told = _kept(entries, directory, is_forgotten, told)
            log.acknowledge([entry_id for entry_id, _ in entries])
        _forget(directory, is_forgotten)
        return told


def _chunks(log: EventLog, chunk: int) -> Iterator[list[Entry]]:
    """What an earlier drain took and did not acknowledge, then what is new."""
    for again in (True, False):
        while entries := log.take(chunk, again=again):
            yield entries


def _kept(entries: list[Entry], directory: Path, is_forgotten: Forgotten, told: Drained) -> Drained:
    """Writes the entries; gives `told` with them."""
    events, unreadable = _unpacked(entries)
    kept = [event for event in events if not is_forgotten(event.user_id)]
    first, last = (entries[at][0].decode() for at in (0, -1))
    path = directory / f"events-{first}-{last}.parquet"
    if kept:
        write_durably(pl.DataFrame([asdict(event) for event in kept], schema=SCHEMA), path)
    for entry_id, body in unreadable:
        _durable(directory / f"unreadable-{entry_id.decode()}.bin", body)
    return Drained(
        told.events + len(kept),
        (*told.files, path) if kept else told.files,
        told.unreadable + len(unreadable),
        told.dropped + len(events) - len(kept),
    )


def _unpacked(entries: list[Entry]) -> tuple[list[EventRecord], list[tuple[bytes, bytes]]]:
    events: list[EventRecord] = []
    unreadable: list[tuple[bytes, bytes]] = []
    for entry_id, fields in entries:
        if not fields:
            continue  # deleted from the stream after it was taken
        body = fields.get(b"e", b"")
        try:
            events.append(unpack_event(body))
        except CorruptArtefact:
            unreadable.append((entry_id, body))
    return events, unreadable


def _forget(directory: Path, is_forgotten: Forgotten) -> None:
    """Takes deleted users out of the files of earlier drains."""
    for path in sorted(directory.glob("events-*.parquet")):
        users = pl.scan_parquet(path, glob=False).select(pl.col("user_id").unique()).collect()["user_id"]
        gone = [user for user in users if is_forgotten(user)]
        if not gone:
            continue
        left = pl.read_parquet(path, glob=False).filter(~pl.col("user_id").is_in(gone))
        if left.is_empty():
            path.unlink()
        else:
            write_durably(left, path)


def write_durably(frame: pl.DataFrame, path: Path) -> None:
    """Writes a Parquet file that appears whole, and outlives a power cut."""
    draft = path.with_name(f".{path.name}.draft")
    frame.write_parquet(draft)
    _settle(draft, path)


def _durable(path: Path, body: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(body)
    _settle(draft, path)


def _settle(draft: Path, path: Path) -> None:
    """Makes the draft's bytes durable, then its name."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One drain at a time in a directory; the lock goes with its process."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise InvalidInput(f"another drain is at work in {str(directory)!r}: wait for it, or drain elsewhere") from error
    except OSError as error:
        raise InvalidInput(f"events cannot be written to {str(directory)!r} ({error}): free or mend the disk") from error
