"""Tests the gate: it refuses a worse release.

The refusal states the figures of that release and of the serving one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shortlist.batch import gate
from shortlist.batch.job import Job, load_fold
from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.publish import serving
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.models.pipeline import Model
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.training.split import cuts


class MadeEarlier:
    """The artefacts, whose releases were made at `as_of` of other data."""

    def __init__(self, real: Artefacts, as_of: int) -> None:
        self._real, self._as_of = real, as_of

    def manifest(self, version: str) -> dict[str, Any]:
        """The real one, but for its time."""
        return self._real.manifest(version) | {"as_of": self._as_of}

    def fetch(self, version: str, into: Path) -> Path:
        """The real bundle."""
        return self._real.fetch(version, into)


@pytest.fixture
def report(published) -> dict[str, Any]:
    """What the batch reported."""
    return json.loads((published.work / "metrics.json").read_text())


@pytest.fixture
def fold(published, reporter) -> Model:
    """The model that the report is about."""
    return load_fold(
        Job("", None, None, published.work, published.settings, reporter), 1, ranked=True
    )


def judged(report: dict[str, Any], model: Model, published, settings=None) -> gate.Verdict:
    dataset, settings = published.dataset, settings or published.settings
    cut = cuts(dataset.events, "last-10pct")
    return gate.judge(report, model, dataset, cut, settings, serving(settings))


def with_figure(report: dict[str, Any], method: str, value: float) -> dict[str, Any]:
    """The report with another NDCG@10 of one method."""
    changed = json.loads(json.dumps(report))
    changed["methods"][method]["ndcg@10"]["value"] = value
    return changed


def test_the_first_release_beats_popularity(published, report, fold, namespace) -> None:
    """Where nothing is serving yet, the note says so."""
    verdict = judged(report, fold, published, replace(published.settings, namespace=namespace))
    assert verdict == gate.Verdict(
        None, f"beats popularity; no release was serving; {gate.standing(report)}"
    )


def test_the_note_compares_with_baselines(report, fold, published) -> None:
    """Every verdict compares with the retriever's order and the strongest baseline.

    The intervals are the report's paired ones.
    """
    rivals = report["methods"].keys() - {"retriever", "two_stage"}
    best = max(rivals, key=lambda name: figure(report, name))
    comparisons = []
    for other, words in (
        ("retriever", "the retriever's order"),
        (best, f"{best}, the strongest baseline"),
    ):
        pair = report["paired"]["two_stage"][other]
        comparisons.append(
            f"{pair['difference']:+.4f} ({pair['low']:+.4f} to {pair['high']:+.4f}) against {words}"
        )
    for given in (report, with_figure(report, "two_stage", 0.0)):
        assert judged(given, fold, published).note.endswith(
            f"; NDCG@10 {comparisons[0]}, {comparisons[1]}"
        )
    assert report["gate"].endswith(f"; NDCG@10 {comparisons[0]}, {comparisons[1]}")
    manifest = open_artefacts(published.settings.artefacts).manifest(published.version)
    assert manifest["gate"] == report["gate"]
    assert gate.off(report) == gate.Verdict(
        None, f"the gate is off; NDCG@10 {comparisons[0]}, {comparisons[1]}"
    )


def figure(report: dict[str, Any], method: str) -> float:
    return report["methods"][method]["ndcg@10"]["value"]


def test_popularity_has_to_be_beaten(published, report, fold) -> None:
    """A figure equal to popularity's is refused, with both."""
    floor = report["methods"]["popularity"]["ndcg@10"]["value"]
    verdict = judged(with_figure(report, "two_stage", floor), fold, published)
    assert verdict.refusal is not None
    assert verdict.refusal.startswith(
        f"NDCG@10 is {floor:.4f}, popularity's is {floor:.4f}: a release must beat popularity"
    )


def test_same_data_compares_the_reports(published, report, fold) -> None:
    """The same figure passes, and one that lies further below than the margin does not."""
    old = report["methods"]["two_stage"]["ndcg@10"]["value"]
    same = judged(report, fold, published)
    assert same.refusal is None
    assert same.compared == (old, old, "on the same hold-out of the same data")
    assert judged(with_figure(report, "two_stage", old * 0.96), fold, published).refusal is None
    refusal = judged(with_figure(report, "two_stage", old * 0.94), fold, published).refusal
    assert refusal is not None
    assert published.version in refusal
    assert "a release may not fall more than 5% below" in refusal


def compared(published, report, model: Model, dataset: Dataset, as_of: int) -> gate.Verdict:
    """The verdict where the serving release was made at `as_of` of other data."""
    artefacts = MadeEarlier(open_artefacts(published.settings.artefacts), as_of)
    cut = cuts(dataset.events, "last-10pct")
    return gate._against(
        artefacts,
        published.version,
        report,
        model,
        replace(dataset, fingerprint="other"),
        cut,
        0.05,
    )


def test_newer_events_refuse_a_worse_model(published, report, fold) -> None:
    """A model with shuffled item vectors loses; the serving one's own report model does not."""
    dataset = published.dataset
    as_of = int(np.quantile(dataset.events.time, 0.5))
    assert (
        "users took to since it was made" in compared(published, report, fold, dataset, as_of).note
    )
    shuffled = np.random.default_rng(0).permutation(fold.towers.items)
    index = type(fold.index)(shuffled.shape[1])
    index.add(shuffled)
    broken = replace(fold, towers=replace(fold.towers, items=shuffled), index=index, ranker=None)
    refusal = compared(published, report, broken, dataset, as_of).refusal
    assert refusal is not None
    assert "users took to since it was made: a release may not fall more than 5% below" in refusal


def test_without_newer_events_nothing_is_compared(published, report, fold) -> None:
    """The note says that nobody did anything."""
    verdict = compared(
        published, report, fold, published.dataset, int(published.dataset.events.time.max())
    )
    assert verdict.refusal is verdict.compared is None
    assert "only 0 users took to an item that may be offered to them since" in verdict.note


def with_repeats(dataset: Dataset, users: np.ndarray) -> Dataset:
    """The data, with these users' hold-outs changed to repeats of their first item."""
    events = dataset.events
    held = np.arange(len(events)) >= cuts(events, "last-10pct")[events.user]
    first = events.item[np.minimum(events.offsets()[:-1], len(events) - 1)]
    repeats = held & np.isin(events.user, users)
    return replace(
        dataset, events=replace(events, item=np.where(repeats, first[events.user], events.item))
    )


def n_newly(dataset: Dataset, as_of: int) -> int:
    """How many users took to an item that was new to them in their hold-out and after `as_of`."""
    events = dataset.events
    held = np.arange(len(events)) >= cuts(events, "last-10pct")[events.user]
    newly = 0
    for user in range(events.n_users):
        own = events.user == user
        later = own & held & (events.time > as_of)
        newly += bool(set(events.item[later].tolist()) - set(events.item[own & ~later].tolist()))
    return newly


def test_users_with_only_repeats_are_skipped(published, report, fold) -> None:
    """A third of the users took nothing new, a third did nothing: the others are compared."""
    whole = published.dataset
    some = with_repeats(whole, np.arange(0, whole.events.n_users, 3))
    held = np.arange(len(some.events)) >= cuts(some.events, "last-10pct")[some.events.user]
    idle = held & (some.events.user % 3 == 1)
    dataset = replace(some, events=some.events.take(~idle))
    as_of = int(dataset.events.time.min())
    note = compared(published, report, fold, dataset, as_of).note
    assert n_newly(dataset, as_of) >= gate.MIN_USERS
    assert f"on what {n_newly(dataset, as_of)} users took to since it was made" in note


def test_only_repeats_leave_nothing_to_compare(published, report, fold) -> None:
    """Too few users are left, and none: the note counts those who took something new."""
    dataset, as_of = published.dataset, int(published.dataset.events.time.min())
    for spared in (10, 0):
        repeating = with_repeats(dataset, np.arange(spared, dataset.events.n_users))
        newly = n_newly(repeating, as_of)
        verdict = compared(published, report, fold, repeating, as_of)
        assert newly <= spared
        assert verdict.refusal is None
        assert (
            f"only {newly} users took to an item that may be offered to them since" in verdict.note
        )


def test_lost_items_take_no_place(published) -> None:
    """The old bundle's lists are full of items that the data still has."""
    from shortlist.recsys.models import bundle
    from shortlist.recsys.models.interactions import MISSING

    old, dataset = bundle.load(published.work / "bundle"), published.dataset
    n_kept = dataset.events.n_items - 15
    kept = dataset.events.take(dataset.events.item < n_kept)
    fewer = replace(dataset, events=replace(kept, n_items=n_kept))
    fewer = replace(fewer, catalogue=replace(dataset.catalogue, ids=dataset.catalogue.ids[:n_kept]))
    truth = truth_after(fewer, cuts(fewer.events, "last-10pct"))
    lists = gate._lists_of(old, fewer, truth.states)
    assert lists.max() < n_kept
    assert (lists != MISSING).all()


def test_a_catalogue_that_moved_is_translated(published) -> None:
    """The old bundle recommends the same ids when rows move and an item is new."""
    from shortlist.recsys.models import bundle
    from shortlist.recsys.models.interactions import MISSING, states_at
    from shortlist.recsys.models.pipeline import recommender

    old = bundle.load(published.work / "bundle")
    dataset = published.dataset
    events, n = dataset.events, dataset.events.n_items
    order = (
        np.random.default_rng(1).permutation(n).astype(np.int32)
    )  # the new row of each old one, after the new item
    ids = ["brand-new", *(dataset.catalogue.ids[row] for row in np.argsort(order))]
    moved = replace(dataset, catalogue=replace(dataset.catalogue, ids=tuple(ids)))
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes)
    shifted = replace(
        states,
        items=np.where(states.items == MISSING, MISSING, order[states.items] + 1).astype(np.int32),
        seen_rows=(order[states.seen_rows] + 1).astype(np.int32),
    )
    lists = gate._lists_of(old, moved, shifted)
    plain = recommender(replace(old.model, exploration_share=0.0))(states, gate.DEPTH)[0]
    np.testing.assert_array_equal(lists, np.where(plain == MISSING, MISSING, order[plain] + 1))


def test_other_features_cannot_be_compared(published, report, fold, monkeypatch) -> None:
    """The gate says why, and lets the release pass."""
    monkeypatch.setattr("shortlist.recsys.models.bundle.feature_hash", lambda: "0" * 16)
    verdict = compared(
        published,
        report,
        fold,
        published.dataset,
        int(np.quantile(published.dataset.events.time, 0.5)),
    )
    assert verdict.refusal is None
    assert "cannot be compared: bundle" in verdict.note


def test_other_repeats_are_not_the_same_hold_out(published, report, fold) -> None:
    """A report on repeats, of the same data, has another hold-out than one on new items alone."""
    repeating = replace(fold, repeats=Repeats.ALLOW)
    verdict = judged(with_figure(report, "two_stage", 0.9), repeating, published)
    assert verdict.refusal is None
    assert "not compared with the serving release" in verdict.note


def test_the_old_release_is_compared_as_it_serves(published) -> None:
    """A bundle that offers nothing again does so where the new release may."""
    from shortlist.recsys.models import bundle

    old, dataset = bundle.load(published.work / "bundle"), published.dataset
    cut = cuts(dataset.events, "last-10pct")
    states = truth_after(dataset, cut, Repeats.ALLOW).states
    lists = gate._lists_of(old, dataset, states)
    for user, items in enumerate(lists):
        assert not np.isin(items, states.seen(user)).any()
    again = replace(old, model=replace(old.model, repeats=Repeats.ALLOW))
    lists = gate._lists_of(again, dataset, states)
    assert any(np.isin(items, states.seen(user)).any() for user, items in enumerate(lists))


def test_the_margin_is_a_setting(published, report, fold) -> None:
    """A margin of a half lets a fall of a third pass."""
    poorer = with_figure(
        report, "two_stage", report["methods"]["two_stage"]["ndcg@10"]["value"] * 0.67
    )
    assert judged(poorer, fold, published).refusal is not None
    assert (
        judged(poorer, fold, published, replace(published.settings, gate_margin=0.5)).refusal
        is None
    )


class Stated:
    """Artefacts whose one manifest is given."""

    def __init__(self, **manifest: Any) -> None:
        self._manifest = manifest

    def manifest(self, _version: str) -> dict[str, Any]:
        """As given."""
        return self._manifest


@pytest.mark.parametrize("value", [None, "0.3x", float("nan"), float("inf"), 10**400, -1, True, []])
def test_unusable_manifest_figures_are_not_compared(value) -> None:
    """The note names the field, be it the report's figure or the time of the release."""
    same = {"data": {"fingerprint": "f"}, "protocol": "p"}
    figures = Stated(**same, metrics={"two_stage": {"ndcg@10": {"value": value}}})
    missing = Stated(**same, metrics=value)
    other = Stated(data=value, protocol="p", as_of=-(2**60) if value == -1 else value)
    places = ((figures, "ndcg@10"), (missing, "ndcg@10"), (other, "as_of"))
    report = {"protocol": "p", "methods": {"two_stage": {"ndcg@10": {"value": 0.2}}}}
    data, model = SimpleNamespace(fingerprint="f"), SimpleNamespace(repeats=Repeats.NEVER)
    for artefacts, name in places:
        verdict = gate._against(artefacts, "v1", report, model, data, None, 0.05)  # type: ignore[arg-type]
        assert verdict.refusal is None
        assert "v1 cannot be compared: its manifest has" in verdict.note
        assert name in verdict.note


@pytest.mark.parametrize(("ours", "floor"), [(float("nan"), 0.1), (0.1, float("nan"))])
def test_nan_beats_nothing(ours, floor) -> None:
    """Whichever of the two it is."""
    report = {
        "methods": {
            "two_stage": {"ndcg@10": {"value": ours}},
            "popularity": {"ndcg@10": {"value": floor}},
        }
    }
    verdict = gate._unfit(report | {"audit": []})
    assert verdict is not None
    assert verdict.refusal is not None
    assert "a release must beat popularity" in verdict.refusal
