"""Turns columns of attributes into tokens."""

from __future__ import annotations

import numpy as np
import polars as pl

from shortlist.recsys.models.catalogue import AttributeVocabulary
from shortlist.recsys.models.interactions import MISSING, Int32

MAX_TEXTS = 100
"""Most distinct values of a text column; of more (postal codes, names) each has too few users."""

MAX_NUMBERS = 10
"""Most distinct values of a numeric column that is not binned."""

BINS = 8
"""Quantile bins of a numeric column."""

Edges = tuple[float, ...]


def tokenised(
    users: pl.DataFrame, max_texts: int = MAX_TEXTS
) -> tuple[AttributeVocabulary, Int32, tuple[str, ...]]:
    """The vocabulary of all columns, int32[n, A] tokens, and notes on the columns left out.

    max_texts: most distinct labels of a column that is learnt from.
    """
    columns: list[str] = []
    tokens: list[dict[str, int]] = []
    edges: list[Edges | None] = []
    encoded: list[Int32] = []
    notes: list[str] = []
    for name in users.columns:
        reason = _unusable(users[name])
        labels, bins = (None, None) if reason else _labels(users[name])
        reason = reason or _unlearnable(labels, max_texts)
        if labels is None or reason:
            notes.append(f"users: column {name} is left out: {reason}")
            continue
        vocabulary = _numbered(labels, bins, start=sum(map(len, tokens)))
        columns.append(name)
        tokens.append(vocabulary)
        edges.append(bins)
        encoded.append(_encoded(labels, vocabulary))
    matrix = np.empty((users.height, 0), np.int32)
    if encoded:
        matrix = np.column_stack(encoded).astype(np.int32)
    return AttributeVocabulary(tuple(columns), tuple(tokens), tuple(edges)), matrix, tuple(notes)


def _numbered(labels: pl.Series, bins: Edges | None, start: int) -> dict[str, int]:
    """The token of each label, counted from `start`; a bin has one even where it is empty."""
    if bins:
        known = [str(number) for number in range(len(bins) + 1)]
    else:
        known = labels.drop_nulls().unique().sort().to_list()
    return {label: start + i for i, label in enumerate(known)}


def _encoded(labels: pl.Series, vocabulary: dict[str, int]) -> Int32:
    codes = labels.replace_strict(
        list(vocabulary), list(vocabulary.values()), default=MISSING, return_dtype=pl.Int32
    )
    return codes.to_numpy()


def _unusable(column: pl.Series) -> str:
    """The reason why a type cannot be an attribute, or nothing."""
    dtype = column.dtype
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null):
        return ""
    return f"it has type {dtype}, attributes are text, numbers or booleans"


def _unlearnable(labels: pl.Series | None, max_texts: int) -> str:
    """The reason why nothing can be learnt from these labels, or nothing."""
    distinct = 0 if labels is None else labels.drop_nulls().n_unique()
    if distinct == 0:
        return "it has no values"
    if distinct > max_texts:
        return f"it has {distinct} distinct texts, at most {max_texts} can be learnt from"
    return ""


def _labels(column: pl.Series) -> tuple[pl.Series, Edges | None]:
    """The label of each value, and the bin edges of a binned column."""
    if column.dtype.is_numeric():
        return _number_labels(column)
    if column.dtype == pl.Boolean:
        texts = ["True", "False"]
        return column.replace_strict([True, False], texts, return_dtype=pl.String), None
    return column.cast(pl.String).replace("", None), None


def _number_labels(column: pl.Series) -> tuple[pl.Series, Edges | None]:
    """Each number's own text where there are few, else the number of its quantile bin."""
    values = column.cast(pl.Float64)
    values = values.set(~values.is_finite().fill_null(value=False), None)
    if values.drop_nulls().n_unique() <= MAX_NUMBERS:
        return _number_texts(values), None
    known = values.drop_nulls().to_numpy()
    inner = np.quantile(known, np.arange(1, BINS) / BINS)
    edges = tuple(float(e) for e in np.unique(inner))
    positions = np.searchsorted(edges, values.fill_null(0.0).to_numpy(), side="right")
    bins = pl.Series(positions).cast(pl.String)
    return bins.set(values.is_null(), None), edges


def _number_texts(values: pl.Series) -> pl.Series:
    """Numbers as text, whole ones without a fraction."""
    known = values.drop_nulls().unique().to_list()
    texts = [str(int(v)) if v == int(v) else str(v) for v in known]
    return values.replace_strict(known, texts, return_dtype=pl.String)
