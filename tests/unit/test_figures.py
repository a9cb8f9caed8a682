"""Tests how figures are shown as text."""

from __future__ import annotations

import pytest

from shortlist.recsys.evaluation import figures


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (None, figures.DASH),
    ],
)
def test_durations_read_naturally(seconds: float | None, said: str) -> None:
    """Seconds, minutes or hours, whichever a reader would say."""
    assert figures.duration(seconds) == said


def test_no_p_value_is_called_zero() -> None:
    """A p-value below what is printed is said to be below it."""
    assert [figures.p_value(p) for p in (0.0, 0.00004, 0.0312, None)] == [
        "< 0.0001",
        "< 0.0001",
        "0.0312",
        figures.DASH,
    ]


def test_ages_read_naturally() -> None:
    """Hours, days or years, whichever a reader would say."""
    hour, day = 3600, 86_400
    assert [figures.age(n) for n in (40 * hour, 3 * day, 400 * day, 10_500 * day)] == [
        "40 hours",
        "3 days",
        "400 days",
        "29 years",
    ]


def test_days_are_of_utc() -> None:
    """A moment just before midnight belongs to the day that ends there; no moment is a dash."""
    assert [figures.day(n) for n in (1_795_737_599, None)] == ["2026-11-26", figures.DASH]
