"""Parts text that lists several categories.

Text may be joined by "|", ";" or ",", or be a list as Python or JSON writes it. One reading holds
for a whole column: a name may hold a comma where nothing shows that it lists several.
"""

from __future__ import annotations

import polars as pl

from shortlist.recsys.data import fields

LISTED = r"^\s*\[.*\]\s*$"
"""Text of a list, as Python or JSON writes it."""

_ELEMENT = r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\[\],'"]+)"""
_ENUMERATION = r", [^,]* (?:&|and|und|et|y|e|en) "
"""As in "Clothing, Shoes & Jewelry", which is one name."""


def parted(frame: pl.DataFrame, table: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table with its categories as lists, where text lists several, and a note that says so.

    Text joined by "|" stays as it is: it is what the schema asks for.
    """
    if not fields.is_text(frame.schema["categories"]):
        return frame, ()
    texts = frame["categories"].cast(pl.String)
    given = texts.drop_nulls().str.strip_chars()
    given = given.filter(given != "")
    if given.is_empty():
        return frame, ()
    if given.str.contains(LISTED).all():
        lists = unlisted(texts)
        note = f"{table}: categories such as {given[0]!r} are read as lists"
        return frame.with_columns(lists.alias("categories")), (note,)
    separator = separator_of(given)
    if separator is None or separator == "|":
        return frame, ()
    example = given.filter(given.str.contains(separator, literal=True))[0]
    note = f"{table}: categories such as {example!r} are read as several, parted by {separator!r}"
    return frame.with_columns(texts.str.split(separator).alias("categories")), (note,)


def separator_of(texts: pl.Series) -> str | None:
    """What parts the names in a column of text; None where each text is one name."""
    for separator in ("|", ";"):
        if texts.str.contains(separator, literal=True).any():
            return separator
    if not texts.str.contains(",", literal=True).any():
        return None
    return "," if recombine(texts.unique(), ",") else None


def recombine(wholes: pl.Series, separator: str) -> bool:
    """Whether parts of texts recur in other texts, and none of the texts reads as one name."""
    parts = wholes.to_frame("whole").with_columns(
        pl.col("whole").str.split(separator).list.eval(pl.element().str.strip_chars()).alias("part")
    )
    listing = parts.filter(pl.col("part").list.len() > 1)
    if listing["whole"].str.contains(_ENUMERATION).any():
        return False
    every = parts.explode("part").unique()
    shared = every.filter(pl.col("part").is_duplicated())["part"].unique()
    recurring = listing.filter(
        pl.col("part").list.eval(pl.element().is_in(shared.to_list())).list.any()
    )
    return recurring.height > 0


def unlisted(texts: pl.Series) -> pl.Series:
    """Lists of the elements of texts such as "['a', 'b']" or '["a", "b"]'."""
    elements = texts.str.extract_all(_ELEMENT)
    return elements.list.eval(
        pl.element().str.strip_chars(" \t'\"").str.replace_all(r"\\(.)", "${1}")
    )
