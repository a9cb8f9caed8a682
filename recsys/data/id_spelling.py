"""Tells ids that were hardly meant: other leading zeros or capitals, words for a missing one."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import polars as pl

from shortlist.recsys.models.interactions import Int32

MISSING_WORDS = (
    *("null", "none", "nil", "nan", "na", "n/a", "#n/a", "undefined", "missing", "unknown"),
    *("(null)", "(none)", "(not set)", "<null>", "<na>", "\\n", "-", "-1", "anonymous", "guest"),
)
"""What tools write where there is no id, in small letters."""


def hint(unknown: pl.Series, known: pl.Series, what: str) -> str | None:
    """A sentence where ids that a table lacks are in it in another spelling.

    unknown, known: ids as text; what: the table, such as "items".
    """
    found = _apart(unknown, known, _BARE)
    how = "with other leading zeros"
    if found is None:
        found = _apart(unknown, known, _FOLDED)
        how = "with other capitals or in another Unicode form"
    if found is None:
        return None
    one, other, n = found
    # Two Unicode forms look alike.
    shown = ascii if normalize("NFC", one) == normalize("NFC", other) else repr
    return (
        f"{n} ids that {what} lacks are there {how}, such as {shown(one)} and {shown(other)}: "
        "write them alike in both tables"
    )


_BARE = pl.col("id").str.replace(r"^0+(.)", "${1}")
"""Ids without leading zeros: "0" and "00" are zeros that something must be left of."""

_FOLDED = pl.col("id").str.normalize("NFC").str.to_lowercase()


def _apart(unknown: pl.Series, known: pl.Series, key: pl.Expr) -> tuple[str, str, int] | None:
    """An unknown and a known id that have the same key, and how many unknown ones have.

    None where there are none.
    """
    left, right = (
        pl.DataFrame({"id": ids.drop_nulls().cast(pl.String).unique(maintain_order=True)})
        for ids in (unknown, known)
    )
    pairs = left.with_columns(key=key).join(
        right.with_columns(key=key), on="key", how="inner", maintain_order="left"
    )
    pairs = pairs.filter(pl.col("id") != pl.col("id_right"))
    if pairs.is_empty():
        return None
    return pairs["id"][0], pairs["id_right"][0], pairs["id"].n_unique()


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
