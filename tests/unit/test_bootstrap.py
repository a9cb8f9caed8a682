"""The bootstrap: right width, right centre, repeatable, and chunks that change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import bootstrap
from recsys.events import MISSING


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation() -> None:
    """For a thousand users the ends lie 1.96 standard errors from the mean, to a tenth of the width."""
    values = np.random.default_rng(0).exponential(size=(1000, 1))
    drawn = bootstrap.resampled(bootstrap.means(values), 1000, np.random.default_rng(1), 2000)
    low, high = bootstrap.interval(drawn)
    error = values.std() / np.sqrt(1000)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples of a known world, the 95% interval holds the world's mean in 180 to 199."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = (rng.random((150, 1)) < 0.3).astype(float)
        low, high = bootstrap.interval(bootstrap.resampled(bootstrap.means(values), 150, rng, 300))
        held += int(low[0] <= 0.3 <= high[0])
    assert 180 <= held <= 199


def test_values_that_do_not_vary_have_an_interval_without_width() -> None:
    """When all users agree, other users of the same kind would too."""
    drawn = bootstrap.resampled(bootstrap.means(np.full((40, 2), 0.25)), 40, np.random.default_rng(0))
    low, high = bootstrap.interval(drawn)
    assert drawn.shape == (bootstrap.N_RESAMPLES, 2)
    assert low.tolist() == high.tolist() == [0.25, 0.25]


def test_the_same_generator_gives_the_same_replicates() -> None:
    """The seed alone decides."""
    values = np.arange(30.0)[:, None]
    first, second = (bootstrap.resampled(bootstrap.means(values), 30, np.random.default_rng(5), 50) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_chunks_do_not_change_the_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples made three at a time are those made all at once."""
    statistic = bootstrap.means(np.arange(30.0)[:, None])
    whole = bootstrap.resampled(statistic, 30, np.random.default_rng(5), 50)
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 3 * 8 * 30)
    np.testing.assert_allclose(bootstrap.resampled(statistic, 30, np.random.default_rng(5), 50), whole, rtol=1e-14)


def test_coverage_of_drawn_users_counts_what_they_are_shown() -> None:
    """The first user shows two items, the second one of these and a third, and a user drawn twice adds nothing."""
    ranked = np.array([[0, 1, MISSING], [1, 2, MISSING]], np.int32)
    counts = np.array([[1, 1], [2, 0], [0, 2]])
    assert bootstrap.coverages(ranked, 4)(counts).tolist() == [[0.75], [0.5], [0.5]]


def test_coverage_looks_at_the_first_ten_ranks() -> None:
    """An item at rank eleven is not covered."""
    assert bootstrap.coverages(np.arange(11, dtype=np.int32)[None], 20)(np.array([[1]])).tolist() == [[0.5]]


def test_recentred_replicates_surround_the_value() -> None:
    """The spread stays and the mean becomes the value."""
    moved = bootstrap.recentred(np.array([[0.1], [0.3]]), np.array([0.5]))
    np.testing.assert_allclose(moved, [[0.4], [0.6]])
