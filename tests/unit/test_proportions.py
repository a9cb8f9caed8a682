"""Intervals of shares, against published ones and by their coverage."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.evaluation.proportions import newcombe, wilson


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_score_interval_matches_published(hits: int, trials: int, low: float, high: float) -> None:
    """Table I, method 3, of Newcombe's comparison of intervals of one proportion."""
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_without_a_trial_anything_is_possible() -> None:
    """And nothing is divided by zero; with nothing but hits the upper end is 1."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((5, 56, 0, 29), -0.0381, 0.1926),
    ],
)
def test_difference_interval_matches_published(
    counts: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Table II, method 10, of Newcombe's comparison of intervals of differences."""
    assert newcombe(*counts) == pytest.approx((low, high), abs=5e-5)


def test_proportion_intervals_cover_as_stated() -> None:
    """Of clicks drawn with known shares, 95% of the intervals contain them, give or take two."""
    rng = np.random.default_rng(3)
    hits, other = rng.binomial(400, 0.1, 1000), rng.binomial(300, 0.06, 1000)
    inside = [low <= 0.1 <= high for low, high in (wilson(int(h), 400) for h in hits)]
    apart = [
        low <= 0.04 <= high
        for low, high in (
            newcombe(int(h), 400, int(o), 300) for h, o in zip(hits, other, strict=True)
        )
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)
    assert np.mean(apart) == pytest.approx(0.95, abs=0.02)
