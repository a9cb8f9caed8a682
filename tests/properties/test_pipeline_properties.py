"""Tests list properties for any users, catalogue and untrained model."""

from __future__ import annotations

from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.recsys.models import pipeline
from shortlist.recsys.models.catalogue import Catalogue
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.index import build_index
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, by_trend, new_items, recommend
from shortlist.recsys.models.ranker import Ranker, stamp
from shortlist.recsys.models.towers import HALF_LIVES, Towers, falls_without, user_vectors
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import fit_item_table

D, HIDDEN, TOKENS = 4, 6, 3
EXAMPLES = settings(max_examples=25)
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    """A few trees of opinions on noise."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, len(FEATURES))).astype(np.float32)
    options = {"objective": "lambdarank", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    booster = lightgbm.train(
        options, lightgbm.Dataset(rows, rng.integers(0, 2, 400), group=[20] * 20), 8
    )
    return Ranker(stamp(booster.model_to_string()))


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def train_towers(n: int, rng: np.random.Generator) -> Towers:
    """Random towers over n items."""
    width = len(HALF_LIVES) * D
    history, attributes = noise(rng, n + 1, D), noise(rng, TOKENS + 1, D)
    history[-1], attributes[-1] = 0, 0
    return Towers(
        history,
        noise(rng, n, D + 1),
        attributes,
        noise(rng, width, D),
        noise(rng, width + D),
        noise(rng, width + D),
        noise(rng, width + D, HIDDEN),
        noise(rng, HIDDEN),
        noise(rng, HIDDEN, D),
        noise(rng, D),
    )


def drawn(seed: int, ranker: Ranker | None) -> tuple[Model, UserStates, np.random.Generator]:
    """A small catalogue, its users and a model of it.

    The first user has nothing, the second one item long ago and another ever since, the last
    everything.
    """
    rng = np.random.default_rng(seed)
    n, n_users = int(rng.integers(1, 40)), int(rng.integers(3, 8))
    lengths = [0, HISTORY_LENGTH + 1, *rng.integers(0, 130, n_users - 3).tolist(), n]
    old = np.array([0] + [n - 1] * HISTORY_LENGTH)
    item = np.concatenate(
        [old, *(rng.integers(0, n, length) for length in lengths[2:-1]), rng.permutation(n)]
    )
    user = np.repeat(np.arange(n_users), lengths).astype(np.int32)
    weight = np.where(rng.random(len(item)) < 0.5, rng.integers(1, 6, len(item)), np.nan).astype(
        np.float32
    )
    time = np.sort(rng.integers(0, 50, len(item)))
    events = Events(user, item.astype(np.int32), time, weight, n_users, n)
    membership = (rng.random((n, 3)) < 0.4).astype(np.float32)
    years = np.where(rng.random(n) < 0.7, rng.integers(1950, 2020, n), np.nan).astype(np.float32)
    table = fit_item_table(
        events, Catalogue((), (), (), (), membership, years), fit_neighbours(events)
    )
    towers = train_towers(n, rng)
    attributes = rng.integers(MISSING, TOKENS, (n_users, 2)).astype(np.int32)
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], attributes)
    candidates = int(rng.integers(1, 60))
    return (
        Model(
            towers,
            build_index(towers.items, 4, 1),
            table,
            ranker,
            candidates,
            by_trend(table),
            0.1,
            new_items(table),
        ),
        states,
        rng,
    )


@given(seed=SEEDS, ranked=st.booleans())
@EXAMPLES
def test_one_user_equals_many(ranker, seed, ranked) -> None:
    """Items, scores and retrieval scores of a user do not depend on who else is asked for."""
    model, states, rng = drawn(seed, ranker if ranked else None)
    together = recommend(model, states, 12)
    for user in rng.permutation(len(states)):
        alone = recommend(model, states.slice(user, user + 1), 12)
        for name in ("items", "scores", "retrieval", "n_candidates"):
            assert getattr(alone, name)[0].tobytes() == getattr(together, name)[user].tobytes()


@given(
    seed=SEEDS,
    ranked=st.booleans(),
    k=st.integers(1, 50),
    masked=st.booleans(),
    repeats=st.sampled_from(Repeats),
)
@EXAMPLES
def test_list_is_allowed_and_full(ranker, seed, ranked, k, masked, repeats) -> None:
    """No closed, forbidden or doubled item; k items while there are any; scores never rise."""
    model, states, rng = drawn(seed, ranker if ranked else None)
    states = replace(states, repeats=repeats)
    n = len(model.towers.items)
    allowed = rng.random(n) < 0.5 if masked else np.ones(n, bool)
    best = recommend(model, states, k, allowed=allowed if masked else None)
    for user in range(len(states)):
        items = best.items[user][best.items[user] != MISSING]
        may = set(np.flatnonzero(allowed & states.open_to(user, n)).tolist())
        assert set(items.tolist()) <= may
        assert len(items) == len(set(items.tolist())) == min(k, model.n_candidates, len(may))
        assert (best.items[user, len(items) :] == MISSING).all()
        assert np.isneginf(best.scores[user, len(items) :]).all()
        scores = best.scores[user, : len(items)]
        assert np.isfinite(scores).all()
        assert (np.diff(scores) <= 0).all()
        assert best.n_candidates[user] == min(model.n_candidates, len(may))


@given(seed=SEEDS, ranked=st.booleans(), k=st.integers(1, 20))
@EXAMPLES
def test_shorter_list_is_a_prefix(ranker, seed, ranked, k) -> None:
    """The length cuts a list and changes nothing in it."""
    model, states, _ = drawn(seed, ranker if ranked else None)
    assert (
        recommend(model, states, k).items.tolist()
        == recommend(model, states, 30).items[:, :k].tolist()
    )


@given(seed=SEEDS)
@EXAMPLES
def test_falls_without_an_event(seed) -> None:
    """What falls leads to the vector of the shorter history, whose older events move up."""
    model, states, _ = drawn(seed, None)
    for user in range(len(states)):
        state = states.slice(user, user + 1)
        places = np.flatnonzero(state.items[0] != MISSING)
        whole = user_vectors(model.towers, state)[0]
        falls = falls_without(model.towers, state, places)
        assert falls.shape == (len(places), D + 1)
        for place, fall in zip(places, falls, strict=True):
            items = np.append(MISSING, np.delete(state.items[0], place))[None]
            expected = user_vectors(model.towers, replace(state, items=items))[0]
            np.testing.assert_allclose(whole - fall, expected, rtol=1e-4, atol=1e-4)


@given(seed=SEEDS)
@EXAMPLES
def test_nothing_allowed_gives_nothing(ranker, seed) -> None:
    """A mask that forbids every item is answered by padding, and no error."""
    model, states, _ = drawn(seed, ranker)
    best = recommend(model, states, 5, allowed=np.zeros(len(model.towers.items), bool))
    assert (best.items == MISSING).all()
    assert not best.n_candidates.any()


@given(seed=SEEDS)
@EXAMPLES
def test_repeats_change_nothing_by_default(seed) -> None:
    """The history proposes nothing under NEVER, and each other source keeps its share."""
    model, states, _ = drawn(seed, None)
    vectors = user_vectors(model.towers, states)
    sources = list(pipeline.CANDIDATE_SOURCES)
    for user in range(len(states)):
        _, origins = pipeline.proposals(model, states, user, vectors[user], None)
        assert sources.index(pipeline.HISTORY) not in origins


def test_the_history_proposes_by_recency_and_frequency(ranker) -> None:
    """Half of the candidates at most; what was had often and lately comes first."""
    model, states, _ = drawn(3, ranker)
    items = np.full((1, HISTORY_LENGTH), MISSING, np.int32)
    items[0, -6:] = [2, 0, 1, 1, 3, 0]
    state = replace(states.slice(0, 1), items=items, repeats=Repeats.ALLOW)
    vector = user_vectors(model.towers, state)[0]
    origin = list(pipeline.CANDIDATE_SOURCES).index(pipeline.HISTORY)
    for wanted, expected in ((10, [0, 1, 3, 2]), (6, [0, 1, 3]), (1, [])):
        rows, origins = pipeline.proposals(
            replace(model, n_candidates=wanted), state, 0, vector, None
        )
        assert rows[origins == origin].tolist() == expected
        assert len(rows) == wanted


def test_exploration_shows_nothing_had(ranker) -> None:
    """A new item that the user has had is not new to them, even where it may be offered."""
    model, states, _ = drawn(3, ranker)
    n = len(model.towers.items)
    model = replace(model, new=np.arange(n, dtype=np.int32))
    state = replace(states.slice(2, 3), repeats=Repeats.ALLOW)
    affinity = np.matmul(model.towers.items, user_vectors(model.towers, state)[0])
    pool = pipeline._drawn_items(model, state, 0, affinity, None, np.random.default_rng(0))
    assert {row for row, _ in pool} == set(range(n)) - set(state.seen(0).tolist())
    only = replace(state, repeats=Repeats.ONLY)
    assert not pipeline._drawn_items(model, only, 0, affinity, None, np.random.default_rng(0))


def test_one_entry_adds_a_source(ranker, monkeypatch) -> None:
    """A source is its entry: it has its share, and the retriever fills what it lacks."""
    model, states, _ = drawn(3, ranker)
    n = len(model.towers.items)
    last = pipeline.Source(0.5, lambda _query, _limit: np.arange(n - 1, -1, -1, dtype=np.int32))
    vector = user_vectors(model.towers, states)[0]
    first = pipeline.CANDIDATE_SOURCES["retriever"]._replace(share=0.0)
    monkeypatch.setattr(pipeline, "CANDIDATE_SOURCES", {"retriever": first, "last": last})
    model = replace(model, n_candidates=min(10, n))
    rows, origins = pipeline.proposals(model, states, 0, vector, None)
    share = model.n_candidates // 2
    assert rows[origins == 1].tolist() == list(range(n - 1, n - 1 - share, -1))
    assert len(rows) == model.n_candidates
    assert (origins == 0).sum() == model.n_candidates - share
