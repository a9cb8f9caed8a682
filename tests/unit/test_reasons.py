"""Tests the words for what a user comes back to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from shortlist.recsys.models.interactions import Events, states_at
from shortlist.recsys.models.reasons import habits, period

DAY = 86_400
MODEL = SimpleNamespace(
    table=SimpleNamespace(popularity=np.zeros(5, np.float32), is_target=np.ones(1, np.float32))
)
EVENTS = Events(
    np.zeros(6, np.int32),
    np.array([0, 1, 0, 2, 2, 0], np.int32),
    np.array([0, 1, 12, 20, 20, 24]) * DAY,
    np.full(6, np.nan, np.float32),
    1,
    4,
)
STATE = states_at(EVENTS, np.array([0]), np.array([6]))
ITEMS = np.arange(4, dtype=np.int32)


def test_habits_by_the_clock() -> None:
    """Three events at twelve days from each other, one event, two at once, and none."""
    assert habits(MODEL, STATE, ITEMS, has_clock=True) == (
        "you come back to this every 12 days",
        "you had this before",
        "you come back to this every minute",
        "",
    )


def test_habits_of_an_order() -> None:
    """Sequence numbers tell no intervals."""
    assert habits(MODEL, STATE, ITEMS, has_clock=False) == (
        "you often come back to this",
        "you had this before",
        "you often come back to this",
        "",
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "minute"),
        (5400, "90 minutes"),
        (2 * 3600, "2 hours"),
        (40 * 3600, "40 hours"),
        (12.4 * DAY, "12 days"),
        (59 * DAY, "59 days"),
        (60 * DAY, "2 months"),
        (400 * DAY, "13 months"),
        (1500 * DAY, "4 years"),
    ],
)
def test_periods_in_their_unit(seconds, words) -> None:
    """The largest unit of which there are about two or more."""
    assert period(seconds) == words
