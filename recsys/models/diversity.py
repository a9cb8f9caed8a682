"""Reranks lists by maximal marginal relevance over item vectors.

After Carbonell and Goldstein (1998): the similarity of two items is that of their vectors.
"""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int64


def unit_vectors(vectors: Float32) -> Float32:
    """float32[n, d]: the vectors scaled to length one; zeros stay zeros."""
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def diversified(unit: Float32, scores: Float32, k: int, diversity: float) -> Int64:
    """int64[min(k, n)]: positions of items in the order of maximal marginal relevance.

    unit: float32[n, d], vectors of length one.
    scores: float32[n], higher is better; they are scaled to the span 0 to 1 here.
    diversity: 0 keeps the order of the scores, 1 looks only at how unlike the chosen ones an item
    is.
    """
    n = len(scores)
    low, high = (float(scores.min()), float(scores.max())) if n else (0.0, 0.0)
    span = high - low if high > low else 1.0
    relevance = (1 - diversity) * ((scores - low) / span)
    likeness = np.full(n, -1.0, np.float32)  # to the nearest of the chosen
    chosen = np.empty(min(k, n), np.int64)
    for place in range(len(chosen)):
        worth = relevance - diversity * likeness if place else relevance
        best = int(np.argmax(worth))
        chosen[place] = best
        relevance[best] = -np.inf
        likeness = np.maximum(likeness, (unit * unit[best]).sum(axis=1))
    return chosen
