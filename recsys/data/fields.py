"""Polars expressions that read ids, times, numbers and categories.

A column may be of any type; a value that cannot be read is null. Ids, times and weights follow the
rules of `recsys.values`.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.errors import InvalidData

IMPOSSIBLE = -1
"""Stands for a time that can be read, but lies outside the allowed range."""

_EXACT: dict[type[pl.DataType], float] = {pl.Float16: 2.0**11, pl.Float32: 2.0**24}
"""The first integer that a float of so few bits does not tell from its neighbour."""

_TEXTS = (pl.String, pl.Categorical, pl.Enum, pl.Null)
ZONED = r"(?:(?i:Z|UTC|GMT)|[0-9][Tt ][0-9:.]+ ?[+-][0-9]{2}(?::?[0-9]{2})?)\s*$"
"""The end of ISO 8601 text that says its zone."""

_NO_TEXT = (pl.Binary, pl.Object, pl.Unknown, pl.Duration)

_YEARS_1_TO_9999 = (-62_135_596_800, 253_402_300_799)
"""In unix seconds; Polars cannot write what lies far outside as text."""


def text_ids(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Ids as `values.id_of` reads them; null for null, blank and non-finite ones, and for faults.

    Raises:
        InvalidData: the column holds neither text nor numbers.
    """
    fault = id_faults(column, dtype, table)
    if dtype.is_float():
        return pl.when(fault.is_null()).then(_whole_text(column, dtype))
    return pl.when(fault.is_null()).then(_canonical(_stripped(column)))


def id_faults(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """UInt8: the position in `values.ID_FAULTS` of the rule that a given id breaks, else null.

    Raises:
        InvalidData: the column holds neither text nor numbers.
    """
    if dtype.is_float():
        at = pl.col(column).cast(pl.Float64)
        return _first_of(at.is_finite() & _whole_text(column, dtype).is_null())
    if not (dtype.is_integer() or dtype.is_decimal() or dtype in _TEXTS):
        raise _wrong_type(table, column, dtype, "text or whole numbers")
    text = _stripped(column)
    rounded = text.str.contains(f"^(?:{values.ROUNDED})$")
    lost = _digits(text).cast(pl.Float64, strict=False).abs() >= values.EXACT
    too_long = _canonical(text).str.len_chars() > values.MAX_ID_LENGTH
    return _first_of(rounded | lost, text.str.contains(values.CONTROL), too_long)


def _first_of(*faults: pl.Expr) -> pl.Expr:
    numbered = (pl.when(fault).then(pl.lit(i, pl.UInt8)) for i, fault in enumerate(faults))
    return pl.coalesce(*numbered)


def _stripped(column: str) -> pl.Expr:
    """The id as text without outer blanks, null where nothing is left."""
    text = pl.col(column).cast(pl.String).str.strip_chars(values.BLANKS)
    return pl.when(text != "").then(text)


def _digits(text: pl.Expr) -> pl.Expr:
    """Of text such as "42.0" the integer's digits, else null."""
    return text.str.extract(f"^{values.WHOLE}$")


def _canonical(text: pl.Expr) -> pl.Expr:
    return pl.coalesce(_digits(text), text)


def _whole_text(column: str, dtype: pl.DataType) -> pl.Expr:
    """The digits of whole floats that have lost none, else null."""
    at = pl.col(column).cast(pl.Float64)
    limit = _EXACT.get(type(dtype), float(values.EXACT))
    whole = at.is_finite() & (at.floor() == at) & (at.abs() < limit)
    return pl.when(whole).then(at.cast(pl.Int64, strict=False).cast(pl.String))


def float_ids(column: str, dtype: pl.DataType) -> pl.Expr:
    """Float ids as text that means the same: with an exponent where `text_ids` must refuse it."""
    at = pl.col(column).cast(pl.Float64)
    text = at.cast(pl.String)
    refused = pl.when(text.str.contains("e")).then(text).otherwise(text + "e+0")
    return pl.when(at.is_finite()).then(pl.coalesce(_whole_text(column, dtype), refused))


def seconds(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Times as Int64 seconds, fractions cut off; null where unreadable, negative where impossible.

    Raises:
        InvalidData: the column holds neither times nor numbers nor text.
    """
    known = _seconds(column, dtype, table)
    possible = known.is_between(0, values.MAX_TIME)
    return pl.when(known.is_not_null()).then(pl.when(possible).then(known).otherwise(IMPOSSIBLE))


def _seconds(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    at = pl.col(column)
    if dtype in (pl.Date, pl.Datetime):
        return _since_epoch(at, dtype)
    if dtype.is_integer():
        return pl.when(at.is_not_null()).then(at.cast(pl.Int64, strict=False).fill_null(IMPOSSIBLE))
    if dtype.is_float() or dtype.is_decimal():
        return _floored(at.cast(pl.Float64))
    if dtype in _TEXTS:
        text = at.cast(pl.String).str.strip_chars(values.BLANKS)
        whole = text.cast(pl.Int64, strict=False)
        return pl.coalesce(whole, _floored(text.cast(pl.Float64, strict=False)), _iso(text))
    raise _wrong_type(
        table, column, dtype, "seconds, sequence numbers, date-times or ISO 8601 text"
    )


def _floored(number: pl.Expr) -> pl.Expr:
    possible = number.is_finite() & number.is_between(0, values.MAX_TIME)
    floored = pl.when(possible).then(number).otherwise(IMPOSSIBLE).floor().cast(pl.Int64)
    return pl.when(number.is_not_null()).then(floored)


def _iso(text: pl.Expr) -> pl.Expr:
    """ISO 8601 text as seconds; seconds, fraction and zone (else UTC) may be missing."""
    # Brought to one full form, because Polars parses a column by one format.
    full = (
        text.str.replace(r"^([0-9]{4}-[0-9]{2}-[0-9]{2})$", "${1}T00:00:00")
        .str.replace(r"^([0-9]{4}-[0-9]{2}-[0-9]{2})(?: +|t)", "${1}T")
        .str.replace(r" ?(?i:Z|UTC|GMT)$", "+00:00")
        .str.replace(r"(T[0-9:.]+) ?([+-][0-9]{2})$", "${1}${2}:00")
        .str.replace(r"(T[0-9:.]+) ?([+-][0-9]{2}):?([0-9]{2})$", "${1}${2}:${3}")
        .str.replace(r"(T[0-9]{2}:[0-9]{2})((?:[+-][0-9]{2}:[0-9]{2})?)$", "${1}:00${2}")
        .str.replace(r"(T[0-9:.]+)$", "${1}+00:00")
    )
    times = full.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="us")
    return times.dt.epoch("s")


def numbers(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Float64 numbers; null where there is none or it cannot be read, NaN where it says so.

    Raises:
        InvalidData: the column holds neither numbers nor text.
    """
    at = pl.col(column)
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        return at.cast(pl.Float64)
    if dtype in _TEXTS:
        return at.cast(pl.String).str.strip_chars(values.BLANKS).cast(pl.Float64, strict=False)
    raise _wrong_type(table, column, dtype, "numbers")


YES = ("true", "t", "yes", "y", "ja", "oui", "si", "sí", "sim")
NO = ("false", "f", "no", "n", "nein", "non", "não", "nee")
"""Words for 1 and for 0, in small letters."""

_MISSING = ("na", "n/a", "null", "none", "nil", "\\n", "-")
"""What databases and statistics write for no number; \\N is MySQL's."""


_NEGATIVE = r"^(?:\(([0-9.]+)\)|\u2212([0-9.]+))$"
"""A negative number as accounts write it: (1), and with the sign of mathematics."""

_SIGN_BEHIND = r"^([0-9.]+) ?[-\u2212]$"
"""Likewise 1-, of weights alone: a rating so written is a grade."""


def flags_or_numbers(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """As `numbers`, with negative ones as accounts write them and with words.

    The words of YES and NO are 1 and 0, and NaN is where a word says missing.
    """
    number = numbers(column, dtype, table)
    if dtype not in _TEXTS:
        return number
    text = pl.col(column).cast(pl.String).str.strip_chars(values.BLANKS)
    negative = text.str.replace(_NEGATIVE, "-${1}${2}")
    if column == "weight":
        negative = negative.str.replace(_SIGN_BEHIND, "-${1}")
    negative = negative.cast(pl.Float64, strict=False)
    number, word = pl.coalesce(number, negative), text.str.to_lowercase()
    flag = pl.when(word.is_in(YES)).then(1.0).when(word.is_in(NO)).then(0.0)
    flag = flag.when(word.is_in(_MISSING)).then(float("nan"))
    return pl.coalesce(number, flag)


def with_decimal_point(texts: pl.Series) -> pl.Series:
    """Texts such as "1.234,50" as "1234.50"; what is no such number stays.

    Signs stay, and so do the parentheses of a negative number.
    """
    digits = r"(?:[0-9]{1,3}(?:[. ][0-9]{3})+|[0-9]*)(?:,[0-9]+)?"
    is_number = texts.str.contains(
        rf"^\s*(?:[+\u2212-]?{digits}|{digits} ?[\u2212-]|\({digits}\))\s*$"
    )
    plain = texts.str.replace_all(r"[. ]", "").str.replace(",", ".", literal=True)
    return (
        texts.to_frame("t")
        .select(pl.when(is_number).then(plain).otherwise(texts).alias(texts.name))
        .to_series()
    )


def absent(column: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a field is null, or text of blanks only."""
    at = pl.col(column)
    if dtype in _TEXTS:
        return at.cast(pl.String).str.strip_chars(values.BLANKS).fill_null("") == ""
    return at.is_null()


def text(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """A column of any plain type as text.

    Raises:
        InvalidData: the column is nested, or holds bytes or durations.
    """
    if not has_text(dtype):
        raise _wrong_type(table, column, dtype, "text")
    at = pl.col(column)
    if dtype not in (pl.Date, pl.Datetime):
        return at.cast(pl.String, strict=False)
    possible = _since_epoch(at, dtype).is_between(*_YEARS_1_TO_9999)
    written = pl.when(possible).then(at).cast(pl.String)
    return pl.when(at.is_not_null()).then(written.fill_null("out of range"))


def is_text(dtype: pl.DataType) -> bool:
    """Whether a type is text, or nothing at all."""
    return dtype in _TEXTS


def has_text(dtype: pl.DataType) -> bool:
    """Whether values of a type can be said as text."""
    return not dtype.is_nested() and dtype not in _NO_TEXT


def _since_epoch(at: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Dates or date-times as Int64 seconds."""
    if dtype == pl.Date:
        return at.to_physical().cast(pl.Int64) * 86_400  # microseconds would overflow
    return at.dt.epoch("s")


def is_plain_list(dtype: pl.DataType) -> bool:
    """Whether a column holds lists of what can be said as text."""
    if not isinstance(dtype, (pl.List, pl.Array)):
        return False
    inner: Any = dtype.inner  # which Polars types as a class, too
    return has_text(inner) and not inner.is_temporal()


def names(column: str, dtype: pl.DataType, table: str) -> pl.Expr:
    """Lists of distinct category names in their order, never null.

    They are read from lists of text, or from text joined by "|".

    Raises:
        InvalidData: the column holds neither lists of text nor text.
    """
    at = pl.col(column)
    if is_plain_list(dtype):
        lists = at.cast(pl.List(pl.String), strict=False)
    elif dtype in _TEXTS:
        lists = at.cast(pl.String).str.split("|")
    else:
        raise _wrong_type(table, column, dtype, 'a list of names, or names joined by "|"')
    clean = lists.list.eval(pl.element().str.strip_chars()).fill_null([])
    return clean.list.eval(pl.element().filter(pl.element() != "").unique(maintain_order=True))


def _wrong_type(table: str, column: str, dtype: pl.DataType, rule: str) -> InvalidData:
    return InvalidData(
        f"{table}: column {column} has type {dtype}: it must hold {rule}; convert it"
    )
