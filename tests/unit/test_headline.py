"""Tests the finding of a report in words."""

from __future__ import annotations

import pytest

from shortlist.recsys.evaluation.headline import Standing, amount, headline, standing
from tests.reports import figure, full, minimal


def test_the_headline_names_the_strongest_baseline() -> None:
    """The finding, how much it is over whom, and what the paired interval says."""
    assert headline(full()) == (
        "The two-stage recommender reaches an NDCG@10 of 0.2000 (95% interval 0.1900 to 0.2100): "
        "25.0% more than recent_ease, the strongest baseline, at 0.1600. "
        "The 95% interval of the difference user by user, 0.0300 to 0.0500, excludes zero: "
        "more than the draw of users explains."
    )


def test_headline_admits_tie_and_loss() -> None:
    """An interval with zero in it is said to include it, and less is not called more."""
    report = minimal()
    report["methods"]["two_stage"]["ndcg@10"] = figure(0.152)
    report["paired"] = {
        "two_stage": {
            "recent_ease": {"difference": -0.008, "low": -0.02, "high": 0.004, "p_value": 0.2}
        }
    }
    assert headline(report) == (
        "The two-stage recommender reaches an NDCG@10 of 0.1520 (95% interval 0.1420 to 0.1620): "
        "5.0% less than recent_ease, the strongest baseline, at 0.1600. "
        "The 95% interval of the difference user by user, −0.0200 to 0.0040, includes zero: "  # noqa: RUF001
        "the two cannot be told apart on these users."
    )


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.02, Standing.BETTER),
        (-0.02, -0.01, Standing.WORSE),
        (0.0, 0.02, Standing.OPEN),
        (None, 0.02, Standing.UNKNOWN),
    ],
)
def test_zero_decides_the_standing(low: float | None, high: float, said: Standing) -> None:
    """A difference whose interval touches zero is open, and one without an end unknown."""
    assert standing({"low": low, "high": high}) is said


def test_amounts_read_naturally() -> None:
    """As a share of the other's figure, in itself where that is zero, and equal ones are equal."""
    pairs = [(0.25, 0.2), (0.1, 0.2), (0.1, 0.0), (0.2, 0.2), (0.0, 0.0)]
    said = ["25.0% more", "50.0% less", "0.1000 more", "no more", "no more"]
    assert [amount(*pair) for pair in pairs] == said
