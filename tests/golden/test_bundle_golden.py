"""Tests frozen bundles: same scores as ever, or a refusal.

Each directory of `bundles/` is named by the feature hash that it was made with, and holds the lists
of a few states. `freeze_bundle.py` makes one for the features of this code.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shortlist.recsys.errors import BundleMismatch
from shortlist.recsys.models import bundle
from shortlist.recsys.models.fingerprint import feature_hash
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.store.records import UserRecord

BUNDLES = Path(__file__).parent / "bundles"
FROZEN = sorted(BUNDLES.iterdir())
TOLERANCE = 1e-5
"""Tolerance of scores, relative and absolute.

Processors add the products of a dot product in different orders, which moves single
precision by some 1e-7 of a score of about 1; the order of the lists is exact.
"""


def test_this_codes_features_are_frozen() -> None:
    """Otherwise nothing would show that a later version scores this one's bundles alike."""
    assert feature_hash() in {directory.name for directory in FROZEN}, (
        "the features changed: run `python tests/golden/freeze_bundle.py`, commit what it made"
    )


@pytest.mark.parametrize("directory", FROZEN, ids=lambda directory: directory.name)
def test_scores_alike_or_is_refused(directory: Path) -> None:
    """Items in the same order with the same scores; or a mismatch that says what to do."""
    if directory.name != feature_hash():
        with pytest.raises(BundleMismatch, match="rebuild it, or activate an older release"):
            bundle.load(directory)
        return
    loaded = bundle.load(directory)
    for case in json.loads((directory / "answers.json").read_text()):
        frozen = case["answer"]
        state, unknown = bundle.state_of(loaded, UserRecord(**case["state"]))
        best = recommend(loaded.model, state, 20)
        kept = best.items[0] != MISSING
        ids = [loaded.catalogue.ids[row] for row in best.items[0, kept].tolist()]
        assert (ids, unknown) == (frozen["items"], 0)
        assert int(best.n_candidates[0]) == frozen["n_candidates"]
        for name, scores in (("scores", best.scores), ("retrieval", best.retrieval)):
            np.testing.assert_allclose(scores[0, kept], frozen[name], TOLERANCE, TOLERANCE)


def test_frozen_bundles_are_small() -> None:
    """All of them are in the repository, and in every clone of it."""
    for directory in FROZEN:
        assert sum(path.stat().st_size for path in directory.iterdir()) < 300_000
