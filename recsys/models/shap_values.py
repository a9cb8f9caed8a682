"""The part of each feature in a row's score: SHAP values of trees (Lundberg et al., 2018).

A leaf's part depends on a row only by which of the features on its path let the row pass. So the
parts for every such pattern are computed once, as in Fast TreeSHAP v2 (Yang, 2021), and a row needs
two comparisons and one look-up for each feature of each path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isnan, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.forest import Tree, rounded_down, without_missing
from shortlist.recsys.models.interactions import Float32

MAX_PATHS = 2**14
"""The most paths, of a thousand trees, which bounds the time until the first explanation."""

MAX_NUMBERS = 2**21
"""The most that the tables of a forest may hold: 16 MiB. A path of 10 features takes 10,240."""

NUMBERS_AT_ONCE = 2**15
"""Features of paths, times rows, that are worked on together.

256 KiB stay in cache, and in memory that the process keeps: to be given larger pieces again and
again takes longer than all the work on them.
"""


class _Gate(NamedTuple):
    """What a path asks of one feature: low < value <= high; share: of the rows that came to it.

    low: NaN where there is none.
    """

    feature: int
    low: float
    high: float
    share: float


class _Path(NamedTuple):
    """The way to a leaf, each of its features once."""

    gates: tuple[_Gate, ...]
    value: float


def shap_values(trees: Sequence[Tree]) -> ShapValues | None:
    """The tables of a forest; None where MAX_PATHS or MAX_NUMBERS would be passed."""
    if sum(len(tree.value) for tree in trees) > MAX_PATHS:
        return None
    paths: list[_Path] = []
    base, n_numbers = 0.0, 0
    for path in (path for tree in trees for path in _paths(tree)):
        base += path.value * prod(gate.share for gate in path.gates)
        n_features = len(path.gates)
        n_numbers += n_features << n_features
        if n_numbers > MAX_NUMBERS:
            return None
        if n_features:
            paths.append(path)
    return ShapValues(sorted(paths, key=lambda path: -len(path.gates)), base)


class ShapValues:
    """Trees that explain rows."""

    def __init__(self, paths: Sequence[_Path], base: float) -> None:
        """Builds the tables.

        paths: of one feature or more, the longest first; base: the score without any feature.
        """
        self._base = base
        by_length = groupby(paths, key=lambda path: len(path.gates))
        tables = [_table(list(group)).ravel() for _, group in by_length]
        self._table = np.concatenate([np.empty(0), *tables])
        # The first gates of all paths, then the second ones of those that have two, and so on.
        lengths = np.array([len(path.gates) for path in paths], np.int64)
        self._counts = [int((lengths > place).sum()) for place in range(lengths.max(initial=0))]
        gates = [p.gates[place] for place, n in enumerate(self._counts) for p in paths[:n]]
        feature = np.array([gate.feature for gate in gates], np.int64)
        self._feature = feature
        self._low = rounded_down([gate.low for gate in gates])[:, None]
        self._high = rounded_down([gate.high for gate in gates])[:, None]
        # In the order of the features, whose parts are added up.
        order = np.argsort(feature, kind="stable")
        self._features, self._feature_starts = np.unique(feature[order], return_index=True)
        self._path_of = np.concatenate([np.arange(n) for n in self._counts] or [order])[order]
        sizes = lengths << lengths
        starts = np.cumsum(sizes) - sizes
        of_gates = [starts[:n] + (j << lengths[:n]) for j, n in enumerate(self._counts)]
        self._table_starts = np.concatenate(of_gates or [order])[order, None]

    def of(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n, F + 1]: each feature's part for rows float32[n, F], and the base last.

        They add up to the rows' scores. A missing value counts as 0.
        """
        n_rows, n_features = rows.shape
        parts = np.zeros((n_rows, n_features + 1), np.float64)
        parts[:, -1] = self._base
        if len(self._features) == 0:
            return parts
        step = max(1, NUMBERS_AT_ONCE // len(self._feature))
        for start in range(0, n_rows, step):
            patterns = self._patterns(rows[start : start + step])
            at = patterns.take(self._path_of, axis=0)
            at += self._table_starts
            sums = np.add.reduceat(self._table.take(at), self._feature_starts, axis=0)
            parts[start : start + step, self._features] = sums.T
        return parts

    def _patterns(self, rows: Float32) -> NDArray[np.int64]:
        """int64[P, n]: which features of each path let each row pass, the first as the lowest bit.

        Int64, because adding other integers to the tables' starts takes ten times as long.
        """
        values = without_missing(rows.T).take(self._feature, axis=0)
        passes = (values <= self._high) > (values <= self._low)
        patterns = np.zeros((self._counts[0], len(rows)), np.int64)
        start = 0
        for place, count in enumerate(self._counts):
            patterns[:count] += passes[start : start + count] * np.int64(1 << place)
            start += count
        return patterns


def _paths(tree: Tree) -> Iterator[_Path]:
    """The ways to the leaves of a tree."""
    if len(tree.feature) == 0:
        yield _Path((), float(tree.value[0]))
        return
    feature, threshold = tree.feature.tolist(), tree.threshold.tolist()
    children = (tree.left.tolist(), tree.right.tolist())
    node_count, leaf_count = tree.node_count.tolist(), tree.leaf_count.tolist()
    open_paths: list[tuple[int, dict[int, _Gate]]] = [(0, {})]
    while open_paths:
        node, gates = open_paths.pop()
        if node < 0:
            yield _Path(tuple(gates.values()), float(tree.value[~node]))
            continue
        at, split = feature[node], threshold[node]
        gate = gates.get(at, _Gate(at, np.nan, np.inf, 1.0))
        for goes_right, child in enumerate((children[0][node], children[1][node])):
            count = node_count[child] if child >= 0 else leaf_count[~child]
            share = gate.share * (count / node_count[node] if node_count[node] else 0.0)
            low, high = gate.low, gate.high
            if goes_right:
                low = split if isnan(low) else max(low, split)
            else:
                high = min(high, split)
            open_paths.append((child, gates | {at: _Gate(at, low, high, share)}))


def _table(paths: Sequence[_Path]) -> NDArray[np.float64]:
    """float64[P, m, 2^m]: the part of each of the m features of P paths, for every pattern.

    The Shapley value of feature i in a path's leaf sums over the sets S of the others
    |S|! (m - |S| - 1)! / m! prod(S passes) prod(the rest's shares) (i passes - i's share) value.
    The factorials are the integral over t from 0 to 1 of t^|S| (1 - t)^(m - |S| - 1), so that the
    sum is that of prod over the others of (t passes + (1 - t) share): a polynomial of degree m - 1,
    which (m + 1) // 2 nodes of Gauss and Legendre integrate exactly.
    """
    m = len(paths[0].gates)
    shares = np.array([[gate.share for gate in path.gates] for path in paths]).T[:, :, None]
    values = np.array([path.value for path in paths])[:, None]
    passes = ((np.arange(1 << m) >> np.arange(m)[:, None]) & 1)[:, None, :]
    gains = values * (passes - shares)  # [m, P, 2^m]
    table = np.zeros((m, len(paths), 1 << m))
    nodes, weights = np.polynomial.legendre.leggauss((m + 1) // 2)
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        factors = t * passes + (1 - t) * shares
        before = np.multiply.accumulate(factors[:-1], axis=0)
        after = np.full_like(factors[0], weight)
        for i in reversed(range(m)):
            table[i] += before[i - 1] * after if i else after
            after *= factors[i]
    return np.ascontiguousarray((gains * table).transpose(1, 0, 2))
