"""Scores in the form that lists hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shortlist.recsys.models.interactions import Float32


def falling_scores(n: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """[n]: scores from 1 linearly towards 0, for a list without a model."""
    return np.linspace(1, 0, n, endpoint=False).astype(dtype)


def within_half(scores: Float32) -> Float32:
    """The scores, clipped to the range of half precision."""
    largest = np.finfo(np.float16).max
    return np.clip(scores, -largest, largest)


def half_bytes(scores: Float32) -> bytes:
    """Little-endian half precision, two bytes a score."""
    return within_half(scores).astype("<f2").tobytes()
