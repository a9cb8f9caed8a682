"""Percentile bootstrap intervals over users: how far the figures would move with other users of the same kind.

A resample draws as many users as there are, with replacement (Efron and Tibshirani 1993, chapter 13). Users are what is
drawn because the events of one user are not independent of each other. A resample is held as counts per user, so that a
mean over it is a matrix product, and resamples are made in chunks, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse

from recsys.evaluation.metrics import COVERAGE_DEPTH, Float64
from recsys.events import MISSING, Int32, Int64

Statistic = Callable[[Int64], Float64]
"""counts int64[c, U] of c resamples -> float64[c, M]: M statistics of each."""

N_RESAMPLES = 1000
"""Enough that the ends of a 95% interval rest on 25 resamples each."""

CHUNK_BYTES = 32 * 2**20
"""Bound of one chunk of counts."""


def resampled(statistic: Statistic, n_users: int, rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> Float64:
    """float64[n_resamples, M]: the statistics of resamples of `n_users` (at least one) users."""
    return np.concatenate([statistic(counts) for counts in _counts(n_users, rng, n_resamples)])


def interval(replicates: Float64, level: float = 0.95) -> tuple[Float64, Float64]:
    """(low float64[M], high float64[M]): the central `level` of replicates float64[B, M]."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(replicates, (tail, 1.0 - tail), axis=0)
    return low, high


def means(values: Float64) -> Statistic:
    """The statistic: means over users of float64[U, M]."""

    def statistic(counts: Int64) -> Float64:
        drawn: Float64 = counts @ values / len(values)
        return drawn

    return statistic


def coverages(ranked: Int32, n_items: int) -> Statistic:
    """The statistic, M = 1: share of the catalogue in the first `COVERAGE_DEPTH` ranks of int32[U, K] of drawn users.

    A resample has only some 63% of the users, thus reaches fewer items, and its coverage lies below the value that it
    should surround: pass the replicates through `recentred` before taking an interval.
    """
    top = ranked[:, :COVERAGE_DEPTH]
    users, ranks = np.nonzero(top != MISSING)
    ones = np.ones(len(users), np.float32)
    shows = sparse.csr_matrix((ones, (top[users, ranks], users)), shape=(n_items, len(ranked)))

    def statistic(counts: Int64) -> Float64:
        drawn = (counts > 0).T.astype(np.float32)  # [U, c]
        shares: Float64 = ((shows @ drawn) > 0).mean(axis=0)[:, None]
        return shares

    return statistic


def recentred(replicates: Float64, value: Float64) -> Float64:
    """Replicates float64[B, M] moved so that their mean is `value` (float64[M]): their spread without their bias."""
    moved: Float64 = replicates - replicates.mean(axis=0) + value
    return moved


def _counts(n_users: int, rng: np.random.Generator, n_resamples: int) -> Iterator[Int64]:
    chunk = max(1, CHUNK_BYTES // (8 * n_users))
    shares = np.full(n_users, 1.0 / n_users)
    for start in range(0, n_resamples, chunk):
        yield rng.multinomial(n_users, shares, size=min(chunk, n_resamples - start))
