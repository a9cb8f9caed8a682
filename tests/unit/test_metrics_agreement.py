"""Tests that the metrics agree with trec_eval.

`ir_measures` calls it, on random lists and hold-outs.
"""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, R, Success, nDCG

from shortlist.recsys.evaluation import ranking_metrics
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Events, Int32, states_at

N_USERS, N_ITEMS, K = 60, 120, 100
SAME = {
    "ndcg@10": nDCG @ 10,
    "recall@10": R @ 10,
    "recall@20": R @ 20,
    "mrr": RR,
    "hit_rate@10": Success @ 10,
}


def world() -> tuple[Int32, Truth]:
    """Lists of 1 to 100 items, and 1 to 25 held-out ones per user."""
    rng = np.random.default_rng(20260801)
    ranked = np.full((N_USERS, K), MISSING, np.int32)
    held = [rng.permutation(N_ITEMS)[:n].astype(np.int32) for n in rng.integers(1, 26, N_USERS)]
    for row, length in zip(ranked, rng.integers(1, K + 1, N_USERS), strict=True):
        row[:length] = rng.permutation(N_ITEMS)[:length]
    none, nothing = np.empty(0, np.int32), np.zeros(N_USERS, np.int64)
    events = Events(none, none, none.astype(np.int64), none.astype(np.float32), N_USERS, N_ITEMS)
    offsets = np.concatenate(([0], np.cumsum([len(h) for h in held])))
    return ranked, Truth(
        np.arange(N_USERS, dtype=np.int32),
        states_at(events, nothing, nothing),
        offsets,
        np.concatenate(held),
    )


RANKED, TRUTH = world()


def ours(metric: str) -> ranking_metrics.Float64:
    facts = ranking_metrics.ItemFacts(
        np.ones(N_ITEMS, np.int64), N_USERS, np.empty((N_ITEMS, 0), np.float32)
    )
    return ranking_metrics.per_user(RANKED, TRUTH, facts)[:, ranking_metrics.PER_USER.index(metric)]


def theirs(measure: ir_measures.Measure) -> ranking_metrics.Float64:
    """float64[U]; trec_eval ranks by score, thus the score of a rank is its negative."""
    owned = [
        TRUTH.items[a:b].tolist()
        for a, b in zip(TRUTH.offsets[:-1], TRUTH.offsets[1:], strict=True)
    ]
    qrels = {str(u): {str(i): 1 for i in items} for u, items in enumerate(owned)}
    run = {
        str(u): {str(i): -float(r) for r, i in enumerate(row) if i != MISSING}
        for u, row in enumerate(RANKED.tolist())
    }
    values = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
    return np.array([values[str(u)] for u in range(N_USERS)])


@pytest.mark.parametrize("metric", SAME)
def test_metrics_match_trec_eval(metric: str) -> None:
    """Every user's figure is the same, and the figures vary, so that this says something."""
    expected = theirs(SAME[metric])
    assert len(np.unique(expected)) > 1
    np.testing.assert_allclose(ours(metric), expected, rtol=0, atol=1e-9)


def test_average_precision_matches_trec_eval() -> None:
    """Up to ten held-out items both divide by their number; beyond, ours divides by ten."""
    few = TRUTH.counts <= 10
    assert 10 < few.sum() < N_USERS - 10
    np.testing.assert_allclose(ours("map@10")[few], theirs(AP @ 10)[few], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        ours("map@10") * np.minimum(TRUTH.counts, 10) / TRUTH.counts,
        theirs(AP @ 10),
        rtol=0,
        atol=1e-9,
    )
