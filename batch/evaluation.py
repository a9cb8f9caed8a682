"""Compares the two stages with the retriever alone and with strong baselines, on one hold-out, point in time."""

from __future__ import annotations

import numpy as np

from batch.console import Narrator
from recsys.catalogue import Dataset
from recsys.errors import InvalidData
from recsys.evaluation.baselines import fit_ease, fit_item_knn, fit_popularity, fit_recent_popularity
from recsys.evaluation.recency import fit_recent_ease, fit_recent_item_knn
from recsys.evaluation.report import Report, candidate_recall, evaluate
from recsys.evaluation.truth import Truth, truth_of
from recsys.events import MISSING, Events, Int32, Int64, Recommend, states_at
from recsys.pipeline import CANDIDATE_SHARES, Model, proposals, recommender
from recsys.ranker import Ranker
from recsys.settings import Protocol
from recsys.towers import user_vectors
from recsys.training.fit import FitParams, fit_two_stage, without_ranker
from recsys.training.split import before, cuts

BOOTSTRAP_SEED = 20260801


def truth_after(dataset: Dataset, cut: Int64) -> Truth:
    """What each user did at or after their cut; users with nothing there, or nothing before it, are left out.

    Raises:
        InvalidData: no user is left, or nobody did anything new after their cut.
    """
    events = dataset.events
    offsets = events.offsets()
    starts, ends = offsets[:-1], offsets[1:]
    users = np.flatnonzero((cut < ends) & (cut > starts)).astype(np.int32)
    if len(users) == 0:
        message = (
            f"none of {events.n_users} users has an event before and one after the cut: "
            "an evaluation needs users with at least two events"
        )
        raise InvalidData(message)
    states = states_at(events, starts[users], cut[users], dataset.attributes[users])
    lengths = ends[users] - cut[users]
    held = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    rows = np.arange(held[-1]) + np.repeat(cut[users] - held[:-1], lengths)
    truth = truth_of(users, states, held, events.item[rows], events.n_items)
    if len(truth.items) == 0:
        message = (
            f"each of the {len(users)} users had every held-out item before: seen items are never recommended, so there is "
            "nothing to evaluate; give data in which users take to new items"
        )
        raise InvalidData(message)
    return truth


def baselines(past: Events, narrator: Narrator) -> dict[str, Recommend]:
    """The methods to beat, fitted to `past`; EASE only where the catalogue fits in memory."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    with narrator.stage("baselines"):
        fitted = {
            "popularity": fit_popularity(past),
            "recent_popularity": fit_recent_popularity(past),
            "item_knn": fit_item_knn(past),
            "recent_item_knn": fit_recent_item_knn(past, rng),
            "ease": fit_ease(past),
            "recent_ease": fit_recent_ease(past, rng),
        }
    return {name: method for name, method in fitted.items() if method is not None}


def compare(model: Model, past: Events, truth: Truth, protocol: Protocol, narrator: Narrator) -> Report:
    """The report on a fitted model: every method's metrics, and what each source of candidates finds."""
    methods = baselines(past, narrator)
    methods |= {"retriever": recommender(without_ranker(model)), "two_stage": recommender(model)}
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    with narrator.stage("evaluation") as progress:

        def advance(name: str, done: int, total: int) -> None:
            progress((list(methods).index(name) + done / total) / len(methods), name)

        report = evaluate(methods, truth, past.n_items, rng, protocol=protocol, progress=advance)
    with narrator.stage("candidate recall"):
        report["candidate_recall"] = candidate_recall(_by_source(model, truth), truth, past.n_items)
    return report


def _by_source(model: Model, truth: Truth) -> dict[str, Int32]:
    found: dict[str, Int32] = {
        name: np.full((len(truth), model.n_candidates), MISSING, np.int32) for name in (*CANDIDATE_SHARES, "all")
    }
    vectors = user_vectors(model.towers, truth.states)
    for user in range(len(truth)):
        rows, origin = proposals(model, truth.states, user, vectors[user], None)
        found["all"][user, : len(rows)] = rows
        for source, name in enumerate(CANDIDATE_SHARES):
            mine = rows[origin == source]
            found[name][user, : len(mine)] = mine
    return found


def run(dataset: Dataset, protocol: Protocol, params: FitParams, narrator: Narrator) -> Report:
    """Fits everything to the past of `protocol`'s split and reports on what it holds out."""
    cut = cuts(dataset.events, protocol)
    truth = truth_after(dataset, cut)
    past = before(dataset.events, cut)
    model, ranker = fit_two_stage(dataset, past, protocol, params, narrator.stage)
    report = compare(model, past, truth, protocol, narrator)
    report["data"] = describe(dataset)
    report["importances"] = ranker.importances
    return report | narrator.stages.summary()


def describe(dataset: Dataset) -> dict[str, object]:
    """What the data is: its fingerprint and its size."""
    return {
        "fingerprint": dataset.fingerprint,
        "n_users": dataset.events.n_users,
        "n_items": dataset.events.n_items,
        "n_events": len(dataset.events),
    }


def loaded_ranker(text: str) -> Ranker | None:
    """The ranker, or None for the empty text of a fold that had nothing to rank."""
    return Ranker(text) if text else None
