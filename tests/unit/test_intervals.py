"""Tests how often and after what time items are had again."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.models.interactions import Events
from shortlist.recsys.training.intervals import repeat_rates, usual_intervals

NOTHING = np.zeros((3, 0), np.float32)


def events_of(rows: list[tuple[int, int, int]]) -> Events:
    """Events of (user, item, time), of three items."""
    user, item, time = np.array(sorted(rows, key=lambda row: (row[0], row[2]))).T
    weights = np.full(len(user), np.nan, np.float32)
    return Events(user.astype(np.int32), item.astype(np.int32), time, weights, user.max() + 1, 3)


def test_intervals_are_shrunk_to_all() -> None:
    """Item 0 comes back after e**2, item 1 after e**4; item 2, had once, at the mean of both."""
    two, four = round(np.exp(2) * 1e6), round(np.exp(4) * 1e6)
    made = usual_intervals(
        events_of([(0, 0, 0), (0, 0, two), (0, 1, 0), (0, 1, four), (1, 2, 5)]), NOTHING
    )
    base = np.log(1e6)
    expected = [(2 + 5 * 3) / 6 + base, (4 + 5 * 3) / 6 + base, 3 + base]
    assert made == pytest.approx(expected, abs=1e-5)


def test_categories_stand_in_for_items() -> None:
    """Item 2 shares a category with item 1, so it is expected back later than the mean."""
    membership = np.array([[0], [1], [1]], np.float32)
    events = events_of([(0, 0, 0), (0, 0, 10), (0, 1, 0), (0, 1, 1000)])
    made = usual_intervals(events, membership)
    assert made[0] < made.mean() < made[2] < made[1]


def test_one_moment_is_no_interval() -> None:
    """What was had twice at one time was had once, and so it is no repeat."""
    events = events_of([(0, 0, 7), (0, 0, 7), (0, 1, 7)])
    assert np.isnan(usual_intervals(events, NOTHING)).all()
    assert repeat_rates(events).tolist() == [0.0, 0.0, 0.0]


def test_rates_are_shrunk_to_all() -> None:
    """One of item 0's three events is a repeat, and one of all four."""
    made = repeat_rates(events_of([(0, 0, 1), (0, 0, 2), (1, 0, 1), (1, 1, 2)]))
    assert made == pytest.approx([(1 + 5 / 4) / 8, 5 / 4 / 6, 1 / 4])


def test_no_events_give_unknowns() -> None:
    """Nothing is known of any item."""
    nothing = events_of([(0, 0, 1)]).take(np.array([False]))
    assert np.isnan(usual_intervals(nothing, NOTHING)).all()
    assert np.isnan(repeat_rates(nothing)).all()
