"""Tests value rules in Python, Polars and the API document.

All three read every value alike.
"""

from __future__ import annotations

import re

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.errors import InvalidInput

ALPHABET = st.sampled_from(
    [
        *"0123456789",
        *".,eE+-aZ/{}",
        *values.BLANKS,
        "\0",
        "\x1c",
        "\x7f",
        "\uff11",
        "\u0661",
        "\ufeff",
    ]
)
NUMERIC = st.from_regex(rf"({values.WHOLE}|{values.ROUNDED})", fullmatch=True)
LONG = st.integers(250, 300).map(lambda n: "x" * n) | st.integers(1, 400).map(
    lambda n: "9" * n + ".0"
)
TEXT = (
    st.text(ALPHABET, max_size=12)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | NUMERIC
    | LONG
)
PADDED = st.tuples(st.text(st.sampled_from(values.BLANKS), max_size=2), TEXT).map("".join)


def reading(value: object) -> tuple[str | None, str | None]:
    """The id and the fault, one of which is None; a table has both None for a blank one."""
    try:
        return values.id_of(value), None
    except InvalidInput as error:
        return None, next((rule for rule in values.ID_FAULTS if str(error).endswith(rule)), None)


def expression(series: pl.Series) -> list[tuple[str | None, str | None]]:
    """The same by the table reader."""
    frame = pl.DataFrame({"id": series})
    column = ("id", frame.schema["id"], "table")
    rows = frame.select(fields.text_ids(*column), fields.id_faults(*column).alias("fault")).rows()
    return [(text, None if fault is None else values.ID_FAULTS[fault]) for text, fault in rows]


@given(st.lists(PADDED, max_size=10))
@settings(max_examples=300)
def test_any_text_is_read_alike(texts: list[str]) -> None:
    """As id, as fault or as blank."""
    assert expression(pl.Series(texts, dtype=pl.String)) == [reading(text) for text in texts]


@given(st.lists(st.floats() | st.integers(-(2**54), 2**54).map(float), max_size=10))
def test_any_float_is_read_alike(numbers: list[float]) -> None:
    """But for those that are not finite, which a table has where nothing is."""
    known = [reading(n) if abs(n) < float("inf") else (None, None) for n in numbers]
    assert expression(pl.Series(numbers, dtype=pl.Float64)) == known


@given(st.lists(st.integers(-(2**127), 2**127 - 1), max_size=10))
def test_any_integer_is_read_alike(numbers: list[int]) -> None:
    """By its digits."""
    assert expression(pl.Series(numbers, dtype=pl.Int128)) == [reading(n) for n in numbers]


@given(PADDED)
@settings(max_examples=300)
def test_reading_twice_is_reading_once(text: str) -> None:
    """What was read reads as itself."""
    read, _ = reading(text)
    if read is not None:
        assert reading(read) == (read, None)


@given(PADDED)
@settings(max_examples=300)
def test_the_documents_pattern_is_the_rule(text: str) -> None:
    """It takes what is taken, and refuses what is refused, but for `N.0` beyond 2^53."""
    is_lost_whole = re.fullmatch(values.WHOLE, text.strip(values.BLANKS)) is not None
    read, _ = reading(text)
    matches = re.search(values.ID_PATTERN, text) is not None
    assert matches == (read is not None) or is_lost_whole


@given(
    st.lists(
        st.integers(-(2**60), 2**63 - 1) | st.integers(-2, 2) | st.integers(2**53 - 2, 2**53 + 2),
        max_size=10,
    )
)
def test_any_time_is_judged_alike(times: list[int]) -> None:
    """Within one range."""
    frame = pl.DataFrame({"t": pl.Series(times, dtype=pl.Int64)})
    read = frame.select(fields.seconds("t", frame.schema["t"], "table"))["t"].to_list()
    for time, taken in zip(times, read, strict=True):
        try:
            assert values.time_of(time) == taken
        except InvalidInput:
            assert taken == fields.IMPOSSIBLE


NEARLY_TIMES = st.from_regex(
    r"\A ?[0-9]{4}-[01][0-9]-[0-3][0-9]"
    r"(?:[Tt ][0-2][0-9]:[0-6][0-9](?::[0-6][0-9](?:\.[0-9]{1,9})?)?"
    r" ?(?:Z|z|UTC|utc|GMT|[+-][0-2][0-9](?::?[0-6][0-9])?)?)? ?\Z"
)
DOCUMENTED_TIMES = st.from_regex(values.TIME_PATTERN, fullmatch=True)


@given(st.lists(NEARLY_TIMES | DOCUMENTED_TIMES, max_size=20))
@settings(max_examples=200)
def test_any_text_of_a_time_is_read_alike(texts: list[str]) -> None:
    """Dates and ISO 8601 text in all their spellings, and what only looks like it."""
    frame = pl.DataFrame({"t": pl.Series(texts, dtype=pl.String)})
    read = frame.select(fields.seconds("t", frame.schema["t"], "table"))["t"].to_list()
    for text, taken in zip(texts, read, strict=True):
        try:
            assert values.time_of(text) == taken
        except InvalidInput:
            assert taken in (None, fields.IMPOSSIBLE)


@given(DOCUMENTED_TIMES)
@settings(max_examples=300)
def test_documented_times_are_taken(text: str) -> None:
    """The document's pattern promises nothing that is refused."""
    assert 0 <= values.time_of(text) <= values.MAX_TIME
