"""Tests the forest against LightGBM, whose scores it must give bit by bit."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.forest import (
    COMPARED,
    ROWS_AT_ONCE,
    TREES_AT_ONCE,
    _places,
    rounded_down,
)
from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.models.ranker import Ranker, stamp


def trained(rows: Float32, trees: int, leaves: int, **options: object) -> lightgbm.Booster:
    """A ranker of rows float32[n, F], n a multiple of 20."""
    signal = rows[:, 0] + rows[:, 1] * rows[:, 2] + np.sin(3 * rows[:, 3])
    data = lightgbm.Dataset(rows, (signal > 0.5).astype(int), group=[20] * (len(rows) // 20))
    parameters = {
        "objective": "lambdarank",
        "num_leaves": leaves,
        "min_data_in_leaf": 2,
        "num_threads": 1,
        "verbosity": -1,
    }
    return lightgbm.train(parameters | options, data, trees)


def drawn(n: int, seed: int = 0) -> Float32:
    """Rows of the ranker's width, some of whose values are alike."""
    rows = np.random.default_rng(seed).normal(size=(n, len(FEATURES)))
    return np.round(rows, 1).astype(np.float32)


@pytest.mark.parametrize("leaves", [2, 3, 15, 16, 17, 32, 33, 64])
def test_scores_have_lightgbms_bits(leaves: int) -> None:
    """Masks of every width; values at thresholds, as rounded ones are; more trees than a block."""
    rows = drawn(2000)
    booster = trained(rows, TREES_AT_ONCE + 3, leaves)
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._forest is not None
    fresh = np.concatenate((drawn(ROWS_AT_ONCE + 7, seed=1), rows[:50]))
    fresh[::7, ::3] = 0.0
    fresh[1, :] = np.inf
    fresh[2, :] = -np.inf
    expected = booster.predict(fresh, raw_score=True)
    np.testing.assert_array_equal(ranker.predict(fresh), expected)
    np.testing.assert_array_equal(ranker.predict(fresh[5:6]), expected[5:6])


def test_thresholds_themselves_go_left() -> None:
    """A value equal to a threshold, the next one below it and the next one above."""
    rows = drawn(400)
    booster = trained(rows, 20, 15)
    lines = booster.model_to_string().splitlines()
    texts = [line.partition("=")[2] for line in lines if line.startswith("threshold=")]
    exact = np.unique(np.array(" ".join(texts).split(), np.float32))
    tiny = np.array([1e-35, -1e-35, 1e-45, 1e-34], np.float32)
    ends = (np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf))
    probes = np.concatenate((exact, *ends, tiny))
    fresh = np.repeat(probes[:, None], len(FEATURES), axis=1).astype(np.float32)
    expected = booster.predict(fresh, raw_score=True)
    ranker = Ranker(stamp(booster.model_to_string()))
    np.testing.assert_array_equal(ranker.predict(fresh), expected)


def test_missing_values_count_as_zero() -> None:
    """As LightGBM has it for a model whose training had none missing."""
    booster = trained(drawn(400), 20, 15)
    fresh = drawn(100, seed=2)
    fresh[::2, ::2] = np.nan
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._forest is not None
    expected = booster.predict(fresh, raw_score=True)
    np.testing.assert_array_equal(ranker.predict(fresh), expected)


def test_trees_without_split_are_constants() -> None:
    """Rows that are all alike leave nothing to split."""
    booster = trained(np.zeros((40, len(FEATURES)), np.float32), 3, 15)
    ranker = Ranker(stamp(booster.model_to_string()))
    expected = booster.predict(drawn(10), raw_score=True)
    np.testing.assert_array_equal(ranker.predict(drawn(10)), expected)


@pytest.mark.parametrize("kind", ["many leaves", "missing values", "zero is missing"])
def test_other_trees_are_lightgbms(kind: str) -> None:
    """What the masks do not hold is scored by the library."""
    rows = drawn(4000)
    options: dict[str, object] = {}
    if kind == "missing values":
        rows[::3, 0] = np.nan
    if kind == "zero is missing":
        options["zero_as_missing"] = True
    booster = trained(rows, 5, 100 if kind == "many leaves" else 15, **options)
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._forest is None
    fresh = drawn(50, seed=3)
    fresh[::2, 0] = np.nan
    expected = booster.predict(fresh, raw_score=True)
    np.testing.assert_array_equal(ranker.predict(fresh), expected)


def test_rounding_keeps_every_comparison() -> None:
    """A single is above a threshold of double precision as it is above the rounded one."""
    rng = np.random.default_rng(0)
    singles = np.append(rng.normal(size=50), [0.0, 1e-45, 3e38, -3e38]).astype(np.float32)
    near = [np.nextafter(singles.astype(np.float64), end) for end in (-np.inf, np.inf)]
    doubles = np.concatenate((singles, *near, [1e300, -1e300, 1e-46, -1e-46]))
    ends = [np.nextafter(singles, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate((singles, *ends, np.array([np.inf, -np.inf], np.float32)))
    rounded = rounded_down(doubles.tolist())
    above = values.astype(np.float64)[:, None] > doubles
    np.testing.assert_array_equal(values[:, None] > rounded, above)


@pytest.mark.parametrize("n", [1, COMPARED, COMPARED + 1, 4 * COMPARED])
def test_places_count_lower_thresholds(n: int) -> None:
    """By comparison or by search, of values equal to a threshold and beyond all of them."""
    thresholds = np.arange(n, dtype=np.float32)
    values = np.array([-1, 0, 0.5, n / 2, n - 1, n, np.inf, -np.inf], np.float32)
    expected = [(thresholds < value).sum() for value in values]
    assert _places(thresholds, values).tolist() == expected
