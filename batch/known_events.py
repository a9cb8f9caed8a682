"""Measures how much a longer history helps.

Some users are asked for again as if only their latest events were known. Unlike `cold_start`, it
needs no other training, so every batch can afford it; the towers have seen these users' past.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.evaluation.baselines import fit_popularity
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, POPULARITY, TWO_STAGE
from shortlist.recsys.evaluation.ranking_metrics import facts_of
from shortlist.recsys.evaluation.report import evaluate
from shortlist.recsys.evaluation.truth import truth_between
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import Events, Int64, UserStates, states_at
from shortlist.recsys.models.pipeline import Model, recommender
from shortlist.recsys.settings import HoldoutProtocol

KNOWN = (1, 2, 3, 5, 10)
"""How many of a user's latest events are known."""

USERS = 500
"""Users who are asked for, at most."""

MIN_USERS = 30
"""Users with so long a history, below which nothing is measured."""

SEED = 20260801
"""Of who is asked for, and of the bootstrap."""


def known_events(
    dataset: Dataset,
    cut: Int64,
    model: Model,
    past: Events,
    protocol: HoldoutProtocol,
    reporter: ProgressReporter,
) -> list[dict[str, Any]]:
    """NDCG@10 of the same users and held-out items, a row for each of KNOWN.

    cut: int64[n_users], where each user's hold-out begins; past: all events before it. Gives
    {"events", "n_users", "popularity": figure, "two_stage": figure}, or nothing with too few users
    of at least KNOWN[-1] events and a held-out item.
    """
    events = dataset.events
    starts, ends = events.offsets()[:-1], events.offsets()[1:]
    able = np.flatnonzero((cut - starts >= KNOWN[-1]) & (cut < ends))
    users = np.sort(np.random.default_rng(SEED).permutation(able)[:USERS])
    if len(users) < MIN_USERS:
        return []
    states = states_at(events, starts[users], cut[users], dataset.attributes[users], users)
    states = replace(states, repeats=model.repeats)
    truth = truth_between(events, users, states, cut[users], ends[users]).counted()
    if len(truth) < MIN_USERS:
        return []
    cuts, attributes = cut[truth.users], dataset.attributes[truth.users]
    methods = {POPULARITY: fit_popularity(past.standing()), TWO_STAGE: recommender(model)}
    facts = facts_of(past.standing(), dataset.catalogue.membership)
    rows = []
    with reporter.stage("by known events") as progress:
        for place, known in enumerate(KNOWN):
            short = states_at(events, cuts - known, cuts, attributes, truth.users)
            report = evaluate(
                methods,
                replace(truth, states=_closed_alike(short, truth.states)),
                facts,
                np.random.default_rng(SEED),
                protocol=protocol,
                category_names=dataset.catalogue.category_names,
            )
            figures = {name: row[HEADLINE_METRIC] for name, row in report["methods"].items()}
            n_users = report["methods"][TWO_STAGE]["n_users"]
            rows.append({"events": known, "n_users": n_users, **figures})
            progress((place + 1) / len(KNOWN), f"{known} known")
    return rows


def _closed_alike(short: UserStates, whole: UserStates) -> UserStates:
    """Short states to which the same items are closed as to the whole ones.

    So each row is about the same held-out items, and no place is lost to what a user had.
    """
    return replace(
        short,
        repeats=whole.repeats,
        seen_rows=whole.seen_rows,
        seen_offsets=whole.seen_offsets,
    )
