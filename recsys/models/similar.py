"""Items like an item: near in what the towers learnt, and taken near it by the same users.

Item vectors alone say what kind of users an item is for, and tell little of what goes with it; the
two orders are joined by reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009).
"""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int32
from shortlist.recsys.models.neighbours import Neighbours, Relation

RANK_CONSTANT = 60
"""The constant of that paper: how little the first places outweigh those behind them."""


def similar(unit: Float32, neighbours: Neighbours, item: int, rows: Int32) -> tuple[Int32, Float32]:
    """int32[m], float32[m]: the m `rows`, most like `item` first, and how much, from 0 to 1 (first in both orders).

    unit: float32[n, d], item vectors of length one; rows: item rows, rising, without `item`.
    """
    likeness = unit[rows] @ unit[item]
    place = np.empty(len(rows), np.int64)
    place[np.lexsort((rows, -likeness))] = np.arange(len(rows))
    score = 1 / (RANK_CONSTANT + 1 + place)
    together = neighbours.rows[Relation.NEAR, item]
    at = np.searchsorted(rows, together)
    at = at[rows[np.minimum(at, len(rows) - 1)] == together] if len(rows) else at[:0]
    score[at] += 1 / (RANK_CONSTANT + 1 + np.arange(len(at)))
    score *= (RANK_CONSTANT + 1) / 2
    best = np.lexsort((rows, -score))
    return rows[best], score[best].astype(np.float32)
