"""Tests what becomes of the items' own columns."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.recsys.data.item_attributes import ItemColumns, ItemUse, item_columns
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.where import AttributeKind

MANY = 10**6
"""More labels than any test has."""


def read(use: ItemUse | None = None, **columns: Any) -> ItemColumns:
    """The columns of a table, without years."""
    frame = pl.DataFrame(columns)
    years = pl.Series([None] * frame.height, dtype=pl.Float32)
    return item_columns(frame, years, use or ItemUse(), 0)


def attribute(column: Any) -> tuple[str, tuple[Any, ...]]:
    """The kind and the values of one column."""
    (own,) = read(own=column).attributes
    return own.kind.value, own.values


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (["acme", " bruna ", "", None], "text", ("acme", "bruna", None, None)),
        (pl.Series(["a", None], dtype=pl.Categorical), "text", ("a", None)),
        ([["a", "b", "a"], [], None], "list", (("a", "b"), None, None)),
        ([[1, 2], [3]], "list", (("1", "2"), ("3",))),
        ([1, None, 3], "number", (1, None, 3)),
        ([1.5, float("nan"), float("inf")], "number", (1.5, None, None)),
        ([20.0, None], "number", (20, None)),
        (pl.Series([19.99], dtype=pl.Float32), "number", (19.99,)),
        ([Decimal("19.99"), None], "number", (19.99, None)),
        ([True, None, False], "boolean", (True, None, False)),
        (["true", "False", ""], "boolean", (True, False, None)),
        ([date(2024, 5, 31), None], "date", ("2024-05-31", None)),
        ([datetime(2024, 5, 31, 18, tzinfo=UTC)], "date", ("2024-05-31T18:00:00Z",)),
        (["2024-05-31", None], "date", ("2024-05-31", None)),
        (["2024-05-31T20:00:00+02:00"], "date", ("2024-05-31T18:00:00Z",)),
        (["2024-05-31", "soon"], "text", ("2024-05-31", "soon")),
        (["yes", "NO", ""], "boolean", (True, False, None)),
        (["Y", "n"], "boolean", (True, False)),
        (["Y", "Y"], "text", ("Y", "Y")),
        (["12.99", "3", None], "number", (12.99, 3, None)),
        (["4006381333931", "12"], "text", ("4006381333931", "12")),
        (["007.5", "1.5"], "text", ("007.5", "1.5")),
        (["['a', 'b']", "[]", None], "list", (("a", "b"), None, None)),
        (['["a", "b"]', '["b"]'], "list", (("a", "b"), ("b",))),
        (["a|b", "b|c", "c"], "list", (("a", "b"), ("b", "c"), ("c",))),
        (["Pan | 24 cm", "Pot"], "text", ("Pan | 24 cm", "Pot")),
        ([2**60 + 1, 2**53], "text", (str(2**60 + 1), str(2**53))),
        (["2024-13-31"], "text", ("2024-13-31",)),
    ],
)
def test_columns_become_attributes(column: Any, kind: str, values: tuple[Any, ...]) -> None:
    """A column has one kind, and each value the form that answers show."""
    assert attribute(column) == (kind, values)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([{"a": 1}], "it has type Struct"),
        ([[["a"]]], "it has type List(List(String))"),
        ([b"a"], "it has type Binary"),
        ([timedelta(1)], "it has type Duration"),
        ([None], "it has no values"),
        ([""], "it has no values"),
        ([[]], "it has no values"),
        ([float("nan")], "it has no values"),
        ([[0.5] * 8, [1.0] * 8], "its lists of 8 numbers look like vectors: name it embedding"),
        ([str([0.5] * 8)], "its lists of 8 numbers look like vectors: name it embedding"),
    ],
)
def test_other_columns_are_told(column: Any, reason: str) -> None:
    """What cannot be an attribute is left out with its reason."""
    own = read(own=column)
    assert own.attributes == ()
    assert own.notes[0].startswith(f"items: column own is left out: {reason}")


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        (["12,99 €", "3,50 €"], "'12,99 €' is no number such as 9.99"),
        (["9.99", "8.50", "$7"], "'$7' is no number such as 9.99"),
        (["31.05.2024", "01.06.2024"], "'31.05.2024' is no date such as 2024-05-31"),
        (["2024-05-31", "2024-06-01", "soon"], "'soon' is no date such as 2024-05-31"),
    ],
)
def test_untyped_texts_are_told(column: Any, hint: str) -> None:
    """A note says why a column of dates or amounts stayed text."""
    assert read(own=column).notes == (f"items: column own is text, and has no range: {hint}",)


@pytest.mark.parametrize("column", [["acme", "bruna"], ["000123", "42"], ["XL", "38"]])
def test_texts_need_no_note(column: Any) -> None:
    """Names and codes are texts, and nothing is said of them."""
    assert read(own=column).notes == ()


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("available", [1, 0, None], (True, False, None)),
        ("available", ["yes", "no", None], (True, False, None)),
        ("available", [1.0, 0.0, None], (True, False, None)),
        (
            "available_from",
            [1717113600, None, 0],
            ("2024-05-31T00:00:00Z", None, "1970-01-01T00:00:00Z"),
        ),
        ("available_until", ["2024-05-31", "", None], ("2024-05-31", None, None)),
    ],
)
def test_availability_in_other_forms(name: str, column: Any, values: tuple[Any, ...]) -> None:
    """Ones and zeros, and Unix seconds, say when an item is available."""
    own = read(**{name: column})
    kind = AttributeKind.BOOLEAN if name == "available" else AttributeKind.DATE
    assert [(each.kind, each.values) for each in own.attributes] == [(kind, values)]
    assert own.notes == ()


@pytest.mark.parametrize(
    ("name", "column", "kind", "hint"),
    [
        ("available", ["netflix", "disney"], "text", "2 items, which are shown: 'netflix'"),
        ("available", [1, 0, 7], "boolean", "1 items, which are shown: 7"),
        ("available_until", ["2024-05-31", "soon"], "date", "1 items, which are shown: 'soon'"),
        ("available_until", ["31.05.2024"], "text", "1 items, which are shown: '31.05.2024'"),
        ("available_from", [1717113600000], "number", "1 items, which are shown: 1717113600000"),
    ],
)
def test_unreadable_availability_is_told(name: str, column: Any, kind: str, hint: str) -> None:
    """What does not say whether an item may be shown is named in a note."""
    own = read(**{name: column})
    assert own.attributes[0].kind.value == kind
    assert own.notes[0].startswith(f"items: column {name} says nothing of {hint} must be ")


def test_labels_are_learnt() -> None:
    """Texts, booleans, few numbers and shared labels of lists are content of the items."""
    content = read(
        brand=["acme", "bruna", None],
        in_stock=[True, False, True],
        size=[1, 2, 2],
        tags=[["a", "b"], ["b"], ["c"]],
    ).content
    assert [(c.name, c.labels) for c in content.columns] == [
        ("brand", ("acme", "bruna")),
        ("in_stock", ("False", "True")),
        ("size", ("1", "2")),
        ("tags", ("b",)),
    ]
    assert [c.rows[:, 0].tolist() for c in content.columns] == [
        [0, 1, -1],
        [1, 0, 1],
        [0, 1, 1],
        [0, 0, -1],
    ]


def test_numbers_become_bins_and_ranks() -> None:
    """Many prices are learnt from by eight bins and by their rank, whatever their spread."""
    content = read(price=[float(2**n) for n in range(40)]).content
    assert content.columns[0].labels == tuple("01234567")
    assert content.number_names == ("price",)
    assert content.numbers[:, 0] == pytest.approx((np.arange(40) + 0.5) / 40)


def test_dates_are_learnt_as_numbers() -> None:
    """The order of days is known, and an unknown day has no rank."""
    content = read(released=["2024-05-31", None, "2023-01-01"]).content
    assert content.numbers[:, 0] == pytest.approx([0.75, np.nan, 0.25], nan_ok=True)


def test_too_many_texts_are_not_learnt() -> None:
    """A name of its own for each item tells nothing, and is shown and filtered by all the same."""
    own = read(sku=[f"s{n}" for n in range(200)])
    assert own.attributes[0].values[7] == "s7"
    assert own.content.columns == ()
    (note,) = own.notes
    assert note.startswith("items: column sku is not learnt from: it has 200 distinct texts")


def test_brands_of_a_large_catalogue() -> None:
    """One distinct text for each ten items is few enough."""
    own = read(brand=[f"b{n % 200}" for n in range(2000)])
    assert len(own.content.columns[0].labels) == 200


def test_chosen_columns() -> None:
    """The caller says what is learnt from, shown and filtered by."""
    use = ItemUse(learn=("brand",), show=("price",), filter=("brand",))
    own = read(use, brand=["a", "b"], price=[1, 2], note=["x", "x"])
    assert [(a.name, a.is_shown, a.is_filtered) for a in own.attributes] == [
        ("brand", False, True),
        ("price", True, False),
    ]
    assert [c.name for c in own.content.columns] == ["brand"]
    assert own.content.numbers.shape == (2, 0)


def test_chosen_column_must_exist() -> None:
    """A misspelt column is refused, and the known ones are named."""
    with pytest.raises(InvalidData, match="show names the column 'prize', which is not there"):
        read(ItemUse(show=("prize",)), price=[1])


def test_embeddings_are_projected() -> None:
    """Items that are alike stay alike; an item without an embedding has the mean's place."""
    rng = np.random.default_rng(1)
    groups = rng.normal(size=(2, 300))
    known = [(groups[n % 2] + rng.normal(size=300) / 10).tolist() for n in range(40)]
    content = read(embedding=[*known, None]).content
    assert content.vectors.shape == (41, 39)
    assert content.vectors[40].tolist() == [0.0] * 39
    first = content.vectors[:40, 0]
    assert set(np.sign(first[::2])) != set(np.sign(first[1::2]))
    assert np.square(content.vectors[:40]).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)


def test_embeddings_as_text() -> None:
    """CSV has them as JSON lists."""
    lists = read(embedding=[[1.0, 0.0], [0.0, 2.0]]).content.vectors
    texts = read(embedding=["[1, 0]", "[0.0, 2.0]"]).content.vectors
    assert np.array_equal(lists, texts)
    assert lists.shape == (2, 1)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1.0, 2.0], [1.0]], "embeddings have 1, 2 numbers: all must have as many"),
        ([[1.0, None]], "an embedding holds nan"),
        ([[1.0, float("inf")]], "an embedding holds inf"),
        ([1.0], "column embedding has type Float64: it must hold a list of numbers"),
        ([["a"]], "column embedding has type List(String)"),
        (["0.1 many"], "the embedding '0.1 many' is no list of numbers: write [0.1, -0.2]"),
        ([[0.0] * 8193], "at most 8192"),
    ],
)
def test_bad_embeddings_are_refused(column: Any, message: str) -> None:
    """One sentence names what is wrong and what to write."""
    with pytest.raises(InvalidData) as raised:
        read(embedding=column)
    assert message in str(raised.value)


def test_equal_embeddings() -> None:
    """Vectors that tell no item from another are no content."""
    assert read(embedding=[[1.0, 2.0]] * 3).content.vectors.shape == (3, 0)


def test_empty_embeddings() -> None:
    """A column without any embedding is no content."""
    for column in (pl.Series([None, None], dtype=pl.List(pl.Float32)), [[], []], [None, None]):
        own = read(embedding=column)
        assert own.content.vectors.shape == (2, 0)
        assert own.notes == ("items: column embedding is left out: it has no values",)


def test_embeddings_in_other_texts() -> None:
    """Text holds the numbers as JSON or numpy writes them, or with blanks between."""
    expected = read(embedding=[[1.0, -0.5], [2.0, 0.25], None]).content.vectors
    for texts in (
        ["[1.0, -0.5]", "[2.0, 0.25]", ""],
        ["[ 1.   -0.5 ]", "[ 2.    0.25]", None],
        ["1 -0.5", "2 0.25", None],
    ):
        np.testing.assert_array_equal(read(embedding=texts).content.vectors, expected)


def test_equal_embeddings_are_told() -> None:
    """Embeddings that are all alike tell nothing, and a note says so."""
    own = read(embedding=[[1.0, 2.0], [1.0, 2.0]])
    note = "have embeddings of 2 numbers, which do not differ: nothing is learnt from them"
    assert own.notes == (f"items: 2 of 2 items {note}",)


def test_years_are_an_attribute() -> None:
    """Years are shown and filtered by, but learnt from by features of their own."""
    years = pl.Series([1999.0, None], dtype=pl.Float32)
    own = item_columns(pl.DataFrame({"brand": ["a", "a"]}), years, ItemUse(), 0)
    assert (own.attributes[1].name, own.attributes[1].kind) == ("year", AttributeKind.NUMBER)
    assert own.attributes[1].values == (1999, None)
    assert own.content.number_names == ()
