"""Compares a batch's users, items and ranker features with those of the release before, through its `skew.msgpack`.

Three tables, each of independent rows: one row a user, one an item, and for the features one
candidate of each user. What drifts is told; what drifts far is refused, since a feed that lost its
ratings trains without an error. The features that follow from the retriever's scores have a scale
of their own in every training, so they are told and never refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
"""Users drawn, and items: enough that what matters is certain."""

FEATURE_USERS = 2000
"""Users of whom one candidate's features are taken."""

LIMIT = 0.5
"""KL divergence, in nats, from which a release is refused: a normal variable that moves by a standard deviation."""

SCALED_BY_TRAINING = frozenset(("retrieval_score", "retrieval_margin"))
SEED = 20260801

Table = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Drift:
    """verdict: for the gate; tables: what was found, by table; lost: columns that the release before had, by table."""

    verdict: Verdict
    tables: dict[str, Skew]
    lost: dict[str, tuple[str, ...]]


def tables_of(dataset: Dataset, model: Model) -> dict[str, Table]:
    """The three tables of a batch: its users, its items, and the features that `model` gives them."""
    rng = np.random.default_rng(SEED)
    return {
        "users": _users(dataset, rng),
        "items": _items(dataset),
        "features": _features(dataset, model, rng),
    }


def save(directory: Path, tables: Mapping[str, Table]) -> None:
    """Writes the tables' histograms into a bundle's directory, before its manifest is made.

    Tables of fewer than `skew.MIN_ROWS` rows are left out: nothing can be compared with them.
    """
    long = {
        name: table
        for name, table in tables.items()
        if len(next(iter(table.values()))) >= skew.MIN_ROWS
    }
    told = {name: skew.pack(skew.histograms(table)) for name, table in long.items()}
    (directory / skew.FILE).write_bytes(msgpack.packb(told))


def against_release(
    artefacts: Artefacts, version: str, tables: Mapping[str, Table], limit: float = LIMIT
) -> Drift:
    """Compares a batch's tables with those of a published release, which is fetched.

    Raises:
        CorruptArtefact: the release is not there, or not whole.
    """
    with tempfile.TemporaryDirectory() as directory:
        before = skew.load(artefacts.fetch(version, Path(directory)))
    if before is None:
        return Drift(Verdict(None, f"{version} holds no histograms to compare with"), {}, {})
    return compare(version, before, tables, limit)


def compare(
    version: str,
    before: Mapping[str, Histograms],
    tables: Mapping[str, Table],
    limit: float = LIMIT,
) -> Drift:
    """Compares a batch's tables with the histograms of `version`; `limit` is the KL divergence that is refused, in nats."""
    found: dict[str, Skew] = {}
    lost: dict[str, tuple[str, ...]] = {}
    for name, histograms in before.items():
        table = tables.get(name, {})
        common = {column: h for column, h in histograms.features.items() if column in table}
        lost[name] = tuple(column for column in histograms.features if column not in table)
        if common:
            found[name] = skew.compare(
                Histograms(histograms.rows, common), {column: table[column] for column in common}
            )
    drifted = [
        (s.feature_kl[f], f"{name}.{f}") for name, s in found.items() for f in s.flagged_features
    ]
    note = f"drift since {version}: {_told(drifted)}" if drifted else f"no drift since {version}"
    return Drift(Verdict(_refusal(version, drifted, lost, limit), note), found, lost)


def told(drift: Drift) -> dict[str, Any]:
    """The drift as the report holds it: {"note", "rows": [{"table", "feature", "kl", "psi", "ks", "flagged"}]}, worst first."""
    rows = [
        {
            "table": name,
            "feature": f,
            "kl": kl,
            "psi": s.psi[f],
            "ks": s.ks[f],
            "flagged": f in s.flagged_features,
        }
        for name, s in drift.tables.items()
        for f, kl in s.feature_kl.items()
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
        return f"the data drifted by {limit} nats or more since {version}: {_told(far)}; look at the feed"
    return None


def _told(drifted: list[tuple[float, str]]) -> str:
    return ", ".join(f"{name} (KL {kl:.2f})" for kl, name in sorted(drifted, reverse=True))


def _users(dataset: Dataset, rng: np.random.Generator) -> Table:
    """One row for each of SAMPLE users who have events: how many, over what time, one event of theirs, their attributes."""
    events = dataset.events
    offsets = events.offsets()
    users = _drawn(np.flatnonzero(np.diff(offsets)), SAMPLE, rng)
    first, last = offsets[users], offsets[users + 1] - 1
    one = rng.integers(first, last + 1)
    table = {
        "events": last - first + 1,
        "days": (events.time[last] - events.time[first]) // 86_400,
        "weight": events.weight[one],
        "hour": events.time[one] // 3600 % 24,
        "popularity": np.log1p(
            np.bincount(events.item, minlength=events.n_items)[events.item[one]]
        ),
        "categories": dataset.catalogue.membership[events.item[one]].sum(axis=1),
    }
    return table | {
        f"attribute {column}": values for column, values in _attributes(dataset, users).items()
    }


def _attributes(dataset: Dataset, users: Int64) -> Table:
    """Each attribute's labels, a number's being its quantile bin; None where a user has none. Tokens' numbers do not last."""
    vocabulary = dataset.vocabulary
    out: Table = {}
    for a, column in enumerate(vocabulary.columns):
        labels = {token: label for label, token in vocabulary.tokens[a].items()}
        values = [labels.get(token) for token in dataset.attributes[users, a].tolist()]
        out[column] = np.array(values, object)
    return out


def _items(dataset: Dataset) -> Table:
    """One row for each item: its events, its categories, its year."""
    events, catalogue = dataset.events, dataset.catalogue
    return {
        "events": np.bincount(events.item, minlength=events.n_items),
        "categories": catalogue.membership.sum(axis=1),
        "category": np.array([c[0] if c else None for c in catalogue.categories], object),
        "year": catalogue.year,
    }


def _features(dataset: Dataset, model: Model, rng: np.random.Generator) -> Table:
    """One row for each of FEATURE_USERS users: what the ranker sees of a candidate drawn from theirs."""
    events = dataset.events
    users = _drawn(np.flatnonzero(np.diff(events.offsets())), FEATURE_USERS, rng)
    chunks = [users[start : start + USERS_AT_ONCE] for start in range(0, len(users), USERS_AT_ONCE)]
    rows = [_feature_rows(model, _states(events, dataset, chunk), rng) for chunk in chunks]
    together = np.concatenate(rows) if rows else np.empty((0, len(FEATURES)), np.float32)
    return {name: together[:, f] for f, name in enumerate(FEATURES)}


def _states(events: Events, dataset: Dataset, users: Int64) -> UserStates:
    offsets = events.offsets()
    return states_at(events, offsets[users], offsets[users + 1], dataset.attributes[users])


def _feature_rows(
    model: Model, states: UserStates, rng: np.random.Generator
) -> NDArray[np.float32]:
    """float32[users with candidates, F]: the features of one candidate of each."""
    candidates = retrieve(model, states)
    counts = (candidates.items >= 0).sum(axis=1)
    chosen = np.cumsum(counts)[counts > 0] - 1 - rng.integers(0, counts[counts > 0])
    return features(states, Candidates(candidates.items, candidates.scores), model.table)[chosen]


def _drawn(users: Int64, at_most: int, rng: np.random.Generator) -> Int64:
    return np.sort(rng.permutation(users)[:at_most]).astype(np.int64)
