"""Tests hits by rank, score and source against lists made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.evaluation.list_hits import calibration, recall_by_source
from shortlist.recsys.evaluation.proportions import wilson
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Events, states_at

N_ITEMS = 10


def truth_with(held: list[list[int]]) -> Truth:
    """Users whose only seen item is the last one."""
    n = len(held)
    users = np.arange(n, dtype=np.int32)
    items, times = np.full(n, N_ITEMS - 1, np.int32), np.zeros(n, np.int64)
    events = Events(users, items, times, np.full(n, np.nan, np.float32), n, N_ITEMS)
    states = states_at(events, events.offsets()[:-1], events.offsets()[1:])
    offsets = np.concatenate(([0], np.cumsum([len(h) for h in held]))).astype(np.int64)
    return Truth(users, states, offsets, np.array([i for h in held for i in h], np.int32))


def rows(*lists: list[int]) -> np.ndarray:
    return np.array(lists, np.int32)


def test_sources_add_up() -> None:
    """Each hit is counted for the source that proposed it, up to its rank."""
    items = rows([4, 1, 5, 6, 2, 0], [3, 7, 0, MISSING, MISSING, MISSING])
    sources = {
        # The first user's padding must not be taken for an item of the user before.
        "near": rows([1, 4, MISSING], [7, 0, MISSING]),
        "far": rows([2, 5, 6], [MISSING, MISSING, MISSING]),
    }
    truth = truth_with([[1, 2], [3, 0]])
    assert recall_by_source(items, sources, truth, N_ITEMS) == {
        "near": {"1": 0.0, "5": 0.5},
        "far": {"1": 0.0, "5": 0.25},
        "all": {"1": 0.25, "5": 1.0},  # item 3 is of no source: it was explored
    }


def test_no_truth_has_no_recall() -> None:
    """Nothing to find is no recall."""
    recall = recall_by_source(rows([1]), {}, truth_with([[]]), N_ITEMS)
    assert recall == {"all": {"1": pytest.approx(np.nan, nan_ok=True)}}


def share(hits: int, offered: int) -> dict[str, float]:
    low, high = wilson(hits, offered)
    return {
        "offered": offered,
        "hits": hits,
        "share": hits / offered,
        "low": low,
        "high": high,
    }


def test_ranks_and_scores_by_hand() -> None:
    """Half of the first places hit; who has nothing held out is not counted; gaps are no places."""
    items = rows([1, 2, 3], [4, 5, MISSING], [6, 7, 8])
    scores = np.array([[3, 2, 1], [3, 1, -np.inf], [9, 9, 9]], np.float32)
    truth = truth_with([[1, 3], [5], []])
    found = calibration(items, scores, truth, N_ITEMS)
    assert found["ranks"] == [
        {"rank": 1, **share(1, 2)},
        {"rank": 2, **share(1, 2)},
        {"rank": 3, **share(1, 1)},
    ]
    assert found["scores"] == [
        {"from": 1.0, "to": 1.0, **share(2, 2)},
        {"from": 2.0, "to": 2.0, **share(0, 1)},
        {"from": 3.0, "to": 3.0, **share(1, 2)},
    ]


def test_many_scores_share_ten_bins() -> None:
    """A hundred places make ten bins of ten, in order."""
    items = np.tile(np.arange(10, dtype=np.int32), (10, 1))
    scores = np.arange(100, dtype=np.float32).reshape(10, 10)
    bins = calibration(items, scores, truth_with([[0]] * 10), N_ITEMS)["scores"]
    assert [(one["from"], one["to"], one["offered"], one["hits"]) for one in bins] == [
        (10.0 * place, 10.0 * place + 9, 10, 1) for place in range(10)
    ]


def test_nobody_counted_has_no_bins() -> None:
    """Without a held-out item there is nothing to say."""
    found = calibration(rows([1]), np.ones((1, 1), np.float32), truth_with([[]]), N_ITEMS)
    assert found == {"ranks": [], "scores": []}
