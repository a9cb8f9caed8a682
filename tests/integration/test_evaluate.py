"""Runs `shortlist evaluate`: a table, a JSON file, a page."""

from __future__ import annotations

import json

import polars as pl
import pytest
from click.testing import CliRunner

from shortlist.batch import cold_start
from shortlist.batch.cli import main
from shortlist.recsys import data
from shortlist.recsys.errors import InvalidData

SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "40",
    "LGBM_N_ESTIMATORS": "20",
    "SHORTLIST_THREADS": "1",
}


def run(tables, *more: str):
    paths = [
        f"--{name}={tables / f'{name}.parquet'}" for name in ("interactions", "items", "users")
    ]
    return CliRunner().invoke(main, ["evaluate", *paths, *more], env=SMALL, catch_exceptions=False)


def test_report_has_cold_starts_and_page(tables, tmp_path, monkeypatch) -> None:
    """The report has fresh users and new items, and the page shows both and every method."""
    monkeypatch.setattr(cold_start, "MIN_USERS", 10)
    done = run(
        tables, "--cold-start", f"--json={tmp_path / 'r.json'}", f"--report={tmp_path / 'out'}"
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["events"] for row in report["fresh_users"]] == [1, 3, 5, 10]
    for row in report["fresh_users"]:
        assert 0 <= row["fresh"]["low"] <= row["fresh"]["value"] <= row["fresh"]["high"] <= 1
        assert row["popularity"].keys() == row["retrained"].keys() == row["fresh"].keys()
    assert report["new_items"]["n_items"] == 12
    assert report["new_items"]["random"] == 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (
        "two_stage",
        "bpr_towers",
        "als",
        "Users that training has not seen",
        "Items that training has not seen",
    ):
        assert text in page


def test_small_data_leaves_cold_starts_out(tables, reporter, monkeypatch) -> None:
    """A figure of fifteen users would say nothing."""
    loaded = data.load(
        *(str(tables / f"{name}.parquet") for name in ("interactions", "items", "users"))
    )
    assert cold_start.cold_start(loaded.dataset, "last-10pct", None, reporter) == {}


@pytest.fixture
def rated(tmp_path):
    """Six rated interactions, one of them without a rating."""
    path = tmp_path / "rated.parquet"
    columns = {
        "user_id": [1, 1, 1, 2, 2, 2],
        "item_id": [1, 2, 3, 1, 2, 3],
        "timestamp": [1, 2, 3, 1, 2, 3],
    }
    pl.DataFrame({**columns, "rating": [5.0, 4.0, 1.0, None, 3.5, 4.5]}).write_parquet(path)
    return str(path)


def test_only_positive_ratings_count(rated) -> None:
    """Lower or missing ratings are left out with a note, and are not rejected."""
    loaded = data.load(rated, positive_rating=4.0)
    assert loaded.dataset.events.weight.tolist() == [5.0, 4.0, 4.5]
    assert loaded.notes[0] == "interactions: 3 of 6 are rated below 4.0, and left out"
    assert loaded.rejects == {}


@pytest.mark.parametrize(
    ("column", "message"), [("rating", "the best is 5.0"), (None, "there is no rating at all")]
)
def test_unreachable_rating_bound_is_refused(rated, column, message, tmp_path) -> None:
    """With the best rating there is."""
    if column is None:
        pl.read_parquet(rated).drop("rating").write_parquet(rated)
    with pytest.raises(InvalidData, match=message):
        data.load(rated, positive_rating=6.0)
