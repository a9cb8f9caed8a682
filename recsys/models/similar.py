"""Finds similar items by vectors and neighbours.

Item vectors alone say what kind of users an item is for, and little of what goes with it. The two
orders are joined by reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009).
"""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int32
from shortlist.recsys.models.neighbours import Neighbours, Relation

RANK_CONSTANT = 60
"""The constant of that paper: the larger, the less the first places outweigh later ones."""


def similar(
    vectors: Float32, neighbours: Neighbours, item: int, rows: Int32
) -> tuple[Int32, Float32]:
    """int32[m], float32[m]: `rows` by falling similarity to `item`, and the similarity.

    vectors: float32[n, d], of all items; rows: int32[m] item rows, ascending, without
    `item`. The similarity goes from 0 to 1, which is first in both orders.
    """
    # Without a copy of the vectors, which may be mapped.
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    cosine = (vectors @ vectors[item]) / np.where(length > 0, length, 1)
    likeness = cosine[rows]
    place = np.empty(len(rows), np.int64)
    place[np.lexsort((rows, -likeness))] = np.arange(len(rows))
    score = 1 / (RANK_CONSTANT + 1 + place)
    nearest = neighbours.rows[Relation.NEAR, item]
    at = np.searchsorted(rows, nearest)
    at = at[rows[np.minimum(at, len(rows) - 1)] == nearest] if len(rows) else at[:0]
    score[at] += 1 / (RANK_CONSTANT + 1 + np.arange(len(at)))
    score *= (RANK_CONSTANT + 1) / 2
    best = np.lexsort((rows, -score))
    return rows[best], score[best].astype(np.float32)
