"""Draws, checks and tables that the synthetic worlds share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.models.interactions import Int32, Int64

Float64 = NDArray[np.float64]

DAY_S = 86_400

NOTHING = -1
"""Drawn where there is nothing to draw from."""

_TRUE_REGION_SHARE = 0.8  # attributes help, but do not give the taste away


def require_at_least(size: object, **least: float) -> None:
    """Raises InvalidSettings where a field of `size` is below its bound, or not finite."""
    for name, bound in least.items():
        value = getattr(size, name)
        if not (math.isfinite(value) and value >= bound):
            raise InvalidSettings(f"{name} is {value}: it must be at least {bound}; correct it")


def require_shares(size: object, *names: str) -> None:
    """Raises InvalidSettings where a field of `size` is not from 0 to 1."""
    for name in names:
        value = getattr(size, name)
        if not 0 <= value <= 1:
            raise InvalidSettings(f"{name} is {value}: it must be from 0 to 1; correct it")


def lognormal(mean: float, spread: float, n: int, rng: np.random.Generator) -> Float64:
    """float64[n]: positive numbers of this mean; `spread` is the deviation of their logarithm."""
    # The mean of exp(N(-s²/2, s)) is 1.
    factors: Float64 = mean * np.exp(rng.normal(-spread * spread / 2, spread, n))
    return factors


def two_tastes(n_users: int, n_groups: int, rng: np.random.Generator) -> Int32:
    """int32[n_users, 2]: first and second taste, different where there is more than one group."""
    first = rng.integers(n_groups, size=n_users)
    step = rng.integers(1, max(n_groups, 2), size=n_users)
    return np.column_stack([first, (first + step) % n_groups]).astype(np.int32)


def ranked_popularity(n: int, tail: float, rng: np.random.Generator) -> Float64:
    """float64[n]: rank ** -tail, the ranks in random order."""
    rank = (1 + rng.permutation(n)).astype(np.float64)
    return rank**-tail


def chosen(weights: Float64, rng: np.random.Generator) -> Int64:
    """int64[n]: a column for each row of float64[n, C], by weight; NOTHING where all are 0."""
    total = np.cumsum(weights, axis=1)
    drawn = rng.random(len(weights)) * total[:, -1]
    columns = np.minimum((total <= drawn[:, None]).sum(axis=1), weights.shape[1] - 1)
    return np.where(total[:, -1] > 0, columns, NOTHING)


def drawn_between(
    cumulated: Float64, first: Int64, after: Int64, rng: np.random.Generator
) -> Int64:
    """int64[n]: positions from first:after (int64[n] each) by weight, from any where that is empty.

    cumulated: the sums of all weights up to each position.
    """
    total = np.concatenate(([0.0], cumulated))
    is_empty = first >= after
    low = np.where(is_empty, 0.0, total[first])
    high = np.where(is_empty, total[-1], total[after])
    drawn = low + rng.random(len(first)) * (high - low)
    at = np.searchsorted(cumulated, drawn, side="right")
    return np.minimum(at, len(cumulated) - 1)


def members(group: Int64, n_groups: int) -> Int64:
    """int64[n_groups, W]: the positions of each group's members, padded with NOTHING."""
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=n_groups)
    out = np.full((n_groups, max(1, counts.max())), NOTHING)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    out[group[order], place] = order
    return out


def user_ranges(n_users: int, at_once: int) -> list[tuple[int, int]]:
    """Ranges of users that are drawn together, the same on every machine."""
    step = max(1, at_once)
    return [(start, min(start + step, n_users)) for start in range(0, n_users, step)]


def identifiers(column: str, positions: NDArray[Any]) -> pl.Series:
    """Ids as text: position + 1."""
    return pl.Series(column, positions + 1).cast(pl.String)


def names(prefix: str, numbers: NDArray[Any], n: int) -> pl.Series:
    """`prefix-3` and so on, as wide as the largest of n numbers."""
    return f"{prefix}-" + pl.Series(numbers).cast(pl.String).str.zfill(len(str(n - 1)))


def regions(taste: Int32, n_groups: int, rng: np.random.Generator) -> pl.Series:
    """Regions, an attribute that mostly says the first taste (int32[n_users])."""
    is_true = rng.random(len(taste)) < _TRUE_REGION_SHARE
    region = np.where(is_true, taste, rng.integers(n_groups, size=len(taste)))
    return ("region-" + pl.Series(region).cast(pl.String)).alias("region")
