"""Tests that folds and states use only the past.

Nothing after their cut is known to them, and a planted leak is caught.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch.offline_evaluation import compare, truth_after
from shortlist.recsys.models.features import FEATURES, features
from shortlist.recsys.models.interactions import Events, Repeats, states_at
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.training import ranking_groups
from shortlist.recsys.training.fit import (
    assemble,
    cold_start_label_groups,
    fit_inner_ranker,
    held_out_cohort,
    item_table_of,
    label_cuts,
    past_before_labels,
    train_towers,
)
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams
from shortlist.recsys.training.ranking_groups import ranker_groups
from shortlist.recsys.training.split import before, cuts

PARAMS = FitParams(
    TowerParams(dimension=16, hidden=32, round_steps=30, rounds=8),
    RankerParams(estimators=60, max_groups=400),
    n_candidates=60,
    threads=1,
)


def with_another_future(events: Events, cut: np.ndarray, rng: np.random.Generator) -> Events:
    """The same events before each user's cut, and others after it."""
    future = np.arange(len(events)) >= cut[events.user]
    item = np.where(future, rng.integers(0, events.n_items, len(events)), events.item).astype(
        np.int32
    )
    return Events(events.user, item, events.time, events.weight, events.n_users, events.n_items)


def model_of(dataset, past: Events) -> Model:
    """A fold's model, without a ranker."""
    towers = train_towers(dataset, past, PARAMS, lambda _share, _note: None, 8).towers
    return assemble(towers, item_table_of(dataset, past), PARAMS)


@pytest.mark.parametrize("protocol", ["last-10pct", "leave-one-out"])
def test_other_future_changes_nothing_before_cut(published, protocol) -> None:
    """Towers, neighbours, table, candidates and rows keep their bits whatever comes after."""
    dataset = published.dataset
    cut = cuts(dataset.events, protocol)
    other = with_another_future(dataset.events, cut, np.random.default_rng(3))
    rows = []
    for events in (dataset.events, other):
        model = model_of(dataset, before(events, cut))
        states = states_at(events, events.offsets()[:-1], cut, dataset.attributes)
        candidates = retrieve(model, states)
        rows.append(features(states, candidates, model.table))
    np.testing.assert_array_equal(rows[0], rows[1])


def test_ranker_rows_ignore_their_labels(published) -> None:
    """With another label window, the rows of a user's first group are the same."""
    dataset = published.dataset
    first = label_cuts(dataset.events, "last-10pct")
    model = model_of(dataset, before(dataset.events, first))
    params = RankerParams(positions=1, negatives=10_000)
    groups = []
    for events in (
        dataset.events,
        with_another_future(dataset.events, first, np.random.default_rng(4)),
    ):
        last = events.offsets()[1:]
        made = ranker_groups(
            model, events, dataset.attributes, first, last, None, params, np.random.default_rng(5)
        )
        starts = np.concatenate(([0], np.cumsum(made.sizes)))
        groups.append(
            {
                int(u): made.rows[a:b]
                for u, a, b in zip(made.users, starts[:-1], starts[1:], strict=True)
            }
        )
    both = groups[0].keys() & groups[1].keys()
    assert len(both) > 30
    for user in both:
        np.testing.assert_array_equal(groups[0][user], groups[1][user])


@pytest.mark.parametrize(("repeats", "n_negatives"), [(Repeats.NEVER, 5), (Repeats.ALLOW, 10)])
def test_own_items_have_more_negatives(published, repeats, n_negatives) -> None:
    """Each group keeps all labels and all that the user had, and so many of the rest."""
    events = published.dataset.events
    first, last = label_cuts(events, "last-10pct"), events.offsets()[1:]
    model = replace(model_of(published.dataset, before(events, first)), repeats=repeats)
    params, rng = RankerParams(negatives=5, max_groups=100), np.random.default_rng(5)
    made = ranker_groups(
        model, events, published.dataset.attributes, first, last, None, params, rng
    )
    had = made.rows[:, list(FEATURES).index("had")] > 0
    assert had.any() == (repeats is Repeats.ALLOW)
    group = np.repeat(np.arange(len(made.sizes)), made.sizes)
    rest = np.bincount(group, (made.labels == 0) & ~had, minlength=len(made.sizes))
    assert set(rest.tolist()) == {n_negatives}


def test_fresh_cohort_is_unknown_to_model(published) -> None:
    """That model learns from none of their events; their groups know from one event up."""
    dataset = published.dataset
    cohort = held_out_cohort(dataset.events, PARAMS)
    inner = past_before_labels(dataset.events, "last-10pct", PARAMS)
    assert 0 < len(cohort) < dataset.events.n_users / 4
    assert not np.isin(inner.user, cohort).any()
    with_events = np.unique(dataset.events.user)
    assert set(inner.user) == set(with_events) - set(cohort)
    groups = cold_start_label_groups(
        model_of(dataset, inner), dataset, dataset.events, "last-10pct", PARAMS
    )
    assert set(groups.users) <= set(cohort)
    known = np.expm1(groups.rows[:, list(FEATURES).index("history_length")])
    assert known.min() == pytest.approx(1)
    assert known.max() > 5


def test_a_planted_leak_is_caught(published, reporter, monkeypatch) -> None:
    """A feature that holds the future lifts the hold-out figure far beyond the honest one."""
    dataset = published.dataset
    cut = cuts(dataset.events, "last-10pct")
    past, truth = before(dataset.events, cut), truth_after(dataset, cut)
    inner, outer = (
        model_of(dataset, past_before_labels(past, "last-10pct", PARAMS)),
        model_of(dataset, past),
    )

    def figure(ranker_text: str) -> float:
        model = assemble(outer.towers, outer.table, PARAMS, Ranker(ranker_text))
        report = compare(model, past, truth, dataset.catalogue, "last-10pct", reporter)
        return report["methods"]["two_stage"]["ndcg@10"]["value"]

    honest = figure(fit_inner_ranker(inner, dataset, past, "last-10pct", PARAMS).text)
    leaky = leaking_features(dataset.events)
    monkeypatch.setattr(ranking_groups, "features", leaky)
    monkeypatch.setattr("shortlist.recsys.models.pipeline.features", leaky)
    leaked = figure(fit_inner_ranker(inner, dataset, past, "last-10pct", PARAMS).text)
    assert leaked > honest + 0.15


def leaking_features(events: Events):
    """The feature function with a planted fault: a column says whether the item is taken."""
    ever = set(zip(events.user.tolist(), events.item.tolist(), strict=True))
    by_history = {}
    for user in range(events.n_users):
        by_history.setdefault(
            int(events.item[events.user == user][0]) if (events.user == user).any() else -1, []
        ).append(user)

    def leaky(states, candidates, table) -> np.ndarray:
        rows = features(states, candidates, table)
        users = [
            by_history.get(int(states.seen(u)[0]) if len(states.seen(u)) else -1, [])
            for u in range(len(states))
        ]
        is_taken = [
            float(any((user, int(item)) in ever for user in users[u]))
            for u in range(len(states))
            for item in candidates.items[u]
            if item >= 0
        ]
        rows[:, 0] = is_taken
        return rows

    return leaky


def test_two_stages_beat_the_baselines(published) -> None:
    """A floor for quality on the small synthetic world, far below what it reaches."""
    import json

    figures = json.loads((published.work / "metrics.json").read_text())["methods"]
    value = {name: row["ndcg@10"]["value"] for name, row in figures.items()}
    assert value["two_stage"] > 1.1 * value["popularity"]
    assert value["two_stage"] > value["item_knn"]
