"""The FAISS index over the item vectors: exact while that is fast, inverted lists beyond, with its recall measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from recsys.events import Float32, Int32

EXACT_UP_TO = 100_000
"""Catalogues up to this size are searched exactly."""

TRAINING_POINTS = 64
"""Vectors per inverted list that its training looks at."""


@dataclass(frozen=True, slots=True)
class IndexStats:
    """kind: FAISS's name of the index; n_items; recall: share of the exact top k that a search of the index finds."""

    kind: str
    n_items: int
    recall: float
    recall_at: int


def build_index(vectors: Float32, n_lists: int, n_probe: int, seed: int = 0) -> Any:  # noqa: ANN401 - FAISS has no types
    """An inner-product index over vectors float32[n, d]; `IndexFlatIP` up to EXACT_UP_TO items, else `IndexIVFFlat`."""
    faiss.omp_set_num_threads(1)
    n, d = vectors.shape
    if n <= EXACT_UP_TO:
        index: Any = faiss.IndexFlatIP(d)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, n_lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = n_probe
        index.cp.seed = seed
        index.cp.max_points_per_centroid = TRAINING_POINTS
        index.train(vectors)
    index.add(vectors)
    return index


def search(index: Any, vector: Float32, k: int) -> Int32:  # noqa: ANN401 - likewise
    """int32[<= k]: rows of the best items for one user vector float32[d], best first.

    An inverted index probes more lists until k are found, so that no item is out of reach.
    """
    k = min(k, index.ntotal)
    found = index.search(vector[None, :], k)[1][0]
    n_lists = getattr(index, "nlist", 0)
    n_probe = getattr(index, "nprobe", 0)
    while n_lists and n_probe < n_lists and found[-1] < 0:
        n_probe = min(n_lists, n_probe * 4)
        found = index.search(vector[None, :], k, params=_probing(n_probe))[1][0]
    kept: Int32 = found[found >= 0].astype(np.int32)
    return kept


def _probing(n_probe: int) -> Any:  # noqa: ANN401 - likewise
    parameters: Any = faiss.SearchParametersIVF()
    parameters.nprobe = n_probe
    return parameters


def measure(index: Any, vectors: Float32, queries: Float32, k: int) -> IndexStats:  # noqa: ANN401 - likewise
    """The recall at k of `index` against exact search, over queries float32[q, d]."""
    kind = type(index).__name__
    k = min(k, len(vectors))
    if kind.startswith("IndexFlat") or len(queries) == 0:
        return IndexStats(kind, len(vectors), 1.0, k)
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    truth = exact.search(queries, k)[1]
    shares = [np.isin(search(index, q, k), t).mean() for q, t in zip(queries, truth, strict=True)]
    return IndexStats(kind, len(vectors), float(np.mean(shares)), k)
