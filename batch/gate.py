"""Decides whether a release may serve.

It has to beat popularity, and may not fall too far below the release that is serving now.

The two releases are compared on what neither knew: the hold-outs' events that came after the
serving one was made, from the same states. The serving one learnt from everything up to its making,
and the new one's report model only from what lies before the hold-out, so the comparison leans to
the serving side; the margin is for that. Where the serving release was made of the very same data,
its own report is about the same hold-out, and the figures are compared as they are.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shortlist.batch.audit import HELD
from shortlist.batch.offline_evaluation import truth_after
from shortlist.recsys.errors import BundleMismatch, CorruptArtefact, InvalidData, ReleaseNotFound
from shortlist.recsys.evaluation.bootstrap import interval, means, resampled
from shortlist.recsys.evaluation.headline import (
    HEADLINE_PATH,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
    headline_value,
    strongest_baseline,
)
from shortlist.recsys.evaluation.ranking_metrics import Float64, hit_matrix, ndcg
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.event_rules import ONE_KIND, EventRules
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import MISSING, Int32, Int64, Repeats, UserStates
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, Model, recommend, recommender
from shortlist.recsys.settings import HoldoutProtocol, Settings
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts

DEPTH = 10
"""NDCG@10 is the headline metric of the report."""

SEED = 20260801
"""Of the bootstrap: the same data gets the same verdict."""

MAX_UNIX_SECONDS = 1 << 53
"""The latest time that a manifest may have: every integer up to it is a float as well."""

MIN_USERS = 50
"""Users with new events, below which a comparison would say nothing."""


class Compared(NamedTuple):
    """NDCG@10 of the new and of the serving release, and in words on what."""

    new: float
    serving: float
    window: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's word.

    refusal: why the release may not serve, or None; note: for the log and the manifest; compared:
    None where the serving release was not, or could not be, compared with.
    """

    refusal: str | None
    note: str
    compared: Compared | None = None


def judge(
    report: Mapping[str, Any],
    model: Model,
    dataset: Dataset,
    cut: Int64,
    settings: Settings,
    serving: str | None,
) -> Verdict:
    """The verdict on a release.

    report: on the events from `cut` on; model: the one that the report is about.
    serving: the release to compare with, None where none serves.
    """
    verdict = _unfit(report)
    if verdict is None and serving is not None:
        artefacts, margin = open_artefacts(settings.artefacts), settings.gate_margin
        verdict = _against(artefacts, serving, report, model, dataset, cut, margin)
    if verdict is None:
        verdict = Verdict(None, "beats popularity; no release was serving")
    return replace(verdict, note=f"{verdict.note}; {standing(report)}")


def off(report: Mapping[str, Any]) -> Verdict:
    """The verdict where nothing is to be refused."""
    return Verdict(None, f"the gate is off; {standing(report)}")


def standing(report: Mapping[str, Any]) -> str:
    """Compares the two stages with the retriever alone and with the strongest baseline.

    This is for the record, not for the verdict.
    """
    baseline = strongest_baseline(report["methods"])
    others = {
        RETRIEVER: "the retriever's order",
        baseline: f"{baseline}, the strongest baseline",
    }
    pairs = report["paired"][TWO_STAGE]
    comparisons = [
        f"{_difference(pairs[name])} against {label}"
        for name, label in others.items()
        if name in pairs
    ]
    return f"NDCG@10 {', '.join(comparisons)}"


def _ndcg_of(report: Mapping[str, Any], method: str) -> float:
    """NDCG@10 of a method, NaN where it is not known."""
    value = headline_value(report["methods"], method)
    return math.nan if value is None else value


def _difference(pair: Mapping[str, float]) -> str:
    return f"{pair['difference']:+.4f} ({pair['low']:+.4f} to {pair['high']:+.4f})"


def _unfit(report: Mapping[str, Any]) -> Verdict | None:
    """The refusal of a release that is bad by itself; None for others."""
    ours = _ndcg_of(report, TWO_STAGE)
    floor = _ndcg_of(report, POPULARITY)
    if not ours > floor:  # NaN is no better either
        refusal = (
            f"NDCG@10 is {ours:.4f}, popularity's is {floor:.4f}: "
            "a release must beat popularity; look at the data"
        )
        return Verdict(refusal, "does not beat popularity")
    doubts = [check["detail"] for check in report["audit"] if check["outcome"] != HELD]
    if doubts:
        return Verdict(
            f"the figures are too good to be true: {'; '.join(doubts)}", "the leak audit has doubts"
        )
    return None


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
        if same_window(manifest, dataset, report["protocol"], model.repeats):
            old_figure = _number(manifest, 0, 1, "metrics", *HEADLINE_PATH)
            new_figure = _ndcg_of(report, TWO_STAGE)
            window = "on the same hold-out of the same data"
            return _verdict(serving, new_figure, old_figure, margin, window, certain=True)
        truth = _unknown_to_both(
            dataset,
            cut,
            int(_number(manifest, -MAX_UNIX_SECONDS, MAX_UNIX_SECONDS, "as_of")),
            model.repeats,
        )
        if truth is None or len(truth) < MIN_USERS:
            return _too_few_users(serving, 0 if truth is None else len(truth))
        with tempfile.TemporaryDirectory() as directory:
            old = bundle.load(artefacts.fetch(serving, Path(directory)))
            old_values = _values(_lists_of(old, dataset, truth.states), truth)
    except (BundleMismatch, CorruptArtefact, ReleaseNotFound, KeyError) as error:
        # Nothing is wrong with the new release; a later one will be compared with it.
        return Verdict(None, f"beats popularity; {serving} cannot be compared: {error}")
    new_values = _values(recommender(model)(truth.states, DEPTH)[0], truth)
    return _on_new_events(serving, new_values, old_values, margin)


def _too_few_users(serving: str, n_users: int) -> Verdict:
    note = (
        "beats popularity; not compared with the serving release: "
        f"only {n_users} users took to an item that may be offered to them since {serving} "
        f"was made, and {MIN_USERS} are needed"
    )
    return Verdict(None, note)


def _on_new_events(
    serving: str, new_values: Float64, old_values: Float64, margin: float
) -> Verdict:
    """Compares two releases' NDCG@10 of the same users, float64[U] each."""
    n_users = len(new_values)
    differences = (new_values - old_values)[:, None]
    drawn = resampled(means(differences), n_users, np.random.default_rng(SEED))
    # Worse beyond chance: the whole 95% interval of the difference lies below 0.
    certain = bool(interval(drawn)[1][0] < 0)
    window = f"on what {n_users} users took to since it was made"
    new_mean, old_mean = float(new_values.mean()), float(old_values.mean())
    return _verdict(serving, new_mean, old_mean, margin, window, certain=certain)


def same_window(
    manifest: Mapping[str, Any], dataset: Dataset, protocol: HoldoutProtocol, repeats: Repeats
) -> bool:
    """Whether a release's report has this hold-out."""
    same_data = _part(manifest, "data", "fingerprint") == dataset.fingerprint
    # What is held out depends on whether repeats count; a release of before never had any.
    same_repeats = (_part(manifest, "repeats") or Repeats.NEVER.value) == repeats.value
    return bool(same_data and same_repeats and _part(manifest, "protocol") == protocol)


def _part(manifest: Mapping[str, Any], *names: str) -> object:
    """The value below nested names; None without one."""
    value: object = manifest
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(manifest: Mapping[str, Any], low: float, high: float, *names: str) -> float:
    """A number of a manifest.

    Raises:
        CorruptArtefact: it is no number from low to high.
    """
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
    note = f"NDCG@10 is {new:.4f}, that of the serving release {serving} {old:.4f}, {window}"
    compared = Compared(new, old, window)
    if certain and new < old * (1 - margin):
        rule = f"a release may not fall more than {margin:.0%} below; look at the data"
        return Verdict(f"{note}: {rule}", note, compared)
    return Verdict(None, note, compared)


def _unknown_to_both(dataset: Dataset, cut: Int64, as_of: int, repeats: Repeats) -> Truth | None:
    """What users took to that neither release knew, and that may be offered under `repeats`.

    It counts from their cut on and after `as_of`, unix seconds; the states are those just before.
    None where nobody did.
    """
    events = dataset.events
    known = np.bincount(events.user[events.time <= as_of], minlength=events.n_users)
    later = np.maximum(cut, events.offsets()[:-1] + known)  # events are in time order within a user
    try:
        return truth_after(dataset, later, repeats).counted()
    except InvalidData:
        return None


def _values(items: Int32, truth: Truth) -> Float64:
    """float64[U]: NDCG@10 of lists int32[U, K].

    Every user of `truth` has a held-out item.
    """
    arrays = items, truth.items, truth.states.items
    highest_row = max(int(array.max(initial=0)) for array in arrays)
    return ndcg(hit_matrix(items, truth, highest_row + 1), truth.counts, DEPTH)


def _lists_of(old: Bundle, dataset: Dataset, states: UserStates) -> Int32:
    """int32[U, DEPTH]: an older bundle's lists, in the rows of `dataset`.

    Items that `dataset` has lost take no place: nobody can take them any more.
    """
    to_old, to_new = _row_maps(old, dataset)
    attributes = _encoded(old, dataset, states)
    translated = _translated(states, to_old, kinds_map(old.facts.events, dataset), attributes)
    # An older release that offers nothing again is compared as it serves.
    if old.model.repeats is Repeats.NEVER:
        translated = replace(translated, repeats=Repeats.NEVER)
    # Without exploration: a comparison by chance items would say nothing.
    model, allowed = replace(old.model, exploration_share=0.0), to_new[:-1] != MISSING
    parts = [np.empty((0, DEPTH), np.int32)]
    for start in range(0, len(states), USERS_AT_ONCE):
        part = translated.slice(start, min(start + USERS_AT_ONCE, len(states)))
        parts.append(recommend(model, part, DEPTH, allowed=allowed).items)
    return to_new[np.concatenate(parts)]


def _row_maps(old: Bundle, dataset: Dataset) -> tuple[Int32, Int32]:
    """Maps rows of `dataset` to the bundle's, and back.

    The last entry keeps MISSING missing.
    """
    old_rows = [old.catalogue.row_of.get(item, MISSING) for item in dataset.catalogue.ids]
    to_old = np.array([*old_rows, MISSING], np.int32)
    to_new = np.full(len(old.catalogue.ids) + 1, MISSING, np.int32)
    in_both = np.flatnonzero(to_old[:-1] != MISSING)
    to_new[to_old[in_both]] = in_both
    return to_old, to_new


def _encoded(old: Bundle, dataset: Dataset, states: UserStates) -> Int32:
    """int32[U, columns]: the users' attributes by the bundle's vocabulary."""
    encoded = [
        old.vocabulary.encode(dict(dataset.vocabulary.decode(tokens)))
        for tokens in states.attributes
    ]
    if not encoded:
        return np.empty((0, len(old.vocabulary.columns)), np.int32)
    return np.stack(encoded)


def kinds_map(rules: EventRules, dataset: Dataset) -> Int64:
    """int64[K]: each kind's position in the kinds of these rules, MISSING where they lack it."""
    kinds = dataset.events.kinds
    if not rules.weights or kinds == ONE_KIND:  # one side does not tell kinds apart
        return np.zeros(len(kinds), np.int64)
    places = {kind.name: place for place, kind in enumerate(rules.kinds)}
    return np.array([places.get(kind.name, MISSING) for kind in kinds], np.int64)


def _translated(
    states: UserStates, to_old: Int32, to_old_kind: Int64, attributes: Int32
) -> UserStates:
    """The states in the rows and kinds of another release.

    Events whose item or kind it lacks are left out.
    """
    places = to_old_kind[states.kinds]
    items = np.where(places == MISSING, np.int32(MISSING), to_old[states.items])
    kinds = np.maximum(places, 0).astype(np.uint8)
    # Known items move to the right, in their order: a history ends at the last column.
    order = np.argsort(items != MISSING, axis=1, kind="stable")
    seen_rows, seen_offsets = _known(to_old[states.seen_rows], states.seen_offsets)
    disliked = _known(to_old[states.disliked_rows], states.disliked_offsets)
    return replace(
        states,
        items=np.take_along_axis(items, order, axis=1),
        times=np.take_along_axis(states.times, order, axis=1),
        weights=np.take_along_axis(states.weights, order, axis=1),
        kinds=np.take_along_axis(kinds, order, axis=1),
        attributes=attributes,
        seen_rows=seen_rows,
        seen_offsets=seen_offsets,
        disliked_rows=disliked[0],
        disliked_offsets=disliked[1],
    )


def _known(rows: Int32, offsets: Int64) -> tuple[Int32, Int64]:
    """A ragged array of rows without those that are MISSING."""
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[rows != MISSING]
    counts = np.bincount(owners, minlength=len(offsets) - 1)
    return rows[rows != MISSING], np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
