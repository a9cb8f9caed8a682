"""Tests the baselines for repeats in worlds with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.recsys.evaluation import own_items
from shortlist.recsys.evaluation.own_items import (
    TifuParams,
    best_tifu_params,
    fit_own_frequent,
    fit_own_recent,
    fit_tifu_knn,
)
from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Recommend,
    Repeats,
    UserStates,
    states_at,
)

N = 8


def events_of(histories: list[list[int]], basket: int = 1) -> Events:
    """Events of users, of which `basket` in a row share their time."""
    lengths = [len(history) for history in histories]
    users = np.repeat(np.arange(len(histories)), lengths).astype(np.int32)
    items = np.array([item for history in histories for item in history], np.int32)
    times = np.concatenate([np.arange(length) // basket for length in lengths])
    return Events(users, items, times, np.full(len(items), np.nan, np.float32), len(histories), N)


def states_of(events: Events, repeats: Repeats = Repeats.ALLOW) -> UserStates:
    states = states_at(events, events.offsets()[:-1], events.offsets()[1:])
    return replace(states, repeats=repeats)


def first(method: Recommend, states: UserStates, k: int = 4) -> list[list[int]]:
    return method(states, k)[0].tolist()


POPULAR = [[6, 7], [6, 7], [6]]


def test_own_items_by_number() -> None:
    """Most frequent first, equal ones by the latest, then popular items."""
    events = events_of([*POPULAR, [1, 1, 2, 3]])
    assert first(fit_own_frequent(events), states_of(events).slice(3, 4)) == [[1, 3, 2, 6]]


def test_own_items_by_recency() -> None:
    """The latest first, however often others were had."""
    events = events_of([*POPULAR, [3, 1, 1, 2]])
    assert first(fit_own_recent(events), states_of(events).slice(3, 4)) == [[2, 1, 3, 6]]


@pytest.mark.parametrize("fit", [fit_own_frequent, fit_own_recent])
def test_items_before_the_window_follow(fit) -> None:
    """What was had before the last hundred events comes after them, and before all others."""
    events = events_of([*POPULAR, [5, *[1, 2] * 50]])
    assert first(fit(events), states_of(events).slice(3, 4)) == [[2, 1, 5, 6]]


@pytest.mark.parametrize("fit", [fit_own_frequent, fit_own_recent])
def test_lists_keep_to_what_is_open(fit) -> None:
    """Nothing that was had under NEVER, nothing else under ONLY."""
    events = events_of([*POPULAR, [1, 2]])
    assert first(fit(events), states_of(events, Repeats.NEVER).slice(3, 4), 2) == [[6, 7]]
    only = states_of(events, Repeats.ONLY).slice(3, 4)
    assert first(fit(events), only) == [[2, 1, MISSING, MISSING]]


def test_views_count_by_their_strength() -> None:
    """Two views are less than a purchase, and the latest event is a view; TIFU sees none."""
    kinds = (EventKind("purchase", 1.0, is_target=True), EventKind("view", 0.2, is_target=False))
    events = events_of([*POPULAR, [1, 2, 2]])
    events = replace(events, kind=np.array([0] * 6 + [1, 1], np.uint8), kinds=kinds)
    state = states_of(events).slice(3, 4)
    assert first(fit_own_frequent(events), state, 3) == [[1, 2, 6]]
    assert first(fit_own_recent(events), state, 3) == [[2, 1, 6]]
    tifu = fit_tifu_knn(events, np.random.default_rng(0), TifuParams(2, 0.7))
    assert first(tifu, state, 3) == [[1, 6, 7]]
    never = states_of(events, Repeats.NEVER).slice(3, 4)
    assert first(fit_own_recent(events), never, 2) == [[2, 6]]


def test_baskets_decay_in_groups() -> None:
    """Three baskets in groups of two: the published weights, by hand."""
    events = events_of([[0, 1, 2, 3, 4, 5]], basket=2)
    is_target = np.array([True])
    rows = own_items._decayed_baskets(is_target, 2, states_of(events), N).toarray()[0]
    newest, middle, oldest = 1 / 2 / 2, 0.9 / 2 / 2, 0.7 / 1 / 2
    assert rows == pytest.approx([oldest, oldest, middle, middle, newest, newest, 0, 0])


def test_neighbours_add_their_items(monkeypatch) -> None:
    """The nearest user's other item follows the own one, before what is popular."""
    monkeypatch.setattr(own_items, "NEIGHBOURS", 2)
    events = events_of([[1, 1, 1], [1, 1, 3], *POPULAR])
    method = fit_tifu_knn(events, np.random.default_rng(0), TifuParams(2, 0.7))
    assert first(method, states_of(events).slice(0, 1), 3) == [[1, 3, 6]]


def test_lists_do_not_depend_on_others(monkeypatch) -> None:
    """A user alone gets the scores that they get among others, bit for bit."""
    rng = np.random.default_rng(0)
    events = events_of([rng.integers(0, N, 12).tolist() for _ in range(20)])
    method = fit_tifu_knn(events, np.random.default_rng(0), TifuParams(2, 0.3))
    together = method(states_of(events), 5)
    monkeypatch.setattr(own_items, "CHUNK_CELLS", 1)
    for user in range(20):
        alone = method(states_of(events).slice(user, user + 1), 5)
        for one, all_of_them in zip(alone, together, strict=True):
            assert one[0].tobytes() == all_of_them[user].tobytes()


def test_fast_changes_get_small_groups() -> None:
    """Where the last few events say what follows, the fastest decay is chosen."""
    habits = events_of([[user % N] * 12 + [(user + 1) % N] * 5 for user in range(30)])
    params = best_tifu_params(habits, np.random.default_rng(0))
    assert params.group == own_items.GROUPS[0]


def test_nobody_to_learn_from() -> None:
    """Without events or users nothing breaks."""
    nothing = events_of([[0]]).take(np.array([False]))
    method = fit_tifu_knn(nothing, np.random.default_rng(0), TifuParams(2, 0.7))
    assert first(method, states_of(nothing), 2) == [[0, 1]]
    assert best_tifu_params(nothing, np.random.default_rng(0)) == TifuParams(7, 0.7)
