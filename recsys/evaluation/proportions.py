"""Confidence intervals of shares and of their differences."""

from __future__ import annotations

import math

Z = 1.959964
"""The normal quantile of 95% confidence."""


def wilson(hits: float, trials: int) -> tuple[float, float]:
    """The 95% score interval of hits / trials (Wilson, JASA 22, 1927); (0, 1) for no trial.

    hits: from 0 to `trials`; no whole number where a trial may hit in part.
    """
    if trials == 0:
        return 0.0, 1.0
    share, spread = hits / trials, Z * Z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / trials + spread / trials / 4) / (1 + spread)
    low = 0.0 if hits == 0 else middle - half  # exactly, where rounding would miss it
    high = 1.0 if hits == trials else middle + half
    return low, high


def newcombe(hits: int, trials: int, other_hits: int, other_trials: int) -> tuple[float, float]:
    """The 95% interval of hits / trials - other_hits / other_trials, both with a trial.

    Newcombe's hybrid score interval, method 10 of "Interval estimation for the difference between
    independent proportions" (Statistics in Medicine 17, 1998).
    """
    share, other = hits / trials, other_hits / other_trials
    (low, high), (other_low, other_high) = wilson(hits, trials), wilson(other_hits, other_trials)
    below = math.hypot(share - low, other_high - other)
    above = math.hypot(high - share, other - other_low)
    return share - other - below, share - other + above
