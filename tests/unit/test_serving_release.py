"""Tests what a report says of the serving release, by manifests whole, odd and gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shortlist.batch.gate import Compared
from shortlist.batch.serving_release import described
from shortlist.recsys.errors import CorruptArtefact, ReleaseNotFound
from shortlist.recsys.models.interactions import Repeats

DATASET: Any = SimpleNamespace(fingerprint="same")
COMPARED = Compared(0.2, 0.19, "on the same events")
MANIFEST = {
    "data": {"fingerprint": "same", "n_users": 90, "n_items": 80, "n_events": 700, "latest": 5},
    "protocol": "time",
    "metrics": {"two_stage": {"ndcg@10": {"value": 0.19, "low": 0.1, "high": 0.3}, "n_users": 80}},
}


class Artefacts:
    """A place with one manifest, or an error in its stead."""

    def __init__(self, manifest: dict[str, Any] | Exception) -> None:
        self._manifest = manifest

    def manifest(self, _version: str) -> dict[str, Any]:
        """What the place has."""
        if isinstance(self._manifest, Exception):
            raise self._manifest
        return self._manifest


def said(manifest: dict[str, Any] | Exception, compared: Compared | None = None) -> dict[str, Any]:
    place: Any = Artefacts(manifest)
    return described(place, "v1", DATASET, "time", Repeats.NEVER, compared)


def test_figures_come_from_the_manifest() -> None:
    """The two stages' figures, the sizes, and what the gate has compared."""
    assert said(MANIFEST, COMPARED) == {
        "version": "v1",
        "compared": {"new": 0.2, "serving": 0.19, "window": "on the same events"},
        "same_holdout": True,
        "metrics": {"ndcg@10": 0.19},
        "data": {"n_users": 90, "n_items": 80, "n_events": 700, "latest": 5},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": None, "data": "none"},
        {"metrics": {"two_stage": {"ndcg@10": 0.2}}, "data": {"n_users": "many"}},
        {"metrics": {"two_stage": {"ndcg@10": {"value": True}}}, "data": {"n_users": float("nan")}},
    ],
)
def test_odd_manifests_lose_their_figures(changes: dict[str, Any]) -> None:
    """What is no finite number is left out, whatever version wrote it."""
    odd = said(MANIFEST | changes)
    assert (odd["metrics"], odd["data"]) == ({}, {})


@pytest.mark.parametrize("error", [ReleaseNotFound("v1 is gone"), CorruptArtefact("damaged")])
def test_a_release_that_is_gone(error: Exception) -> None:
    """The report names it, and knows nothing else of it."""
    assert said(error) == {"version": "v1", "compared": None}
