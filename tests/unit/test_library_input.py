"""Tests what the Python functions say to wrong arguments."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import shortlist
from shortlist.batch.library_input import params_of, where_of
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.models.interactions import Repeats

EVENTS = {"user_id": [1, 1, 2], "item_id": ["a", "b", "a"], "timestamp": [1, 2, 3]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pl.DataFrame({"customer": [1], "item_id": [2], "timestamp": [3]}),
            "interactions: the frame lacks user_id; it has customer, item_id, timestamp: rename",
        ),
        (
            pd.DataFrame(EVENTS).set_index("user_id"),
            "the frame lacks user_id; it has item_id, timestamp: move the index into columns",
        ),
        (pl.DataFrame(EVENTS).head(0), "interactions: the frame has no rows"),
        (
            pd.DataFrame(EVENTS | {"user_id": [1, "1", 2]}),
            "interactions: column 'user_id' cannot be read",
        ),
        ("data.toml", "'data.toml', which may be a mapping file: give it as mapping="),
        (7, "interactions is of type int: give a path, or a frame"),
    ],
)
def test_wrong_tables_are_explained(table: Any, message: str) -> None:
    """The message names the frame's own columns, and no file of ours."""
    with pytest.raises(InvalidInput) as raised:
        shortlist.read(table)
    assert message in str(raised.value)
    assert "shortlist-frames" not in str(raised.value)


def test_frames_are_not_checked() -> None:
    """`check` is about files."""
    with pytest.raises(InvalidInput, match="a file to check is of type DataFrame: give paths"):
        shortlist.check(pl.DataFrame(EVENTS))


def test_parameters_may_be_left_out() -> None:
    """The models then have the defaults; what is given besides changes its own part alone."""
    assert params_of(None, None) == shortlist.FitParams()
    assert params_of(None, "allow") == replace(shortlist.FitParams(), repeats=Repeats.ALLOW)


def test_rules_are_no_dictionary() -> None:
    """What types of events mean has a type of its own."""
    with pytest.raises(InvalidInput, match="event_rules is an object"):
        shortlist.read(pl.DataFrame(EVENTS), event_rules={"view": 1})


def test_types_and_attributes_come_back() -> None:
    """What was read shows the types of events that are told apart, and the items' columns."""
    events = pl.DataFrame(EVENTS | {"event_type": ["buy", "view", "buy"]})
    items = pl.DataFrame({"item_id": ["a", "b"], "brand": ["acme", None]})
    rules = shortlist.EventRules(weights={"view": 1, "buy": 4})
    data = shortlist.read(events, items, event_rules=rules)
    assert data.interactions["event_type"].to_list() == ["buy", "view", "buy"]
    assert data.items["brand"].to_list() == ["acme", None]


def test_conditions_may_be_of_python() -> None:
    """Dates, sets and numbers of numpy become what JSON has."""
    where = {
        "day": {"gte": date(2024, 5, 31), "lt": datetime(2024, 6, 1, tzinfo=UTC)},
        "size": {38},
        "price": np.float32(2.5),
        "brand": pl.Series(["acme"]),
    }
    assert where_of(where) == {
        "day": {"gte": "2024-05-31", "lt": "2024-06-01T00:00:00+00:00"},
        "size": [38],
        "price": 2.5,
        "brand": ["acme"],
    }
