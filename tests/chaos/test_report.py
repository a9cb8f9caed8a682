"""Checks docs/reliability.md against the saved counts.

The counts have no violations.
"""

from __future__ import annotations

import json

from tests.chaos import report
from tests.chaos.__main__ import WHOLE
from tests.chaos.campaign import FUZZERS, SIZES, Outcome

COUNTS = json.loads(report.COUNTS.read_text())


def test_page_matches_counts() -> None:
    """The page is generated from the counts, not edited."""
    assert report.PAGE.read_text() == report.page(COUNTS)


def test_last_campaign_found_nothing() -> None:
    """The last saved campaign tried every kind, and has no violation."""
    kinds = COUNTS["kinds"]
    assert set(kinds) == set(report.ATTACKS) == set(WHOLE) == set(SIZES)
    violations = {kind: counts["violations"] for kind, counts in kinds.items()}
    assert violations == dict.fromkeys(WHOLE, 0)
    assert all(counts["cases"] > 0 for counts in kinds.values())


def test_whole_campaign_is_large() -> None:
    """A whole campaign has at least 500 scenarios and 200,000 other cases."""
    assert WHOLE["faults"] >= 500
    assert sum(count for kind, count in WHOLE.items() if kind != "faults") >= 200_000
    assert set(FUZZERS) == set(WHOLE) - {"faults", "bundles"}


def test_page_shows_violations_and_load() -> None:
    """The page shows violations, unfinished plans, faults and the load table."""
    counts = {"fault: Redis is away": 3, "requests": 70}
    faults = {"cases": 5, "planned": 5, "violations": 1, "counts": counts}
    api = {"cases": 1200, "planned": 2000, "violations": 2, "counts": {"api: 200": 1200}}
    kinds = {
        "faults": {"command": "make chaos", **faults},
        "api": {"command": "run --only api", **api},
    }
    saved = {"load": "40%  ok", "kinds": kinds}
    text = report.page(saved)
    assert "| runs of a whole service under faults | 5 | 1 |" in text
    assert "| 1,200 of 2,000: the time was over | 2 |" in text
    assert "| Redis is away | 3 |" in text
    assert "Written by `make chaos` and `run --only api`." in text
    assert "| api | 200 | 1,200 |" in text
    assert "```text\n40%  ok\n```" in text


def test_one_kind_again(tmp_path, monkeypatch) -> None:
    """A run of one kind replaces its counts, and keeps those of the others and the load table."""
    monkeypatch.setattr(report, "COUNTS", tmp_path / "counts.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    first = {"api": Outcome("api", 9, findings=["a"]), "tables": Outcome("tables", 5)}
    report.save(first, {"api": 9, "tables": 5}, "all", "t")
    report.save({"api": Outcome("api", 8)}, {"api": 8}, "again", "")
    saved = json.loads(report.COUNTS.read_text())
    assert [(k, v["command"], v["cases"], v["violations"]) for k, v in saved["kinds"].items()] == [
        ("api", "again", 8, 0),
        ("tables", "all", 5, 0),
    ]
    assert saved["load"] == "t"
