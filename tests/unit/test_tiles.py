"""Tests the tiles at the top of a report: each question's answer, detail and mood."""

from __future__ import annotations

from typing import Any

import pytest

from shortlist.recsys.evaluation.tiles import Tile, tiles
from tests.reports import full, minimal


def tile(report: dict[str, Any], question: str) -> Tile | None:
    return next((each for each in tiles(report) if each.question == question), None)


def test_full_report_answers_all() -> None:
    """The whole tiles of a release that beats its baselines, with a check that failed."""
    assert tiles(full()) == [
        Tile(
            "Is it good?",
            "Better than the strongest baseline",
            "25.0% more than recent_ease, the strongest baseline: NDCG@10 0.2000, that one 0.1600",
            "good",
        ),
        Tile(
            "Can it be trusted?",
            "A check has failed",
            "1 of 2 checks held; 943 users measured: Nothing seen is recommended.",
            "bad",
        ),
        Tile(
            "May it serve?",
            "Yes",
            "it beats popularity, and is not far below the serving release",
            "good",
        ),
        Tile(
            "Is it fresh?",
            "Newest event 40 hours old",
            "newest event of 2026-11-25, report of 2026-11-27",
            "plain",
        ),
        Tile(
            "What changed?",
            "NDCG@10 +0.0100",
            "0.1900 to 0.2000 since v1, on the same events; +25.0% events; "
            "1 of 2 distributions drifted",
            "plain",
        ),
    ]


def test_unknown_questions_have_no_tile() -> None:
    """Methods alone say how good they are, and that nothing compares them user by user."""
    (only,) = tiles(minimal())
    assert (only.question, only.answer, only.mood) == ("Is it good?", "Not compared", "open")


@pytest.mark.parametrize(
    ("low", "high", "answer", "mood"),
    [
        (-0.01, 0.01, "Not told apart from a baseline", "open"),
        (-0.02, -0.01, "Worse than the strongest baseline", "bad"),
    ],
)
def test_draws_and_losses_are_told(low: float, high: float, answer: str, mood: str) -> None:
    """Only an interval above zero is called better."""
    report = full()
    report["paired"]["two_stage"]["recent_ease"] |= {"low": low, "high": high}
    good = tile(report, "Is it good?")
    assert good is not None
    assert (good.answer, good.mood) == (answer, mood)


def test_few_users_shake_the_trust() -> None:
    """Where all checks held, the warning of a small sample still stands in the tile."""
    report = full()
    for check in report["audit"]:
        check["outcome"] = "held"
    report["methods"]["two_stage"]["n_users"] = 29
    trusted = tile(report, "Can it be trusted?")
    assert trusted is not None
    assert (trusted.answer, trusted.mood) == ("Few users: see the warning", "open")


def test_small_parts_leave_the_trust() -> None:
    """A part of few users is told, and does not shake figures that rest on enough."""
    report = full()
    for check in report["audit"]:
        check["outcome"] = "held"
    report["methods"]["two_stage"]["n_users"] = 30
    for warnings, more in ((["few users by kind"], True), ([], False)):
        sound = tile(report | {"warnings": warnings}, "Can it be trusted?")
        assert sound is not None
        assert (sound.answer, sound.mood) == ("The checks held", "good")
        assert sound.detail.endswith("in some parts few: see the warning") is more


@pytest.mark.parametrize(
    ("changes", "answer", "detail", "mood"),
    [
        ({"refusals": ["far drift"]}, "No", "far drift", "bad"),
        ({"refusals": ["far drift"], "is_gated": False}, "The gate is off", "far drift", "open"),
        ({"is_gated": False}, "The gate is off", "nothing is refused", "open"),
        (
            {"serving": None, "gate": "beats popularity; no release was serving; +1 against it"},
            "Yes",
            "beats popularity; no release was serving",
            "good",
        ),
    ],
)
def test_gate_has_its_word(changes: dict[str, Any], answer: str, detail: str, mood: str) -> None:
    """A refusal is told, also where the gate is off and the release serves all the same."""
    serves = tile(full() | changes, "May it serve?")
    assert serves == Tile("May it serve?", answer, detail, mood)


@pytest.mark.parametrize(
    ("latest", "answer"), [(1_795_744_001, "Events from the future"), (99, "Unknown")]
)
def test_odd_times_are_told(latest: int, answer: str) -> None:
    """An event after the report, and data whose times are sequence numbers."""
    report = full()
    report["data"]["latest"] = latest
    fresh = tile(report, "Is it fresh?")
    assert fresh is not None
    assert fresh.answer == answer


@pytest.mark.parametrize(
    ("serving", "answer", "detail"),
    [
        (None, "First release", "no release was serving to compare with"),
        ({"version": "v1", "compared": None}, "Not compared", "no figure to compare with since v1"),
    ],
)
def test_nothing_to_compare_is_told(serving: Any, answer: str, detail: str) -> None:
    """Without a serving release, and with one that is gone."""
    report = full() | {"serving": serving, "drift": {"note": "none", "rows": []}}
    assert tile(report, "What changed?") == Tile("What changed?", answer, detail, "plain")
