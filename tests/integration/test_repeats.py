"""Tests repeats from tables to lists, in a world where most events are repeats."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from shortlist.batch import dataset_file, offline_evaluation
from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.precompute import read_shards
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.evaluation.page import render
from shortlist.recsys.evaluation.repeats_note import FEW_REPEATS, repeats_note
from shortlist.recsys.evaluation.report import Report, repeats_table
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.records import unpack_list
from shortlist.recsys.training.split import cuts
from tests.smallest import smallest

DAY = 86_400
START = 1_700_000_000
N_USERS, N_ITEMS = 120, 60
STAPLES = 20
"""The first items, which come back: those of even rows after 6 days, of odd ones after 30."""


def refills(seed: int) -> pl.DataFrame:
    """Purchases of half a year: each user's five staples when they are due, and new items."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(N_USERS):
        for item in rng.permutation(STAPLES)[:5].tolist():
            interval = 30.0 if item % 2 else 6.0
            day = rng.uniform(0, interval)
            while day < 180:
                rows.append((f"u{user}", f"i{item}", START + int(day * DAY)))
                day += interval * rng.uniform(0.9, 1.1)
        others = STAPLES + (user % 4) * 10 + rng.permutation(10)[:8]
        for item, day in zip(others.tolist(), rng.uniform(0, 180, 8), strict=True):
            rows.append((f"u{user}", f"i{item}", START + int(day * DAY)))
    return pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module")
def environ(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a small model in a namespace of its own."""
    directory = tmp_path_factory.mktemp("repeats")
    refills(0).write_parquet(directory / "interactions.parquet")
    return {
        "REDIS_URL": valkey_url,
        "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
        "SHORTLIST_NAMESPACE": "repeats",
        "SHORTLIST_BUNDLE_DIR": str(directory),
        "EMBEDDING_DIM": "16",
        "TOP_K_CANDIDATES": "40",
        "LGBM_N_ESTIMATORS": "60",
        "SHORTLIST_THREADS": "1",
        "SHORTLIST_REPEATS": "allow",
    }


@pytest.fixture(scope="module")
def work(environ: dict[str, str]) -> Path:
    """The work directory of a release that may offer again what a user had."""
    directory = Path(environ["SHORTLIST_BUNDLE_DIR"])
    silent = ProgressReporter(Console(file=io.StringIO()))
    interactions = str(directory / "interactions.parquet")
    settings = Settings.from_env(environ)
    params = smallest(settings)
    run_job(Job(interactions, None, None, directory / "work", settings, silent, config=params))
    return directory / "work"


@pytest.fixture(scope="module")
def report(work: Path) -> Report:
    """The comparison on the world's hold-out."""
    return json.loads((work / "metrics.json").read_text())


def test_lists_offer_what_is_due(work) -> None:
    """Most begin with an item that the user had; the live path agrees, or it would not publish."""
    loaded = bundle.load(work / "bundle")
    assert (loaded.manifest["repeats"], loaded.model.repeats) == ("allow", Repeats.ALLOW)
    begins_with_own = []
    for user in read_shards(work / "lists", loaded.manifest["version"]):
        had = {loaded.catalogue.row_of[item] for item in (*user.record.items, *user.record.seen)}
        begins_with_own.append(unpack_list(user.packed).rows[0] in had)
    assert np.mean(begins_with_own) > 0.5


def test_two_stages_lead_own_items(report) -> None:
    """By when an item is due, which neither its frequency nor its recency tells."""
    rivals = ("own_frequent", "own_recent", "tifu_knn")
    values = {name: row["ndcg@10"]["value"] for name, row in report["methods"].items()}
    assert all(values["two_stage"] > values[name] + 0.02 for name in rivals), values
    for part in ("new", "repeated"):
        methods = report["repeats"]["parts"][part]["methods"]
        values = {name: row["ndcg@10"]["value"] for name, row in methods.items()}
        assert all(values["two_stage"] > values[name] for name in rivals), (part, values)


def test_report_tells_parts_apart(report) -> None:
    """Each part has all methods, and its differences; terminal and page show them."""
    parts = report["repeats"]["parts"]
    assert list(parts) == ["new", "repeated"]
    assert all(part["methods"].keys() == report["methods"].keys() for part in parts.values())
    assert all("own_frequent" in part["paired"]["two_stage"] for part in parts.values())
    table = repeats_table(report)
    assert table is not None
    assert [str(column.header) for column in table.columns] == ["method", "all", "new", "repeated"]
    page = render(report)
    assert "New and repeated items" in page
    assert "Repeated items: NDCG@10" in page


def test_never_says_what_it_misses(work) -> None:
    """The share of what is held out, and the setting that would offer it."""
    dataset = dataset_file.load(work)
    cut = cuts(dataset.events, "last-10pct")
    counted = offline_evaluation.count_repeats(dataset, cut, Repeats.NEVER)
    pairs = {*zip(dataset.events.user.tolist(), dataset.events.item.tolist(), strict=True)}
    assert counted["events"] == pytest.approx(1 - len(pairs) / len(dataset.events))
    note = repeats_note(counted)
    assert note is not None
    assert "set SHORTLIST_REPEATS=allow" in note
    assert f"{counted['held_out']:.1%} of the held-out items" in note
    few = counted | {"held_out": FEW_REPEATS}
    assert repeats_note(few) is None
    assert repeats_note(counted | {"mode": "allow"}) is None


def test_nothing_but_repeats_is_refused_with_remedy(work) -> None:
    """Under NEVER nothing can be evaluated; with repeats allowed all of it can."""
    dataset = dataset_file.load(work)
    events = dataset.events
    own = np.zeros(len(events), np.int32) + events.user
    habits = replace(dataset, events=replace(events, item=own % N_ITEMS))
    cut = cuts(habits.events, "last-10pct")
    with pytest.raises(InvalidData, match="set SHORTLIST_REPEATS=allow"):
        offline_evaluation.truth_after(habits, cut)
    truth = offline_evaluation.truth_after(habits, cut, Repeats.ALLOW)
    assert truth.counts.tolist() == [1] * N_USERS
