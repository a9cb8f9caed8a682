"""Baselines that forget: in worlds where the recent past tells more, they find out, and elsewhere they do not."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import recency
from recsys.evaluation.baselines import ease_weights, fit_recent_popularity, item_knn_weights
from recsys.evaluation.recency import HALF_LIVES, UNTRIED, best_half_life, fit_recent_ease
from recsys.events import Events, states_at

N = 40


def events_of(histories: list[list[int]], n_items: int = N) -> Events:
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories]).astype(np.int32)
    items = np.array([i for h in histories for i in h], np.int32)
    return Events(users, items, np.arange(len(items)), np.full(len(items), np.nan, np.float32), len(histories), n_items)


def moving(rng: np.random.Generator) -> Events:
    """Users who have many items of one half of the catalogue and then a few of the other."""
    histories = []
    for user in range(300):
        old, new = (np.arange(0, 20), np.arange(20, 40)) if user % 2 else (np.arange(20, 40), np.arange(0, 20))
        histories.append([*rng.permutation(old)[:8].tolist(), *rng.permutation(new)[:4].tolist()])
    return events_of(histories)


@pytest.mark.parametrize("weights", [item_knn_weights, ease_weights])
def test_where_tastes_move_the_past_is_soon_forgotten(weights) -> None:
    """The shortest half-life is found."""
    assert best_half_life(moving(np.random.default_rng(0)), weights, np.random.default_rng(1)) == HALF_LIVES[0]


def test_the_latest_item_outweighs_the_earlier_ones() -> None:
    """Of two groups, a user who had many of the first and lately some of the second is offered the second's left-over first."""
    histories = [[i for i in range(N) if i % 2 == u % 2 and i != u % N] for u in range(2 * N)]  # one group each, shuffled below
    rng = np.random.default_rng(0)
    events = events_of([rng.permutation(h).tolist() for h in histories])
    history = events_of([[*range(0, 30, 2), *range(1, 13, 2)]])
    states = states_at(history, np.array([0]), np.array([21]))
    for fit in (item_knn_weights, ease_weights):
        weights, counts = fit(events), np.bincount(events.item, minlength=N).astype(np.float32)
        short, _ = recency._recommender(weights, counts, 3.0)(states, 5)
        flat, _ = recency._recommender(weights, counts, 1e9)(states, 5)
        assert (short % 2 == 1).all()
        assert (flat % 2 == 0).all()


def test_a_large_catalogue_is_not_searched(monkeypatch) -> None:
    """Above the limit the half-life is the stated one, and above EASE's own there is no method."""
    monkeypatch.setattr("recsys.evaluation.recency.LARGE_CATALOGUE", N - 1)
    assert best_half_life(moving(np.random.default_rng(0)), item_knn_weights, np.random.default_rng(1)) == UNTRIED
    assert fit_recent_ease(moving(np.random.default_rng(0)), np.random.default_rng(1), max_items=N - 1) is None


def test_recent_popularity_ranks_by_the_latest_tenth_then_by_all() -> None:
    """An item that many had long ago comes after one that a few had lately, and equals follow their popularity."""
    long_ago = [[7, 8]] * 9
    events = events_of([*long_ago, [3, 8]], 10)  # the latest tenth of 20 events: 3 and 8
    items, _ = fit_recent_popularity(events)(states_at(events, np.array([0]), np.array([0])), 4)
    assert items.tolist() == [[8, 3, 7, 0]]
