"""Exponential decay of a history's events by their age."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.store.histories import HISTORY_LENGTH


def decayed(age: NDArray[Any], half_life: float) -> NDArray[Any]:
    """Weights that halve every `half_life` events of age.

    age: events since, 0 for the latest; floats keep their precision, and so do the weights.
    """
    return 0.5 ** (age / half_life)


def position_weights(half_lives: Sequence[float]) -> Float32:
    """float32[S, N]: weights of the N history positions, oldest to newest, not normalised.

    half_lives: in events; 0 counts the latest event alone, infinity all events alike.
    """
    age = np.arange(HISTORY_LENGTH - 1, -1, -1, dtype=np.float64)
    rows = [(age == 0).astype(np.float64) if h == 0 else decayed(age, h) for h in half_lives]
    return np.stack(rows).astype(np.float32)


@cache
def halving(half_life: float) -> Float32:
    """float32[N], read-only: the position weights of one half-life, computed once."""
    weights = position_weights((half_life,))[0]
    weights.flags.writeable = False
    return weights
