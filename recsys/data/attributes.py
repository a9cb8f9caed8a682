"""User attributes as tokens: which columns of a users table say something, and the token of each user's value."""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.recsys.models.catalogue import AttributeVocabulary
from shortlist.recsys.models.interactions import MISSING, Int32

MAX_TEXTS = 100
"""A text column of more distinct values (postal codes, names) says too little of each to learn from."""

MAX_NUMBERS = 10
"""A numeric column of more distinct values is binned."""

BINS = 8
"""Into how many quantile bins."""


def tokenised(users: pl.DataFrame) -> tuple[AttributeVocabulary, Int32, tuple[str, ...]]:
    """The vocabulary of the frame's columns, int32[n, A] tokens of its rows, and notes on the columns left out."""
    columns: list[str] = []
    tokens: list[dict[str, int]] = []
    edges: list[tuple[float, ...] | None] = []
    encoded: list[Int32] = []
    notes: list[str] = []
    for name in users.columns:
        labels, bins, note = _labels(users[name])
        if labels is None:
            notes.append(note)
            continue
        start = sum(len(t) for t in tokens)
        known = (
            [str(b) for b in range(len(bins) + 1)]
            if bins
            else labels.drop_nulls().unique().sort().to_list()
        )
        tokens.append({label: start + i for i, label in enumerate(known)})
        codes = labels.replace_strict(
            list(tokens[-1]), list(tokens[-1].values()), default=MISSING, return_dtype=pl.Int32
        )
        columns.append(name)
        edges.append(bins)
        encoded.append(codes.to_numpy())
    matrix = (
        np.column_stack(encoded).astype(np.int32)
        if encoded
        else np.empty((users.height, 0), np.int32)
    )
    return AttributeVocabulary(tuple(columns), tuple(tokens), tuple(edges)), matrix, tuple(notes)


def _labels(column: pl.Series) -> tuple[pl.Series | None, tuple[float, ...] | None, str]:
    """The label of each value, the bin edges of a binned column, or None and a note on why there are no labels."""
    left_out = f"users: column {column.name} is left out:"
    if column.dtype.is_numeric():
        labels, bins = _number_labels(column)
    elif column.dtype == pl.Boolean:
        labels, bins = (
            column.replace_strict([True, False], ["True", "False"], return_dtype=pl.String),
            None,
        )
    elif column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        labels, bins = column.cast(pl.String).replace("", None), None
    else:
        return (
            None,
            None,
            f"{left_out} it has type {column.dtype}, attributes are text, numbers or booleans",
        )
    distinct = labels.drop_nulls().n_unique()
    if distinct == 0:
        return None, None, f"{left_out} it has no values"
    if distinct > MAX_TEXTS:
        return (
            None,
            None,
            f"{left_out} it has {distinct} distinct texts, at most {MAX_TEXTS} can be learnt from",
        )
    return labels, bins, ""


def _number_labels(column: pl.Series) -> tuple[pl.Series, tuple[float, ...] | None]:
    """Each number's own text where there are few, else the number of its quantile bin."""
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite().fill_null(value=False), None)
    if values.drop_nulls().n_unique() <= MAX_NUMBERS:
        return _plain(values), None
    known = values.drop_nulls().to_numpy()
    inner = np.quantile(known, np.arange(1, BINS) / BINS)
    edges = tuple(float(e) for e in np.unique(inner))
    bins = pl.Series(np.searchsorted(edges, values.fill_null(0.0).to_numpy(), side="right")).cast(
        pl.String
    )
    return bins.set(values.is_null(), None), edges


def _plain(values: pl.Series) -> pl.Series:
    """Numbers as text, whole ones without a fraction."""
    known = values.drop_nulls().unique().to_list()
    return values.replace_strict(
        known, [str(int(v)) if v == int(v) else str(v) for v in known], return_dtype=pl.String
    )
