"""Moves events from the Redis stream to Parquet files.

The next training learns from the files. Entries leave the stream only once their file is durable. A
drain that is killed before that finds the same entries again; one that is killed after it but
before the acknowledgement writes them once more, and the reader of the files takes each (user,
event id) once.

Each event is checked by the rules of `recsys.values`, since an entry may be older than a rule. An
entry that cannot be read or breaks a rule becomes a dead letter: a row of a Parquet file that lies
next to the files of events, and stops nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

import msgpack
import polars as pl

from shortlist.recsys import values
from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.store.event_files import DEAD_LETTERS, PREFIX, SUFFIX, UNREADABLE, EventFiles
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, unpack_event
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.redis_client import translate_redis_errors

EVENTS_PER_FILE = 10_000
"""At most: what a drain holds in memory, and what a killed one does again."""

SCHEMA = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Int64,
    "weight": pl.Float64,
    "recommendation_id": pl.String,
    "position": pl.Int64,
    "event_type": pl.String,
}

LETTER_SCHEMA = {
    "stream_id": pl.String,
    "reason": pl.String,
    "user_id": pl.String,
    "body": pl.Binary,
}
"""Columns of a file of dead letters.

user_id is null where it cannot be read; body is the entry as it was.
"""

_USER_POSITION = 2
"""Of the user's id in a packed event."""

StreamEntry = tuple[bytes, Mapping[bytes, bytes] | None]
"""An entry's id and fields; None if it was deleted from the stream after it was taken."""

IsDeleted = Callable[[str], bool]
"""Whether a user was deleted."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: an entry that cannot be read, or breaks a rule.

    user: as the entry names them, if it does.
    """

    stream_id: str
    reason: str
    user: str | None
    body: bytes
    unreadable: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain did.

    events: how many were written; files: their names; unreadable: entries that could not be read;
    dropped: of deleted users; invalid: entries that break a rule; letters: the files of dead
    letters, where both kinds lie; broken: files of earlier drains that cannot be read.
    """

    events: int = 0
    files: tuple[str, ...] = ()
    unreadable: int = 0
    dropped: int = 0
    invalid: int = 0
    letters: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Deletions:
    """Who was deleted, and when the last of them was, in unix seconds; -inf where nobody was."""

    covers: IsDeleted
    latest: float

    def after(self, stream_id: str) -> bool:
        """Whether a deletion came after this entry, or in the same second."""
        milliseconds, _, _ = stream_id.partition("-")
        came = -inf  # an unknown time: any deletion may be later
        if milliseconds.isascii() and milliseconds.isdigit():
            came = int(milliseconds) // 1000
        return self.latest > -inf and came <= self.latest


def drain(log: EventLog, files: EventFiles, chunk: int = EVENTS_PER_FILE) -> Drained:
    """Moves the waiting events into files.

    It also removes deleted users from the files of earlier drains.

    Raises:
        InvalidInput: the files' place cannot be written, or another drain is at work in it.
        Unavailable: Redis or S3 does not answer; what is not in a file by then is still in the
            stream.
    """
    with files.draining():
        log.join()
        deletions = _Deletions(log.store.is_deleted(), _latest_deletion(log.store))
        done = Drained()
        for entries in _chunks(log, chunk):
            done = _kept(entries, files, deletions.covers, done)
            log.acknowledge([entry_id for entry_id, _ in entries])
        broken = _forget(files, deletions)
        _forget_letters(files, deletions)
        return replace(done, broken=broken)


@translate_redis_errors
def _latest_deletion(store: RedisStore) -> float:
    """Unix seconds at which the last user was deleted; -inf where nobody was."""
    times = store.redis.hvals(store.keys.deleted())
    # A time that cannot be read counts as the latest, so that no deleted user's event stays.
    return max((float(time) if time.isdigit() else inf for time in times), default=-inf)


def _chunks(log: EventLog, chunk: int) -> Iterator[list[StreamEntry]]:
    """Unacknowledged entries of an earlier drain, then new ones."""
    for again in (True, False):
        while entries := log.take(chunk, again=again):
            yield entries


def _kept(
    entries: list[StreamEntry], files: EventFiles, is_deleted: IsDeleted, done: Drained
) -> Drained:
    """Writes the entries; gives `done` with them."""
    events, letters, dropped = _classified(entries, is_deleted)
    first, last = (entries[at][0].decode() for at in (0, -1))
    name = f"{PREFIX}{first}-{last}{SUFFIX}"
    letters_name = f"{DEAD_LETTERS}{first}-{last}{SUFFIX}"
    if letters:
        files.write(letters_name, _parquet(_letters_frame(letters)))
    if events:
        frame = pl.DataFrame([asdict(event) for event in events], schema=SCHEMA)
        files.write(name, _parquet(frame))
    unreadable = sum(letter.unreadable for letter in letters)
    return replace(
        done,
        events=done.events + len(events),
        files=(*done.files, name) if events else done.files,
        unreadable=done.unreadable + unreadable,
        dropped=done.dropped + dropped,
        invalid=done.invalid + len(letters) - unreadable,
        letters=(*done.letters, letters_name) if letters else done.letters,
    )


def _classified(
    entries: list[StreamEntry], is_deleted: IsDeleted
) -> tuple[list[EventRecord], list[Letter], int]:
    """Splits entries into events and dead letters.

    Gives also how many were of deleted users.
    """
    events: list[EventRecord] = []
    letters: list[Letter] = []
    dropped = 0
    for entry_id, fields in entries:
        if not fields:
            continue  # deleted from the stream after it was taken
        read = _read(entry_id.decode(), fields)
        user = read.user if isinstance(read, Letter) else read[0]
        if user is not None and _is_gone(user, is_deleted):
            dropped += 1
        elif isinstance(read, Letter):
            letters.append(read)
        else:
            events.append(read[1])
    return events, letters, dropped


def _read(stream_id: str, fields: Mapping[bytes, bytes]) -> tuple[str, EventRecord] | Letter:
    """The entry's user and event, or a dead letter."""
    body = fields.get(b"e")
    if body is None:
        whole = msgpack.packb(dict(fields))
        return Letter(stream_id, "the entry has no field e", None, whole, unreadable=True)
    try:
        event = unpack_event(body)
    except UnreadableRecord as error:
        return Letter(stream_id, str(error), _user_in(body), body, unreadable=True)
    try:
        return event.user_id, checked(event)
    except InvalidInput as error:
        return Letter(stream_id, str(error), event.user_id, body, unreadable=False)


def checked(event: EventRecord) -> EventRecord:
    """The event with its fields normalised by the rules.

    Raises:
        InvalidInput: a field breaks its rule; the message names the field.
    """
    return EventRecord(
        _by("event_id", values.label_of, event.event_id),
        _by("user_id", values.id_of, event.user_id),
        _by("item_id", values.id_of, event.item_id),
        _by("timestamp", values.time_of, event.timestamp),
        _by_optional("weight", values.weight_of, event.weight),
        _by_optional("recommendation_id", values.label_of, event.recommendation_id),
        _by_optional("position", values.rank_position_of, event.position),
        _by_optional("event_type", values.type_of, event.event_type),
    )


def _by(field: str, rule: Callable[[object], Any], value: object) -> Any:  # noqa: ANN401 - what the rule gives
    try:
        return rule(value)
    except InvalidInput as error:
        raise InvalidInput(f"{field}: {error}") from error


def _by_optional(field: str, rule: Callable[[object], Any], value: object) -> Any:  # noqa: ANN401 - what the rule gives
    return None if value is None else _by(field, rule, value)


def _user_in(body: bytes) -> str | None:
    """The user of a packed event that is damaged elsewhere.

    None where it cannot be read.
    """
    try:
        fields = msgpack.unpackb(body)
        user = fields[_USER_POSITION]
    except (ValueError, TypeError, IndexError, KeyError, msgpack.UnpackException):
        return None
    return user if isinstance(user, str) else None


def _is_gone(user: str, is_deleted: IsDeleted) -> bool:
    """Whether the user was deleted, under the id as it stands here or as the rules normalise it."""
    if is_deleted(user):
        return True
    try:
        return is_deleted(values.id_of(user))
    except InvalidInput:
        return False


def _letters_frame(letters: Sequence[Letter]) -> pl.DataFrame:
    rows = [(letter.stream_id, letter.reason, letter.user, letter.body) for letter in letters]
    return pl.DataFrame(rows, schema=LETTER_SCHEMA, orient="row")


def _forget(files: EventFiles, deletions: _Deletions) -> tuple[str, ...]:
    """Removes deleted users from the files of earlier drains.

    Gives the names of files that cannot be read.

    Nobody knows whose events such a file holds: it goes with the first deletion that is later than
    they are.
    """
    broken: list[str] = []
    for name in files.names():
        frame = frame_of(files, name, "user_id")
        if frame is None:
            broken.append(name)
            if deletions.after(name.removeprefix(PREFIX)):
                files.remove(name)
            continue
        _rewrite(files, name, frame, _of_deleted(frame, deletions.covers))
    return tuple(broken)


def _forget_letters(files: EventFiles, deletions: _Deletions) -> None:
    """Takes deleted users out of the dead letters.

    Letters of unknown users go as well if they came before the last deletion.
    """
    for name in files.names(DEAD_LETTERS):
        frame = frame_of(files, name, "user_id", "stream_id")
        if frame is None:
            if deletions.after(name.removeprefix(DEAD_LETTERS)):
                files.remove(name)
            continue
        is_older = [deletions.after(str(stream_id)) for stream_id in frame["stream_id"]]
        unknown = frame["user_id"].is_null() & pl.Series(is_older, dtype=pl.Boolean)
        _rewrite(files, name, frame, unknown | _of_deleted(frame, deletions.covers))
    for name in files.names(UNREADABLE):
        if deletions.after(name.removeprefix(UNREADABLE)):
            files.remove(name)


def frame_of(files: EventFiles, name: str, *columns: str) -> pl.DataFrame | None:
    """Reads a file, with `columns` as text.

    None where it cannot be read, or does not have them.

    Raises:
        ArtefactsUnavailable: S3 did not answer.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(files.read(name)))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    if not all(_is_text(frame.schema.get(column)) for column in columns):
        return None
    return frame.with_columns(pl.col(column).cast(pl.String) for column in columns)


def _is_text(dtype: pl.DataType | None) -> bool:
    """Whether ids may be of this type.

    Another writer's may be whole numbers.
    """
    return dtype is not None and (dtype.is_integer() or dtype in (pl.String, pl.Null))


def _of_deleted(frame: pl.DataFrame, is_deleted: IsDeleted) -> pl.Series:
    """bool[rows]: whether a row is of a deleted user."""
    gone = [
        user
        for user in frame["user_id"].unique()
        if user is not None and _is_gone(user, is_deleted)
    ]
    return frame["user_id"].is_in(gone).fill_null(value=False)


def _rewrite(files: EventFiles, name: str, frame: pl.DataFrame, gone: pl.Series) -> None:
    """Removes the rows of `gone` from a file.

    A file without rows is removed.
    """
    if not gone.any():
        return
    left = frame.filter(~gone)
    if left.is_empty():
        files.remove(name)
    else:
        files.write(name, _parquet(left))


def _parquet(frame: pl.DataFrame) -> bytes:
    body = io.BytesIO()
    frame.write_parquet(body)
    return body.getvalue()
