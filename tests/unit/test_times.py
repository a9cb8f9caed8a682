"""Tests times as people write them: units, digits, formats, zones."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist.recsys.data import Loaded, load
from shortlist.recsys.data.sources import InteractionsSource, TimeFormat
from shortlist.recsys.errors import InvalidData

SECONDS = [1_700_000_000, 1_700_000_001, 1_704_206_636]
"""14 November 2023 at 22:13:20 UTC, a second later, and 2 January 2024 at 14:43:56."""


def loaded(directory: Path, times: list[Any] | pl.Series, time: TimeFormat | None = None) -> Loaded:
    """A table of these times, one user's, read with this format."""
    path = directory / "i.parquet"
    n = len(times)
    frame = {"user_id": ["u"] * n, "item_id": list(range(n)), "timestamp": times}
    pl.DataFrame(frame, strict=False).write_parquet(path)
    given = TimeFormat() if time is None else time
    return load(InteractionsSource((str(path),), time=given), max_reject_share=0.5)


def seconds(data: Loaded) -> list[int]:
    return data.dataset.events.time.tolist()


@pytest.mark.parametrize(
    ("scale", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
@pytest.mark.parametrize("form", [int, float, str])
def test_units_are_found_and_told(tmp_path: Path, scale: int, unit: str, form: Any) -> None:
    """By their size; digits of a float or of text count as those of an integer."""
    data = loaded(tmp_path, [form(t * scale) for t in SECONDS])
    assert seconds(data) == SECONDS
    assert data.notes == (f"interactions: timestamps are read as {unit} since 1970",)


def test_fractions_are_cut_off(tmp_path: Path) -> None:
    """As with seconds."""
    assert seconds(loaded(tmp_path, [1_700_000_000_999, 1_700_000_001_000])) == SECONDS[:2]


@pytest.mark.parametrize(
    ("digits", "form", "expected"),
    [
        ([20231114221320, 20240102144356], "%Y%m%d%H%M%S", [SECONDS[0], SECONDS[2]]),
        (["20231114221320", "20240102144356"], "%Y%m%d%H%M%S", [SECONDS[0], SECONDS[2]]),
        ([20231114.0, 20240102.0], "%Y%m%d", [1_699_920_000, 1_704_153_600]),
        (["202311142213", "202401021443"], "%Y%m%d%H%M", [1_699_999_980, 1_704_206_580]),
    ],
)
def test_digits_of_dates(tmp_path: Path, digits: list[Any], form: str, expected: list[int]) -> None:
    """Digits that all spell dates are dates, and a note says so."""
    data = loaded(tmp_path, digits)
    assert seconds(data) == expected
    assert f"timestamps are read as {form}" in data.notes[0]


@pytest.mark.parametrize("form", [int, str])
@pytest.mark.parametrize("clock", ["", "2213", "221320"])
def test_digits_that_say_no_date(tmp_path: Path, clock: str, form: Any) -> None:
    """Among dates 0 cannot be read, and the year 9999 is as impossible as in ISO 8601."""
    dates = [form(f"202311{day}{clock}") for day in range(10, 30)]
    data = loaded(tmp_path, [*dates, form("0"), form(f"99991231{clock}")])
    assert data.rejects == {"unparsable timestamp": 1, "impossible timestamp": 1}
    of_day = {"": 0, "2213": 79_980, "221320": 80_000}[clock]
    first = 1_699_574_400 + of_day
    assert seconds(data) == [first + 86_400 * day for day in range(20)]


def test_digits_of_an_impossible_month(tmp_path: Path) -> None:
    """Among dates of more than a month it costs its row."""
    days = [20230000 + 100 * month + day for month in range(1, 5) for day in range(1, 29)]
    data = loaded(tmp_path, [*days, 20231399])
    assert data.rejects == {"unparsable timestamp": 1}
    assert len(seconds(data)) == len(days)


@pytest.mark.parametrize(
    "numbers",
    [
        *([20231114, 20231399], [20231114], [3, 1, 2], [0, 99999999]),
        *(list(range(20230101, 20230134)), list(range(20230100, 20231300))),
    ],
)
def test_sequence_numbers_stay(tmp_path: Path, numbers: list[int]) -> None:
    """One that spells no date shows that none is one."""
    data = loaded(tmp_path, numbers)
    assert (seconds(data), data.notes) == (sorted(numbers), ())


@pytest.mark.parametrize("form", [int, str])
def test_mixed_units_are_refused(tmp_path: Path, form: Any) -> None:
    """A few cost their rows, and the record says why; more than the share stop the load."""
    few = [*(form(t) for t in range(1_700_000_000, 1_700_000_010)), form(1_700_000_000_000)]
    data = loaded(tmp_path, few)
    assert data.rejects == {"unparsable timestamp": 1}
    assert seconds(data) == list(range(1_700_000_000, 1_700_000_010))
    half = [form(1_700_000_000), form(1_700_000_000_000), form(1_700_000_000_001)]
    rejects = tmp_path / "rejects.parquet"
    loaded(tmp_path, half)
    with pytest.raises(InvalidData, match="unparsable timestamp: 1"):
        load(str(tmp_path / "i.parquet"), rejects=rejects)
    record = pl.read_parquet(rejects)["record"][0]
    assert '"timestamp":"1700000000 (most others are in milliseconds)"' in record


def test_unit_that_is_told(tmp_path: Path) -> None:
    """Counts, whatever the size says."""
    data = loaded(tmp_path, [5_000, 61_000], TimeFormat(unit="ms"))
    assert (seconds(data), data.notes) == ([5, 61], ())
    mixed = [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002]
    data = loaded(tmp_path, mixed, TimeFormat(unit="ms"))
    assert (seconds(data), data.rejects) == (SECONDS[:2], {"unparsable timestamp": 1})


@pytest.mark.parametrize(
    ("form", "texts", "expected"),
    [
        ("%d.%m.%Y", ["14.11.2023", "02.01.2024"], [1_699_920_000, 1_704_153_600]),
        ("%m/%d/%Y %H:%M", ["11/14/2023 22:13", "1/2/2024 14:43"], [1_699_999_980, 1_704_206_580]),
        ("%m/%d/%Y %I:%M %p", ["11/14/2023 10:13 PM", "01/02/2024 02:43 PM"], None),
        ("%d/%m/%Y %H:%M:%S %z", ["14/11/2023 23:13:00 +0100", "02/01/2024 14:43:00 +0000"], None),
        ("%a, %d %b %Y %H:%M:%S", ["Tue, 14 Nov 2023 22:13:00", "Tue, 02 Jan 2024 14:43:00"], None),
    ],
)
def test_formats(tmp_path: Path, form: str, texts: list[str], expected: list[int] | None) -> None:
    """Text is read by the format that the mapping tells."""
    data = loaded(tmp_path, [f" {texts[0]}", *texts[1:]], TimeFormat(format=form))
    assert seconds(data) == (expected or [1_699_999_980, 1_704_206_580])


def test_text_of_another_format(tmp_path: Path) -> None:
    """Costs its row, even where it could be read otherwise."""
    times = ["14.11.2023", "1700000000", None, "02.01.2024"]
    data = loaded(tmp_path, times, TimeFormat(format="%d.%m.%Y"))
    assert data.rejects == {"null timestamp": 1, "unparsable timestamp": 1}


@pytest.mark.parametrize(
    "times",
    [
        ["2023-11-14 23:13:20", "2024-07-01 02:00:00+00:00", "2024-07-01 00:00:00"],
        pl.Series([datetime(2023, 11, 14, 23, 13, 20), datetime(2024, 7, 1, 2), None]),  # noqa: DTZ001
    ],
)
def test_zone_of_times_that_say_none(tmp_path: Path, times: Any) -> None:
    """Winter and summer time; what says its zone keeps it."""
    data = loaded(tmp_path, times, TimeFormat(zone="Europe/Berlin"))
    expected = [1_700_000_000, 1_719_784_800, 1_719_799_200]
    typed = isinstance(times, pl.Series)
    assert seconds(data) == ([1_700_000_000, 1_719_792_000] if typed else expected)


def test_hours_that_clocks_skip_or_repeat(tmp_path: Path) -> None:
    """The first of the two that a clock shows, and the next of one that it leaves out."""
    times = ["2024-03-31 02:30:00", "2024-10-27 02:30:00"]
    data = loaded(tmp_path, times, TimeFormat(zone="Europe/Berlin"))
    assert seconds(data) == [1_711_848_600, 1_729_989_000]


def test_format_is_for_text(tmp_path: Path) -> None:
    """Moments have none."""
    with pytest.raises(InvalidData, match=r"has type Datetime.*a format is for text"):
        loaded(tmp_path, [datetime(2024, 1, 1)], TimeFormat(format="%d.%m.%Y"))  # noqa: DTZ001


def test_names_of_zones(tmp_path: Path) -> None:
    """Abbreviations and names of places say how far a clock is ahead; unknown ones are told."""
    times = [
        "2023-11-14 23:13:20 CET",
        "2023-11-14 17:13:21 America/New_York",
        "2023-11-14 22:13:21 XYZ",
    ]
    data = loaded(tmp_path, times, TimeFormat(format="%Y-%m-%d %H:%M:%S %Z"))
    assert seconds(data) == SECONDS[:2]
    assert data.rejects == {"unparsable timestamp": 1}


def test_days_of_a_spreadsheet(tmp_path: Path) -> None:
    """Days since 1899-12-30 with fractions, on a clock of the zone; nonsense costs its row."""
    days = ["45244.925926", "45293", "soon"]
    data = loaded(tmp_path, days, TimeFormat(unit="days", zone="Europe/Berlin"))
    assert seconds(data) == [SECONDS[0] - 3600, 1_704_150_000]
    assert data.rejects == {"unparsable timestamp": 1}


@pytest.mark.parametrize("date", ["2023-11-14", "2023-11-14 00:00:00"])
def test_clock_in_another_column(tmp_path: Path, date: str) -> None:
    """A date and a time of day are one time; without the latter the date's midnight is."""
    path = tmp_path / "i.csv"
    path.write_text(f"user_id,item_id,timestamp,at\nu,1,{date},22:13:20\nu,2,{date},\nu,3,,9:05\n")
    source = InteractionsSource((str(path),), time=TimeFormat(clock="at"))
    data = load(source, max_reject_share=0.5)
    assert seconds(data) == [1_699_920_000, SECONDS[0]]
    assert data.rejects == {"null timestamp": 1}
