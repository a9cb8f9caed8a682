"""Tells ids that were hardly meant: other leading zeros, words for a missing one."""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.recsys.models.interactions import Int32

MISSING_WORDS = (
    *("null", "none", "nil", "nan", "na", "n/a", "#n/a", "undefined", "missing", "unknown"),
    *("(null)", "(none)", "(not set)", "<null>", "<na>", "\\n", "-", "-1", "anonymous", "guest"),
)
"""What tools write where there is no id, in small letters."""


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


def words_for_missing(ids: pl.Series, of_events: Int32, column: str) -> list[str]:
    """A note on each id that is a word for a missing one and that events have.

    ids: by row, as text; of_events: int32[E], the row of each event; column: such as "user_id".
    """
    words = ids.str.strip_chars().str.to_lowercase().is_in(MISSING_WORDS)
    rows = np.flatnonzero(words.to_numpy())
    counts = np.bincount(of_events, minlength=len(ids))[rows]
    return [
        f"interactions: {n:,} events have {column} {ids[int(row)]!r}, which is taken for an id: "
        "leave it empty if it says that there is none, and these rows are rejected"
        for row, n in zip(rows, counts, strict=True)
        if n
    ]


def _bare(ids: pl.Series, name: str) -> pl.DataFrame:
    frame = pl.DataFrame({name: ids.cast(pl.String)})
    # "0" and "00" are zeros that something must be left of.
    return frame.with_columns(bare=pl.col(name).str.replace(r"^0+(.)", "${1}"))
