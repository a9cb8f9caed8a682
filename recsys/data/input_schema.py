"""Defines the columns of the three input tables.

interactions
    user_id     text of 1 to 256 characters or a whole number;
                42, " 42 ", "42.0" and 42.0 are the same id
    item_id     likewise
    timestamp   unix seconds or a sequence number, a date-time, a date, or ISO 8601 text
                (UTC unless it says otherwise); fractions of a second are cut off
    rating      optional, any finite 32-bit float, or text such as true and no for 1 and 0; null
                or NaN where there is none; one below 0 is negative feedback, or below another
                bound that the event rules give
    weight      optional, another name for rating; where a table has both, weight counts
    event_type  optional text; what a type means the event rules say, and without them it only
                distinguishes events that are otherwise alike
items
    item_id     as above, once per item; this table's order is the order of the catalogue
    title       optional text; the id stands in where there is none
    categories  optional, a list of names, or names joined by "|"
    year        optional whole number
    embedding   optional, the item's own vector: a list of finite numbers, all of one length
    any other   optional attributes: text, lists of text, numbers, booleans, dates
users
    user_id     as above, once per user
    any other   optional attributes: text of at most 100 values, numbers, booleans

Ids, times and weights follow `recsys.values`. Other columns of interactions are not read.
The fields of MovieLens `.dat` files are named by position.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table.

    dat: the fields of its MovieLens `.dat` form; is_open: whether other columns are kept, too;
    named: those of the other columns whose names have a meaning, so that a mapping may name them.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    dat: tuple[str, ...]
    is_open: bool = False
    named: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that have a meaning of their own."""
        return self.required + self.optional


INTERACTIONS = TableSchema(
    "interactions",
    required=("user_id", "item_id", "timestamp"),
    optional=("rating", "weight", "event_type"),
    dat=("user_id", "item_id", "rating", "timestamp"),
)
ITEMS = TableSchema(
    "items",
    required=("item_id",),
    optional=("title", "categories", "year"),
    dat=("item_id", "title", "categories"),
    is_open=True,
    named=("embedding", "available", "available_from", "available_until"),
)
DRAINED_EVENTS = TableSchema(
    "events",
    required=("event_id", "user_id", "item_id", "timestamp", "weight"),
    optional=("event_type",),
    dat=(),
)
"""What `shortlist events drain` writes."""

USERS = TableSchema(
    "users",
    required=("user_id",),
    optional=(),
    dat=("user_id", "gender", "age", "occupation", "zip_code"),
    is_open=True,
)

FILE_COLUMN = "_file"
"""Added in reading: the position of the row's file among the files."""

ROW_COLUMN = "_row"
"""Added in reading: the row's number in its file, from 1, a header not counted."""

MALFORMED_COLUMN = "_malformed"
"""Added in reading: whether the row had more fields than the header."""

READER_COLUMNS = (FILE_COLUMN, ROW_COLUMN, MALFORMED_COLUMN)

RESERVED_COLUMNS = (
    *READER_COLUMNS,
    *("_id", "_fault", "_reason"),
    *("_title", "_categories", "_year"),
)
"""Columns that reading and validation add; a table's own columns of these names are left out."""
