"""Whether a release may serve: it beats popularity, and does not fall behind the release that is serving now.

The two releases are compared on what neither knew: the hold-outs' events that came after the
serving one was made, from the same states. The serving one learnt from everything up to its making,
and the new one's report model only from what lies before the hold-out, so the comparison leans to
the serving side; the margin is for that. Where the serving release was made of the very same data,
its own report is about the same hold-out, and the figures are compared as they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.batch.audit import HELD
from shortlist.batch.offline_evaluation import truth_after
from shortlist.recsys.errors import BundleMismatch, CorruptArtefact, InvalidData
from shortlist.recsys.evaluation.bootstrap import interval, means, resampled
from shortlist.recsys.evaluation.page import OURS, strongest_baseline
from shortlist.recsys.evaluation.ranking_metrics import Float64, hit_matrix, ndcg
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import MISSING, Int32, Int64, UserStates
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, Model, recommend, recommender
from shortlist.recsys.settings import HoldoutProtocol, Settings
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.redis import open_store

TIMEOUT_MS = 30_000
DEPTH = 10
SEED = 20260801

LATEST = 1 << 53
"""Unix seconds, the largest that a manifest may have: every integer up to it is a float as well."""

MIN_USERS = 50
"""Users with new events, below which a comparison would say nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """refusal: why the release may not serve, or None; note: what was compared, for the log and the manifest."""

    refusal: str | None
    note: str


def judge(
    report: Mapping[str, Any], model: Model, dataset: Dataset, cut: Int64, settings: Settings
) -> Verdict:
    """The verdict on the release whose `report` (on the events from `cut` on) and report model these are."""
    verdict = _judged(report, model, dataset, cut, settings)
    return Verdict(verdict.refusal, f"{verdict.note}; {standing(report)}")


def off(report: Mapping[str, Any]) -> Verdict:
    """The verdict where nothing is to be refused."""
    return Verdict(None, f"the gate is off; {standing(report)}")


def standing(report: Mapping[str, Any]) -> str:
    """How the two stages stand against the retriever alone and the strongest baseline: for the record, not for the verdict."""
    rival = strongest_baseline(report["methods"])
    others = {"retriever": "the retriever's order", rival: f"{rival}, the strongest baseline"}
    pairs = report["paired"][OURS]
    said = [
        f"{_difference(pairs[name])} against {words}"
        for name, words in others.items()
        if name in pairs
    ]
    return f"NDCG@10 {', '.join(said)}"


def _difference(pair: Mapping[str, float]) -> str:
    return f"{pair['difference']:+.4f} ({pair['low']:+.4f} to {pair['high']:+.4f})"


def _judged(
    report: Mapping[str, Any], model: Model, dataset: Dataset, cut: Int64, settings: Settings
) -> Verdict:
    ours = float(report["methods"]["two_stage"]["ndcg@10"]["value"])
    floor = float(report["methods"]["popularity"]["ndcg@10"]["value"])
    if not ours > floor:  # NaN is no better either
        refusal = f"NDCG@10 is {ours:.4f}, popularity's is {floor:.4f}: a release must beat popularity; look at the data"
        return Verdict(refusal, "does not beat popularity")
    doubts = [check["detail"] for check in report["audit"] if check["outcome"] != HELD]
    if doubts:
        return Verdict(
            f"the figures are too good to be true: {'; '.join(doubts)}", "the leak audit has doubts"
        )
    store = open_store(settings.redis_url, settings.namespace, TIMEOUT_MS)
    try:
        pointer = store.release()
    finally:
        store.close()
    if pointer is None:
        return Verdict(None, "beats popularity; no release is serving yet")
    return _against(
        open_artefacts(settings.artefacts),
        pointer.current,
        report,
        model,
        dataset,
        cut,
        settings.gate_margin,
    )


def _against(
    artefacts: Artefacts,
    serving: str,
    report: Mapping[str, Any],
    model: Model,
    dataset: Dataset,
    cut: Int64,
    margin: float,
) -> Verdict:
    try:
        manifest = artefacts.manifest(serving)
        if same_window(manifest, dataset, report["protocol"]):
            old = _number(manifest, 0, 1, "metrics", "two_stage", "ndcg@10", "value")
            new = float(report["methods"]["two_stage"]["ndcg@10"]["value"])
            return _verdict(
                serving, new, old, margin, "on the same hold-out of the same data", certain=True
            )
        truth = _unknown_to_both(dataset, cut, int(_number(manifest, -LATEST, LATEST, "as_of")))
        n_users = 0 if truth is None else len(truth)
        if truth is None or n_users < MIN_USERS:
            few = f"only {n_users} users took to an item that was new to them since {serving} was made"
            return Verdict(
                None,
                f"beats popularity; not compared with the serving release: {few}, and {MIN_USERS} are needed",
            )
        with tempfile.TemporaryDirectory() as directory:
            old_values = _values(
                _lists_of(
                    bundle.load(artefacts.fetch(serving, Path(directory))), dataset, truth.states
                ),
                truth,
            )
    except (BundleMismatch, CorruptArtefact, KeyError) as error:
        return Verdict(None, f"beats popularity; {serving} cannot be compared: {error}")
    new_values = _values(recommender(model)(truth.states, DEPTH)[0], truth)
    drawn = resampled(
        means((new_values - old_values)[:, None]), len(truth), np.random.default_rng(SEED)
    )
    certain = bool(interval(drawn)[1][0] < 0)
    window = f"on what {n_users} users newly took to since it was made"
    return _verdict(
        serving, float(new_values.mean()), float(old_values.mean()), margin, window, certain=certain
    )


def same_window(manifest: Mapping[str, Any], dataset: Dataset, protocol: HoldoutProtocol) -> bool:
    """Whether a release's report is about the hold-out of this very data."""
    same_data = _part(manifest, "data", "fingerprint") == dataset.fingerprint
    return bool(same_data and _part(manifest, "protocol") == protocol)


def _part(manifest: Mapping[str, Any], *names: str) -> object:
    """What lies in a manifest below these names, each inside the one before; None where nothing does."""
    value: object = manifest
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(manifest: Mapping[str, Any], low: float, high: float, *names: str) -> float:
    """A number of a manifest. Raises CorruptArtefact where it is none, or is not from low to high."""
    value = _part(manifest, *names)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
        return value
    shown, where = repr(value)[:40], ".".join(names)
    raise CorruptArtefact(
        f"its manifest has {shown} for {where}, not a number from {low:g} to {high:g}"
    )


def _verdict(
    serving: str, new: float, old: float, margin: float, window: str, *, certain: bool
) -> Verdict:
    told = f"NDCG@10 is {new:.4f}, that of the serving release {serving} {old:.4f}, {window}"
    if certain and new < old * (1 - margin):
        return Verdict(
            f"{told}: a release may not fall more than {margin:.0%} below; look at the data", told
        )
    return Verdict(None, told)


def _unknown_to_both(dataset: Dataset, cut: Int64, as_of: int) -> Truth | None:
    """What users newly took to from their cut on and after `as_of`, from the states just before; None where nobody did.

    Users whose new events are all repeats are not among them: no list could have offered what they
    took.
    """
    events = dataset.events
    known = np.bincount(events.user[events.time <= as_of], minlength=events.n_users)
    later = np.maximum(cut, events.offsets()[:-1] + known)  # events are in time order within a user
    try:
        return truth_after(dataset, later).counted()
    except InvalidData:
        return None


def _values(items: Int32, truth: Truth) -> Float64:
    """float64[U]: NDCG@10 of lists int32[U, K]; every user of `truth` has a held-out item."""
    n_items = (
        max(
            int(items.max(initial=0)),
            int(truth.items.max(initial=0)),
            int(truth.states.items.max(initial=0)),
        )
        + 1
    )
    return ndcg(hit_matrix(items, truth, n_items), truth.counts, DEPTH)


def _lists_of(old: Bundle, dataset: Dataset, states: UserStates) -> Int32:
    """int32[U, DEPTH]: what a bundle recommends in these states, in the rows of `dataset`.

    Items that `dataset` has lost take no place: nobody can take them any more.
    """
    to_old = np.array(
        [*(old.catalogue.row_of.get(i, MISSING) for i in dataset.catalogue.ids), MISSING], np.int32
    )
    to_new = np.full(len(old.catalogue.ids) + 1, MISSING, np.int32)
    both = np.flatnonzero(to_old[:-1] != MISSING)
    to_new[to_old[both]] = both
    encoded = [
        old.vocabulary.encode(dict(dataset.vocabulary.decode(tokens)))
        for tokens in states.attributes
    ]
    attributes = (
        np.stack(encoded) if encoded else np.empty((0, len(old.vocabulary.columns)), np.int32)
    )
    model, allowed = replace(old.model, exploration_share=0.0), to_new[:-1] != MISSING
    translated = _translated(states, to_old, attributes)
    parts = [np.empty((0, DEPTH), np.int32)]
    for start in range(0, len(states), USERS_AT_ONCE):
        part = translated.slice(start, min(start + USERS_AT_ONCE, len(states)))
        parts.append(recommend(model, part, DEPTH, allowed=allowed).items)
    return to_new[np.concatenate(parts)]


def _translated(states: UserStates, to_old: Int32, attributes: Int32) -> UserStates:
    """The states in the rows of another catalogue: what it does not know is left out."""
    items = to_old[states.items]
    order = np.argsort(
        items != MISSING, axis=1, kind="stable"
    )  # what is known moves to the right, in its order
    seen = to_old[states.seen_rows]
    owners = np.repeat(np.arange(len(states)), np.diff(states.seen_offsets))[seen != MISSING]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owners, minlength=len(states))))).astype(
        np.int64
    )
    return UserStates(
        np.take_along_axis(items, order, axis=1),
        np.take_along_axis(states.times, order, axis=1),
        np.take_along_axis(states.weights, order, axis=1),
        states.n_events,
        attributes,
        seen[seen != MISSING],
        offsets,
    )
