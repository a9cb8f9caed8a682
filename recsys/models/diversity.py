"""Reranks a list for diversity: maximal marginal relevance (Carbonell and Goldstein, 1998) over item vectors."""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int64


def diversified(vectors: Float32, scores: Float32, k: int, diversity: float) -> Int64:
    """int64[min(k, n)]: positions of items in the order of maximal marginal relevance.

    vectors: float32[n, d]; scores: float32[n], the higher the better, brought to the span 0 to 1
    here; diversity: 0 keeps the order of the scores, 1 looks at nothing but how unlike the chosen
    ones an item is.
    """
    n = len(scores)
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    unit = vectors / np.where(length > 0, length, 1)
    low, high = (float(scores.min()), float(scores.max())) if n else (0.0, 0.0)
    relevance = (1 - diversity) * ((scores - low) / (high - low if high > low else 1.0))
    likeness = np.full(n, -1.0, np.float32)  # to the nearest of the chosen
    chosen = np.empty(min(k, n), np.int64)
    for place in range(len(chosen)):
        chosen[place] = best = int(
            np.argmax(relevance - diversity * likeness if place else relevance)
        )
        relevance[best] = -np.inf
        likeness = np.maximum(likeness, (unit * unit[best]).sum(axis=1))
    return chosen
