"""Tests tables of any types, values and column names.

They are read, or refused in one sentence.
"""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.recsys.data import load
from shortlist.recsys.data.check import Given, check
from shortlist.recsys.errors import InvalidData

NEW_YEAR = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - naive on purpose
YEAR_ONE = dt.datetime(1, 1, 1)  # noqa: DTZ001
GOOD = {"user_id": ["a", "b", "c"], "item_id": ["x", "y", "x"], "timestamp": [1, 2, 3]}
SERIES: dict[str, pl.Series] = {
    "lists of lists": pl.Series([[[1]], [[2]], None]),
    "lists of structs": pl.Series([[{"a": 1}], [], None]),
    "lists of bytes": pl.Series([[b"\xff"], [b"a"], None]),
    "lists of text": pl.Series([["a", None], [], None]),
    "lists of numbers": pl.Series([[1.5, float("nan")], [2.0], None]),
    "arrays": pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.Int64, 2)),
    "structs": pl.Series([{"a": 1}, {"a": 2}, None]),
    "bytes": pl.Series([b"\xff\xfe", b"a", None]),
    "durations": pl.Series([dt.timedelta(days=1), dt.timedelta(0), None]),
    "times of a day": pl.Series([dt.time(1), dt.time(2), None]),
    "dates": pl.Series([dt.date(2024, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    "extreme dates": pl.Series([2**31 - 1, -(2**31), 0], dtype=pl.Int32).cast(pl.Date),
    "extreme moments": pl.Series([2**63 - 1, -(2**63) + 1, 0]).cast(pl.Datetime("ms")),
    "moments": pl.Series([NEW_YEAR, None, YEAR_ONE]),
    "decimals": pl.Series([Decimal("1.50"), Decimal(-2), None]),
    "wide integers": pl.Series([2**100, -(2**100), None], dtype=pl.Int128),
    "unsigned": pl.Series([2**64 - 1, 0, None], dtype=pl.UInt64),
    "floats": pl.Series([1e300, float("nan"), float("-inf")]),
    "narrow floats": pl.Series([2.0**24, 1.5, float("nan")], dtype=pl.Float32),
    "half floats": pl.Series([2048.0, 1.5, None], dtype=pl.Float16),
    "booleans": pl.Series([True, False, None]),
    "categories": pl.Series(["a", "b", None], dtype=pl.Categorical),
    "enum": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b"])),
    "nulls": pl.Series([None, None, None], dtype=pl.Null),
    "odd text": pl.Series(["\uff11\uff12\uff13", "\x00", "\u2028"]),
    "text of numbers": pl.Series(["1e400", "-nan", "9" * 400]),
    "text of times": pl.Series(
        ["+262142-12-31T23:59:59Z", "2024-01-01T00:00:60Z", "\u0661\u0669\u0669\u0660-01-01"]
    ),
}
COLUMNS = {
    "interactions": ("user_id", "item_id", "timestamp", "rating", "weight", "event_type"),
    "items": ("item_id", "title", "categories", "year"),
    "users": ("user_id", "attribute"),
}
NAMES = (
    "_file",
    "_row",
    "_extra",
    "extra",
    "_malformed",
    "_id",
    "_fault",
    "_user",
    "_item",
    "_time",
    "_weight",
    "_reason",
    "",
)


def written(directory: Path, table: str, columns: dict[str, object]) -> dict[str, str]:
    """The three tables, sound but for the columns given."""
    sound = {
        "interactions": GOOD,
        "items": {"item_id": ["x", "y", "z"]},
        "users": {"user_id": ["a", "b", "d"]},
    }
    for name, data in sound.items():
        frame = pl.DataFrame(data | (columns if name == table else {}))
        frame.write_parquet(directory / f"{name}.parquet")
    return {name: str(directory / f"{name}.parquet") for name in sound}


def outcome(tables: dict[str, str], directory: Path) -> str:
    """What became of a load: "read", or the sentence that refuses it."""
    try:
        load(**tables, max_reject_share=1, rejects=directory / "rejects.parquet")
    except InvalidData as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("kind", SERIES)
def test_any_column_type_is_handled(tmp_path, kind) -> None:
    """In every place of every table; a refusal names the column or the rows."""
    for table, columns in COLUMNS.items():
        for column in columns:
            said = outcome(written(tmp_path, table, {column: SERIES[kind]}), tmp_path)
            assert "\n" not in said
            assert said == "read" or column in said or "valid" in said, (table, column, said)


@pytest.mark.parametrize("kind", SERIES)
def test_any_column_type_is_checked(tmp_path, kind) -> None:
    """`shortlist data check` says what it is, or refuses it."""
    for table, column in (("interactions", "timestamp"), ("items", "extra"), ("users", "group")):
        tables = written(tmp_path, table, {column: SERIES[kind]})
        given = Given({name: (path,) for name, path in tables.items()})
        with suppress(InvalidData):
            found = check([], given, lambda *_: None, tmp_path / "rejects.parquet")
            assert json.loads(json.dumps(found.as_json()))["tables"].keys() == tables.keys()


@pytest.mark.parametrize("kind", SERIES)
def test_files_may_differ_in_type(tmp_path, kind) -> None:
    """A second file with plain text in the same column: read, or refused in a sentence."""
    for table, columns in COLUMNS.items():
        for column in columns:
            tables = written(tmp_path, table, {column: SERIES[kind]})
            other = pl.read_parquet(tables[table]).with_columns(pl.Series(column, ["1", "2", "3"]))
            other.write_parquet(tmp_path / f"{table}.2.parquet")
            said = outcome(tables | {table: str(tmp_path / f"{table}.*parquet")}, tmp_path)
            (tmp_path / f"{table}.2.parquet").unlink()
            assert "\n" not in said
            assert said == "read" or column in said or "valid" in said, (table, column, said)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_reserved_column_names_are_harmless(tmp_path, name, form) -> None:
    """It is ignored like other columns; in users it is an attribute, or left out with a note."""
    tables = {}
    for table, data in (
        ("interactions", GOOD),
        ("items", {"item_id": ["x", "y"]}),
        ("users", {"user_id": ["a", "b"]}),
    ):
        frame = pl.DataFrame(data).with_columns(
            pl.Series(name, ["p", "q", "p"][: len(data[next(iter(data))])])
        )
        tables[table] = str(tmp_path / f"{table}.{form}")
        frame.write_parquet(tables[table]) if form == "parquet" else frame.write_csv(tables[table])
    loaded = load(**tables)
    dataset = loaded.dataset
    assert (dataset.user_ids, dataset.catalogue.ids, loaded.rejects) == (
        ("a", "b", "c"),
        ("x", "y"),
        {},
    )
    is_attribute = dataset.vocabulary.columns == (name,)
    assert is_attribute or any(f"column {name} is left out" in note for note in loaded.notes)


ANY_TEXT = st.text(max_size=12) | st.sampled_from(
    ["1.0", " 7 ", "6.35E+17", "9" * 300, "NaN", "1e39", "2024-13-01", "\u0661"]
)
CELL = st.none() | ANY_TEXT


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), min_size=1, max_size=8))
@settings(max_examples=60)
def test_any_text_costs_one_row(tmp_path_factory, rows: list[tuple[str | None, ...]]) -> None:
    """A good row next to any others is learnt from, and every row is kept or rejected."""
    directory = tmp_path_factory.mktemp("any")
    columns = ("user_id", "item_id", "timestamp", "rating")
    frame = pl.DataFrame(
        [*rows, ("good", "item", "7", "1")], schema=dict.fromkeys(columns, pl.String), orient="row"
    )
    frame.write_parquet(directory / "i.parquet")
    loaded = load(str(directory / "i.parquet"), max_reject_share=1)
    assert "good" in loaded.dataset.user_ids
    assert len(loaded.dataset.events) + sum(loaded.rejects.values()) == len(rows) + 1
