"""Finds out what the texts of an item's column stand for."""

from __future__ import annotations

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.categories import LISTED, recombine, unlisted
from shortlist.recsys.where import AttributeKind

_BOOLEANS = (
    {"true": True, "false": False},
    {"yes": True, "no": False},
)
_LETTERS = {"y": True, "n": False}
"""Taken for booleans where a column has both: one alone may be a code."""

_NUMBER = r"^[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$"
"""Without leading zeros, which codes have."""

_ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OTHER_DATE = r"^[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}"
_AMOUNT = r"^[^0-9A-Za-z]?\s?[0-9][0-9., ]*\s?(?:[^0-9A-Za-z\s]|[A-Z]{3})?$"
"""A number with a sign or a currency at one end."""


def texts_read(texts: pl.Series) -> tuple[AttributeKind, pl.Series]:
    """The kind of a column of texts, and its values as this kind has them, dates as pl.Date.

    Texts stay what they are unless all of them are of another kind.
    """
    known = texts.drop_nulls()
    booleans = _booleans_of(known)
    if booleans:
        lower = texts.str.to_lowercase()
        return AttributeKind.BOOLEAN, lower.replace_strict(booleans, return_dtype=pl.Boolean)
    if known.str.contains(_ISO_DATE).all():
        frame = texts.to_frame()
        seconds = frame.select(fields.seconds(texts.name, texts.dtype, "items")).to_series()
        if seconds.null_count() == texts.null_count() and (seconds.drop_nulls() >= 0).all():
            has_time = known.str.len_chars().max() != len("2024-05-31")
            moments = pl.from_epoch(seconds, "s")
            return AttributeKind.DATE, moments if has_time else moments.dt.date()
    # Whole numbers alone may be codes; a fraction is none.
    if known.str.contains(_NUMBER).all() and known.str.contains(".", literal=True).any():
        return AttributeKind.NUMBER, texts.cast(pl.Float64)
    if known.str.contains(LISTED).all():
        return AttributeKind.LIST, unlisted(texts)
    if known.str.contains("|", literal=True).any() and recombine(known.unique(), "|"):
        return AttributeKind.LIST, texts.str.split("|")
    return AttributeKind.TEXT, texts


def _booleans_of(known: pl.Series) -> dict[str, bool]:
    """What the texts stand for, where all are booleans; else nothing."""
    found = set(known.str.to_lowercase().unique().to_list())
    if found == set(_LETTERS):
        return _LETTERS
    return next((pair for pair in _BOOLEANS if found <= set(pair)), {})


def untyped_hint(kind: AttributeKind, values: pl.Series) -> str:
    """A hint at texts that read as dates or amounts, but not all in a form that says so."""
    if kind is not AttributeKind.TEXT:
        return ""
    known = values.drop_nulls()
    if _most(known.str.contains(_ISO_DATE) | known.str.contains(_OTHER_DATE)):
        odd = _first_odd(known, _ISO_DATE)
        return f"is text, and has no range: {odd!r} is no date such as 2024-05-31"
    is_amount = known.str.contains(_AMOUNT)
    # Digits alone are codes, such as 000123.
    if _most(is_amount) and known.filter(is_amount).str.contains(r"[^0-9]").any():
        return (
            f"is text, and has no range: {_first_odd(known, _NUMBER)!r} is no number such as 9.99"
        )
    return ""


def _most(which: pl.Series) -> bool:
    return len(which) > 0 and float(which.sum()) > len(which) / 2


def _first_odd(known: pl.Series, pattern: str) -> str:
    """The first text that lacks the form, or else the first of all."""
    odd = known.filter(~known.str.contains(pattern))
    return str(odd[0] if len(odd) else known[0])
