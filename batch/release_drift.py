"""Compares a batch's data with the serving release's.

Users, items and ranker features are three tables, each of independent rows: one row a user, one an
item, and for the features one candidate of each user. The serving release's own are histograms in
its `skew.msgpack`. Drift is reported; far drift is refused, since a feed that lost its ratings
trains without an error. The features that follow from the retriever's scores have a scale of their
own in every training, so they are reported and never refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from shortlist.batch.gate import Verdict
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import FEATURES, Candidates, features
from shortlist.recsys.models.interactions import Events, Int64, UserStates, states_at
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, Model, retrieve
from shortlist.recsys.monitoring import skew
from shortlist.recsys.monitoring.skew import Histograms, Skew
from shortlist.recsys.store.artefacts import Artefacts

SAMPLE = 20_000
"""Users drawn: enough that what matters is certain."""

FEATURE_USERS = 2000
"""Users of whom one candidate's features are taken."""

LIMIT = 0.5
"""KL divergence, in nats, from which a release is refused.

It is that of a normal variable that moves by one standard deviation.
"""

SCALED_BY_TRAINING = frozenset(("retrieval_score", "retrieval_margin"))
SEED = 20260801

Columns = dict[str, NDArray[Any]]
"""A table: arrays of one length, by name."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What has moved since a release.

    verdict: for the gate; tables: the comparisons, by table; lost: columns that only the release
    had, by table.
    """

    verdict: Verdict
    tables: dict[str, Skew]
    lost: dict[str, tuple[str, ...]]


def tables_of(dataset: Dataset, model: Model) -> dict[str, Columns]:
    """The tables of users, items and features."""
    rng = np.random.default_rng(SEED)
    return {
        "users": _users(dataset, rng),
        "items": _items(dataset),
        "features": _features(dataset, model, rng),
    }


def save(directory: Path, tables: Mapping[str, Columns]) -> None:
    """Writes the tables' histograms into a directory.

    Tables of fewer than `skew.MIN_ROWS` rows are left out: nothing can be compared with them.
    """
    packed = {
        name: skew.pack(skew.histograms(table))
        for name, table in tables.items()
        if len(next(iter(table.values()))) >= skew.MIN_ROWS
    }
    # Before the bundle's manifest is made, which has a digest of every file.
    (directory / skew.FILE).write_bytes(msgpack.packb(packed))


def against_release(
    artefacts: Artefacts, version: str, tables: Mapping[str, Columns], limit: float = LIMIT
) -> Drift:
    """Compares tables with those of a published release.

    Raises:
        ReleaseNotFound: the release is not there.
        CorruptArtefact: it is not whole.
    """
    with tempfile.TemporaryDirectory() as directory:
        before = skew.load(artefacts.fetch(version, Path(directory)))
    if before is None:
        return Drift(Verdict(None, f"{version} holds no histograms to compare with"), {}, {})
    return compare(version, before, tables, limit)


def compare(
    version: str,
    before: Mapping[str, Histograms],
    tables: Mapping[str, Columns],
    limit: float = LIMIT,
) -> Drift:
    """Compares a batch's tables with the histograms of `version`.

    limit: the KL divergence that is refused, in nats.
    """
    compared: dict[str, Skew] = {}
    lost: dict[str, tuple[str, ...]] = {}
    for name, histograms in before.items():
        table = tables.get(name, {})
        common = {column: h for column, h in histograms.features.items() if column in table}
        lost[name] = tuple(column for column in histograms.features if column not in table)
        if common:
            columns = {column: table[column] for column in common}
            compared[name] = skew.compare(Histograms(histograms.rows, common), columns)
    drifted = [
        (one.feature_kl[column], f"{name}.{column}")
        for name, one in compared.items()
        for column in one.flagged_features
    ]
    note = f"no drift since {version}"
    if drifted:
        note = f"drift since {version}: {_listed(drifted)}"
    return Drift(Verdict(_refusal(version, drifted, lost, limit), note), compared, lost)


def drift_section(drift: Drift) -> dict[str, Any]:
    """The drift as a section of the report.

    The largest is first.

    {"note", "rows": [{"table", "feature", "kl", "psi", "ks", "flagged"}, …]}
    """
    rows = [
        {
            "table": name,
            "feature": column,
            "kl": kl,
            "psi": one.psi[column],
            "ks": one.ks[column],
            "flagged": column in one.flagged_features,
        }
        for name, one in drift.tables.items()
        for column, kl in one.feature_kl.items()
    ]
    return {"note": drift.verdict.note, "rows": sorted(rows, key=lambda row: -row["kl"])}


def _refusal(
    version: str,
    drifted: list[tuple[float, str]],
    lost: Mapping[str, tuple[str, ...]],
    limit: float,
) -> str | None:
    gone = [f"{name}.{column}" for name in ("users", "items") for column in lost.get(name, ())]
    if gone:
        return f"the data lost {', '.join(gone)}, which {version} had: mend the feed"
    far = [
        (kl, name)
        for kl, name in drifted
        if kl >= limit and name.rpartition(".")[2] not in SCALED_BY_TRAINING
    ]
    if far:
        return (
            f"the data drifted by {limit} nats or more since {version}: {_listed(far)}; "
            "look at the feed"
        )
    return None


def _listed(drifted: list[tuple[float, str]]) -> str:
    return ", ".join(f"{name} (KL {kl:.2f})" for kl, name in sorted(drifted, reverse=True))


def _users(dataset: Dataset, rng: np.random.Generator) -> Columns:
    """One row for each of SAMPLE users, drawn from those who have events.

    A row has the number of events, over how many days they are, one of them drawn, and the
    attributes; with several kinds of events the one's kind, with feedback how much of it there is.
    """
    events = dataset.events
    offsets = events.offsets()
    users = _drawn(np.flatnonzero(np.diff(offsets)), SAMPLE, rng)
    first, last = offsets[users], offsets[users + 1] - 1
    one = rng.integers(first, last + 1)
    popularity = np.bincount(events.item, minlength=events.n_items)
    table = {
        "events": last - first + 1,
        "days": (events.time[last] - events.time[first]) // 86_400,
        "weight": events.weight[one],
        "hour": events.time[one] // 3600 % 24,
        "popularity": np.log1p(popularity[events.item[one]]),
        "categories": dataset.catalogue.membership[events.item[one]].sum(axis=1),
    }
    if len(events.kinds) > 1:
        table["kind"] = np.array([kind.name for kind in events.kinds], object)[events.kind[one]]
    if len(events.negatives.user):
        table["negatives"] = np.bincount(events.negatives.user, minlength=events.n_users)[users]
    attributes = _attributes(dataset, users)
    return table | {f"attribute {column}": values for column, values in attributes.items()}


def _attributes(dataset: Dataset, users: Int64) -> Columns:
    """Each attribute's labels, None where there is none.

    A number's label is its quantile bin.

    Labels, as the numbers of tokens are others in each training.
    """
    vocabulary = dataset.vocabulary
    table: Columns = {}
    for a, column in enumerate(vocabulary.columns):
        labels = {token: label for label, token in vocabulary.tokens[a].items()}
        values = [labels.get(token) for token in dataset.attributes[users, a].tolist()]
        table[column] = np.array(values, object)
    return table


def _items(dataset: Dataset) -> Columns:
    """One row for each item."""
    events, catalogue = dataset.events, dataset.catalogue
    return {
        "events": np.bincount(events.item, minlength=events.n_items),
        "categories": catalogue.membership.sum(axis=1),
        "category": np.array([c[0] if c else None for c in catalogue.categories], object),
        "year": catalogue.year,
    }


def _features(dataset: Dataset, model: Model, rng: np.random.Generator) -> Columns:
    """The features of one candidate, drawn from those of each of FEATURE_USERS users."""
    events = dataset.events
    users = _drawn(np.flatnonzero(np.diff(events.offsets())), FEATURE_USERS, rng)
    chunks = [users[start : start + USERS_AT_ONCE] for start in range(0, len(users), USERS_AT_ONCE)]
    rows = [_feature_rows(model, _states(events, dataset, chunk), rng) for chunk in chunks]
    together = np.concatenate(rows) if rows else np.empty((0, len(FEATURES)), np.float32)
    return {name: together[:, f] for f, name in enumerate(FEATURES)}


def _states(events: Events, dataset: Dataset, users: Int64) -> UserStates:
    offsets = events.offsets()
    starts, ends = offsets[users], offsets[users + 1]
    return states_at(events, starts, ends, dataset.attributes[users], users)


def _feature_rows(
    model: Model, states: UserStates, rng: np.random.Generator
) -> NDArray[np.float32]:
    """float32[users with candidates, F]: one candidate's features each."""
    # Asked for at the last event, as live answers are: they are of users with a newer one.
    states = replace(states, repeats=model.repeats)
    candidates = retrieve(model, states)
    counts = (candidates.items >= 0).sum(axis=1)
    chosen = np.cumsum(counts)[counts > 0] - 1 - rng.integers(0, counts[counts > 0])
    return features(states, Candidates(candidates.items, candidates.scores), model.table)[chosen]


def _drawn(users: Int64, at_most: int, rng: np.random.Generator) -> Int64:
    return np.sort(rng.permutation(users)[:at_most]).astype(np.int64)
