"""Tells ids that differ between two tables in their leading zeros alone."""

from __future__ import annotations

import polars as pl


def zeros_apart(unknown: pl.Series, known: pl.Series) -> tuple[str, str, int] | None:
    """An unknown and a known id that are the same but for leading zeros, and how many are.

    unknown, known: ids as text. None where there are none.
    """
    left = _bare(unknown.drop_nulls().unique(maintain_order=True), "unknown")
    right = _bare(known.drop_nulls().unique(maintain_order=True), "known")
    pairs = left.join(right, on="bare", how="inner", maintain_order="left")
    pairs = pairs.filter(pl.col("unknown") != pl.col("known"))
    if pairs.is_empty():
        return None
    return pairs["unknown"][0], pairs["known"][0], pairs["unknown"].n_unique()


def hint(unknown: pl.Series, known: pl.Series, what: str) -> str | None:
    """A sentence where ids that a table lacks are in it with other leading zeros.

    what: the table, such as "items".
    """
    found = zeros_apart(unknown, known)
    if found is None:
        return None
    one, other, n = found
    return (
        f"{n} ids that {what} lacks are there with other leading zeros, such as {one!r} and "
        f"{other!r}: write them alike in both tables"
    )


def _bare(ids: pl.Series, name: str) -> pl.DataFrame:
    frame = pl.DataFrame({name: ids.cast(pl.String)})
    # "0" and "00" are zeros that something must be left of.
    return frame.with_columns(bare=pl.col(name).str.replace(r"^0+(.)", "${1}"))
