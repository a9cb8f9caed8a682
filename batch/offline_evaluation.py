"""Compares the two stages with strong baselines.

The retriever alone is one of the methods. All know the same past and are judged by the same
hold-out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np

from shortlist.batch.audit import audit
from shortlist.batch.known_events import known_events
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.stage_groups import groups_by
from shortlist.batch.stage_lists import StageLists, stage_lists
from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.evaluation.als import fit_als
from shortlist.recsys.evaluation.baselines import (
    ItemWeights,
    ease_weights,
    fit_popularity,
    fit_recent_popularity,
    item_knn_weights,
    plain,
)
from shortlist.recsys.evaluation.headline import POPULARITY, RETRIEVER, TWO_STAGE
from shortlist.recsys.evaluation.list_hits import calibration, recall_by_source
from shortlist.recsys.evaluation.names import COMPARED
from shortlist.recsys.evaluation.own_items import (
    fit_own_frequent,
    fit_own_recent,
    fit_tuned_tifu_knn,
)
from shortlist.recsys.evaluation.ranking_metrics import facts_of
from shortlist.recsys.evaluation.recency import fit_recent_ease, fit_recent_item_knn
from shortlist.recsys.evaluation.repeats_note import repeats_note
from shortlist.recsys.evaluation.report import Report, candidate_recall, evaluate
from shortlist.recsys.evaluation.small_samples import part_warnings
from shortlist.recsys.evaluation.truth import Truth, of_repeats, truth_between
from shortlist.recsys.models.catalogue import Catalogue, Dataset
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Int64,
    Recommend,
    Repeats,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, recommender
from shortlist.recsys.models.ranker import NO_RANKER
from shortlist.recsys.models.regression import MAX_REGRESSION_ITEMS
from shortlist.recsys.models.ties import tied_share
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.fit import (
    TwoStage,
    assemble,
    fit_two_stage,
    item_table_of,
    train_towers,
    without_ranker,
)
from shortlist.recsys.training.lambdamart import FittedRanker
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.split import before, cuts

BOOTSTRAP_SEED = 20260801

EXAMPLES = 10
"""Users that the report shows."""

EXAMPLE_ITEMS = 10
"""Items of each kind that an example shows."""


def truth_after(dataset: Dataset, cut: Int64, repeats: Repeats = Repeats.NEVER) -> Truth:
    """What each user did at or after their cut, as far as it may be offered to them.

    Users with nothing there, or nothing before it, are left out.

    Raises:
        InvalidData: no user is left, or nobody took anything after their cut that may be offered.
    """
    events = dataset.events
    offsets = events.offsets()
    starts, ends = offsets[:-1], offsets[1:]
    users = np.flatnonzero((cut < ends) & (cut > starts))
    if len(users) == 0:
        message = (
            f"none of {events.n_users} users has an event before and one after the cut: "
            "an evaluation needs users with at least two events"
        )
        raise InvalidData(message)
    states = states_at(events, starts[users], cut[users], dataset.attributes[users], users)
    states = replace(states, repeats=repeats)
    truth = truth_between(events, users, states, cut[users], ends[users])
    if len(truth.items) == 0:
        message = (
            f"each of the {len(users)} users had every held-out item before: seen items are never "
            "recommended, so there is nothing to evaluate; set SHORTLIST_REPEATS=allow, which "
            "recommends them again, or give data in which users take to new items"
        )
        raise InvalidData(message)
    return truth


def baselines(
    past: Events,
    reporter: ProgressReporter,
    repeats: Repeats = Repeats.NEVER,
    named: Collection[str] = COMPARED,
) -> dict[str, Recommend]:
    """The counting baselines among `named`, fitted to `past`.

    EASE is left out where its item matrix does not fit in memory, and those of a user's own items
    where none may be offered.
    """
    with reporter.stage("baselines"):
        fits = _fits(past.standing(), repeats)
        return {name: fit() for name, fit in fits.items() if name in named}


def _fits(past: Events, repeats: Repeats) -> dict[str, Callable[[], Recommend]]:
    """What fits each counting baseline that these events allow."""

    @cache
    def neighbours() -> ItemWeights:
        return item_knn_weights(past)

    @cache
    def ease() -> ItemWeights:
        return ease_weights(past)

    def rng() -> np.random.Generator:
        # Each draws from its own, so that its figures do not depend on which others are fitted.
        return np.random.default_rng(BOOTSTRAP_SEED)

    fits: dict[str, Callable[[], Recommend]] = {
        POPULARITY: lambda: fit_popularity(past),
        "recent_popularity": lambda: fit_recent_popularity(past),
        "item_knn": lambda: plain(neighbours()),
        "recent_item_knn": lambda: fit_recent_item_knn(past, rng(), neighbours(), repeats),
    }
    if past.n_items <= MAX_REGRESSION_ITEMS:
        fits["ease"] = lambda: plain(ease())
        fits["recent_ease"] = lambda: fit_recent_ease(past, rng(), ease(), repeats)
    # What was only met, as a view, is open even where nothing is offered again.
    if repeats is not Repeats.NEVER or len(past.kinds) > 1:
        fits["own_frequent"] = lambda: fit_own_frequent(past)
        fits["own_recent"] = lambda: fit_own_recent(past)
    if repeats is not Repeats.NEVER:
        fits["tifu_knn"] = lambda: fit_tuned_tifu_knn(past, rng())
    return fits


_LEARNT = ("als", "bpr_towers")


def _refuse_unmeasured(named: Collection[str], past: Events, repeats: Repeats) -> None:
    """Refuses named methods that these data or settings rule out, before anything is fitted.

    Raises:
        InvalidInput: one of them is ruled out.
    """
    able = {*_fits(past.standing(), repeats), *_LEARNT, RETRIEVER, TWO_STAGE}
    for name in COMPARED:
        if name not in named or name in able:
            continue
        rule = "what a user had must be open to be offered again: set SHORTLIST_REPEATS=allow"
        if "ease" in name:
            rule = f"it takes at most {MAX_REGRESSION_ITEMS} items, and here are {past.n_items}"
        raise InvalidInput(f"method {name!r} cannot be measured here: {rule}, or leave it out")


def learnt_baselines(
    dataset: Dataset,
    past: Events,
    params: FitParams,
    reporter: ProgressReporter,
    named: Collection[str] = COMPARED,
) -> dict[str, Recommend]:
    """The trained baselines among `named`: ALS, and our towers trained by BPR."""
    fitted: dict[str, Recommend] = {}
    if "als" in named:
        with reporter.stage("baseline: ALS"):
            fitted["als"] = fit_als(past.standing())
    if "bpr_towers" in named:
        bpr = replace(params, towers=replace(params.towers, loss="bpr"), exploration_share=0.0)
        with reporter.stage("baseline: towers by BPR") as progress:
            # Once to find the number of epochs by holding out events, and once on all of them.
            epochs = train_towers(dataset, past, bpr, progress).epochs
            towers = train_towers(dataset, past, bpr, progress, epochs).towers
            model = assemble(towers, item_table_of(dataset, past), bpr)
            fitted["bpr_towers"] = recommender(model)
    return fitted


def compare(
    model: Model | None,
    past: Events,
    truth: Truth,
    catalogue: Catalogue,
    protocol: HoldoutProtocol,
    reporter: ProgressReporter,
    others: Mapping[str, Recommend] | None = None,
    lists: StageLists | None = None,
    named: Collection[str] = COMPARED,
    workers: int = 1,
) -> Report:
    """Reports the metrics of every method among `named`, and candidate recall.

    model: None where neither of its two methods is named.
    lists: what both stages list for the users of `truth`, where it is known already.
    workers: the processes that make the lists, as `workers_for` takes them.

    Where the user's own items may be offered, the section "repeats" has the figures of new and of
    repeated items apart: each method lists the ones or the others alone. The sections
    "candidate_recall", "recall_by_source" and "calibration" are about the two stages, and are only
    there with them.
    """
    repeats = truth.states.repeats
    fitted = {**baselines(past, reporter, repeats, named), **(others or {})}
    facts = facts_of(past.standing(), catalogue.membership)

    def evaluated(name: str, part: Truth, lists: StageLists | None) -> Report:
        methods = fitted | _methods_of(model, lists, named)
        with reporter.stage(name) as progress:

            def advance(method: str, done: int, total: int) -> None:
                n_before = list(methods).index(method)
                progress((n_before + done / total) / len(methods), method)

            return evaluate(
                methods,
                part,
                facts,
                np.random.default_rng(BOOTSTRAP_SEED),
                protocol=protocol,
                category_names=catalogue.category_names,
                progress=advance,
            )

    def lists_of(part: Truth, of: str = "") -> StageLists | None:
        if model is None or TWO_STAGE not in named:
            return None
        return listed(model, part, reporter, workers, of)

    lists = lists_of(truth) if lists is None else lists
    report = evaluated("evaluation", truth, lists)
    if repeats is not Repeats.NEVER:
        parts = {}
        for name, part in _parts(truth, past.n_items).items():
            of = f" of {name} items"
            figures = evaluated(f"evaluation{of}", part, lists_of(part, of))
            parts[name] = {"methods": figures["methods"], "paired": figures["paired"]}
        report["repeats"] = {"parts": parts}
        report["warnings"] += part_warnings(parts)
    if lists is not None:
        report |= _of_lists(lists, truth, past.n_items)
    return report


def listed(
    model: Model, truth: Truth, reporter: ProgressReporter, workers: int, of: str = ""
) -> StageLists:
    """What both stages list for the users of `truth`, as a stage of its own.

    workers: as `compare` takes them.
    """
    with reporter.stage(f"lists{of}") as progress:
        return stage_lists(model, truth, progress, workers)


def _methods_of(
    model: Model | None, lists: StageLists | None, named: Collection[str]
) -> dict[str, Recommend]:
    """The methods of the model among `named`; lists: of both, where the two stages are named."""
    if lists is not None:
        methods = {RETRIEVER: lists.retriever.as_method(), TWO_STAGE: lists.two_stage.as_method()}
        return {name: method for name, method in methods.items() if name in named}
    if model is not None and RETRIEVER in named:
        return {RETRIEVER: recommender(without_ranker(model))}
    return {}


def _of_lists(lists: StageLists, truth: Truth, n_items: int) -> Report:
    """The sections about the candidates and the lists of the two stages."""
    items, scores = lists.two_stage.items, lists.two_stage.scores
    candidates = lists.candidates_by_source(truth)
    recall = candidate_recall(candidates, truth, n_items)
    found = float((lists.found != MISSING).sum() / (len(lists.found) or np.nan))
    return {
        "candidate_recall": recall | {"all": found},
        "recall_by_source": recall_by_source(items, candidates, truth, n_items),
        "calibration": calibration(items, scores, truth, n_items),
    }


def _parts(truth: Truth, n_items: int) -> dict[str, Truth]:
    """The new and the repeated items of the hold-out, without a part that is empty."""
    modes = {"new": Repeats.NEVER, "repeated": Repeats.ONLY}
    parts = {name: of_repeats(truth, mode, n_items) for name, mode in modes.items()}
    return {name: part for name, part in parts.items() if len(part.items)}


def count_repeats(dataset: Dataset, cut: Int64, repeats: Repeats) -> dict[str, Any]:
    """Says how much comes again.

    {"mode": "never" or "allow", "events": share of the events that are to be predicted whose user
    had the item before, "held_out": the same of the held-out items}
    """
    events, n_items = dataset.events, dataset.events.n_items
    everything = truth_after(dataset, cut, Repeats.ALLOW)
    repeated = of_repeats(everything, Repeats.ONLY, n_items)
    targets = events.take(events.to_predict)
    pairs = targets.user.astype(np.int64) * n_items + targets.item
    return {
        "mode": repeats.value,
        "events": 1 - len(np.unique(pairs)) / max(1, len(pairs)),
        "held_out": len(repeated.items) / len(everything.items),
    }


def left_out(dataset: Dataset, cut: Int64, truth: Truth) -> dict[str, int]:
    """Counts the users who are not measured, by the reasons of `names.LEFT_OUT`.

    A reason that nobody has is not there.
    """
    offsets = dataset.events.offsets()
    starts, ends = offsets[:-1], offsets[1:]
    predicted = np.concatenate(([0], np.cumsum(dataset.events.to_predict)))
    is_measured = np.zeros(len(starts), bool)
    is_measured[truth.users[truth.counts > 0]] = True
    n_events = ends - starts
    conditions = {
        "no event": n_events == 0,
        "one event": n_events == 1,
        "nothing held out": cut == ends,
        "nothing before": cut == starts,
        "nothing to predict": predicted[ends] == predicted[cut],
        "nothing new": ~is_measured,
    }
    counts, is_left = {}, ~is_measured
    for reason, holds in conditions.items():
        counts[reason] = int((is_left & holds).sum())
        is_left &= ~holds
    return {reason: count for reason, count in counts.items() if count}


def run(
    dataset: Dataset,
    protocol: HoldoutProtocol,
    params: FitParams,
    reporter: ProgressReporter,
    named: Collection[str] = COMPARED,
    workers: int = 1,
) -> Report:
    """Fits the named methods to the past, and reports.

    The past and the hold-out are those of `protocol`. What a report says of the model beside its
    figures is only there where the two stages are named.
    workers: of the lists, as `compare` takes them, and of the ranker's groups.

    Raises:
        InvalidData: nothing can be held out.
        InvalidInput: not all are named, and one of them cannot be measured on these data.
    """
    cut = cuts(dataset.events, protocol)
    counted = count_repeats(dataset, cut, params.repeats)
    note = repeats_note(counted)
    if note is not None:
        reporter.say(f"  {note}")
    truth = truth_after(dataset, cut, params.repeats)
    past = before(dataset.events, cut)
    if not set(COMPARED) <= set(named):
        _refuse_unmeasured(named, past, params.repeats)
    fitted = None
    if not {RETRIEVER, TWO_STAGE}.isdisjoint(named):
        make = groups_by(workers, reporter)
        fitted = fit_two_stage(dataset, past, protocol, params, reporter.stage, make)
    of_model: Report = {}
    if fitted is not None and TWO_STAGE in named:
        of_model = _of_model(dataset, cut, past, truth, fitted, protocol, reporter)
    others = learnt_baselines(dataset, past, params, reporter, named)
    report = compare(
        None if fitted is None else fitted.model,
        past,
        truth,
        dataset.catalogue,
        protocol,
        reporter,
        others,
        named=named,
        workers=workers,
    )
    report |= of_model
    report["data"] = describe(dataset)
    report["left_out"] = left_out(dataset, cut, truth)
    report["ties"] = ties(dataset.events, cut, truth)
    report["repeats"] = counted | report.get("repeats", {})
    return report | reporter.stages.summary()


def _of_model(
    dataset: Dataset,
    cut: Int64,
    past: Events,
    truth: Truth,
    fitted: TwoStage,
    protocol: HoldoutProtocol,
    reporter: ProgressReporter,
) -> Report:
    """The sections about the model, the audit first: a leak makes all figures worthless."""
    with reporter.stage("leak audit"):
        checks = audit(dataset, cut, past, fitted.model, truth, {"towers": fitted.events_digest})
    return {
        "known_events": known_events(dataset, cut, fitted.model, past, protocol, reporter),
        "audit": checks,
        "importances": fitted.ranker.importances,
        "ranker": {"reported": summary(fitted.ranker)},
        "learning_curves": learning_curves(fitted.rounds, fitted.ranker.curve),
        "examples": examples(dataset, fitted.model, truth, named=True),
    }


def learning_curves(
    rounds: Sequence[Sequence[float]], curve: Sequence[float]
) -> dict[str, list[dict[str, float]]]:
    """The towers' curves by round, the ranker's by tree.

    rounds: (loss, validation) of each.
    """
    towers = [
        {"round": number, "loss": loss, "validation": score}
        for number, (loss, score) in enumerate(rounds, 1)
    ]
    ranker = [{"tree": number, "validation": score} for number, score in enumerate(curve, 1)]
    return {"towers": towers, "ranker": ranker}


def summary(ranker: FittedRanker) -> dict[str, Any]:
    """The ranker's size, and the validation that decided its use."""
    return {
        "used": ranker.text != NO_RANKER,
        "trees": ranker.trees,
        "n_groups": ranker.n_groups,
        "validation": None if ranker.validation is None else asdict(ranker.validation),
        "note": ranker.note,
    }


def examples(dataset: Dataset, model: Model, truth: Truth, *, named: bool) -> list[dict[str, Any]]:
    """A few users' histories, recommendations and held-out items.

    named: by their ids; else by numbers from 1, for a page that outlives the users' data.
    """
    counted = np.flatnonzero(truth.counts > 0)
    chosen = np.sort(np.random.default_rng(BOOTSTRAP_SEED).permutation(counted)[:EXAMPLES])
    rows = []
    for number, position in enumerate(chosen.tolist(), 1):
        one = truth.slice(position, position + 1)
        user = dataset.user_ids[int(one.users[0])] if named else str(number)
        rows.append({"user": user, **_example(dataset.catalogue.titles, model, one)})
    return rows


def _example(titles: Sequence[str], model: Model, one: Truth) -> dict[str, Any]:
    """One user's items.

    one: the truth of that user alone.
    """
    items, scores = recommender(model)(one.states, EXAMPLE_ITEMS)
    history = [row for row in one.states.items[0].tolist() if row != MISSING]
    recommendations = [
        {"title": titles[row], "score": score, "held_out": row in one.items}
        for row, score in zip(items[0].tolist(), scores[0].tolist(), strict=True)
        if row != MISSING
    ]
    return {
        "history": [titles[row] for row in history[-EXAMPLE_ITEMS:]],
        "recommendations": recommendations,
        "held_out": [titles[row] for row in one.items.tolist()[:EXAMPLE_ITEMS]],
    }


def describe(dataset: Dataset) -> dict[str, object]:
    """The data's fingerprint, size, and last time."""
    return {
        "fingerprint": dataset.fingerprint,
        "n_users": dataset.events.n_users,
        "n_items": dataset.events.n_items,
        "n_events": len(dataset.events),
        "latest": dataset.events.latest,
    }


def ties(events: Events, cut: Int64, truth: Truth) -> dict[str, float | int]:
    """Measures how much data has no order in time.

    {"tied_events": share of all events, "drawn_holdouts": users whose hold-out was drawn by chance,
    as a tie lies across their cut}.
    """
    first = cut[truth.users]
    drawn = int((events.time[first - 1] == events.time[first]).sum())
    return {"tied_events": tied_share(events), "drawn_holdouts": drawn}
