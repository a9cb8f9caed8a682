"""Describes the serving release, for the report to say what has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shortlist.batch.gate import Compared, same_window
from shortlist.recsys.errors import CorruptArtefact, ReleaseNotFound
from shortlist.recsys.evaluation.headline import TWO_STAGE
from shortlist.recsys.evaluation.names import METRICS
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.store.artefacts import Artefacts

SIZES = ("n_users", "n_items", "n_events", "latest")


def described(
    artefacts: Artefacts,
    version: str,
    dataset: Dataset,
    protocol: HoldoutProtocol,
    repeats: Repeats,
    compared: Compared | None,
) -> dict[str, Any]:
    """The figures of a published release, as far as its manifest has them.

    {"version", "compared": {"new", "serving", "window"} or None, "same_holdout": whether its report
    is about the hold-out of `dataset`, "metrics": {metric: value of the two stages}, "data": {one
    of SIZES: number}}. Of a release that is gone or damaged there are the version and None alone:
    the gate says what is wrong with it.
    """
    known = {"version": version, "compared": None if compared is None else compared._asdict()}
    try:
        manifest = artefacts.manifest(version)
    except (ReleaseNotFound, CorruptArtefact):
        return known
    figures = _mapping(_mapping(manifest.get("metrics")).get(TWO_STAGE))
    values = {metric: _mapping(figures.get(metric)).get("value") for metric in METRICS}
    data = _mapping(manifest.get("data"))
    return known | {
        "same_holdout": same_window(manifest, dataset, protocol, repeats),
        "metrics": _numbers(values),
        "data": _numbers({size: data.get(size) for size in SIZES}),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """The values that are finite numbers: a manifest may be of any version."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }
