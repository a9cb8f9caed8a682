"""What follows what: for each item, its strongest neighbours under several relations, and how a history adds them up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int32
from shortlist.recsys.store.histories import HISTORY_LENGTH

RELATIONS = ("next_1", "next_3", "next_10", "near", "regression")
"""`next_w`: how often j came within w events after i, for each time i came; `near`: the same in either direction within 10,
normalised by both items' counts (a cosine); `regression`: weights of the item-item ridge regression
of Steck (2019), zero where the catalogue is too large for it."""

NEIGHBOURS = 100
"""Neighbours kept for each item and relation."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The strongest neighbours of each of n items, for each of the R relations.

    rows: int32[R, n + 1, K] item rows, strongest first, n where there is none; weights: float32[R,
    n + 1, K], zero there. The last item row is padding, so that MISSING (-1) reads no neighbours.
    """

    rows: Int32
    weights: Float32


def decays(half_lives: tuple[float, ...]) -> Float32:
    """float32[len(half_lives), N]: what a history event counts for, by position (oldest to newest)."""
    age = np.arange(HISTORY_LENGTH - 1, -1, -1)
    return np.stack([0.5 ** (age / h) for h in half_lives]).astype(np.float32)
