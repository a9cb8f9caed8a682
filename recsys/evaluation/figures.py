"""Shows the figures of a report as text.

An unknown figure, which is None or NaN in a report, is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
SECONDS_A_DAY = 86_400


class Known(NamedTuple):
    """A figure and the ends of its interval, NaN where they are not known."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def known(figure: object) -> Known:
    """A figure of the report, which is a number, a value with its interval, or nothing."""
    if isinstance(figure, Mapping):
        return Known(*(as_float(figure.get(field)) for field in ("value", "low", "high")))
    return Known(as_float(figure), math.nan, math.nan)


def number(value: object, digits: int = 4, sign: str = "") -> str:
    """Four decimals below one, where metrics live, and two above."""
    n = as_float(value)
    if not math.isfinite(n):
        return DASH
    return f"{n:{sign}.{digits if abs(n) < 1 else min(digits, 2)}f}".replace("-", MINUS)


def p_value(value: object) -> str:
    """Four decimals, "< 0.0001" below: resampling knows no smaller one."""
    n = as_float(value)
    return "< 0.0001" if n < 1e-4 else number(n)  # noqa: PLR2004 - the fourth decimal


def share(value: object, sign: str = "") -> str:
    """0.123 as 12.3%."""
    n = as_float(value)
    return f"{n:{sign}.1%}".replace("-", MINUS) if math.isfinite(n) else DASH


def ends(figure: Known) -> str:
    """The interval, or nothing where neither end is known."""
    if not (math.isfinite(figure.low) or math.isfinite(figure.high)):
        return ""
    return f"{number(figure.low)} to {number(figure.high)}"


def duration(seconds: object) -> str:
    """Seconds for a reader: 0.42 s, 12.3 s, 3 min 20 s, 2 h 5 min."""
    n = as_float(seconds)
    if not math.isfinite(n):
        return DASH
    if n < 60:  # noqa: PLR2004 - seconds a minute
        return f"{n:.2f} s" if n < 1 else f"{n:.1f} s"
    minutes, rest = divmod(round(n), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(n_bytes: object) -> str:
    """Bytes as MiB or GiB."""
    n = as_float(n_bytes) / 2**20
    if not math.isfinite(n):
        return DASH
    return f"{n:.0f} MiB" if n < 1024 else f"{n / 1024:.2f} GiB"  # noqa: PLR2004 - MiB a GiB


def day(moment: object) -> str:
    """Unix seconds as a date of UTC."""
    n = as_float(moment)
    return f"{datetime.fromtimestamp(n, UTC):%Y-%m-%d}" if math.isfinite(n) else DASH


def age(seconds: float) -> str:
    """How long ago something was, in the largest unit of which it is at least two."""
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    days = seconds / SECONDS_A_DAY
    if days < 2:  # noqa: PLR2004 - two of a unit read better than one and a bit
        return f"{seconds / 3600:.0f} hours"
    return f"{days:.0f} days" if days < 2 * 365 else f"{days / 365.25:.0f} years"


def as_float(value: Any) -> float:  # noqa: ANN401 - whatever the report holds
    """A number, NaN for None."""
    return math.nan if value is None else float(value)
