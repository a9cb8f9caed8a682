"""Evaluates named methods alone, from Python and from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

import shortlist
from shortlist.batch import offline_evaluation
from shortlist.batch.cli import main
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.evaluation.names import COMPARED

PARAMS = shortlist.FitParams(
    towers=shortlist.TowerParams(dimension=8, rounds=2, round_steps=5),
    ranker=shortlist.RankerParams(estimators=10),
    n_candidates=40,
    threads=1,
)

OF_MODEL = {
    "audit",
    "calibration",
    "candidate_recall",
    "examples",
    "importances",
    "known_events",
    "learning_curves",
    "ranker",
    "recall_by_source",
}
"""The sections of a report that are about the two stages beside their figures."""


@pytest.fixture(scope="module")
def data() -> shortlist.Data:
    """A small world in which items come again."""
    made = world(WorldSize(n_users=100, n_items=60, events_per_user=20, seed=3))
    return shortlist.read(made.interactions, items=made.items, users=made.users)


def evaluated(data: shortlist.Data, methods: list[str] | None) -> shortlist.Evaluation:
    """An evaluation in which what a user had may come again, as all methods need it."""
    return shortlist.evaluate(data, repeats="allow", params=PARAMS, methods=methods)


@pytest.fixture(scope="module")
def whole(data) -> shortlist.Evaluation:
    """The evaluation of all methods."""
    return evaluated(data, None)


def figures(report: Mapping[str, object], methods: list[str]) -> dict[str, object]:
    """What a report says of these methods, as text that keeps every bit."""
    found = {name: {m: report["methods"][m] for m in methods} for name in ("methods",)}
    found["paired"] = {a: {b: report["paired"][a][b] for b in methods if a != b} for a in methods}
    found["segments"] = [
        {m: row["methods"][m] for m in methods}
        for rows in report["segments"].values()
        for row in rows
    ]
    found["popularity"] = [{m: p[m] for m in methods} for p in report["popularity"].values()]
    found["parts"] = {
        name: {m: part["methods"][m] for m in methods}
        for name, part in report["repeats"]["parts"].items()
    }
    return json.loads(json.dumps(found), parse_float=str)


@pytest.mark.parametrize(
    "methods",
    [
        *([name] for name in COMPARED if name not in ("bpr_towers", "retriever", "two_stage")),
        ["recent_ease", "tifu_knn", "popularity"],
        ["retriever", "ease"],
    ],
    ids=",".join,
)
def test_figures_are_the_whole_reports(data, whole, methods) -> None:
    """Bit for bit, and nothing of the model is there."""
    alone = evaluated(data, methods).report
    assert set(alone["methods"]) == set(methods)
    assert figures(alone, methods) == figures(whole.report, methods)
    assert OF_MODEL.isdisjoint(alone)


def test_two_stages_keep_their_sections(data, whole) -> None:
    """All that the whole report has of the model."""
    methods = ["two_stage", "popularity"]
    alone = evaluated(data, methods)
    assert figures(alone.report, methods) == figures(whole.report, methods)
    assert {name: alone.report[name] for name in OF_MODEL - {"audit"}} == {
        name: whole.report[name] for name in OF_MODEL - {"audit"}
    }
    assert set(alone.report) == set(whole.report)
    assert "two_stage" in repr(alone)


def test_nothing_else_is_fitted(data, monkeypatch) -> None:
    """Neither the two stages, nor what is trained, nor the other baselines."""
    for name in ("fit_two_stage", "fit_als", "train_towers", "ease_weights", "item_knn_weights"):
        monkeypatch.setattr(offline_evaluation, name, None)
    found = evaluated(data, ["popularity", "own_recent"])
    assert list(found.report["methods"]) == ["popularity", "own_recent"]
    assert "popularity" in repr(found)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["popularity", "foo"], "methods has 'foo': give some of popularity, "),
        ([], "methods has nothing"),
        ("popularity", "methods is 'popularity': give a list"),
    ],
)
def test_wrong_methods_are_refused(data, methods, message) -> None:
    """The sentence names what there is."""
    with pytest.raises(InvalidInput, match=re.escape(message)):
        shortlist.evaluate(data, methods=methods)


def test_ruled_out_methods_are_refused(data, monkeypatch) -> None:
    """Before anything is fitted, with the rule."""
    monkeypatch.setattr(offline_evaluation, "fit_two_stage", None)
    with pytest.raises(InvalidInput, match="'tifu_knn' cannot be measured here: what a user had"):
        shortlist.evaluate(data, methods=["two_stage", "tifu_knn"])
    monkeypatch.setattr(offline_evaluation, "MAX_REGRESSION_ITEMS", 59)
    with pytest.raises(InvalidInput, match="'ease' cannot be measured here: it takes at most 59"):
        shortlist.evaluate(data, methods=["two_stage", "ease"])


def test_cold_start_needs_two_stages(data) -> None:
    """It measures nothing else."""
    with pytest.raises(InvalidInput, match="cold_start measures two_stage"):
        shortlist.evaluate(data, methods=["ease"], cold_start=True)


class Rows(HTMLParser):
    """The number of cells in each row of a page's tables."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[int]] = []

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        """Counts."""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1


@pytest.mark.parametrize("methods", [["ease", "popularity"], ["popularity"], ["retriever"]])
def test_page_is_whole_without_two_stages(data, tmp_path, methods) -> None:
    """Rows have as many cells as their headings, and no column compares with what is absent."""
    evaluated(data, methods).write_page(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    rows = Rows()
    rows.feed(page)
    assert len(rows.tables) > 2
    assert all(len(set(table)) == 1 for table in rows.tables)
    assert "two_stage" not in page


@pytest.fixture
def paths(data) -> list[str]:
    """The tables, as arguments."""
    tables = data.tables
    return [f"--interactions={tables.interactions}", f"--items={tables.items}"]


def test_command_reports_named_methods(paths, tmp_path) -> None:
    """The table, the summary, the JSON and the page have these methods alone."""
    where = [f"--json={tmp_path / 'r.json'}", f"--report={tmp_path}"]
    rejects = f"--rejects={tmp_path / 'rejects.parquet'}"
    arguments = ["evaluate", *paths, "--methods", "ease, popularity", *where, rejects]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert list(json.loads((tmp_path / "r.json").read_text())["methods"]) == ["popularity", "ease"]
    assert "users left out: 2 with one event" in done.stdout
    assert "candidate recall" not in done.stdout
    assert "two_stage" not in done.stdout
    assert "ease" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "popularity,foo"], "'foo' is no method: the methods are popularity, "),
        (["--methods", ""], "'' is no method"),
        (["--methods=ease", "--cold-start"], "--cold-start measures two_stage"),
    ],
)
def test_command_refuses_wrong_methods(arguments, sentence) -> None:
    """In one line, before the data are looked for."""
    command = [sys.executable, "-m", "shortlist", "evaluate", "--data=absent.toml", *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 5  # a fifth of a second on an idle machine
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
