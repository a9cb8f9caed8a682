"""Events that came over HTTP beside the interactions of a table: of each (user, event id) one, and nobody who was deleted.

An event that the table has as well (the same user, item and second) counts once: many who send
events keep them, too. A file that cannot be read costs itself, and a note names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.input_schema import EVENTS, FILE, INTERACTIONS, TableSchema
from shortlist.recsys.data.readers import Raw, alike, read_file
from shortlist.recsys.data.staging import Staged, staged
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.store.event_files import open_event_files, pattern_of

_KEYS = ("user_id", "item_id", "timestamp")
_TYPES: dict[str, pl.DataType] = {
    "event_id": pl.String(),
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Int64(),
    "weight": pl.Float64(),
}

Forgotten = Callable[[str], bool]
"""Whether a user was deleted."""


def joined(interactions: Raw, address: str) -> Raw:
    """The interactions, and after them the events that were drained to `address`; a place without files adds nothing.

    Raises:
        ArtefactsUnavailable: S3 did not answer.
    """
    events = _read(address)
    if events.frame.is_empty():
        return replace(interactions, notes=(*interactions.notes, *events.notes))
    frame = _new_ones(events.frame, interactions.frame)
    frame = frame.rename(
        {"event_id": "event_type"}
    )  # what tells apart events that are otherwise alike
    columns = interactions.frame.columns
    if "rating" in columns and "weight" not in columns:
        frame = frame.rename({"weight": "rating"})
    elif "weight" not in columns and frame["weight"].null_count() == frame.height:
        frame = frame.drop("weight")
    first = len(interactions.files)
    frame = frame.with_columns(pl.col(FILE) + first)
    both = pl.concat(alike([interactions.frame, frame]), how="diagonal", rechunk=False)
    return Raw(
        both, (*interactions.files, *events.files), first, (*interactions.notes, *events.notes)
    )


def _read(address: str) -> Raw:
    """All files of events that can be read, and a note on each of the others."""
    empty = pl.DataFrame(schema=_TYPES)
    if not open_event_files(address).names():
        return Raw(empty, ())
    parts: list[Raw] = []
    notes: list[str] = []
    with staged(pattern_of(address), EVENTS.name) as files:
        for file in files:
            try:
                parts.append(_read_one(file, len(parts)))
            except InvalidData as error:
                notes.append(
                    f"{error}; the events of this file are left out, the others are learnt from"
                )
    frame = pl.concat([part.frame for part in parts]) if parts else empty
    return Raw(frame, tuple(name for part in parts for name in part.files), notes=tuple(notes))


def _read_one(file: Staged, position: int) -> Raw:
    raw = read_file(file, position, EVENTS)
    for column, wanted in _TYPES.items():
        dtype = raw.frame.schema[column]
        same_kind = dtype in (wanted, pl.Null) or dtype.is_integer()
        if not same_kind and not (wanted.is_float() and dtype.is_float()):
            raise InvalidData(
                f"{EVENTS.name}: column {column} of {file.name!r} has type {dtype}, it must be {wanted}"
            )
    casts = (pl.col(column).cast(wanted, strict=False) for column, wanted in _TYPES.items())
    return replace(raw, frame=raw.frame.with_columns(casts))


def _new_ones(events: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """The events without repeats, and without those that the interactions have as well."""
    types = events.schema
    canonical = [fields.text_ids(c, types[c], EVENTS.name).alias(f"_{c}") for c in _KEYS[:2]]
    frame = events.with_columns(*canonical, pl.col("timestamp").alias("_timestamp"))
    one = pl.struct(pl.coalesce("_user_id", "user_id"), "event_id").is_first_distinct()
    frame = frame.filter(one | pl.col("event_id").is_null())
    keys = [f"_{c}" for c in _KEYS]
    frame = frame.join(
        _keys(interactions, frame["timestamp"]), on=keys, how="anti", maintain_order="left"
    )
    return frame.drop(keys)


def _keys(frame: pl.DataFrame, times: pl.Series) -> pl.DataFrame:
    """_user_id, _item_id and _timestamp of the interactions at one of `times`, as events write them."""
    types, name = frame.schema, INTERACTIONS.name
    told = frame.select(
        *_KEYS[:2], fields.seconds("timestamp", types["timestamp"], name).alias("_timestamp")
    )
    at_those = told.filter(pl.col("_timestamp").is_in(times.unique().implode()))
    ids = [fields.text_ids(c, types[c], name).alias(f"_{c}") for c in _KEYS[:2]]
    return at_those.select(*ids, "_timestamp")


def without(raw: Raw, schema: TableSchema, is_forgotten: Forgotten) -> Raw:
    """The table without the rows of deleted users; nothing of them is counted, kept or set aside."""
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
