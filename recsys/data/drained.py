"""Merges drained events with the interactions table.

A drained event came over HTTP. Of each (user, event id) one counts, and none of a deleted user. An
event that the table has as well (the same user, item and second, and the same type where both say
it) counts once, because many who send events keep them in their table, too. A file that cannot be
read is left out, and a note names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.event_meaning import type_column
from shortlist.recsys.data.input_schema import (
    DRAINED_EVENTS,
    FILE_COLUMN,
    INTERACTIONS,
    ROW_COLUMN,
    TableSchema,
)
from shortlist.recsys.data.readers import RawTable, read_file, with_equal_types
from shortlist.recsys.data.staging import StagedFile, staged
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.store.event_files import open_event_files, pattern_of

_KEYS = ("user_id", "item_id", "timestamp")
_TYPES: dict[str, pl.DataType] = {
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Int64(),
    "weight": pl.Float64(),
    "event_type": pl.String(),
}

IsForgotten = Callable[[str], bool]
"""Whether a user was deleted."""


def with_drained(interactions: RawTable, address: str) -> RawTable:
    """The interactions, followed by the events that were drained to `address`, if any.

    Raises:
        ArtefactsUnavailable: S3 did not answer.
        InvalidData: the address is that of a file.
    """
    events = _read(address)
    if events.frame.is_empty():
        return replace(interactions, notes=(*interactions.notes, *events.notes))
    frame = _unknown_events(events.frame, interactions.frame)
    columns = interactions.frame.columns
    if "event_type" not in columns and frame["event_type"].null_count() == frame.height:
        frame = frame.drop("event_type")
    if "rating" in columns and "weight" not in columns:
        frame = frame.rename({"weight": "rating"})
    elif "weight" not in columns and frame["weight"].null_count() == frame.height:
        frame = frame.drop("weight")
    first = len(interactions.files)
    frame = frame.with_columns(pl.col(FILE_COLUMN) + first)
    both = pl.concat(with_equal_types([interactions.frame, frame]), how="diagonal", rechunk=False)
    files = (*interactions.files, *events.files)
    return RawTable(both, files, first, (*interactions.notes, *events.notes))


def _read(address: str) -> RawTable:
    """All files of events that can be read, and a note on each of the others."""
    empty = pl.DataFrame(schema=_TYPES)
    if Path(address).is_file():
        raise InvalidData(
            f"{DRAINED_EVENTS.name}: {address!r} is a file: name the directory that `shortlist "
            "events drain --out` wrote to; a table is given as --interactions"
        )
    if not open_event_files(address).names():
        return RawTable(empty, ())
    parts: list[RawTable] = []
    notes: list[str] = []
    with staged(pattern_of(address), DRAINED_EVENTS.name) as files:
        for file in files:
            try:
                parts.append(_read_one(file, len(parts)))
            except InvalidData as error:
                notes.append(
                    f"{error}; the events of this file are left out, the others are learnt from"
                )
    frame = pl.concat([part.frame for part in parts]) if parts else empty
    names = tuple(name for part in parts for name in part.files)
    return RawTable(frame, names, notes=tuple(notes))


def _read_one(file: StagedFile, position: int) -> RawTable:
    raw = read_file(file, position, DRAINED_EVENTS)
    if "event_type" not in raw.frame.columns:  # a file of a version that knew no types
        raw = replace(raw, frame=raw.frame.with_columns(event_type=pl.lit(None, pl.String)))
    for column, wanted in _TYPES.items():
        dtype = raw.frame.schema[column]
        same_kind = dtype in (wanted, pl.Null) or dtype.is_integer()
        if not same_kind and not (wanted.is_float() and dtype.is_float()):
            raise InvalidData(
                f"{DRAINED_EVENTS.name}: column {column} of {file.name!r} has type {dtype}, "
                f"it must be {wanted}"
            )
    casts = [pl.col(column).cast(wanted, strict=False) for column, wanted in _TYPES.items()]
    others = [column for column in raw.frame.columns if column not in _TYPES]
    return replace(raw, frame=raw.frame.select(*casts, *others))


def _unknown_events(events: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """The events without repeats, and without those that the interactions have as well."""
    ids = _canonical_ids(events, DRAINED_EVENTS)
    frame = events.with_columns(*ids, pl.col("timestamp").alias("_timestamp"))
    identity = pl.struct(pl.coalesce("_user_id", "user_id"), "event_id")
    # Without an event id nothing distinguishes a repeat from a second event.
    frame = frame.filter(identity.is_first_distinct() | pl.col("event_id").is_null())
    keys = [f"_{column}" for column in _KEYS]
    known = _interaction_keys(interactions, frame["timestamp"])
    is_typed = pl.col("event_type").is_not_null()
    untyped = frame.filter(~is_typed).join(known, on=keys, how="anti")
    typed = (
        frame.filter(is_typed)
        .join(known.filter(pl.col("_type").is_null()), on=keys, how="anti")
        .join(known, left_on=[*keys, "event_type"], right_on=[*keys, "_type"], how="anti")
    )
    return pl.concat([untyped, typed]).sort(FILE_COLUMN, ROW_COLUMN).drop(keys)


def _interaction_keys(frame: pl.DataFrame, times: pl.Series) -> pl.DataFrame:
    """_user_id, _item_id, _timestamp and _type of the interactions at one of `times`."""
    time = fields.seconds("timestamp", frame.schema["timestamp"], INTERACTIONS.name)
    types = type_column(frame.schema) or [pl.lit(None, pl.String).alias("_type")]
    timed = frame.select(*_KEYS[:2], time.alias("_timestamp"), *types)
    # First the times, which are cheap: only few rows then have to be rendered as text.
    at_those_times = timed.filter(pl.col("_timestamp").is_in(times.unique().implode()))
    return at_those_times.select(*_canonical_ids(frame, INTERACTIONS), "_timestamp", "_type")


def _canonical_ids(frame: pl.DataFrame, schema: TableSchema) -> list[pl.Expr]:
    """_user_id and _item_id, the ids as text."""
    return [
        fields.text_ids(column, frame.schema[column], schema.name).alias(f"_{column}")
        for column in _KEYS[:2]
    ]


def without_users(raw: RawTable, schema: TableSchema, is_forgotten: IsForgotten) -> RawTable:
    """The table without the rows of deleted users, which are not even counted."""
    users = raw.frame.select(pl.col("user_id").unique())
    texts = users.with_columns(
        fields.text_ids("user_id", users.schema["user_id"], schema.name).alias("_text")
    )
    gone = [user for user, text in texts.rows() if text is not None and is_forgotten(text)]
    if not gone:
        return raw
    listed = pl.Series("gone", gone, dtype=raw.frame.schema["user_id"])
    kept = raw.frame.filter(~pl.col("user_id").is_in(listed.implode()).fill_null(value=False))
    return replace(raw, frame=kept)
