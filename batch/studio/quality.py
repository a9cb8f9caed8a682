"""Shows a release's report with its names explained, and all releases."""

from __future__ import annotations

from typing import Any

from shortlist.batch.studio.overview import headline
from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.releases import View
from shortlist.recsys.errors import BrokenRelease
from shortlist.recsys.evaluation.names import LEFT_OUT, METHODS, METRICS, SOURCES
from shortlist.recsys.evaluation.small_samples import part_warnings, warnings_of
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.store.artefacts import Artefacts
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import RedisStore

MOST_RELEASES = 50
"""Releases that are shown; `release prune` removes what nobody needs."""

GATE_OFF = "the gate is off"
"""How the gate's word begins where nothing was judged."""


def quality(view: View) -> dict[str, Any]:
    """The whole report, and what its names mean."""
    # Apart, as one name may mean two things: "popularity" is a method and a feature.
    return {
        "report": finite(view.report),
        "methods": METHODS,
        "sources": SOURCES,
        "features": {name: feature.sentence for name, feature in FEATURES.items()},
        "left_out": LEFT_OUT,
        "metrics": {name: metric.sentence for name, metric in METRICS.items()},
        "warnings": [] if view.report is None else _warnings(view.report),
    }


def _warnings(report: dict[str, Any]) -> list[str]:
    parts = report.get("repeats", {}).get("parts", {})
    return [*warnings_of(report), *part_warnings(parts)]


def releases(
    artefacts: Artefacts, store: RedisStore, pointer: ReleasePointer | None
) -> dict[str, Any]:
    """The latest releases among the artefacts, newest first."""
    versions = artefacts.versions()[: -MOST_RELEASES - 1 : -1]
    return {"releases": [_release(artefacts, store, pointer, version) for version in versions]}


def _release(
    artefacts: Artefacts, store: RedisStore, pointer: ReleasePointer | None, version: str
) -> dict[str, Any]:
    canary = None if pointer is None else pointer.canary
    is_canary = canary is not None and canary.version == version
    row: dict[str, Any] = {
        "version": version,
        "created_at": None,
        "serving": pointer is not None and pointer.current == version,
        "previous": pointer is not None and pointer.previous == version,
        "canary": {"percent": canary.percent} if canary is not None and is_canary else False,
        "whole": store.is_whole(version),
        "headline": None,
        "n_users": None,
        "n_items": None,
        "n_events": None,
        "gate": None,
        "seconds": None,
        "fault": None,
    }
    try:
        manifest = artefacts.manifest(version)
    except BrokenRelease as error:
        return row | {"whole": False, "fault": str(error)}
    data, words = manifest.get("data", {}), manifest.get("gate")
    judged = words and not str(words).startswith(GATE_OFF)
    return row | {
        "created_at": manifest.get("created_at"),
        "headline": headline(manifest),
        "n_users": data.get("n_users"),
        "n_items": data.get("n_items"),
        "n_events": data.get("n_events"),
        # A release that the gate refused is not published.
        "gate": words and {"passed": True if judged else None, "words": words},
        "seconds": finite(manifest.get("seconds")),
    }
