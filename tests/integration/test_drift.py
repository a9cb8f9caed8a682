"""Tests drift of the data since the serving release.

The same data passes; a broken feed is refused.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shortlist.batch import release_drift
from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models import bundle
from shortlist.recsys.models.features import FEATURES, features
from shortlist.recsys.models.pipeline import retrieve
from shortlist.recsys.monitoring import skew
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.release_files import build_manifest


@pytest.fixture(scope="module")
def model(published):
    """The published model."""
    return bundle.load(published.work / "bundle").model


@pytest.fixture(scope="module")
def batch_tables(published, model):
    """The published batch's own tables."""
    return release_drift.tables_of(published.dataset, model)


@pytest.fixture(scope="module")
def before(batch_tables):
    """The histograms that the published release would hold."""
    return {name: skew.histograms(table) for name, table in batch_tables.items()}


def spoilt(dataset, column: str, values: np.ndarray):
    """The data set with another column of events."""
    return replace(dataset, events=replace(dataset.events, **{column: values}))


def test_the_same_batch_does_not_drift(before, batch_tables) -> None:
    """Nothing is flagged, lost or refused."""
    drift = release_drift.compare("r1", before, batch_tables)
    assert drift.verdict == release_drift.Verdict(None, "no drift since r1")
    assert drift.lost == {"users": (), "items": (), "features": ()}
    assert set(drift.tables) == {"users", "items", "features"}


def test_tables_have_one_row_each(published, batch_tables) -> None:
    """One row for each user with events, for each item, and for a candidate of each user.

    Attributes have their own names, features their order.
    """
    events = published.dataset.events
    lengths = {
        name: {len(column) for column in table.values()} for name, table in batch_tables.items()
    }
    active = len(np.unique(events.user))
    assert lengths == {"users": {active}, "items": {events.n_items}, "features": {active}}
    assert list(batch_tables["features"]) == list(FEATURES)
    assert {f"attribute {c}" for c in published.dataset.vocabulary.columns} <= set(
        batch_tables["users"]
    )
    assert int(batch_tables["users"]["events"].sum()) == len(events)


def test_feature_rows_belong_to_their_users(published, model, batch_tables) -> None:
    """Row u is what the ranker sees of one of the candidates of user u."""
    rows = np.column_stack(list(batch_tables["features"].values()))
    states = release_drift._states(
        published.dataset.events, published.dataset, np.unique(published.dataset.events.user)[:20]
    )
    candidates = retrieve(model, states)
    every = features(states, candidates, model.table)
    ends = np.cumsum((candidates.items >= 0).sum(axis=1))
    for user, end in enumerate(ends):
        own = every[0 if user == 0 else ends[user - 1] : end]
        assert (own == rows[user]).all(axis=1).any()


@pytest.mark.parametrize(
    ("column", "spoil", "named"),
    [
        ("weight", lambda e: np.full_like(e.weight, np.nan), "users.weight"),
        ("weight", lambda e: e.weight * 20, "users.weight"),
        ("time", lambda e: e.time // 1000, "users.days"),
    ],
)
def test_broken_feeds_are_refused(published, model, before, column: str, spoil, named: str) -> None:
    """Ratings that vanish, ratings on another scale, times in another unit."""
    dataset = published.dataset
    drift = release_drift.compare(
        "r1", before, release_drift.tables_of(spoilt(dataset, column, spoil(dataset.events)), model)
    )
    assert drift.verdict.refusal is not None
    assert named in drift.verdict.refusal
    assert named in drift.verdict.note


def test_lost_years_and_categories_are_refused(published, model, before) -> None:
    """An items table whose columns turned empty."""
    catalogue = published.dataset.catalogue
    empty = replace(
        catalogue, year=np.full_like(catalogue.year, np.nan), categories=((),) * len(catalogue)
    )
    verdict = release_drift.compare(
        "r1", before, release_drift.tables_of(replace(published.dataset, catalogue=empty), model)
    ).verdict
    assert verdict.refusal is not None
    assert "items.category " in verdict.refusal


def test_lost_attributes_are_refused(before, batch_tables) -> None:
    """An attribute of the earlier release must not vanish; a new one cannot be compared."""
    name = next(column for column in batch_tables["users"] if column.startswith("attribute "))
    fewer = batch_tables | {
        "users": {
            column: values for column, values in batch_tables["users"].items() if column != name
        }
    }
    lost = release_drift.compare("r1", before, fewer)
    assert lost.lost["users"] == (name,)
    assert lost.verdict.refusal == f"the data lost users.{name}, which r1 had: mend the feed"
    less = before | {"users": skew.histograms(fewer["users"])}
    assert release_drift.compare("r1", less, batch_tables).verdict.refusal is None


def test_features_of_older_code_are_ignored(before, batch_tables) -> None:
    """The code may change its features between two releases: those in common are compared."""
    older = before | {
        "features": skew.histograms(
            batch_tables["features"] | {"once": np.arange(len(batch_tables["features"]["year"]))}
        )
    }
    drift = release_drift.compare("r1", older, batch_tables)
    assert drift.lost["features"] == ("once",)
    assert drift.verdict.refusal is None
    assert set(drift.tables["features"].feature_kl) == set(FEATURES)


def test_retriever_score_drift_is_never_refused(before, batch_tables) -> None:
    """Every training gives its scores a scale of its own."""
    scaled = batch_tables["features"] | {
        "retrieval_score": batch_tables["features"]["retrieval_score"] * 10
    }
    verdict = release_drift.compare("r1", before, batch_tables | {"features": scaled}).verdict
    assert verdict.refusal is None
    assert "features.retrieval_score" in verdict.note


def test_the_limit_decides_what_is_refused(published, model, before) -> None:
    """Under a higher limit, the same drift is only reported."""
    dataset = published.dataset
    gone = release_drift.tables_of(
        spoilt(dataset, "weight", np.full_like(dataset.events.weight, np.nan)), model
    )
    assert release_drift.compare("r1", before, gone, limit=100.0).verdict.refusal is None
    assert release_drift.compare("r1", before, gone, limit=1.0).verdict.refusal is not None


def test_a_bundle_carries_the_histograms(published, before, batch_tables, tmp_path: Path) -> None:
    """Histograms are in the manifest, travel with the release, and read back the same."""
    directory = tmp_path / "bundle"
    shutil.copytree(published.work / "bundle", directory)
    release_drift.save(directory, batch_tables)
    fields = json.loads((directory / "manifest.json").read_text())
    fields.pop("files")
    manifest = build_manifest(directory, **fields)
    artefacts = open_artefacts(str(tmp_path / "artefacts"))
    artefacts.publish(directory)
    assert skew.FILE in manifest["files"]
    assert skew.load(directory) == before
    assert (
        release_drift.against_release(artefacts, published.version, batch_tables).verdict.note
        == f"no drift since {published.version}"
    )


def test_a_release_without_histograms_is_noted(published, batch_tables, tmp_path: Path) -> None:
    """An older release is no reason to refuse a new one."""
    directory = tmp_path / "bundle"
    shutil.copytree(published.work / "bundle", directory)
    (directory / skew.FILE).unlink(missing_ok=True)
    fields = json.loads((directory / "manifest.json").read_text())
    fields.pop("files")
    build_manifest(directory, **fields)
    artefacts = open_artefacts(str(tmp_path / "artefacts"))
    artefacts.publish(directory)
    drift = release_drift.against_release(artefacts, published.version, batch_tables)
    assert drift.verdict == release_drift.Verdict(
        None, f"{published.version} holds no histograms to compare with"
    )


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa5users\xa1x"])
def test_unreadable_histograms_are_refused(tmp_path: Path, content: bytes) -> None:
    """Cut short, not msgpack, not a mapping, or not histograms."""
    (tmp_path / skew.FILE).write_bytes(content)
    with pytest.raises(CorruptArtefact, match="publish"):
        skew.load(tmp_path)


def test_short_tables_are_left_out(batch_tables, tmp_path: Path) -> None:
    """A world of few items has no histogram of them, and everything else is kept."""
    short = {column: values[:5] for column, values in batch_tables["items"].items()}
    release_drift.save(tmp_path, batch_tables | {"items": short})
    assert set(skew.load(tmp_path) or {}) == {"users", "features"}
