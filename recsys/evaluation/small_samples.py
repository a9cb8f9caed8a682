"""Intervals and warnings where few users were measured.

The bootstrap knows only the users that it draws from. Of three users with a perfect list it makes
an interval of no width, though the next user may have none. Below `FEW_USERS` the interval is
Wilson's, with the mean in the place of the share: of all values between two bounds, hits and misses
vary most, so it is wide enough for any metric. It is wider than need be, which a small sample
deserves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.recsys.evaluation.proportions import wilson
from shortlist.recsys.evaluation.ranking_metrics import Float64, column_sums

FEW_USERS = 30
"""Below it a sample may lack what a tenth of all users are like: 0.9 ** 28 is more than 5%.

For figures of ranking, most of which are 0, the bootstrap's 95% intervals then hold the truth in 30
to 90% of all samples; from here on in about 90% and more.
"""

CONSEQUENCE = (
    f"below {FEW_USERS}, intervals are as wide as any sample of this size can demand, and what "
    "looks better may be chance"
)


def is_few(n_users: int) -> bool:
    """Whether the bootstrap of so many users would promise too much."""
    return n_users < FEW_USERS


def score_intervals(
    values: Float64, least: float | Float64 = 0.0, most: float | Float64 = 1.0
) -> tuple[Float64, Float64]:
    """(low float64[M], high float64[M]): 95% intervals of the means of values float64[U, M].

    NaN values are left out; without any other the ends are NaN. least, most: the bounds of the
    values, of all M or of each.
    """
    known = ~np.isnan(values)
    shares = (np.where(known, values, least) - least) / (np.asarray(most) - least)
    counts = known.sum(axis=0)
    sums = np.clip(column_sums(shares), 0, counts)  # rounding may leave the bounds
    ends = np.array(
        [
            wilson(hits, trials) if trials else (np.nan, np.nan)
            for hits, trials in zip(sums.tolist(), counts.tolist(), strict=True)
        ]
    ).reshape(-1, 2)
    low, high = least + ends.T * (np.asarray(most) - least)
    return low, high


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """A sentence for each part of a report that rests on few users; none where all rest on more.

    report: with "methods" and "segments", as `evaluate` makes it.
    """
    n_users = _n_users(report)
    if is_few(n_users):
        return [f"only {_counted(n_users)} measured: {CONSEQUENCE}"]
    sentences = []
    for kind, rows in report["segments"].items():
        few = [f"{row['segment']} ({row['n_users']})" for row in rows if is_few(row["n_users"])]
        if few:
            sentences.append(f"few users by {kind}, in {', '.join(few)}: {CONSEQUENCE}")
    return sentences


def part_warnings(parts: Mapping[str, Any]) -> list[str]:
    """The same for parts of the hold-out, as new and repeated items; each part has "methods"."""
    return [
        f"only {_counted(_n_users(part))} measured by {name} items: {CONSEQUENCE}"
        for name, part in parts.items()
        if is_few(_n_users(part))
    ]


def _n_users(part: Mapping[str, Any]) -> int:
    """The users of the method that has the fewest: all are measured on the same."""
    return min((row["n_users"] for row in part["methods"].values()), default=0)


def _counted(n_users: int) -> str:
    return "1 user is" if n_users == 1 else f"{n_users} users are"
