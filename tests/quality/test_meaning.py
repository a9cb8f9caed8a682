"""Tests that kinds of events and returns leak nothing, from a table to a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from shortlist.batch import gate, offline_evaluation
from shortlist.batch.audit import audit
from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.data.loading import load
from shortlist.recsys.data.worlds.assortment import ShopSize
from shortlist.recsys.data.worlds.shop import RULES, shop
from shortlist.recsys.errors import LeakDetected
from shortlist.recsys.evaluation.truth import Truth, truth_of
from shortlist.recsys.event_rules import ONE_KIND, EventRules
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import features
from shortlist.recsys.models.interactions import MISSING, NEVER, Events, Int64, states_at
from shortlist.recsys.models.pipeline import Model, retrieve
from shortlist.recsys.training.fit import assemble, item_table_of, train_towers
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams
from shortlist.recsys.training.split import before, cuts, moments_of

PARAMS = FitParams(
    TowerParams(dimension=8, hidden=16, round_steps=20, rounds=4),
    RankerParams(estimators=40, max_groups=300, positions=2),
    n_candidates=60,
    threads=1,
)


class World(NamedTuple):
    """A shop's data, the cuts, the past, a model of it, and the hold-out."""

    dataset: Dataset
    cut: Int64
    past: Events
    model: Model
    truth: Truth


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small shop of views, carts, purchases and returns."""
    directory: Path = tmp_path_factory.mktemp("shop")
    made = shop(ShopSize(n_users=250, n_items=120, events_per_user=50.0, returns=0.3))
    made.interactions.write_parquet(directory / "interactions.parquet")
    made.items.write_parquet(directory / "items.parquet")
    dataset = load(
        str(directory / "interactions.parquet"),
        str(directory / "items.parquet"),
        event_rules=RULES,
    ).dataset
    cut = cuts(dataset.events, "last-10pct")
    past = before(dataset.events, cut)
    return World(dataset, cut, past, model_of(dataset, past), truth_after(dataset, cut))


def model_of(dataset: Dataset, past: Events) -> Model:
    """A fold's model, without a ranker."""
    towers = train_towers(dataset, past, PARAMS, lambda _share, _note: None, 2).towers
    return assemble(towers, item_table_of(dataset, past), PARAMS)


def with_another_future(events: Events, cut: Int64) -> Events:
    """The same events and returns before each cut, and others after it."""
    rng, n = np.random.default_rng(3), len(events)
    future = np.arange(n) >= cut[events.user]
    moments = moments_of(events, cut)
    negatives = events.negatives
    later = negatives.time >= moments[negatives.user]
    moment = moments[events.user]
    unknown = (events.cancelled >= moment) & (moment != NEVER)
    return replace(
        events,
        item=np.where(future, rng.integers(0, events.n_items, n), events.item).astype(np.int32),
        kind=np.where(future, rng.integers(0, len(events.kinds), n), events.kind).astype(np.uint8),
        cancelled=np.where(
            unknown, np.where(rng.random(n) < 0.5, NEVER, NEVER - 1), events.cancelled
        ),
        negatives=negatives.take(~later),
    )


def test_honest_models_of_shops_pass(world: World) -> None:
    """Every check holds on views, purchases and returns, the one of the truth among them."""
    digest = {"towers": world.past.standing().digest()}
    checks = audit(world.dataset, world.cut, world.past, world.model, world.truth, digest)
    assert [check["outcome"] for check in checks] == ["held"] * 6
    assert checks[1]["check"] == "The truth was not taken back"


def test_other_returns_change_nothing_before_cut(world: World) -> None:
    """Towers, table, candidates and rows keep their bits whatever is bought or returned later."""
    rows = []
    for events in (world.dataset.events, with_another_future(world.dataset.events, world.cut)):
        model = model_of(world.dataset, before(events, world.cut))
        users = np.arange(events.n_users)
        states = states_at(
            events, events.offsets()[:-1], world.cut, world.dataset.attributes, users
        )
        rows.append(features(states, retrieve(model, states), model.table))
    np.testing.assert_array_equal(rows[0], rows[1])


def test_states_that_know_returns_are_stopped(world: World) -> None:
    """A history without what will be sent back later is none of its time."""
    events = world.dataset.events
    hindsight = np.where(events.cancelled == NEVER, NEVER, -1)
    users = world.truth.users
    leaky = states_at(
        replace(events, cancelled=hindsight),
        events.offsets()[:-1][users],
        world.cut[users],
        world.dataset.attributes[users],
        users,
    )
    truth = replace(world.truth, states=leaky)
    with pytest.raises(LeakDetected, match="feature rows changed"):
        audit(world.dataset, world.cut, world.past, world.model, truth)


def test_tables_that_know_returns_are_stopped(world: World) -> None:
    """Popularity without what will be sent back, or with later returns, is of the future."""
    known = np.arange(len(world.dataset.events)) < world.cut[world.dataset.events.user]
    past = world.dataset.events.take(known)
    leaky = replace(world.model, table=item_table_of(world.dataset, past))
    with pytest.raises(LeakDetected, match=r"item table's .*negative_share.* changed"):
        audit(world.dataset, world.cut, world.past, leaky, world.truth)


@pytest.mark.parametrize("reason", ["returned", "viewed"])
def test_truth_of_other_events_is_stopped(world: World, reason: str) -> None:
    """What was sent back, or only viewed, is not what is to be predicted."""
    events, users = world.dataset.events, world.truth.users
    rows = [np.arange(world.cut[u], events.offsets()[u + 1]) for u in users]
    chosen = [
        some[events.cancelled[some] != NEVER]
        if reason == "returned"
        else some[~events.is_target[some]]
        for some in rows
    ]
    offsets = np.concatenate(([0], np.cumsum([len(some) for some in chosen])))
    items = events.item[np.concatenate(chosen)]
    truth = truth_of(users, world.truth.states, offsets, items, events.n_items)
    with pytest.raises(LeakDetected, match="were taken back, or their events are of no kind"):
        audit(world.dataset, world.cut, world.past, world.model, truth)


def test_truth_is_what_was_kept(world: World) -> None:
    """Each held-out item was bought after the cut, not sent back, and not had before."""
    events = world.dataset.events
    for position, user in enumerate(world.truth.users.tolist()):
        rows = np.arange(world.cut[user], events.offsets()[user + 1])
        kept = rows[events.is_target[rows] & (events.cancelled[rows] == NEVER)]
        had = set(world.truth.states.seen(position).tolist())
        one = world.truth.slice(position, position + 1)
        assert set(one.items.tolist()) == set(events.item[kept].tolist()) - had


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (RULES, [0, 1, 2]),
        (EventRules({"view": 2, "purchase": 1}), [1, MISSING, 0]),
        (EventRules(), [0, 0, 0]),
    ],
)
def test_gate_reads_kinds_by_name(world: World, rules: EventRules, expected: list[int]) -> None:
    """An older release sees events under its own kinds, and none of kinds that it lacks."""
    assert gate.kinds_map(rules, world.dataset).tolist() == expected
    alike = replace(world.dataset, events=replace(world.dataset.events, kinds=ONE_KIND))
    assert gate.kinds_map(rules, alike).tolist() == [0]


def test_shops_are_evaluated_end_to_end(world: World) -> None:
    """From types and returns to a report, whose model beats popularity."""
    report = offline_evaluation.run(world.dataset, "last-10pct", PARAMS, ProgressReporter())
    figures = {name: row["ndcg@10"]["value"] for name, row in report["methods"].items()}
    assert figures["two_stage"] > figures["popularity"]
    assert "suspicious" not in {check["outcome"] for check in report["audit"]}
