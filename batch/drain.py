"""Moves events from the stream in Redis to Parquet files, from which the next training learns.

Entries leave the stream only once their file is there for good. Whoever is killed before that finds the same entries
again; whoever is killed after it but before the acknowledgement writes them once more, and the reader of the files takes
each (user, event id) once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import polars as pl

from recsys.errors import CorruptArtefact
from recsys.event_files import PREFIX, SUFFIX, EventFiles
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
    """events: how many were written; files: their names; unreadable: entries that were put aside; dropped: of deleted users."""

    events: int = 0
    files: tuple[str, ...] = ()
    unreadable: int = 0
    dropped: int = 0


def drain(log: EventLog, files: EventFiles, chunk: int = CHUNK) -> Drained:
    """Moves everything that waits in the stream into files, and deleted users out of all of them.

    Raises:
        InvalidInput: the files' place cannot be written, or another drain is at work in it.
        Unavailable: Redis or S3 does not answer; what is not in a file by then is still in the stream.
    """
    with files.draining():
        log.join()
        is_forgotten = log.store.is_deleted()
        told = Drained()
        for entries in _chunks(log, chunk):
            told = _kept(entries, files, is_forgotten, told)
            log.acknowledge([entry_id for entry_id, _ in entries])
        _forget(files, is_forgotten)
        return told


def _chunks(log: EventLog, chunk: int) -> Iterator[list[Entry]]:
    """What an earlier drain took and did not acknowledge, then what is new."""
    for again in (True, False):
        while entries := log.take(chunk, again=again):
            yield entries


def _kept(entries: list[Entry], files: EventFiles, is_forgotten: Forgotten, told: Drained) -> Drained:
    """Writes the entries; gives `told` with them."""
    events, unreadable = _unpacked(entries)
    kept = [event for event in events if not is_forgotten(event.user_id)]
    first, last = (entries[at][0].decode() for at in (0, -1))
    name = f"{PREFIX}{first}-{last}{SUFFIX}"
    if kept:
        files.write(name, _parquet(pl.DataFrame([asdict(event) for event in kept], schema=SCHEMA)))
    for entry_id, body in unreadable:
        files.write(f"unreadable-{entry_id.decode()}.bin", body)
    return Drained(
        told.events + len(kept),
        (*told.files, name) if kept else told.files,
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


def _forget(files: EventFiles, is_forgotten: Forgotten) -> None:
    """Takes deleted users out of the files of earlier drains."""
    for name in files.names():
        frame = pl.read_parquet(files.read(name))
        gone = [user for user in frame["user_id"].unique() if is_forgotten(user)]
        if not gone:
            continue
        left = frame.filter(~pl.col("user_id").is_in(gone))
        if left.is_empty():
            files.remove(name)
        else:
            files.write(name, _parquet(left))


def _parquet(frame: pl.DataFrame) -> bytes:
    body = io.BytesIO()
    frame.write_parquet(body)
    return body.getvalue()
