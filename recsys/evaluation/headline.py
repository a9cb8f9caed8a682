"""Reads the headline figure, NDCG@10 of the two stages, and says what it means.

It imports nothing heavy, so a command that only lists releases need not load the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from shortlist.recsys.evaluation.figures import as_float, ends, known, number

TWO_STAGE, RETRIEVER, POPULARITY = "two_stage", "retriever", "popularity"
"""Methods of every report: what is released, its retriever alone, and the least it has to beat."""

HEADLINE_METRIC = "ndcg@10"
"""The metric of the gate, of the differences between methods, and of the segments."""

HEADLINE_PATH = (TWO_STAGE, HEADLINE_METRIC, "value")
"""The headline figure's place in "methods" of a report, or in "metrics" of a manifest."""


def headline_value(methods: Mapping[str, Any], method: str = TWO_STAGE) -> float | None:
    """NDCG@10 of a method; None where it is not known.

    methods: "methods" of a report, or "metrics" of a manifest.
    """
    value: float | None = methods.get(method, {}).get(HEADLINE_METRIC, {}).get("value")
    return value


class Standing(StrEnum):
    """How two methods stand to each other, by the interval of their difference."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"
    """The interval includes zero."""
    UNKNOWN = "unknown"


def strongest_baseline(methods: Mapping[str, Any], *, but: Iterable[str] = ()) -> str | None:
    """The baseline with the best NDCG@10, leaving out those named in `but`."""
    excluded = {TWO_STAGE, RETRIEVER, *but}
    values = {name: known(row.get(HEADLINE_METRIC)).value for name, row in methods.items()}
    baselines = [n for n, v in values.items() if n not in excluded and math.isfinite(v)]
    return max(baselines, key=values.__getitem__, default=None)


def pair_of(report: Mapping[str, Any], other: str | None) -> Mapping[str, Any]:
    """The difference of the two stages from another method; empty where it is not known."""
    return (report.get("paired") or {}).get(TWO_STAGE, {}).get(other) or {}


def standing(pair: Mapping[str, Any]) -> Standing:
    """What the interval of a difference says of the first method."""
    low, high = as_float(pair.get("low")), as_float(pair.get("high"))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Standing.UNKNOWN
    if low <= 0 <= high:
        return Standing.OPEN
    return Standing.BETTER if low > 0 else Standing.WORSE


def headline(report: Mapping[str, Any]) -> str:
    """The finding in words, or nothing where the two stages were not measured."""
    methods = report["methods"]
    ours = known(methods.get(TWO_STAGE, {}).get(HEADLINE_METRIC))
    if not math.isfinite(ours.value):
        return ""
    interval = f" (95% interval {ends(ours)})" if ends(ours) else ""
    value = f"The two-stage recommender reaches an NDCG@10 of {number(ours.value)}{interval}"
    rival = strongest_baseline(methods)
    if rival is None:
        return f"{value}."
    theirs = known(methods[rival][HEADLINE_METRIC]).value
    comparison = f"{amount(ours.value, theirs)} than {rival}, the strongest baseline"
    meaning = _meaning(pair_of(report, rival))
    return f"{value}: {comparison}, at {number(theirs)}. {meaning}".strip()


def amount(ours: float, theirs: float) -> str:
    """The difference in words: as a share, or in itself where a share of nothing has no meaning."""
    if ours == theirs:
        return "no more"
    more = "more" if ours > theirs else "less"
    if not theirs:
        return f"{number(abs(ours - theirs))} {more}"
    return f"{abs(ours / theirs - 1):.1%} {more}"


def _meaning(pair: Mapping[str, Any]) -> str:
    meanings = {
        Standing.OPEN: "includes zero: the two cannot be told apart on these users",
        Standing.BETTER: "excludes zero: more than the draw of users explains",
        Standing.WORSE: "excludes zero: more than the draw of users explains",
    }
    meaning = meanings.get(standing(pair))
    if meaning is None:
        return ""
    return f"The 95% interval of the difference user by user, {ends(known(pair))}, {meaning}."
