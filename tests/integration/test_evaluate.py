"""Runs `shortlist evaluate`: a table, a JSON file, a page."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import polars as pl
import pytest
from click.testing import CliRunner

from shortlist.batch import cold_start
from shortlist.batch.cli import main
from shortlist.recsys import data
from shortlist.recsys.errors import InvalidData
from tests.smallest import smallest_config

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
    written = (f"--json={tmp_path / 'r.json'}", f"--report={tmp_path / 'out'}")
    done = run(tables, "--cold-start", *written, f"--config={smallest_config(tmp_path)}")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row["events"] for row in report["fresh_users"]] == [1, 3, 5, 10]
    for row in report["fresh_users"]:
        assert 0 <= row["fresh"]["low"] <= row["fresh"]["value"] <= row["fresh"]["high"] <= 1
        assert row["popularity"].keys() == row["retrained"].keys() == row["fresh"].keys()
    assert report["new_items"]["n_items"] == 12
    assert report["new_items"]["random"] == 1.0
    assert "The two-stage recommender reaches an NDCG@10 of" in done.output
    assert "users left out: 3 with no event" in done.output
    assert report["new_items"]["retriever"]["value"] == 1.0
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (
        "two_stage",
        "bpr_towers",
        "als",
        "What training has not seen",
        "Figures of fresh users",
        "items kept out of training",
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


def test_mapping_file_stands_for_the_tables(tables, tmp_path) -> None:
    """Another separator, other names and returns go in by --data alone; rejects are printed."""
    frame = pl.read_parquet(tables / "interactions.parquet").rename(
        {"user_id": "CustomerNo", "item_id": "SKU", "timestamp": "Date"}
    )
    bad = pl.DataFrame({"CustomerNo": ["u"], "SKU": ["nowhere"], "Date": [1]})
    pl.concat([frame, bad], how="diagonal_relaxed").write_csv(tmp_path / "o.csv", separator=";")
    (tmp_path / "data.toml").write_text(
        '[interactions]\npaths = ["o.csv"]\ncsv = { separator = ";" }\n'
        'columns = { user_id = "CustomerNo", item_id = "SKU", timestamp = "Date" }\n'
        f'[items]\npaths = ["{tables}/items.parquet"]\n'
    )
    rejects = tmp_path / "rejects.parquet"
    arguments = [f"--data={tmp_path / 'data.toml'}", f"--rejects={rejects}"]
    arguments.append(f"--config={smallest_config(tmp_path)}")
    done = CliRunner().invoke(
        main, ["evaluate", *arguments, f"--json={tmp_path / 'r.json'}"], env=SMALL
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["data"]["rejects"] == {"unknown item": 1}
    assert "rejected: 1 rows: unknown item" in done.output
    assert str(rejects) in done.output.replace("\n", "")
    assert pl.read_parquet(rejects)["row"].to_list() == [frame.height + 1]


@pytest.mark.parametrize("command", ["evaluate", "tune", "batch run", "batch features"])
def test_data_is_named_once(command, tmp_path) -> None:
    """By a mapping file or by tables, and a fault is reported before anything is imported."""
    run_with = partial(CliRunner().invoke, main)
    assert "leave out --users" in run_with([*command.split(), "--data=x", "--users=y"]).output
    assert "give --interactions PATH, or --data" in run_with(command.split()).output
    (tmp_path / "data.toml").write_text('[interactions]\npaths = ["gone.csv"]\n')
    done = run_with([*command.split(), f"--data={tmp_path / 'data.toml'}"])
    assert (done.exit_code, "there is no file" in done.output) == (2, True)


def test_faults_are_told_early(tmp_path) -> None:
    """A missing column is refused by a process that has not loaded torch."""
    (tmp_path / "a.csv").write_text("a;b\n1;2\n")
    script = (
        "import sys; from shortlist.batch.cli import main\n"
        f"try: main(['evaluate', '--interactions', {str(tmp_path / 'a.csv')!r}])\n"
        "except SystemExit: print({'torch', 'faiss', 'lightgbm', 'duckdb'} & set(sys.modules))"
    )
    program = [sys.executable, "-c", script]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert ("parted by semicolons" in done.stderr, done.stdout) == (True, "set()\n")
