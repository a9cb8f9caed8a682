"""Tests the intervals of few users: they hold the truth where the bootstrap's do not."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.evaluation import bootstrap, small_samples
from shortlist.recsys.evaluation.proportions import wilson


@pytest.mark.parametrize("n_users", [3, 10, 29])
@pytest.mark.parametrize("hit_rate", [0.1, 0.5, 1.0])
def test_score_intervals_hold_the_truth(n_users: int, hit_rate: float) -> None:
    """Of 400 samples of reciprocal ranks the interval holds the mean of all users in 95%."""
    rng = np.random.default_rng(8)
    ranks = rng.integers(1, 11, (n_users, 400))
    values = np.where(rng.random(ranks.shape) < hit_rate, 1 / ranks, 0.0)
    low, high = small_samples.score_intervals(values)
    truth = hit_rate * np.mean(1 / np.arange(1, 11))
    assert np.mean((low <= truth) & (truth <= high)) >= 0.95


def test_bootstrap_of_few_fails() -> None:
    """The rule's reason: of ten users the bootstrap's interval misses the truth too often."""
    rng, held = np.random.default_rng(8), 0
    for _ in range(200):
        values = (rng.random((10, 1)) < 0.1).astype(float)
        low, high = bootstrap.interval(bootstrap.resampled(bootstrap.means(values), 10, rng, 200))
        held += int(low[0] <= 0.1 <= high[0])
    assert held < 0.8 * 200


def test_bounds_scale_the_interval() -> None:
    """Differences lie in -1 to 1, and the interval of their mean with them; unknowns are out."""
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan]])
    low, high = small_samples.score_intervals(values, -1.0, 1.0)
    expected = [2 * end - 1 for end in wilson(1.5, 2)]
    assert [low[0], high[0]] == pytest.approx(expected)
    assert np.isnan([low[1], high[1]]).all()


def test_one_user_is_told_apart() -> None:
    """The sentence reads well for a single user too."""
    report = {"methods": {"m": {"n_users": 1}}, "segments": {}}
    (sentence,) = small_samples.warnings_of(report)
    assert sentence.startswith("only 1 user is measured: below 30")
