"""Answers a reader's first questions in one tile each.

Is it good, can it be trusted, may it serve, is it fresh, and what has changed: what a page has at
its top. A question that the report knows nothing of has no tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from shortlist.recsys.evaluation.figures import (
    age,
    as_float,
    day,
    known,
    number,
    share,
)
from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    TWO_STAGE,
    Standing,
    amount,
    pair_of,
    standing,
    strongest_baseline,
)
from shortlist.recsys.evaluation.names import METRICS
from shortlist.recsys.evaluation.small_samples import is_few
from shortlist.recsys.values import FIRST_CLOCK_TIME

GOOD, OPEN, BAD, PLAIN = "good", "open", "bad", "plain"
"""Moods of a tile. A sign and a word say the same as the colour."""

_METRIC = METRICS[HEADLINE_METRIC].label


class Tile(NamedTuple):
    """A question, its answer in a few words, what the answer rests on, and its mood."""

    question: str
    answer: str
    detail: str
    mood: str


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """The tiles of a report, the most important first."""
    found = (_good(report), _trusted(report), _serves(report), _fresh(report), _changed(report))
    return [tile for tile in found if tile is not None]


def _good(report: Mapping[str, Any]) -> Tile | None:
    methods, question = report["methods"], "Is it good?"
    ours = known(methods.get(TWO_STAGE, {}).get(HEADLINE_METRIC))
    rival = strongest_baseline(methods)
    if not math.isfinite(ours.value) or rival is None:
        return None
    theirs = known(methods[rival][HEADLINE_METRIC]).value
    detail = (
        f"{amount(ours.value, theirs)} than {rival}, the strongest baseline: "
        f"{_METRIC} {number(ours.value)}, that one {number(theirs)}"
    )
    answers = {
        Standing.BETTER: ("Better than the strongest baseline", GOOD),
        Standing.WORSE: ("Worse than the strongest baseline", BAD),
        Standing.OPEN: ("Not told apart from a baseline", OPEN),
        Standing.UNKNOWN: ("Not compared", OPEN),
    }
    answer, mood = answers[standing(pair_of(report, rival))]
    return Tile(question, answer, detail, mood)


def _trusted(report: Mapping[str, Any]) -> Tile | None:
    checks, warnings = report.get("audit"), report.get("warnings") or []
    if not checks:
        return None
    broken = [check["check"] for check in checks if check["outcome"] != "held"]
    n_users = report["methods"].get(TWO_STAGE, {}).get("n_users")
    counted = "" if n_users is None else f"; {n_users:,} users measured"
    detail = f"{len(checks) - len(broken)} of {len(checks)} checks held{counted}"
    question = "Can it be trusted?"
    if broken:
        return Tile(question, "A check has failed", f"{detail}: {'; '.join(broken)}", BAD)
    if n_users is not None and is_few(n_users):
        return Tile(question, "Few users: see the warning", detail, OPEN)
    if warnings:
        detail += ", in some parts few: see the warning"
    return Tile(question, "The checks held", detail, GOOD)


def _serves(report: Mapping[str, Any]) -> Tile | None:
    if not report.get("gate"):
        return None
    question, refusals = "May it serve?", report.get("refusals") or []
    if refusals and report.get("is_gated", True):
        return Tile(question, "No", "; ".join(refusals), BAD)
    if not report.get("is_gated", True):
        return Tile(question, "The gate is off", "; ".join(refusals) or "nothing is refused", OPEN)
    if (report.get("serving") or {}).get("compared"):
        reason = "it beats popularity, and is not far below the serving release"
    else:
        # The last part is for the record: the differences from other methods.
        reason = report["gate"].rpartition("; ")[0]
    return Tile(question, "Yes", reason, GOOD)


def _fresh(report: Mapping[str, Any]) -> Tile | None:
    latest = as_float((report.get("data") or {}).get("latest"))
    made_at = as_float(report.get("made_at"))
    if not (math.isfinite(latest) and math.isfinite(made_at)):
        return None
    question = "Is it fresh?"
    if latest < FIRST_CLOCK_TIME:
        return Tile(question, "Unknown", "times of the data are numbers, not a clock's", PLAIN)
    detail = f"newest event of {day(latest)}, report of {day(made_at)}"
    if latest > made_at:
        ahead = f"the newest is {age(latest - made_at)} later than the report of {day(made_at)}"
        return Tile(question, "Events from the future", ahead, OPEN)
    return Tile(question, f"Newest event {age(made_at - latest)} old", detail, PLAIN)


def _changed(report: Mapping[str, Any]) -> Tile | None:
    serving, question = report.get("serving"), "What changed?"
    if not report.get("gate"):
        return None
    if not serving:
        return Tile(question, "First release", "no release was serving to compare with", PLAIN)
    compared, since = serving.get("compared"), f"since {serving['version']}"
    if not compared:
        parts = [f"no figure to compare with {since}", *_moved(report, serving)]
        return Tile(question, "Not compared", "; ".join(parts), PLAIN)
    before, now = as_float(compared["serving"]), as_float(compared["new"])
    parts = [f"{number(before)} to {number(now)} {since}, {compared['window']}"]
    parts += _moved(report, serving)
    return Tile(question, f"{_METRIC} {number(now - before, sign='+')}", "; ".join(parts), PLAIN)


def _moved(report: Mapping[str, Any], serving: Mapping[str, Any]) -> list[str]:
    """What else has moved: the number of events, and what drifted."""
    parts = []
    events = as_float((serving.get("data") or {}).get("n_events"))
    now = as_float((report.get("data") or {}).get("n_events"))
    if events and math.isfinite(events) and math.isfinite(now):
        parts.append(f"{share(now / events - 1, '+')} events")
    rows = (report.get("drift") or {}).get("rows") or []
    if rows:
        drifted = sum(row["flagged"] for row in rows)
        parts.append(f"{drifted} of {len(rows)} distributions drifted")
    return parts
