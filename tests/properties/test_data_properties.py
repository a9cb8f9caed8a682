"""Properties of loading that hold for any data."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.recsys.data import load
from shortlist.recsys.data.attributes import tokenised
from shortlist.recsys.data.input_schema import FILE_COLUMN, MALFORMED_COLUMN, ROW_COLUMN
from shortlist.recsys.data.readers import RawTable
from shortlist.recsys.data.validation import check_interactions, sorted_events
from shortlist.recsys.errors import InvalidData

IDS = st.one_of(st.none(), st.text("ab1 0.", max_size=3), st.integers(-2, 12).map(str))
TIMES = st.one_of(
    st.none(),
    st.integers(-2, 5).map(str),
    st.sampled_from(["x", "nan", "1970-01-01", "1e3", "2.5"]),
)
RATINGS = st.one_of(
    st.none(), st.integers(-1, 5).map(str), st.sampled_from(["", "y", "inf", "-0.0"])
)
ROWS = st.lists(st.tuples(IDS, IDS, TIMES, RATINGS), min_size=1, max_size=30)


def raw(rows: list[tuple[str | None, ...]]) -> RawTable:
    schema = dict.fromkeys(("user_id", "item_id", "timestamp", "rating"), pl.String)
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.lit(value=False).alias(MALFORMED_COLUMN),
        pl.lit(0, pl.UInt32).alias(FILE_COLUMN),
        pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(ROW_COLUMN),
    )
    return RawTable(frame, ("made up",))


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_every_row_is_accounted_for(rows: list[tuple[str | None, ...]]) -> None:
    """Each row is either kept or rejected, once, and all that is kept keeps the rules."""
    interactions = check_interactions(raw(rows), None)
    kept, rejected = interactions.checked.frame, interactions.checked.rejected
    numbers = sorted([*kept[ROW_COLUMN].to_list(), *rejected["row"].to_list()])
    assert numbers == list(range(1, len(rows) + 1))
    assert rejected["reason"].null_count() == 0
    assert (kept["_time"] >= 0).all()
    assert kept["_negative"].to_list() == (kept["_weight"].fill_null(0) < 0).to_list()
    assert sorted(kept["_user"].unique().to_list()) == list(range(len(interactions.user_ids)))
    assert sorted(kept["_item"].unique().to_list()) == list(range(len(interactions.item_ids)))
    assert not kept.select("_user", "_item", "_time", "_weight").is_duplicated().any()


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_order_follows_time_not_rows(rows: list[tuple[str | None, ...]]) -> None:
    """Events are sorted by user, then time, from rows in any order, and none is lost."""
    interactions = check_interactions(raw(rows), None)
    events = sorted_events(interactions)
    keys = ["_user", "_item", "_time", "_weight"]
    assert events.select("_user", "_time").equals(
        events.select("_user", "_time").sort("_user", "_time")
    )
    positive = interactions.checked.frame.filter(~pl.col("_negative")).select(keys)
    assert events.select(keys).sort(keys).equals(positive.sort(keys))
    for other in (rows[::-1], sorted(rows, key=repr)):
        assert sorted_events(check_interactions(raw(other), None)).equals(events)


@given(
    st.lists(
        st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(0, 3).map(float)),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=60, deadline=None)
def test_numbers_encode_as_they_were_learnt(values: list[float | None]) -> None:
    """A number of the table and the same number in a request give the same token."""
    vocabulary, tokens, _ = tokenised(pl.DataFrame({"n": pl.Series(values, dtype=pl.Float64)}))
    for value, row in zip(values, tokens, strict=True):
        plain = int(value) if value is not None and value == int(value) else value
        assert vocabulary.encode({"n": plain}).tolist() == row.tolist()


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.dat", "a.parquet", "a.csv.gz"]))
@settings(max_examples=80, deadline=None)
def test_any_bytes_give_data_or_error(content: bytes, name: str) -> None:
    """Whatever bytes a file holds, the answer is a dataset or InvalidData."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content if name != "a.csv" else b"user_id,item_id,timestamp\n" + content)
        try:
            loaded = load(str(path), max_reject_share=1)
        except InvalidData:
            return
        assert np.isfinite(loaded.dataset.events.time).all()
