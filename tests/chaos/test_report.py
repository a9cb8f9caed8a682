"""The page of the campaign is what its counts make, and shows zeros where there must be zeros."""

from __future__ import annotations

import json

from tests.chaos import report
from tests.chaos.__main__ import WHOLE
from tests.chaos.campaign import FUZZERS, SIZES

TOLD = json.loads(report.COUNTS.read_text())


def test_the_page_is_of_the_counts() -> None:
    """Nobody wrote in it."""
    assert report.PAGE.read_text() == report.page(TOLD)


def test_every_kind_was_tried_and_nothing_was_found() -> None:
    """Of the last campaign that wrote the page."""
    assert set(TOLD["kinds"]) == set(report.ATTACKS) == set(WHOLE) == set(SIZES)
    assert {kind: told["violations"] for kind, told in TOLD["kinds"].items()} == dict.fromkeys(
        WHOLE, 0
    )
    assert all(told["cases"] > 0 for told in TOLD["kinds"].values())


def test_a_whole_campaign_is_large() -> None:
    """500 runs at least, and 200,000 other cases."""
    assert WHOLE["faults"] >= 500
    assert sum(count for kind, count in WHOLE.items() if kind != "faults") >= 200_000
    assert set(FUZZERS) == set(WHOLE) - {"faults", "bundles"}


def test_violations_and_loads_are_shown() -> None:
    """With their numbers, in their places."""
    counts = {"fault: Redis is away": 3, "requests": 70}
    told = {
        "command": "make chaos",
        "load": "40%  ok",
        "kinds": {
            "faults": {"cases": 5, "planned": 5, "violations": 1, "counts": counts},
            "api": {"cases": 1200, "planned": 2000, "violations": 2, "counts": {"api: 200": 1200}},
        },
    }
    text = report.page(told)
    assert "| runs of a whole service under faults | 5 | 1 |" in text
    assert "| 1,200 of 2,000: the time was over | 2 |" in text
    assert "| Redis is away | 3 |" in text
    assert "| api | 200 | 1,200 |" in text
    assert "```\n40%  ok\n```" in text
