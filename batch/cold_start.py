"""Evaluates users and items that training has never seen.

Fresh users: some users are kept out of training altogether; from their first events the model
predicts what they did next. They are served without retraining, and again by towers, neighbours and
an item table that have learnt from those first events, which is all that waiting for the next batch
could give.

New items: some items are taken out of all events; each user who had any of them is offered those
items alone, from the history without them, by what is known of their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.evaluation.baselines import fit_popularity
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, POPULARITY
from shortlist.recsys.evaluation.ranking_metrics import facts_of
from shortlist.recsys.evaluation.report import Report, evaluate
from shortlist.recsys.evaluation.truth import Truth, truth_between
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import (
    Events,
    Float32,
    Int32,
    Int64,
    Recommend,
    Repeats,
    UserStates,
    states_at,
)
from shortlist.recsys.models.pipeline import Model, recommend, recommender
from shortlist.recsys.models.ties import cuts_after_next, steps_of
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training.fit import (
    Stage,
    assemble,
    fit_two_stage,
    item_table_of,
    train_towers,
    without_ranker,
)
from shortlist.recsys.training.item_table import content_matrix
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.split import before

KNOWN = (1, 3, 5, 10)
"""How many events of a fresh user are known; a tie there makes it more or fewer."""

TARGET_EVENTS = 10
"""How many of the following events to predict judge a list."""

USERS = 500
SHARE = 0.1
"""Share of the users, or of the items, that is kept out of training; USERS users at most."""

MIN_USERS = 30
"""Users, or items, kept out, below which nothing is measured."""

SEED = 20260801
"""Of who is kept out, and of the bootstrap: a report can be made again to the last digit."""


def cold_start(
    dataset: Dataset, protocol: HoldoutProtocol, params: FitParams, reporter: ProgressReporter
) -> dict[str, Any]:
    """Measures fresh users and new items.

    Gives the report's sections "fresh_users" and "new_items", without one that has too few of them.
    """
    sections = {
        "fresh_users": fresh_users(dataset, protocol, params, reporter.stage),
        "new_items": new_items(dataset, protocol, params, reporter.stage),
    }
    return {name: section for name, section in sections.items() if section}


def fresh_users(
    dataset: Dataset, protocol: HoldoutProtocol, params: FitParams, stage: Stage
) -> list[dict[str, Any]]:
    """NDCG@10 of fresh users, a row for each of KNOWN; empty with too few users.

    {"events", "mean_events", "n_users", "popularity", "fresh", "retrained"}: mean_events is how
    many events were really known, as ties make it differ.
    """
    events = dataset.events
    long_enough = np.flatnonzero(np.diff(events.offsets()) > KNOWN[-1])
    held = _drawn(long_enough, min(USERS, int(events.n_users * SHARE)))
    if len(held) < MIN_USERS:
        return []
    others = events.select(users=~np.isin(np.arange(events.n_users), held))
    fitted = fit_two_stage(
        dataset, others, protocol, params, lambda name: stage(f"without some users: {name}")
    )
    rows = []
    for known in KNOWN:
        with stage(f"fresh users of {known} events") as progress:
            cut = _cuts_after(events, held, known)
            past = before(events, cut)
            # As many epochs as without these users, and the same ranker: only knowledge differs.
            towers = train_towers(dataset, past, params, progress, fitted.epochs).towers
            retrained = assemble(towers, item_table_of(dataset, past), params, fitted.model.ranker)
            methods = {
                POPULARITY: fit_popularity(others.standing()),
                "fresh": recommender(fitted.model),
                "retrained": recommender(retrained),
            }
            truth = _after_first(dataset, held, cut, params.repeats)
            report = _report(dataset, methods, truth, others, protocol)
        figures = {name: row[HEADLINE_METRIC] for name, row in report["methods"].items()}
        n_known = float(np.mean((cut - events.offsets()[:-1])[held]))
        rows.append(
            {
                "events": known,
                "mean_events": n_known,
                "n_users": report["methods"]["fresh"]["n_users"],
                **figures,
            }
        )
    return rows


def new_items(
    dataset: Dataset, protocol: HoldoutProtocol, params: FitParams, stage: Stage
) -> dict[str, Any]:
    """Recall@20 among items that were kept out; empty without content or with too few items.

    {"n_items", "n_users", "recall@20", "retriever", "random"}; "retriever" is the recall of its
    order of the same items.
    """
    events = dataset.events
    popular = np.bincount(events.item[events.to_predict], minlength=events.n_items)
    held = _drawn(np.flatnonzero(popular), int(events.n_items * SHARE))
    if len(held) < MIN_USERS or content_matrix(dataset.catalogue).shape[1] == 0:
        return {}
    new = np.isin(np.arange(events.n_items), held)
    past = events.select(items=~new)
    truth = _later(events, past, new)
    model = fit_two_stage(
        dataset, past, protocol, params, lambda name: stage(f"without some items: {name}")
    ).model
    with stage("new items"):
        row, retrieved = (
            _report(dataset, {"model": _among(each, new)}, truth, past, protocol)["methods"][
                "model"
            ]
            for each in (model, without_ranker(model))
        )
    chance = min(1.0, 20 / len(held))
    return {
        "n_items": len(held),
        "n_users": row["n_users"],
        "recall@20": row["recall@20"],
        "retriever": retrieved["recall@20"],
        "random": chance,
    }


def _drawn(able: Int64, wanted: int) -> Int64:
    return np.sort(np.random.default_rng(SEED).permutation(able)[:wanted])


def _cuts_after(events: Events, held: Int64, known: int) -> Int64:
    """int64[n_users]: cuts after the held users' first `known` events, at the border of a tie.

    Where a tie holds the first and the following event, all of that tie is known. The cuts of
    others are at their end.
    """
    offsets = events.offsets()
    cut = offsets[1:].copy()
    cut[held] = steps_of(events).border(offsets[:-1][held] + known, offsets[:-1][held])
    return cut


def _after_first(dataset: Dataset, held: Int64, cut: Int64, repeats: Repeats) -> Truth:
    """The held users' next TARGET_EVENTS events to predict, and what shares the last one's time."""
    events = dataset.events
    starts, first, ends = events.offsets()[:-1][held], cut[held], events.offsets()[1:][held]
    stops = cuts_after_next(events, first, ends, TARGET_EVENTS)
    states = states_at(events, starts, first, dataset.attributes[held], held)
    return truth_between(events, held, replace(states, repeats=repeats), first, stops)


def _later(events: Events, past: Events, new: NDArray[np.bool_]) -> Truth:
    """The new items that users had, as truth.

    The states are the users' histories without new items.

    Users who had nothing else are left out.
    """
    had = events.select(items=new)
    counts, known = np.diff(had.offsets()), np.diff(past.offsets())
    users = np.flatnonzero((counts > 0) & (known > 0))
    starts, ends = past.offsets()[:-1][users], past.offsets()[1:][users]
    states = states_at(past, starts, ends, users=users)
    return truth_between(had, users, states, had.offsets()[:-1][users], had.offsets()[1:][users])


def _among(model: Model, allowed: NDArray[np.bool_]) -> Recommend:
    # Without exploration, which would offer new items by chance.
    quiet = replace(model, exploration_share=0.0)

    def method(states: UserStates, k: int) -> tuple[Int32, Float32]:
        recommendations = recommend(quiet, states, k, allowed=allowed)
        return recommendations.items, recommendations.scores

    return method


def _report(
    dataset: Dataset,
    methods: Mapping[str, Recommend],
    truth: Truth,
    past: Events,
    protocol: HoldoutProtocol,
) -> Report:
    names = dataset.catalogue.category_names
    facts = facts_of(past.standing(), dataset.catalogue.membership)
    return evaluate(
        methods, truth, facts, np.random.default_rng(SEED), protocol=protocol, category_names=names
    )
