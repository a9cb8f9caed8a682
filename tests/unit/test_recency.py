"""Tests baselines with recency where tastes change.

They gain in such worlds, and do not elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shortlist.recsys.evaluation import recency
from shortlist.recsys.evaluation.baselines import (
    ItemWeights,
    ease_weights,
    fit_recent_popularity,
    item_knn_weights,
    plain,
)
from shortlist.recsys.evaluation.recency import (
    DEFAULT_HALF_LIFE,
    HALF_LIVES,
    FitWeights,
    best_half_life,
    decayed_rows,
    fit_recent_ease,
    fit_recent_item_knn,
    recent,
)
from shortlist.recsys.models.interactions import (
    Events,
    Float32,
    Int32,
    Recommend,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.ties import cuts_before_last

N = 40
Fit = Callable[[Events, np.random.Generator], Recommend]


def events_of(histories: list[list[int]], n_items: int = N) -> Events:
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories]).astype(np.int32)
    items = np.array([i for h in histories for i in h], np.int32)
    return Events(
        users,
        items,
        np.arange(len(items)),
        np.full(len(items), np.nan, np.float32),
        len(histories),
        n_items,
    )


def moving(rng: np.random.Generator) -> Events:
    """Users who have many items of one half of the catalogue and then a few of the other."""
    histories = []
    for user in range(300):
        old, new = (
            (np.arange(0, 20), np.arange(20, 40))
            if user % 2
            else (np.arange(20, 40), np.arange(0, 20))
        )
        histories.append([*rng.permutation(old)[:8].tolist(), *rng.permutation(new)[:4].tolist()])
    return events_of(histories)


def drifted(rng: np.random.Generator) -> tuple[Events, Int32]:
    """The world of `moving` but for each user's last event, and that event's item."""
    events = moving(rng)
    last = events.offsets()[1:] - 1
    kept = np.ones(len(events), bool)
    kept[last] = False
    return events.take(kept), events.item[last]


def checkerboard(rng: np.random.Generator) -> list[list[int]]:
    """User u has all items of their own parity, but for the one at u itself, in some order."""
    return [
        rng.permutation([i for i in range(N) if i % 2 == u % 2 and i != u % N]).tolist()
        for u in range(2 * N)
    ]


def whole_states(events: Events) -> UserStates:
    return states_at(events, events.offsets()[:-1], events.offsets()[1:])


def state_of(history: list[int]) -> UserStates:
    return whole_states(events_of([history]))


def recent_item_knn(events: Events, rng: np.random.Generator) -> Recommend:
    return fit_recent_item_knn(events, rng, item_knn_weights(events))


def recent_ease(events: Events, rng: np.random.Generator) -> Recommend:
    return fit_recent_ease(events, rng, ease_weights(events))


WEIGHTS = pytest.mark.parametrize("weights", [item_knn_weights, ease_weights])
FITS = pytest.mark.parametrize("fit", [recent_item_knn, recent_ease])


@FITS
def test_checkerboard_user_gets_the_missing_square(fit: Fit) -> None:
    """The unseen item of the user's colour comes first at any half-life."""
    events = events_of(checkerboard(np.random.default_rng(0)))
    items, _ = fit(events, np.random.default_rng(1))(whole_states(events), 1)
    assert items[:, 0].tolist() == [u % N for u in range(2 * N)]


@WEIGHTS
def test_moving_tastes_get_short_half_life(weights: FitWeights) -> None:
    """The shortest half-life is picked."""
    assert (
        best_half_life(moving(np.random.default_rng(0)), weights, np.random.default_rng(1))
        == HALF_LIVES[0]
    )


@FITS
def test_where_tastes_move_forgetting_finds_more(fit: Fit) -> None:
    """Of the users' next items, the recency-weighted form finds more in ten than the plain one."""
    past, following = drifted(np.random.default_rng(0))
    ordinary = plain(item_knn_weights(past) if fit is recent_item_knn else ease_weights(past))
    states = whole_states(past)

    def ndcg_of(method: Recommend) -> float:
        return float((method(states, 10)[0] == following[:, None]).any(axis=1).mean())

    assert ndcg_of(fit(past, np.random.default_rng(1))) > ndcg_of(ordinary) + 0.1


@WEIGHTS
def test_latest_item_outweighs_earlier_ones(weights: FitWeights) -> None:
    """After many items of one group and lately some of another, the other's come first."""
    fitted = weights(events_of(checkerboard(np.random.default_rng(0))))
    state = state_of([*range(0, 30, 2), *range(1, 13, 2)])
    assert (recent(fitted, 3.0)(state, 5)[0] % 2 == 1).all()
    assert (recent(fitted, 1e9)(state, 5)[0] % 2 == 0).all()


@WEIGHTS
def test_infinite_half_life_is_plain_method(weights: FitWeights) -> None:
    """An infinite half-life gives the plain method, where the window holds all events."""
    events = moving(np.random.default_rng(0))
    fitted, states = weights(events), whole_states(events)
    endless, ordinary = recent(fitted, np.inf)(states, 10), plain(fitted)(states, 10)
    assert [a.tobytes() for a in endless] == [a.tobytes() for a in ordinary]


def test_items_weigh_by_newest_event() -> None:
    """Item 5, had again just now, weighs 1; items older than a hundred events weigh nothing."""
    rows = decayed_rows(state_of([7, 5, *[2] * 98, 3, 5]), N, half_life=2.0).toarray()[0]
    assert np.flatnonzero(rows).tolist() == [2, 3, 5]
    assert rows[[2, 3, 5]].tolist() == pytest.approx([0.5, 0.5**0.5, 1.0])


def test_half_life_is_validated_on_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Last events are held out of states and weights; repeats and single events are skipped."""
    events = events_of([[1, 2, 3], [4, 5, 4], [6], [7, 8]], 10)
    calls: list[UserStates] = []
    fitted: list[Events] = []

    def fit(past: Events) -> ItemWeights:
        fitted.append(past)
        return item_knn_weights(past)

    def spied(weights: ItemWeights, half_life: float) -> Recommend:
        def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
            calls.append(states)
            return recent(weights, half_life)(states, k)

        return recommend

    monkeypatch.setattr(recency, "recent", spied)
    best_half_life(events, fit, np.random.default_rng(0))
    assert [past.item.tolist() for past in fitted] == [[1, 2, 4, 5, 6, 7]]
    assert [[states.seen(u).tolist() for u in range(len(states))] for states in calls] == [
        [[1, 2], [7]]
    ] * len(HALF_LIVES)


def test_half_life_validation_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The users are drawn by the passed generator, so equal generators give equal methods."""
    monkeypatch.setattr(recency, "VALIDATION_USERS", 20)
    events = moving(np.random.default_rng(0))
    cut = cuts_before_last(events, 1)
    truths = [
        recency.validation_truth(events, cut, np.random.default_rng(1), Repeats.NEVER)
        for _ in range(2)
    ]
    assert len(truths[0]) == 20
    assert truths[0].users.tolist() == truths[1].users.tolist()
    once, again = (
        recent_item_knn(events, np.random.default_rng(1))(whole_states(events), 10)
        for _ in range(2)
    )
    assert [a.tobytes() for a in once] == [a.tobytes() for a in again]


@FITS
def test_existing_weights_are_reused(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the plain method's weights passed in, the only other fit is that of the validation."""
    name = "item_knn_weights" if fit is recent_item_knn else "ease_weights"
    make = item_knn_weights if fit is recent_item_knn else ease_weights
    events, sizes = moving(np.random.default_rng(0)), []

    def counted(past: Events) -> ItemWeights:
        sizes.append(len(past))
        return make(past)

    monkeypatch.setattr(recency, name, counted)
    fit(events, np.random.default_rng(1))
    assert sizes == [len(events) - 300]


def test_half_life_defaults_without_validation() -> None:
    """Users of one event leave nothing to hold out, and nothing breaks, nor in an empty world."""
    assert (
        best_half_life(events_of([[1], [2]]), item_knn_weights, np.random.default_rng(0))
        == DEFAULT_HALF_LIFE
    )
    for fit in (recent_item_knn, recent_ease):
        assert fit(events_of([], 0), np.random.default_rng(0))(state_of([]), 2)[0].tolist() == [
            [-1, -1]
        ]


def test_a_large_catalogue_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the half-life is the stated one."""
    monkeypatch.setattr("shortlist.recsys.evaluation.recency.LARGE_CATALOGUE", N - 1)
    assert (
        best_half_life(moving(np.random.default_rng(0)), item_knn_weights, np.random.default_rng(1))
        == DEFAULT_HALF_LIFE
    )


def test_recent_popularity_ranks_by_latest_tenth() -> None:
    """An item of many long ago follows one of a few lately; equals follow by popularity."""
    long_ago = [[7, 8]] * 9
    events = events_of([*long_ago, [3, 8]], 10)  # the latest tenth of 20 events: 3 and 8
    items, _ = fit_recent_popularity(events)(states_at(events, np.array([0]), np.array([0])), 4)
    assert items.tolist() == [[8, 3, 7, 0]]
