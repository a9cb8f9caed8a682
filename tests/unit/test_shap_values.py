"""Tests the parts of features in a score against LightGBM's SHAP values."""

from __future__ import annotations

import re
from itertools import combinations
from math import factorial

import numpy as np
import pytest

from shortlist.recsys.models import shap_values
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.forest import Tree
from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.models.ranker import Ranker, stamp
from tests.unit.test_forest import drawn, trained


@pytest.mark.parametrize("leaves", [2, 3, 15, 31, 64])
def test_parts_are_lightgbms(leaves: int) -> None:
    """Short and long paths, values at thresholds, infinite and missing ones, more than a block."""
    rows = drawn(1000)
    booster = trained(rows, 12, leaves)
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._shap_values is not None
    fresh = np.concatenate((drawn(300, seed=1), rows[:50]))
    fresh[::7, ::3] = 0.0
    fresh[1], fresh[2], fresh[3] = np.inf, -np.inf, np.nan
    parts = ranker.contributions(fresh)
    np.testing.assert_allclose(parts, booster.predict(fresh, pred_contrib=True), atol=1e-12)
    np.testing.assert_allclose(parts.sum(axis=1), ranker.predict(fresh), atol=1e-12)


def test_thresholds_go_left_as_in_scores() -> None:
    """A value at each threshold, the next one below it and the next one above."""
    booster = trained(drawn(400), 20, 15)
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._trees is not None
    exact = np.concatenate([tree.threshold for tree in ranker._trees]).astype(np.float32)
    ends = (np.nextafter(exact, np.float32(-np.inf)), np.nextafter(exact, np.float32(np.inf)))
    probes = np.concatenate((exact, *ends))
    fresh = np.repeat(probes[:, None], len(FEATURES), axis=1)
    expected = booster.predict(fresh, pred_contrib=True)
    np.testing.assert_allclose(ranker.contributions(fresh), expected, atol=1e-12)


def test_a_row_alone_has_its_bits() -> None:
    """Who else is explained does not matter."""
    rows = drawn(200)
    ranker = Ranker(stamp(trained(rows, 40, 15).model_to_string()))
    parts = ranker.contributions(rows)
    assert len(ranker._shap_values._feature) * len(rows) > 2 * shap_values.NUMBERS_AT_ONCE
    for row in (0, 77, 199):
        np.testing.assert_array_equal(ranker.contributions(rows[row : row + 1])[0], parts[row])


@pytest.mark.parametrize(
    ("children", "first", "deeper"),
    [((1, ~3), 2.0, -1.0), ((1, ~3), 2.0, 5.0), ((~3, 1), -2.0, 1.0), ((~3, 1), -2.0, -3.0)],
)
def test_a_feature_asked_twice_is_one(
    children: tuple[int, int], first: float, deeper: float
) -> None:
    """Against Shapley's formula over all sets.

    The deeper node narrows the range of its feature, or lies outside of it.
    """
    tree = Tree(
        feature=np.array([0, 1, 0]),
        threshold=np.array([first, 0.5, deeper]),
        left=np.array([children[0], 2, ~0]),
        right=np.array([children[1], ~2, ~1]),
        value=np.array([4.0, -1.0, 2.5, 7.0]),
        node_count=np.array([20, 16, 10]),
        leaf_count=np.array([3, 7, 6, 4]),
    )
    rows = np.array(
        [[0.0, 0.0], [-1.0, 0.5], [3.0, 1.0], [1.0, 9.0], [6.0, 0.0], [-2.5, 0.0]], np.float32
    )
    explained = shap_values.shap_values([tree])
    assert explained is not None
    expected = [[*_shapley(tree, row), _value(tree, row, frozenset())] for row in rows]
    np.testing.assert_allclose(explained.of(rows), expected, atol=1e-14)


def test_a_tree_of_one_leaf_is_base() -> None:
    """LightGBM writes such trees where nothing is left to split."""
    empty = np.array([], np.int64)
    leaf = np.array([0.25]), empty, np.array([5])
    tree = Tree(empty, empty.astype(np.float64), empty, empty, *leaf)
    explained = shap_values.shap_values([tree, tree])
    assert explained is not None
    np.testing.assert_array_equal(explained.of(np.ones((2, 3), np.float32)), [[0, 0, 0, 0.5]] * 2)


def test_no_rows_have_no_parts() -> None:
    """A request whose items the ranker has not seen."""
    ranker = Ranker(stamp(trained(drawn(200), 3, 15).model_to_string()))
    assert ranker.contributions(drawn(0)).shape == (0, len(FEATURES) + 1)


def test_counts_of_zero_divide_nothing() -> None:
    """A text may say that no row of training came to a node."""
    booster = trained(drawn(200), 3, 15)
    text = booster.model_to_string()
    zeros = re.sub(r"internal_count=.*", lambda found: re.sub(r"\d", "0", found[0]), text)
    ranker = Ranker(stamp(zeros))
    assert np.isfinite(ranker.contributions(drawn(5))).all()


@pytest.mark.parametrize(
    ("leaves", "limits"), [(15, {"MAX_NUMBERS": 20}), (15, {"MAX_PATHS": 20}), (65, {})]
)
def test_lightgbm_explains_what_is_larger(
    leaves: int, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger tables, more paths, and trees that the masks do not hold."""
    for name, limit in limits.items():
        monkeypatch.setattr(shap_values, name, limit)
    rows = drawn(1000)
    booster = trained(rows, 3, leaves)
    ranker = Ranker(stamp(booster.model_to_string()))
    assert ranker._shap_values is None
    expected = booster.predict(rows[:9], pred_contrib=True)
    np.testing.assert_array_equal(ranker.contributions(rows[:9]), expected)


def _shapley(tree: Tree, row: Float32) -> list[float]:
    """Each feature's part, by all sets of the others."""
    n = len(row)
    parts = []
    for feature in range(n):
        others = [other for other in range(n) if other != feature]
        total = 0.0
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for known in map(frozenset, combinations(others, size)):
                with_it = _value(tree, row, known | {feature})
                total += weight * (with_it - _value(tree, row, known))
        parts.append(total)
    return parts


def _value(tree: Tree, row: Float32, known: frozenset[int], node: int = 0) -> float:
    """The tree's value where only some features are known; the others by the counts."""
    if node < 0:
        return float(tree.value[~node])
    children = (int(tree.left[node]), int(tree.right[node]))
    values = [_value(tree, row, known, child) for child in children]
    feature = int(tree.feature[node])
    if feature in known:
        return values[int(row[feature] > tree.threshold[node])]
    counts = [tree.node_count[c] if c >= 0 else tree.leaf_count[~c] for c in children]
    return float(np.dot(counts, values) / tree.node_count[node])
