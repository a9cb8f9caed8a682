"""How a column of any type becomes ids, seconds, numbers or categories; what cannot become one is null."""

from __future__ import annotations

import polars as pl

from recsys.errors import InvalidData

IMPOSSIBLE = -1
"""Stands for a time or weight that can be read but cannot be."""

_LARGEST = 2.0**62


def text_ids(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Ids as text without outer blanks; 42.0 and "42.0" are "42"; null for null, blank and non-finite ones.

    Raises:
        InvalidData: the column holds neither text nor numbers.
    """
    at = pl.col(column)
    if dtype.is_integer():
        return at.cast(pl.String)
    if dtype.is_float():
        whole = (at.floor() == at) & (at.abs() < 2.0**53)
        text = pl.when(whole).then(at.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(at.cast(pl.String))
        return pl.when(at.is_finite()).then(text)
    if dtype.is_decimal() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        text = at.cast(pl.String).str.strip_chars()
        return pl.when(text != "").then(text.str.replace(r"^(-?\d+)\.0+$", "${1}"))
    raise _wrong_type(table, column, dtype, "text or whole numbers")


def seconds(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Times as Int64 seconds, fractions cut off; null where unreadable, negative where impossible.

    Raises:
        InvalidData: the column holds neither times nor numbers nor text.
    """
    at = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        return at.dt.epoch("s")
    if dtype == pl.Date:
        return at.cast(pl.Datetime("us")).dt.epoch("s")
    if dtype.is_integer():
        return pl.when(at.is_not_null()).then(at.cast(pl.Int64, strict=False).fill_null(IMPOSSIBLE))
    if dtype.is_float() or dtype.is_decimal():
        return _floored(at.cast(pl.Float64))
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        text = at.cast(pl.String).str.strip_chars()
        whole = text.cast(pl.Int64, strict=False)
        return pl.coalesce(whole, _floored(text.cast(pl.Float64, strict=False)), _iso(text))
    raise _wrong_type(table, column, dtype, "seconds, sequence numbers, date-times or ISO 8601 text")


def _floored(number: pl.Expr) -> pl.Expr:
    possible = number.is_finite() & (number.abs() < _LARGEST)
    floored = pl.when(possible).then(number).otherwise(IMPOSSIBLE).floor().cast(pl.Int64)
    return pl.when(number.is_not_null()).then(floored)


def _iso(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text as seconds: a date, or a date and time with or without seconds, fraction and zone (else UTC)."""
    full = (
        text.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
        .str.replace(r"^(\d{4}-\d\d-\d\d) +", "${1}T")
        .str.replace(r" ?(?:Z|UTC)$", "+00:00")
        .str.replace(r"([+-]\d\d):?(\d\d)$", "${1}:${2}")
        .str.replace(r"(T\d\d:\d\d)((?:[+-]\d\d:\d\d)?)$", "${1}:00${2}")
        .str.replace(r"(T[\d:.]+)$", "${1}+00:00")
    )
    return full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="us").dt.epoch("s")


def numbers(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Float64 numbers; null where there is none or it cannot be read.

    Raises:
        InvalidData: the column holds neither numbers nor text.
    """
    at = pl.col(column)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return at.cast(pl.Float64)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return at.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    raise _wrong_type(table, column, dtype, "numbers")


def absent(column: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a field is null, or text of blanks only."""
    at = pl.col(column)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return at.cast(pl.String).str.strip_chars().fill_null("") == ""
    return at.is_null()


def names(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Lists of distinct category names in their order, from lists or from text joined by "|"; never null.

    Raises:
        InvalidData: the column holds neither lists of text nor text.
    """
    at = pl.col(column)
    if isinstance(dtype, (pl.List, pl.Array)):
        lists = at.cast(pl.List(pl.String))
    elif dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        lists = at.cast(pl.String).str.split("|")
    else:
        raise _wrong_type(table, column, dtype, 'a list of names, or names joined by "|"')
    clean = lists.list.eval(pl.element().str.strip_chars()).fill_null([])
    return clean.list.eval(pl.element().filter(pl.element() != "").unique(maintain_order=True))


def _wrong_type(table: str, column: str, dtype: pl.DataType, rule: str) -> InvalidData:
    return InvalidData(f"{table}: column {column} has type {dtype}: it must hold {rule}; convert it")
