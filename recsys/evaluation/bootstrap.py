"""Percentile bootstrap intervals and a randomisation test, over users.

An interval says how far a figure would move with other users of the same kind. A resample draws as
many users as there are, with replacement (Efron and Tibshirani 1993, chapter 13). It draws users,
because the events of one user are not independent of each other. A resample is held as counts per
user, so that a mean over it is a matrix product, and resamples are made in chunks, so that memory
stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import sparse

from shortlist.recsys.evaluation.ranking_metrics import COVERAGE_DEPTH, Float64
from shortlist.recsys.models.interactions import MISSING, Int32, Int64

Statistic = Callable[[Float64], Float64]
"""counts float64[c, U] of c resamples -> float64[c, M]: M statistics of each."""

N_RESAMPLES = 1000
"""Enough for 25 resamples beyond each end of a 95% interval."""

N_FLIPS = 2000
"""Enough that a p-value of 0.05 has a standard error of 0.005; the least possible is 1 / 2001."""

CHUNK_BYTES = 32 * 2**20
"""Bound of one chunk of counts or of signs."""

PRODUCT_WIDTH = 8
"""Columns of one matrix product: an eighth of the work at most is of padding where M is large."""

ALMOST = 1 - 1e-9
"""Sums of the same numbers in another order are held equal."""


def resampled(
    statistic: Statistic, n_users: int, rng: np.random.Generator, n_resamples: int = N_RESAMPLES
) -> Float64:
    """float64[n_resamples, M]: the statistics of resamples of `n_users` (at least one) users."""
    return resampled_together([statistic], n_users, rng, n_resamples)[0]


def resampled_together(
    statistics: Sequence[Statistic],
    n_users: int,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
) -> list[Float64]:
    """What `resampled` gives of each statistic, all from the same resamples.

    Drawing takes longer than most statistics.
    """
    chunks = [
        [statistic(counts) for statistic in statistics]
        for counts in _counts(n_users, rng, n_resamples)
    ]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def interval(replicates: Float64, level: float = 0.95) -> tuple[Float64, Float64]:
    """(low float64[M], high float64[M]): the central `level` of replicates float64[B, M].

    NaN replicates are left out; where all are, the ends are NaN.
    """
    tail = (1.0 - level) / 2.0
    known = ~np.isnan(replicates).all(axis=0)
    ends = np.full((2, replicates.shape[1]), np.nan)
    if known.any():
        ends[:, known] = np.nanquantile(replicates[:, known], (tail, 1.0 - tail), axis=0)
    return ends[0], ends[1]


def means(values: Float64) -> Statistic:
    """The statistic: means of float64[U, M] over the drawn users, NaN values left out."""
    known = (~np.isnan(values)).astype(np.float64)
    filled = np.nan_to_num(values, nan=0.0)

    def statistic(counts: Float64) -> Float64:
        n_known = _product(counts, known)
        drawn: Float64 = _product(counts, filled) / np.where(n_known > 0, n_known, np.nan)
        return drawn

    return statistic


def _product(weights: Float64, values: Float64) -> Float64:
    """Weights float64[c, U] @ values float64[U, M].

    A column is the same bit for bit, whichever others stand beside it: BLAS adds up in an order
    that depends on the shape, so every product has PRODUCT_WIDTH columns.
    """
    n_columns = values.shape[1]
    padded = np.pad(values, ((0, 0), (0, -n_columns % PRODUCT_WIDTH)))
    blocks = [
        weights @ np.ascontiguousarray(padded[:, start : start + PRODUCT_WIDTH])
        for start in range(0, n_columns, PRODUCT_WIDTH)
    ]
    return np.hstack([np.empty((len(weights), 0)), *blocks])[:, :n_columns]


def means_within(values: Float64, segment: Int64, n_segments: int) -> Statistic:
    """The statistic: `means` of float64[U, M] within each segment, n_segments * M values.

    segment: int64[U], each in 0 … n_segments - 1. The draws are those of all users, so that the
    segments' sizes vary.
    """
    members = [np.flatnonzero(segment == s) for s in range(n_segments)]
    parts = [(at, means(values[at])) for at in members]
    return lambda counts: np.hstack([statistic(counts[:, at]) for at, statistic in parts])


def coverages(ranked: Int32, n_items: int) -> Statistic:
    """The statistic: share of the catalogue in the drawn users' first `COVERAGE_DEPTH` ranks.

    ranked: int32[U, K]. A resample has only some 63% of the users, thus reaches fewer items, and
    its coverage lies below the value that it should surround: pass the replicates through
    `recentred` before taking an interval.
    """
    top = ranked[:, :COVERAGE_DEPTH]
    users, ranks = np.nonzero(top != MISSING)
    ones = np.ones(len(users), np.float32)
    shows = sparse.csr_matrix((ones, (top[users, ranks], users)), shape=(n_items, len(ranked)))

    def statistic(counts: Float64) -> Float64:
        drawn = (counts > 0).T.astype(np.float32)  # [U, c]
        shares: Float64 = ((shows @ drawn) > 0).mean(axis=0)[:, None]
        return shares

    return statistic


def recentred(replicates: Float64, value: Float64) -> Float64:
    """Replicates float64[B, M] moved to the mean `value` (float64[M]), without their bias."""
    moved: Float64 = replicates - replicates.mean(axis=0) + value
    return moved


def sign_flip_p_values(
    differences: Float64, rng: np.random.Generator, n_flips: int = N_FLIPS
) -> Float64:
    """float64[M]: two-sided p-values of paired differences float64[U, M], U >= 1.

    Where the methods do not differ, each user's difference could as well have had the other sign.
    The p-value is (1 + how often the sum under random signs is as far from 0 as the observed one) /
    (1 + n_flips) (Fisher's randomisation test, as in Smucker, Allan and Carterette 2007; the ones:
    Davison and Hinkley 1997, section 4.3).
    """
    observed = np.abs(differences.sum(axis=0)) * ALMOST
    extreme = np.zeros(differences.shape[1], np.int64)
    for signs in _signs(len(differences), rng, n_flips):
        extreme += (np.abs(signs @ differences) >= observed).sum(axis=0)
    p_values: Float64 = (1 + extreme) / (1 + n_flips)
    return p_values


def _signs(n_users: int, rng: np.random.Generator, n_flips: int) -> Iterator[Float64]:
    """Chunks float64[c, n_users] of `n_flips` rows of -1 and 1."""
    chunk = max(1, CHUNK_BYTES // (8 * n_users))
    for start in range(0, n_flips, chunk):
        rows = min(chunk, n_flips - start)
        yield np.where(rng.random((rows, n_users)) < 0.5, -1.0, 1.0)  # noqa: PLR2004 - a fair coin


def _counts(n_users: int, rng: np.random.Generator, n_resamples: int) -> Iterator[Float64]:
    """Chunks float64[c, n_users] of `n_resamples` rows: how often each user is drawn."""
    chunk = max(1, CHUNK_BYTES // (8 * n_users))
    shares = np.full(n_users, 1.0 / n_users)
    for start in range(0, n_resamples, chunk):
        counts = rng.multinomial(n_users, shares, size=min(chunk, n_resamples - start))
        yield counts.astype(np.float64)
