"""Tests the index against exact search.

It finds the same, or says how much of it.
"""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models import index


def test_a_small_catalogue_is_searched_exactly() -> None:
    """The best by inner product, best first; no more than there are."""
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    built = index.build_index(vectors, 4, 1)
    query = vectors[7]
    assert index.search(built, query, 5).tolist() == np.argsort(-(vectors @ query))[:5].tolist()
    assert len(index.search(built, query, 80)) == 50
    assert index.measure(built, vectors, vectors[:5], 10).recall == 1.0


def test_large_catalogue_recall_is_measured(monkeypatch) -> None:
    """Recall is a share below one here, and more probes find more; no item is out of reach."""
    monkeypatch.setattr(index, "EXACT_UP_TO", 100)
    rng = np.random.default_rng(1)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (2000, 50))
    few, many = (index.build_index(vectors, 40, probes) for probes in (1, 20))
    low, high = (index.measure(built, vectors, queries, 20).recall for built in (few, many))
    assert index.measure(few, vectors, queries, 20).kind == "IndexIVFFlat"
    assert 0 < low < high <= 1
    assert len(index.search(few, queries[0], 2000)) == 2000
