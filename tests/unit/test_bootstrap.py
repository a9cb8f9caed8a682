"""Tests the bootstrap and the sign-flip test.

Their width and centre are right, and they are repeatable, in any chunks.
"""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.evaluation import bootstrap
from shortlist.recsys.models.interactions import MISSING


def test_mean_interval_matches_normal_approximation() -> None:
    """For 1000 users the ends lie 1.96 standard errors from the mean, to a tenth of the width."""
    values = np.random.default_rng(0).exponential(size=(1000, 1))
    drawn = bootstrap.resampled(bootstrap.means(values), 1000, np.random.default_rng(1), 2000)
    low, high = bootstrap.interval(drawn)
    error = values.std() / np.sqrt(1000)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_intervals_cover_at_their_level() -> None:
    """Of 200 samples of a known world, the 95% interval holds the world's mean in 180 to 199."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = (rng.random((150, 1)) < 0.3).astype(float)
        low, high = bootstrap.interval(bootstrap.resampled(bootstrap.means(values), 150, rng, 300))
        held += int(low[0] <= 0.3 <= high[0])
    assert 180 <= held <= 199


def test_constant_values_have_zero_width() -> None:
    """When all users agree, other users of the same kind would too."""
    drawn = bootstrap.resampled(
        bootstrap.means(np.full((40, 2), 0.25)), 40, np.random.default_rng(0)
    )
    low, high = bootstrap.interval(drawn)
    assert drawn.shape == (bootstrap.N_RESAMPLES, 2)
    assert low.tolist() == high.tolist() == [0.25, 0.25]


def test_same_generator_gives_same_replicates() -> None:
    """The seed alone decides."""
    values = np.arange(30.0)[:, None]
    first, second = (
        bootstrap.resampled(bootstrap.means(values), 30, np.random.default_rng(5), 50)
        for _ in range(2)
    )
    assert first.tobytes() == second.tobytes()


def test_together_is_each_alone() -> None:
    """Statistics that share their draws have the replicates that each has by itself."""
    values = np.random.default_rng(2).random((40, 3))
    statistics = [bootstrap.means(values), bootstrap.means_within(values, np.arange(40) % 2, 2)]
    together = bootstrap.resampled_together(statistics, 40, np.random.default_rng(5), 50)
    for drawn, statistic in zip(together, statistics, strict=True):
        alone = bootstrap.resampled(statistic, 40, np.random.default_rng(5), 50)
        assert drawn.tobytes() == alone.tobytes()


def test_chunks_do_not_change_the_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples made three at a time are those made all at once."""
    statistic = bootstrap.means(np.arange(30.0)[:, None])
    whole = bootstrap.resampled(statistic, 30, np.random.default_rng(5), 50)
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 3 * 8 * 30)
    np.testing.assert_allclose(
        bootstrap.resampled(statistic, 30, np.random.default_rng(5), 50), whole, rtol=1e-14
    )


def test_coverage_counts_drawn_users_items() -> None:
    """The users' lists share an item, and a user drawn twice adds nothing."""
    ranked = np.array([[0, 1, MISSING], [1, 2, MISSING]], np.int32)
    counts = np.array([[1, 1], [2, 0], [0, 2]])
    assert bootstrap.coverages(ranked, 4)(counts).tolist() == [[0.75], [0.5], [0.5]]


def test_coverage_counts_first_ten_ranks() -> None:
    """An item at rank eleven is not covered."""
    assert bootstrap.coverages(np.arange(11, dtype=np.int32)[None], 20)(
        np.array([[1]])
    ).tolist() == [[0.5]]


def test_recentred_replicates_surround_the_value() -> None:
    """The spread stays and the mean becomes the value."""
    moved = bootstrap.recentred(np.array([[0.1], [0.3]]), np.array([0.5]))
    np.testing.assert_allclose(moved, [[0.4], [0.6]])


def test_unknown_values_leave_every_resample() -> None:
    """A drawn user without a value does not count, and a resample without any value has none."""
    counts = np.array([[1, 1, 1], [0, 2, 1], [0, 0, 3]])
    drawn = bootstrap.means(np.array([[1.0], [4.0], [np.nan]]))(counts)
    np.testing.assert_array_equal(drawn, [[2.5], [4.0], [np.nan]])


def test_interval_uses_known_replicates() -> None:
    """Unknown replicates change nothing; a column of them has no interval and no warning."""
    known = np.arange(41.0)
    replicates = np.stack((np.append(known, [np.nan, np.nan]), np.full(43, np.nan)), axis=1)
    low, high = bootstrap.interval(replicates)
    np.testing.assert_allclose((low, high), [[1.0, np.nan], [39.0, np.nan]])


def test_segment_means_use_drawn_members() -> None:
    """Two users of a segment, drawn twice and once, have the mean (2 * 1 + 3) / 3."""
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    drawn = bootstrap.means_within(values, np.array([0, 1, 0]), 2)(np.array([[2, 0, 1], [0, 3, 0]]))
    np.testing.assert_allclose(
        drawn, [[5 / 3, 50 / 3, np.nan, np.nan], [np.nan, np.nan, 2.0, 20.0]]
    )


def test_p_value_is_share_of_flips() -> None:
    """Of 256 sign patterns of eight equal differences two are as extreme; none has p = 1."""
    differences = np.stack((np.full(8, 0.1), np.zeros(8)), axis=1)
    p_values = bootstrap.sign_flip_p_values(differences, np.random.default_rng(0), 20_000)
    assert p_values[0] == pytest.approx(2 / 256, abs=0.002)
    assert p_values[1] == 1.0


def test_plain_difference_has_least_p_value() -> None:
    """Where a hundred users agree no flip is as extreme, whatever the sign of the difference."""
    differences = np.random.default_rng(1).random((100, 1)) + 0.5
    p_values = bootstrap.sign_flip_p_values(
        np.hstack((differences, -differences)), np.random.default_rng(0)
    )
    assert p_values.tolist() == [1 / 2001, 1 / 2001]


def test_one_user_alone_proves_nothing() -> None:
    """One user's difference is as extreme with either sign; users without one change nothing."""
    differences = np.array([[0.3], [0.0], [0.0]])
    assert bootstrap.sign_flip_p_values(differences, np.random.default_rng(0), 100).tolist() == [
        1.0
    ]


def test_null_p_values_are_uniform() -> None:
    """Of 400 pairs that differ by chance alone, about a tenth have a p-value of at most 0.1."""
    differences = np.random.default_rng(2).normal(size=(60, 400))
    p_values = bootstrap.sign_flip_p_values(differences, np.random.default_rng(3), 500)
    assert 0.06 <= (p_values <= 0.1).mean() <= 0.14


def test_chunks_keep_the_p_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flips made three at a time are those made all at once."""
    differences = np.random.default_rng(4).normal(size=(30, 2))
    whole = bootstrap.sign_flip_p_values(differences, np.random.default_rng(5), 50)
    monkeypatch.setattr(bootstrap, "CHUNK_BYTES", 3 * 8 * 30)
    assert (
        bootstrap.sign_flip_p_values(differences, np.random.default_rng(5), 50).tolist()
        == whole.tolist()
    )
