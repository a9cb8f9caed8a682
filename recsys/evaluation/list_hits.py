"""Counts a model's hits by rank, by score and by source.

The figures of `report.py` are about users. These are about places in lists: what a place is worth,
whether a higher score means more, and which source of candidates a hit came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.recsys.evaluation.proportions import wilson
from shortlist.recsys.evaluation.ranking_metrics import Bool, hit_matrix, row_keys
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Float32, Int32

RANKS = (1, 5, 10, 20, 50, 100)
"""The depths of `recall_by_source`."""

CALIBRATION_DEPTH = 20
"""Ranks that `calibration` looks at: those that a page shows."""

SCORE_BINS = 10
"""Bins of the scores, of about as many places each."""

TOTAL = "all"
"""Of all sources together, and of what no source proposed, such as exploration."""


def recall_by_source(
    items: Int32, sources: Mapping[str, Int32], truth: Truth, n_items: int
) -> dict[str, dict[str, float]]:
    """The share of all held-out items in the first ranks, by the source that proposed them.

    items: int32[U, K], the final lists; sources: int32[U, C] candidates by name, none of them in
    two sources; both MISSING-padded. Gives {source or TOTAL: {rank of `RANKS` up to K: share}};
    shares of the sources add up to TOTAL but for exploration. NaN where nothing is held out.
    """
    hits = hit_matrix(items, truth, n_items)
    found = {name: hits & _among(items, rows, n_items) for name, rows in sources.items()}
    n_truth = len(truth.items) or np.nan
    return {
        name: {str(k): float(of[:, :k].sum() / n_truth) for k in RANKS if k <= items.shape[1]}
        for name, of in (found | {TOTAL: hits}).items()
    }


def calibration(
    items: Int32, scores: Float32, truth: Truth, n_items: int
) -> dict[str, list[dict[str, Any]]]:
    """How often a place in a list is a hit, by rank and by score.

    items: int32[U, K], MISSING-padded; scores: float32[U, K]. Users without a held-out item are
    left out. Gives {"ranks": [{"rank", …}], "scores": [{"from", "to", …}]}, where … is "offered",
    "hits", their "share" and its 95% Wilson interval, "low" and "high". A user counts once in a
    rank, but several times in a bin of scores, whose interval is a little too narrow for that. Bins
    end at deciles of the scores; equal ones share a bin.
    """
    counted = truth.counts > 0
    hits = hit_matrix(items, truth, n_items)[counted, :CALIBRATION_DEPTH]
    there = items[counted, :CALIBRATION_DEPTH] != MISSING
    ranks = [
        {"rank": rank + 1, **_share(hits[:, rank], there[:, rank])}
        for rank in range(there.shape[1])
        if there[:, rank].any()
    ]
    return {"ranks": ranks, "scores": _by_score(scores[counted, :CALIBRATION_DEPTH], hits, there)}


def _by_score(scores: Float32, hits: Bool, there: Bool) -> list[dict[str, Any]]:
    """The bins of scores; all are [U, K]."""
    known, taken = scores[there], hits[there]
    if not len(known):
        return []
    quantiles = np.arange(1, SCORE_BINS + 1) / SCORE_BINS
    last = np.unique(np.quantile(known, quantiles, method="inverted_cdf"))
    of = np.searchsorted(last, known)
    return [
        {
            "from": float(known[of == place].min()),
            "to": float(end),
            **_share(taken[of == place], np.ones(int((of == place).sum()), bool)),
        }
        for place, end in enumerate(last)
    ]


def _share(hits: Bool, there: Bool) -> dict[str, Any]:
    n_hits, offered = int(hits.sum()), int(there.sum())
    low, high = wilson(n_hits, offered)
    return {
        "offered": offered,
        "hits": n_hits,
        "share": n_hits / offered,
        "low": low,
        "high": high,
    }


def _among(items: Int32, candidates: Int32, n_items: int) -> Bool:
    """bool[U, K]: which items are among their user's candidates."""
    users, columns = np.nonzero(candidates != MISSING)
    keys = users * n_items + candidates[users, columns]
    there: Bool = np.isin(row_keys(items, n_items), keys)
    there &= items != MISSING
    return there
