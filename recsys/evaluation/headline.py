"""Reads the headline figure, NDCG@10 of the two stages.

It imports nothing, so a command that only lists releases need not load the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
