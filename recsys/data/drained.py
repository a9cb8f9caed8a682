"""Events that came over HTTP beside the interactions of a table: of each (user, event id) one, and nobody who was deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from recsys.data import fields
from recsys.data.readers import Raw, alike, read
from recsys.data.schemas import EVENTS, FILE, TableSchema

Forgotten = Callable[[str], bool]
"""Whether a user was deleted."""


def joined(interactions: Raw, directory: Path) -> Raw:
    """The interactions, and after them the events that were drained into `directory`; an empty one adds nothing."""
    if not any(directory.glob("events-*.parquet")):
        return interactions
    events = read(f"{directory}/events-*.parquet", EVENTS)
    frame = events.frame.unique(["user_id", "event_id"], keep="first", maintain_order=True)
    frame = frame.rename({"event_id": "event_type"})  # what tells apart events that are otherwise alike
    columns = interactions.frame.columns
    if "rating" in columns and "weight" not in columns:
        frame = frame.rename({"weight": "rating"})
    elif "weight" not in columns and frame["weight"].null_count() == frame.height:
        frame = frame.drop("weight")
    frame = frame.with_columns(pl.col(FILE) + len(interactions.files))
    both = pl.concat(alike([interactions.frame, frame]), how="diagonal", rechunk=False)
    return Raw(both, (*interactions.files, *events.files))


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
