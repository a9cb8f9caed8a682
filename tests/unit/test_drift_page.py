"""Checks docs/drift.md against its measurements.

The page shows what was measured, and what was measured holds the promise.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shortlist.infra.tools import skew_study

REPORT = json.loads(skew_study.REPORT.read_text())


def test_page_matches_the_report() -> None:
    """No figure on it is typed by hand."""
    assert skew_study.PAGE.read_text() == skew_study.page(REPORT) + "\n" * (
        not skew_study.page(REPORT).endswith("\n")
    )


def test_false_alarms_at_every_size() -> None:
    """From a hundred rows to a million, at most one run in a hundred was flagged."""
    assert {row["train"] for row in REPORT["null"]} == {100, 1000, 10_000, 100_000, 1_000_000}
    assert [row for row in REPORT["null"] if row["flagged"] > row["runs"] / 100] == []


def test_who_asks_is_told_from_skew() -> None:
    """At most 1% of the runs are flagged for who asks; a spoilt feature nearly always is."""
    for row in REPORT["askers"]:
        if row["moved"]:
            assert row["strata"] >= 0.95 * row["runs"]
        else:
            assert row["strata"] <= row["runs"] / 100
            assert row["factor"] == 1.0 or row["alone"] > row["runs"] / 2


def test_detections_rise_with_what_was_done() -> None:
    """Almost never without a change, almost always with the largest, from 1,000 rows on."""
    for curves in REPORT["power"].values():
        for curve in curves:
            assert curve["shares"][0] <= 0.01
            assert curve["shares"][-1] == pytest.approx(1, abs=0.01) or curve["rows"] == 100


def test_measurements_use_the_check() -> None:
    """A run on identical tables, and one whose feature moved by three standard deviations."""
    rng = np.random.default_rng(1)
    counts = skew_study.false_alarms(rng, 100, 200, 20)
    assert (counts["runs"], counts["flagged"]) == (20, 0)
    assert counts["thumb"] > 10
    curve = skew_study.detections(rng, "shift", 200, 5)
    assert curve["shares"][-1] == 1.0
    assert curve["shares"][0] == 0.0


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    """As SVG, with its three panels, the same bytes each time."""
    skew_study.figure(REPORT, tmp_path / "a.svg")
    skew_study.figure(REPORT, tmp_path / "b.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.count('<g id="axes_') == 3
    assert drawn == (tmp_path / "b.svg").read_text()
