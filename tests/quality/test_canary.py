"""Tests the leak check on any data.

Values as of a cut ignore later events, and the check can fail.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.batch.offline_evaluation import truth_after
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, Dataset
from shortlist.recsys.models.features import Candidates, features
from shortlist.recsys.models.interactions import Events, states_at
from shortlist.recsys.settings import PROTOCOLS
from shortlist.recsys.training.fit import item_table_of
from shortlist.recsys.training.split import before, cuts

N_ITEMS = 25


def drawn(seed: int) -> Dataset:
    """A few users of random habits; some have one event, some none, and times are often equal."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 25, 9)
    n = int(lengths.sum())
    user = np.repeat(np.arange(9), lengths).astype(np.int32)
    time = rng.integers(0, 40, n)
    time = time[np.lexsort((time, user))]
    events = Events(
        user,
        rng.integers(0, N_ITEMS, n).astype(np.int32),
        time,
        rng.random(n).astype(np.float32),
        9,
        N_ITEMS,
    )
    membership = (rng.random((N_ITEMS, 3)) < 0.5).astype(np.float32)
    catalogue = Catalogue(
        tuple(map(str, range(N_ITEMS))), (), (), (), membership, np.full(N_ITEMS, 1990, np.float32)
    )
    return Dataset(
        events, catalogue, (), np.empty((9, 0), np.int32), AttributeVocabulary((), (), ()), ""
    )


def rows_as_of(dataset: Dataset, cut: np.ndarray, known: Events) -> np.ndarray:
    """Every user's feature rows for all items, as of the cut, with the item table of `known`.

    They are asked for at one moment: a state without later events has its last one for that.
    """
    states = states_at(dataset.events, dataset.events.offsets()[:-1], cut)
    states = replace(states, now=np.full(len(states), 40))
    items = np.tile(np.arange(N_ITEMS, dtype=np.int32), (len(states), 1))
    return features(
        states, Candidates(items, np.zeros(items.shape, np.float32)), item_table_of(dataset, known)
    )


@given(seed=st.integers(0, 2**31), protocol=st.sampled_from(PROTOCOLS))
@settings(max_examples=30)
def test_cut_without_future_knows_alike(seed, protocol) -> None:
    """Without the events from the cut on, tables, states and feature rows keep their bits."""
    dataset = drawn(seed)
    events, cut = dataset.events, cuts(dataset.events, protocol)
    past = before(events, cut)
    kept = np.random.default_rng(seed).random(len(events)) < 0.5
    other = events.take(
        (np.arange(len(events)) < cut[events.user]) | kept
    )  # half of the future is gone
    other_cut = other.offsets()[:-1] + (cut - events.offsets()[:-1])
    honest = rows_as_of(dataset, cut, past)
    for world, at in ((other, other_cut), (past, past.offsets()[1:])):
        poorer = replace(dataset, events=world)
        known = before(world, at)
        for one, two in zip(
            *(item_table_of(d, p).arrays().values() for d, p in ((dataset, past), (poorer, known))),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(honest, rows_as_of(poorer, at, known))


def test_item_table_leak_is_noticed(published) -> None:
    """Neighbours counted on all events know the hold-out's pairs: one feature ranks too well."""
    dataset = published.dataset
    cut = cuts(dataset.events, "leave-one-out")
    truth = truth_after(dataset, cut)
    n = dataset.events.n_items
    items = np.tile(np.arange(n, dtype=np.int32), (len(truth), 1))
    figures = []
    for known in (before(dataset.events, cut), dataset.events):
        rows = features(
            truth.states,
            Candidates(items, np.zeros(items.shape, np.float32)),
            item_table_of(dataset, known),
        )
        score = rows[:, _column("next_1")].reshape(len(truth), n).copy()
        for user in range(len(truth)):
            score[user, truth.states.seen(user)] = -np.inf
        figures.append(
            _ndcg(
                np.argsort(-score, axis=1, kind="stable")[:, :10].astype(np.int32),
                truth.items,
                truth.counts,
            )
        )
    honest, leaked = figures
    assert 0 < honest < 0.5
    assert leaked > honest + 0.1


def _column(name: str) -> int:
    from shortlist.recsys.models.features import FEATURES

    return list(FEATURES).index(name)


def _ndcg(lists: np.ndarray, held: np.ndarray, counts: np.ndarray) -> float:
    """NDCG@10 of one held-out item a user, those without one left out."""
    lists = lists[counts == 1]
    place = np.argmax(lists == held[:, None], axis=1)
    return float(np.mean(np.where((lists == held[:, None]).any(axis=1), 1 / np.log2(place + 2), 0)))
