"""Events that came over HTTP beside the interactions of a table: of each (user, event id) one, and nobody who was deleted.

An event that the table has as well (the same user, item and second) counts once: many who send events keep them, too.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from recsys.data import fields
from recsys.data.readers import Raw, alike, read
from recsys.data.schemas import EVENTS, FILE, INTERACTIONS, TableSchema
from recsys.event_files import PATTERN, open_event_files

_KEYS = ("user_id", "item_id", "timestamp")

Forgotten = Callable[[str], bool]
"""Whether a user was deleted."""


def joined(interactions: Raw, address: str) -> Raw:
    """The interactions, and after them the events that were drained to `address`; a place without files adds nothing."""
    files = open_event_files(address)
    if not files.names():
        return interactions
    events = read(f"{files.address}/{PATTERN}", EVENTS)
    frame = events.frame.unique(["user_id", "event_id"], keep="first", maintain_order=True)
    frame = frame.join(_keys(interactions.frame, frame["timestamp"]), on=_KEYS, how="anti", maintain_order="left")
    frame = frame.rename({"event_id": "event_type"})  # what tells apart events that are otherwise alike
    columns = interactions.frame.columns
    if "rating" in columns and "weight" not in columns:
        frame = frame.rename({"weight": "rating"})
    elif "weight" not in columns and frame["weight"].null_count() == frame.height:
        frame = frame.drop("weight")
    frame = frame.with_columns(pl.col(FILE) + len(interactions.files))
    both = pl.concat(alike([interactions.frame, frame]), how="diagonal", rechunk=False)
    return Raw(both, (*interactions.files, *events.files))


def _keys(frame: pl.DataFrame, times: pl.Series) -> pl.DataFrame:
    """User, item and second of the interactions at one of `times`, as events write them."""
    types, name = frame.schema, INTERACTIONS.name
    told = frame.select(*_KEYS[:2], fields.seconds("timestamp", types["timestamp"], name).alias("timestamp"))
    at_those = told.filter(pl.col("timestamp").is_in(times.unique().implode()))
    return at_those.with_columns(fields.text_ids(column, types[column], name) for column in _KEYS[:2])


def without(raw: Raw, schema: TableSchema, is_forgotten: Forgotten) -> Raw:
    """The table without the rows of deleted users; nothing of them is counted, kept or set aside."""
    users = raw.frame.select(pl.col("user_id").unique())
    texts = users.with_columns(fields.text_ids("user_id", users.schema["user_id"], schema.name).alias("_text"))
    gone = [user for user, text in texts.rows() if text is not None and is_forgotten(text)]
    if not gone:
        return raw
    listed = pl.Series("gone", gone, dtype=raw.frame.schema["user_id"])
    kept = raw.frame.filter(~pl.col("user_id").is_in(listed.implode()).fill_null(value=False))
    return Raw(kept, raw.files)
