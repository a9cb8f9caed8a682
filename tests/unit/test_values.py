"""Tests the rules for ids, times and weights.

Values are read, or refused with a sentence.
"""

from __future__ import annotations

from typing import Any

import pytest

from shortlist.recsys import values
from shortlist.recsys.errors import InvalidInput

HUGE = pytest.param(10**5000, id="huge")
WIDE = "\uff11\uff12\uff13"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("42", "42"),
        (" 42 ", "42"),
        ("\u3000\xa042\t\n", "42"),
        ("42.0", "42"),
        ("-42.000", "-42"),
        ("007.0", "007"),
        (42, "42"),
        (42.0, "42"),
        (-0.0, "0"),
        (2**64, "18446744073709551616"),
        (float(2**53 - 1), "9007199254740991"),
        ("9007199254740991.0", "9007199254740991"),
        (WIDE, WIDE),
        (f"{WIDE}.0", f"{WIDE}.0"),
        ("1.5", "1.5"),
        ("12e4567", "12e4567"),
        ("a/b c", "a/b c"),
        ("x" * 256, "x" * 256),
        (f" {'x' * 256} ", "x" * 256),
        (10**255, "1" + "0" * 255),
    ],
)
def test_an_id_has_one_reading(value: object, read: str) -> None:
    """Whatever form it comes in; reading what was read changes nothing."""
    assert values.id_of(value) == read
    assert values.id_of(read) == read


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "must not be blank"),
        (" \u2003\x85", "must not be blank"),
        ("6.35E+17", values.FLOAT_RULE),
        ("6,35E+17", values.FLOAT_RULE),
        ("6E+17", values.FLOAT_RULE),
        (" 6.352843280556901e17 ", values.FLOAT_RULE),
        ("9007199254740992.0", values.FLOAT_RULE),
        ("9" * 400 + ".0", values.FLOAT_RULE),
        (float(2**53), values.FLOAT_RULE),
        (1.5, values.FLOAT_RULE),
        (float("nan"), values.FLOAT_RULE),
        (float("-inf"), values.FLOAT_RULE),
        ("a\0b", values.CONTROL_RULE),
        ("a\nb", values.CONTROL_RULE),
        ("a\ufffdb", values.CONTROL_RULE),
        ("\x1c1", values.CONTROL_RULE),
        ("x" * 257, values.LENGTH_RULE),
        pytest.param(10**256, values.LENGTH_RULE, id="digits"),
        pytest.param(10**5000, values.LENGTH_RULE, id="huge"),
        ("\ud800", "cannot be written as UTF-8"),
        (True, "text or a whole number"),
        (None, "text or a whole number"),
        (["1"], "text or a whole number"),
        (b"1", "text or a whole number"),
    ],
)
def test_invalid_id_names_its_rule(value: object, rule: str) -> None:
    """In one short sentence that any log can hold."""
    with pytest.raises(InvalidInput) as caught:
        values.id_of(value)
    said = str(caught.value)
    assert rule in said
    assert len(said.encode()) < 200


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, 0),
        (10**11 - 1, 10**11 - 1),
        (42.0, 42),
        (" 42 ", 42),
        ("42.0", 42),
        ("2023-11-14", 1_699_920_000),
        ("2023-11-14 22:15", 1_700_000_100),
        ("2023-11-14 22:15:01+00", 1_700_000_101),
        ("2023-11-14t22:15:01z", 1_700_000_101),
        ("2023-11-14T22:15:01.9 GMT", 1_700_000_101),
        ("2023-11-14 23:45:01 +0130", 1_700_000_101),
        ("2023-11-14 20:15:01-02:00", 1_700_000_101),
        ("1970-01-01", 0),
        ("5138-11-16 09:46:39", 10**11 - 1),
    ],
)
def test_times(value: object, read: int) -> None:
    """Whole seconds, dates, and ISO 8601 text in UTC or the zone that it names."""
    assert values.time_of(value) == read


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1.5,
        float("inf"),
        float("nan"),
        True,
        None,
        HUGE,
        "",
        "yesterday",
        "1.5",
        "1e9",
        "-5",
        "1969-12-31",
        "2023-02-30",
        "2023-11-14 24:00",
        "2023-11-14 22:15:60",
        "2023-11-14 22:15:01+24:00",
        "2023-11-14Z",
        "14.11.2023",
        "\u0661",
    ],
)
def test_what_is_no_time(value: object) -> None:
    """Is refused with the range and the forms."""
    rule = "unix seconds, a whole number from 0 to 99999999999, a date, or ISO 8601 text"
    with pytest.raises(InvalidInput, match=rule):
        values.time_of(value)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (10**11, "milliseconds, divide it by 1000"),
        ("1700000000000", "milliseconds, divide it by 1000"),
        (1_700_000_000_000_000, "microseconds, divide it by 1000000"),
        (1_700_000_000_000_000_000, "nanoseconds, divide it by 1000000000"),
    ],
)
def test_times_of_other_units(value: object, remedy: str) -> None:
    """What must be of another unit is refused, and the unit said."""
    with pytest.raises(InvalidInput, match=f"; this looks like {remedy}$"):
        values.time_of(value)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (0, 0.0),
        (-0.0, 0.0),
        (5, 5.0),
        (-1, -1.0),
        (values.MAX_WEIGHT, values.MAX_WEIGHT),
        (-values.MAX_WEIGHT, -values.MAX_WEIGHT),
    ],
)
def test_weights(value: object, read: float) -> None:
    """Any 32-bit float, also one below zero, which is negative feedback."""
    assert str(values.weight_of(value)) == str(read)


@pytest.mark.parametrize(
    "value",
    [-1e39, 1e39, pytest.param(10**400, id="large"), float("nan"), float("inf"), "1", True, None],
)
def test_what_is_no_weight(value: object) -> None:
    """Is refused with the largest weight."""
    with pytest.raises(InvalidInput, match=r"from -3\.4\d*e\+38 to 3\.4028234663852886e\+38"):
        values.weight_of(value)


@pytest.mark.parametrize("value", ["", "x" * 257, "\ud800", 1, None])
def test_what_is_no_label(value: object) -> None:
    """An event id is text of bounded length, kept as it is."""
    assert values.label_of(" a\0 ") == " a\0 "
    with pytest.raises(InvalidInput):
        values.label_of(value)


@pytest.mark.parametrize("value", [0, 101, True, 1.0, "1", HUGE])
def test_what_is_no_position(value: object) -> None:
    """From 1 to the length of the longest answer."""
    assert (values.rank_position_of(1), values.rank_position_of(100)) == (1, 100)
    with pytest.raises(InvalidInput, match="from 1 to 100"):
        values.rank_position_of(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (10**30, "an integer of more than 30 digits"),
        ({"a": 1}, "an object"),
        ([1], "a list"),
        ("\ud800\n", "'\\ud800\\n'"),
        ("x" * 100, f"'{'x' * 60}…'"),
        (object, "a value of type type"),
    ],
)
def test_value_in_message_is_short(value: Any, said: str) -> None:
    """And on one line."""
    assert values.shown(value) == said
