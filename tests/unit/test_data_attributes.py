"""Tests which columns of user attributes become tokens.

The others are left out with a note.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from shortlist.recsys.data.attributes import tokenised


def test_text_column() -> None:
    """A text column has one token per value, in the order of the texts."""
    vocabulary, tokens, notes = tokenised(pl.DataFrame({"job": ["b", None, "a", "b", ""]}))
    assert vocabulary.columns == ("job",)
    assert vocabulary.tokens == ({"a": 0, "b": 1},)
    assert vocabulary.edges == (None,)
    assert tokens.tolist() == [[1], [-1], [0], [1], [-1]]
    assert notes == ()


def test_few_numbers() -> None:
    """A numeric column of few values has one token per value, whole numbers written plainly."""
    vocabulary, tokens, _ = tokenised(pl.DataFrame({"age": [25.0, 1.5, None, float("nan"), 25.0]}))
    assert vocabulary.tokens == ({"1.5": 0, "25": 1},)
    assert tokens[:, 0].tolist() == [1, 0, -1, -1, 1]
    assert vocabulary.encode({"age": 25}).tolist() == [1]


def test_many_numbers() -> None:
    """A numeric column of many values falls into eight bins of equal count."""
    vocabulary, tokens, _ = tokenised(pl.DataFrame({"n": range(80)}))
    assert vocabulary.tokens == ({str(b): b for b in range(8)},)
    assert [tokens[:, 0].tolist().count(b) for b in range(8)] == [10] * 8
    assert vocabulary.encode({"n": 1e9}).tolist() == [7]


def test_skewed_numbers_have_fewer_bins() -> None:
    """Where many users share a number, equal edges fall together."""
    vocabulary, _, _ = tokenised(pl.DataFrame({"n": [0] * 90 + list(range(1, 12))}))
    edges = vocabulary.edges[0]
    assert edges is not None
    assert len(vocabulary.tokens[0]) == len(edges) + 1 < 8


def test_booleans() -> None:
    """Booleans are two tokens, which the values of a request have, too."""
    vocabulary, tokens, _ = tokenised(pl.DataFrame({"member": [True, False, None]}))
    assert tokens[:, 0].tolist() == [1, 0, -1]
    assert vocabulary.encode({"member": True}).tolist() == [1]


def test_columns_left_out() -> None:
    """Columns that say nothing, or too little of each value, are left out, each with a note."""
    frame = pl.DataFrame(
        {
            "zip": [str(i) for i in range(101)],
            "nothing": [None] * 101,
            "born": [date(2000, 1, 1)] * 101,
            "kept": ["x"] * 101,
        }
    )
    vocabulary, tokens, notes = tokenised(frame)
    assert vocabulary.columns == ("kept",)
    assert tokens.shape == (101, 1)
    assert notes == (
        "users: column zip is left out: it has 101 distinct texts, at most 100 can be learnt from",
        "users: column nothing is left out: it has no values",
        (
            "users: column born is left out: it has type Date, "
            "attributes are text, numbers or booleans"
        ),
    )


def test_no_columns() -> None:
    """Without attributes the matrix has no columns, and still a row per user."""
    vocabulary, tokens, _ = tokenised(pl.DataFrame({"_id": ["a", "b"]}).drop("_id"))
    assert (vocabulary.size, tokens.shape[1]) == (0, 0)
