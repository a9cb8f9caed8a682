"""Tests LightGBM's C API against its Python package.

The scores are equal to the bit, and a ranker refuses what it was not trained for.
"""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from shortlist.recsys.errors import BundleMismatch, CorruptArtefact
from shortlist.recsys.models import ranker as module
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.ranker import NO_RANKER, Ranker, ranker_from, stamp


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    """A small ranking model."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, len(FEATURES))).astype(np.float32)
    data = lightgbm.Dataset(rows, (rows[:, 0] > 0.5).astype(int), group=[20] * 30)
    return lightgbm.train({"objective": "lambdarank", "verbosity": -1, "num_threads": 1}, data, 20)


def test_scores_are_the_packages_bits(booster) -> None:
    """One row or many."""
    rows = np.random.default_rng(1).normal(size=(300, len(FEATURES))).astype(np.float32)
    ranker = Ranker(stamp(booster.model_to_string()))
    expected = booster.predict(rows, raw_score=True)
    np.testing.assert_array_equal(ranker.predict(rows), expected)
    np.testing.assert_array_equal(ranker.predict(rows[3:4]), expected[3:4])
    assert len(ranker.predict(rows[:0])) == 0


def test_model_of_other_features_is_refused(booster, monkeypatch) -> None:
    """The stamp is the hash of the features that it was trained on."""
    text = stamp(booster.model_to_string())
    monkeypatch.setattr(module, "feature_hash", lambda: "0" * 16)
    with pytest.raises(BundleMismatch, match="activate an older release"):
        Ranker(text)


def test_model_without_stamp_is_refused(booster) -> None:
    """Whoever wrote it did not say what it takes."""
    with pytest.raises(BundleMismatch):
        Ranker(booster.model_to_string())


def test_text_without_model_is_corrupt() -> None:
    """LightGBM's own words, and what to do."""
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        Ranker(stamp("not a model"))


def test_rows_of_another_width_are_refused(booster) -> None:
    """Before they reach the library."""
    with pytest.raises(BundleMismatch, match="use `features`"):
        Ranker(stamp(booster.model_to_string())).predict(np.zeros((2, 3), np.float32))


def test_no_ranker_is_none() -> None:
    """A fold without a gain stores an empty text, which stands for no ranker."""
    assert ranker_from(NO_RANKER) is None
