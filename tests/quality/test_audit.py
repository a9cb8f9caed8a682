"""Tests the audit: honest models pass, leaks are stopped.

It is part of every evaluation.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch import audit as audits
from shortlist.batch import gate
from shortlist.batch.audit import audit, most_telling
from shortlist.batch.offline_evaluation import truth_after
from shortlist.recsys.errors import LeakDetected
from shortlist.recsys.models import bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import FEATURES, features
from shortlist.recsys.models.ranker import Ranker
from shortlist.recsys.training.fit import assemble, item_table_of
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.split import before, cuts


@pytest.fixture(scope="module")
def world(published):
    """The data, the cuts, the past, the model of the report, and the hold-out."""
    dataset, fold = published.dataset, published.work / "fold-1"
    cut = cuts(dataset.events, "last-10pct")
    params = FitParams(n_candidates=60, threads=1)
    ranker = Ranker((fold / "ranker.txt").read_text())
    model = assemble(bundle.load_towers(fold), bundle.load_table(fold), params, ranker)
    return dataset, cut, before(dataset.events, cut), model, truth_after(dataset, cut)


def test_an_honest_model_passes(world) -> None:
    """All five checks hold on what the batch made."""
    dataset, cut, past, model, truth = world
    checks = audit(dataset, cut, past, model, truth, {"towers": past.digest()})
    assert [check["outcome"] for check in checks] == ["held"] * 5


def test_past_with_later_event_is_stopped(world) -> None:
    """A split that lets a single event of the hold-out through is no split."""
    dataset, cut, _, model, truth = world
    later = cut.copy()
    later[truth.users[0]] += 1
    with pytest.raises(LeakDetected, match="nothing but these may be learnt from"):
        audit(dataset, cut, before(dataset.events, later), model, truth)


def test_towers_trained_on_everything_are_stopped(world) -> None:
    """They tell what they learnt from, and it is not the past."""
    dataset, cut, past, model, truth = world
    with pytest.raises(LeakDetected, match="the towers learnt from other events"):
        audit(dataset, cut, past, model, truth, {"towers": dataset.events.digest()})


def test_item_table_of_everything_is_stopped(world) -> None:
    """Popularity and neighbours that were counted on the hold-out move when the hold-out does."""
    dataset, cut, past, model, truth = world
    leaky = replace(model, table=item_table_of(dataset, dataset.events))
    with pytest.raises(
        LeakDetected, match=r"item table's .*popularity.* changed with what came after the cut"
    ):
        audit(dataset, cut, past, leaky, truth)


def test_states_with_future_are_stopped(world) -> None:
    """States taken an event too late give other feature rows in another future."""
    dataset, cut, past, model, truth = world
    late = truth_after(dataset, np.minimum(cut + 1, dataset.events.offsets()[1:]))
    states = late.states.slice(0, 20)
    with pytest.raises(LeakDetected, match="feature rows changed"):
        audit(
            dataset,
            cut,
            past,
            model,
            replace(truth.slice(0, 20), users=late.users[:20], states=states),
        )


@pytest.fixture
def leaky_feature(world, monkeypatch):
    """A feature function one of whose columns came from a table that was filled in afterwards."""
    truth = world[-1]
    ever = {(h, int(i)) for u, h in enumerate(_histories(truth.states)) for i in _held(truth, u)}
    column = list(FEATURES).index("year_gap") if "year_gap" in FEATURES else 0

    def leaky(states, candidates, table) -> np.ndarray:
        rows = features(states, candidates, table)
        histories = _histories(states)
        pairs = zip(*np.nonzero(candidates.items >= 0), strict=True)
        rows[:, column] = [
            float((histories[u], int(candidates.items[u, c])) in ever) for u, c in pairs
        ]
        return rows

    monkeypatch.setattr(audits, "features", leaky)
    return list(FEATURES)[column]


def _histories(states) -> list[bytes]:
    return [row.tobytes() for row in states.items]


def _held(truth, user: int) -> np.ndarray:
    return truth.items[truth.offsets[user] : truth.offsets[user + 1]]


def tied(dataset, order: str) -> Dataset:
    """The data with weekly dates for times, ties in the order of items or of ratings."""
    events = dataset.events
    time = events.time // (7 * 86_400)
    rows = np.lexsort((getattr(events, order), time, events.user))
    return replace(
        dataset,
        events=replace(events, item=events.item[rows], time=time[rows], weight=events.weight[rows]),
    )


@pytest.mark.parametrize("order", ["item", "weight"])
def test_row_order_as_time_is_suspicious(world, order) -> None:
    """Ties that are sorted by item, or by rating, are no draw."""
    check = audits._tie_order(tied(world[0], order).events)
    assert check["outcome"] == "suspicious"
    assert f"by {order} 100.0% of" in check["detail"]


def test_sorted_ties_are_suspicious(world) -> None:
    """Nothing else in it moves."""
    dataset = tied(world[0], "item")
    cut = cuts(dataset.events, "last-10pct")
    past = before(dataset.events, cut)
    model = replace(world[3], table=item_table_of(dataset, past))
    checks = audit(dataset, cut, past, model, truth_after(dataset, cut))
    assert [check["check"] for check in checks if check["outcome"] != "held"] == [
        "Ties are in no order"
    ]


def test_drawn_ties_are_not_suspicious(world) -> None:
    """In an order that is drawn, and where nothing is tied."""
    dataset = tied(world[0], "item")
    events = dataset.events
    rows = np.lexsort((np.random.default_rng(0).random(len(events)), events.time, events.user))
    drawn = replace(events, item=events.item[rows], weight=events.weight[rows])
    assert audits._tie_order(drawn)["outcome"] == "held"
    alone = audits._tie_order(replace(events, time=np.arange(len(events))))
    assert (alone["outcome"], alone["detail"]) == ("held", "no two events of a user share a time")


def test_leaky_feature_is_suspicious(world, leaky_feature) -> None:
    """It came from elsewhere, so no change of events moves it; but no honest one is perfect."""
    dataset, cut, past, model, truth = world
    last = audit(dataset, cut, past, model, truth)[-1]
    assert last["outcome"] == "suspicious"
    assert leaky_feature in last["detail"]


def test_honest_features_are_far_from_suspicious(world) -> None:
    """The margin between the best honest feature and the bound is wide."""
    _, _, _, model, truth = world
    name, area, hits = most_telling(model, truth)
    assert name in FEATURES
    assert hits >= audits.MIN_HITS
    assert 0.6 < area < 0.95


def test_gate_refuses_doubtful_audits(published) -> None:
    """A release whose figures are too good to be true is not published."""
    figures = {"two_stage": {"ndcg@10": {"value": 0.9}}, "popularity": {"ndcg@10": {"value": 0.1}}}
    doubt = {"check": "c", "outcome": "suspicious", "detail": "year_gap tells most"}
    pair = {"difference": 0.8, "low": 0.7, "high": 0.9}
    report = {"methods": figures, "paired": {"two_stage": {"popularity": pair}}, "audit": [doubt]}
    verdict = gate.judge(report, None, published.dataset, None, published.settings, None)
    assert verdict.refusal == "the figures are too good to be true: year_gap tells most"
