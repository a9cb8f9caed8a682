"""Tests every method of recommending by one suite.

A new method joins by a line in `METHODS`: from events to a `Recommend`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from shortlist.recsys.evaluation import als, baselines, recency
from shortlist.recsys.evaluation.ranking_metrics import check_recommendations
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.catalogue import Catalogue
from shortlist.recsys.models.interactions import MISSING, Events, Recommend, UserStates, states_at
from shortlist.recsys.models.pipeline import recommender
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.fit import assemble, pinned_torch
from shortlist.recsys.training.item_table import fit_item_table
from shortlist.recsys.training.lambdamart import train_ranker
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams
from shortlist.recsys.training.ranking_groups import ranker_groups
from shortlist.recsys.training.split import before, cuts
from shortlist.recsys.training.two_tower import fit_towers

N_ITEMS = 60
N_USERS = 50


def item_knn(events: Events) -> Recommend:
    return baselines.plain(baselines.item_knn_weights(events))


def ease(events: Events) -> Recommend:
    return baselines.plain(baselines.ease_weights(events))


def recent_item_knn(events: Events) -> Recommend:
    weights = baselines.item_knn_weights(events)
    return recency.fit_recent_item_knn(events, np.random.default_rng(1), weights)


def recent_ease(events: Events) -> Recommend:
    weights = baselines.ease_weights(events)
    return recency.fit_recent_ease(events, np.random.default_rng(1), weights)


def pipeline(events: Events, *, ranked: bool) -> Recommend:
    """The retriever alone, or the two stages, with small towers and trees."""
    rng = np.random.default_rng(3)
    content, nobody = np.zeros((N_ITEMS, 0), np.float32), np.empty((N_USERS, 0), np.int32)
    catalogue = Catalogue((), (), (), (), content, np.full(N_ITEMS, np.nan, np.float32))
    params = TowerParams(dimension=8, hidden=16, round_steps=15, rounds=2)
    first = cuts(events, "last-10pct")
    models = []
    for past in (before(events, first), events):
        with pinned_torch(1):
            towers, *_ = fit_towers(past, content, nobody, 0, params, rng)
        models.append(
            assemble(
                towers,
                fit_item_table(past, catalogue, fit_neighbours(past)),
                FitParams(n_candidates=30),
            )
        )
    if not ranked:
        return recommender(models[1])
    small = RankerParams(estimators=10)
    groups = ranker_groups(models[0], events, nobody, first, events.offsets()[1:], None, small, rng)
    return recommender(
        replace(models[1], ranker=Ranker(train_ranker(groups, 10, small, rng, 1).text))
    )


def joined(parts: Sequence[UserStates]) -> UserStates:
    """One batch from several, in their order."""
    shifts = np.cumsum([0] + [len(p.seen_rows) for p in parts])
    columns = ("items", "times", "weights", "n_events", "attributes", "seen_rows")
    offsets = [p.seen_offsets[:-1] + shift for p, shift in zip(parts, shifts[:-1], strict=True)]
    return UserStates(
        *(np.concatenate([getattr(p, c) for p in parts]) for c in columns),
        np.concatenate([*offsets, shifts[-1:]]),
    )


METHODS: dict[str, Callable[[Events], Recommend]] = {
    "popularity": baselines.fit_popularity,
    "item_knn": item_knn,
    "ease": ease,
    "recent_popularity": baselines.fit_recent_popularity,
    "recent_item_knn": recent_item_knn,
    "recent_ease": recent_ease,
    "als": als.fit_als,
    "retriever": partial(pipeline, ranked=False),
    "two_stage": partial(pipeline, ranked=True),
}


@pytest.fixture(scope="module")
def events() -> Events:
    """Users of two tastes; the last four saw all, all but three, one item 130 times, nothing."""
    rng = np.random.default_rng(7)
    histories = [
        (rng.integers(0, N_ITEMS // 2, rng.integers(5, 40)) * 2 + user % 2).tolist()
        for user in range(N_USERS - 4)
    ]
    histories += [list(range(N_ITEMS)), list(range(3, N_ITEMS)), [11] * 130, []]
    lengths = [len(h) for h in histories]
    times = np.concatenate([np.arange(n) for n in lengths]).astype(np.int64) * 1000
    users = np.repeat(np.arange(N_USERS), lengths).astype(np.int32)
    items = np.array([i for h in histories for i in h], np.int32)
    return Events(users, items, times, np.full(len(items), np.nan, np.float32), N_USERS, N_ITEMS)


@pytest.fixture(scope="module")
def states(events: Events) -> UserStates:
    """Everybody's state after all events."""
    offsets = events.offsets()
    return states_at(events, offsets[:-1], offsets[1:])


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest, events: Events) -> Recommend:
    """Each method, fitted on the events."""
    return METHODS[request.param](events)


def test_shape_and_types(method: Recommend, states: UserStates) -> None:
    """Items are int32[U, k] and scores float32[U, k], for any k from 1 to beyond the catalogue."""
    for k in (1, 10, N_ITEMS, N_ITEMS + 7):
        items, scores = method(states, k)
        assert items.shape == scores.shape == (N_USERS, k)
        assert (items.dtype.name, scores.dtype.name) == ("int32", "float32")


def test_no_list_holds_a_seen_item(method: Recommend, states: UserStates) -> None:
    """What the user had never comes again, also when it left the window of the last events."""
    items, _ = method(states, N_ITEMS)
    for user in range(N_USERS):
        assert not set(items[user].tolist()) & set(states.seen(user).tolist())


def test_no_list_holds_an_item_twice(method: Recommend, states: UserStates) -> None:
    """An item stands in a list once, and is one of the catalogue's."""
    items, _ = method(states, N_ITEMS)
    for row in items:
        kept = row[row != MISSING]
        assert len(set(kept.tolist())) == len(kept)
        assert ((kept >= 0) & (kept < N_ITEMS)).all()


def test_order_and_padding(method: Recommend, states: UserStates) -> None:
    """Scores never rise, none is NaN, and padding comes last, with the score -inf."""
    truth = Truth(
        np.arange(N_USERS, dtype=np.int32),
        states,
        np.zeros(N_USERS + 1, np.int64),
        np.empty(0, np.int32),
    )
    items, scores = method(states, N_ITEMS + 7)
    check_recommendations("this", items, scores, truth, N_ITEMS)
    assert (items[:, -7:] == MISSING).all()
    assert np.isneginf(scores[:, -7:]).all()


def test_user_who_saw_everything(method: Recommend, states: UserStates) -> None:
    """A user who has seen every item gets padding alone."""
    items, scores = method(states.slice(N_USERS - 4, N_USERS - 3), 10)
    assert (items == MISSING).all()
    assert np.isneginf(scores).all()


def test_user_with_three_unseen_items(method: Recommend, states: UserStates) -> None:
    """A k beyond what is unseen gives at most what is unseen, and padding."""
    items, _ = method(states.slice(N_USERS - 3, N_USERS - 2), 10)
    assert set(items[0].tolist()) <= {0, 1, 2, MISSING}
    assert (items[0, 3:] == MISSING).all()


def test_user_without_history(method: Recommend, states: UserStates) -> None:
    """A new user gets a full list."""
    items, _ = method(states.slice(N_USERS - 1, N_USERS), 10)
    assert (items != MISSING).all()


def test_same_states_same_lists(method: Recommend, states: UserStates) -> None:
    """The same states give the same lists, bit for bit."""
    first, second = method(states, 20), method(states, 20)
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]


def test_one_user_equals_many(method: Recommend, states: UserStates) -> None:
    """A user alone gets the same list as among others, bit for bit."""
    items, scores = method(states, 20)
    alone = [method(states.slice(u, u + 1), 20) for u in range(N_USERS)]
    assert np.concatenate([i for i, _ in alone]).tobytes() == items.tobytes()
    assert np.concatenate([s for _, s in alone]).tobytes() == scores.tobytes()


def test_order_of_users_is_irrelevant(method: Recommend, states: UserStates) -> None:
    """Users in another order get the same lists in that order."""
    order = np.random.default_rng(1).permutation(N_USERS)
    items, _ = method(states, 20)
    shuffled, _ = method(joined([states.slice(u, u + 1) for u in order]), 20)
    assert shuffled.tolist() == items[order].tolist()


def test_shorter_list_is_a_prefix(method: Recommend, states: UserStates) -> None:
    """The length k cuts the list and does not change it."""
    long, _ = method(states, 20)
    short, _ = method(states, 5)
    assert short.tolist() == long[:, :5].tolist()


def test_nobody_gets_no_lists(method: Recommend, states: UserStates) -> None:
    """An empty batch is answered by empty arrays."""
    items, scores = method(states.slice(0, 0), 10)
    assert items.shape == scores.shape == (0, 10)
