"""Scores rows by the trees of a model, with leaf masks.

QuickScorer (Lucchese et al., 2015): each node that a row fails rules out the leaves of its left
subtree, and the first leaf left is the row's. What fails depends on the row's value alone, so for
each feature the masks of all smaller thresholds are combined beforehand: a row needs one search and
one bitwise "and" a feature, whatever the number of trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Float32

MAX_LEAVES = 64
"""Leaves of a tree that masks can hold: the bits of the largest integer."""

TREES_AT_ONCE = 256
"""Trees whose masks are combined together, so that the tables of a block stay in cache."""

ROWS_AT_ONCE = 1024
"""Rows scored together, which bounds the memory of their masks."""

COMPARED = 64
"""Up to this many thresholds, comparing with each is faster than a binary search, whose branches
the processor cannot predict; the count fits into a byte."""

_ZERO = np.float32(1e-35)
"""LightGBM takes what is no larger for 0."""

_MASKS = (np.uint16, np.uint32, np.uint64)


class Tree(NamedTuple):
    """One tree; a child below 0 is the leaf ~child.

    feature: int64[m] of the m nodes; threshold: float64[m], above which a row goes right.
    left, right: int64[m]; value: float64[leaves]; node_count: int64[m] and leaf_count:
    int64[leaves], the training rows that came there.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    value: NDArray[np.float64]
    node_count: NDArray[np.int64]
    leaf_count: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Column:
    """The masks of one feature.

    thresholds: float32[t], ascending; masks: uint[t + 1, B], the leaves left in each tree for a
    value that is above the first 0, 1, … t thresholds.
    """

    feature: int
    thresholds: Float32
    masks: NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True)
class _Block:
    """B trees of at most W leaves.

    values: float64[B, W], of the leaves from left to right.
    """

    columns: tuple[_Column, ...]
    values: NDArray[np.float64]


class Forest:
    """Trees that score rows; the sums have LightGBM's own bits."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        """Builds the tables of trees of at most MAX_LEAVES leaves."""
        most = max(len(tree.value) for tree in trees)
        self._mask = next(kind for kind in _MASKS if most <= np.iinfo(kind).bits)
        starts = range(0, len(trees), TREES_AT_ONCE)
        self._blocks = [self._block(trees[s : s + TREES_AT_ONCE], most) for s in starts]
        self._features = sorted({c.feature for block in self._blocks for c in block.columns})

    def predict(self, rows: Float32) -> NDArray[np.float64]:
        """float64[n]: the sum of the trees' values for rows float32[n, F]; NaN counts as 0."""
        scores = np.zeros(len(rows), np.float64)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = without_missing(rows[start : start + ROWS_AT_ONCE].T[self._features])
            values = dict(zip(self._features, part, strict=True))
            for block in self._blocks:
                self._add(block, values, scores[start : start + ROWS_AT_ONCE])
        return scores

    def _add(self, block: _Block, rows: dict[int, Float32], scores: NDArray[np.float64]) -> None:
        """Adds the block's values to `scores`, float64[n]; rows: float32[n] for each feature."""
        shape = (len(scores), len(block.values))
        left = np.full(shape, np.iinfo(self._mask).max, self._mask)
        for column in block.columns:
            place = _places(column.thresholds, rows[column.feature])
            left &= column.masks.take(place, axis=0)
        leaf = np.bitwise_count(~left & (left - self._mask(1)))  # the bits below the lowest
        # Tree by tree, as LightGBM adds: another order would have other bits.
        for values, chosen in zip(block.values, np.ascontiguousarray(leaf.T), strict=True):
            scores += values.take(chosen)

    def _block(self, trees: Sequence[Tree], width: int) -> _Block:
        values = np.zeros((len(trees), width))
        nodes: list[tuple[int, float, int, int]] = []
        for number, tree in enumerate(trees):
            order, spans = _left_to_right(tree)
            values[number, : len(order)] = tree.value[order]
            nodes += [
                (int(tree.feature[node]), float(tree.threshold[node]), number, _without(*span))
                for node, span in enumerate(spans)
            ]
        return _Block(tuple(self._columns(nodes, len(trees))), values)

    def _columns(self, nodes: Sequence[tuple[int, float, int, int]], n_trees: int) -> list[_Column]:
        """The masks by feature; nodes: feature, threshold, tree and mask of each."""
        every = int(np.iinfo(self._mask).max)
        columns = []
        for feature in sorted({node[0] for node in nodes}):
            own = [node[1:] for node in nodes if node[0] == feature]
            singles = rounded_down([threshold for threshold, _, _ in own])
            thresholds = np.unique(singles)
            masks = np.full((len(thresholds) + 1, n_trees), every, self._mask)
            place = np.searchsorted(thresholds, singles) + 1
            for row, (_, tree, mask) in zip(place.tolist(), own, strict=True):
                masks[row, tree] &= self._mask(mask & every)
            combined = np.bitwise_and.accumulate(masks, axis=0)
            columns.append(_Column(feature, thresholds, combined))
        return columns


def without_missing(values: Float32) -> Float32:
    """The values, with 0 for what LightGBM takes for it: NaN, and what is next to nothing."""
    return np.where(np.abs(values) > _ZERO, values, np.float32(0))


def rounded_down(thresholds: Sequence[float]) -> Float32:
    """float32[t]: the largest singles that are no larger: a single is above both, or neither."""
    doubles = np.array(thresholds, np.float64)
    with np.errstate(over="ignore"):  # beyond single precision is infinity, or below it
        singles = doubles.astype(np.float32)
    return np.where(singles > doubles, np.nextafter(singles, np.float32(-np.inf)), singles)


def _places(thresholds: Float32, values: Float32) -> NDArray[Any]:
    """[n]: how many of the thresholds, float32[t] ascending, each value float32[n] is above."""
    if len(thresholds) > COMPARED:
        return np.searchsorted(thresholds, values, side="left")
    above = thresholds[:, None] < values
    return np.add.reduce(above.view(np.uint8), axis=0, dtype=np.uint8)


def _left_to_right(tree: Tree) -> tuple[list[int], list[tuple[int, int]]]:
    """The leaves from left to right, and for each node the places of its left subtree's leaves."""
    n_leaves = np.ones(len(tree.feature), np.int64)  # of each node's left subtree
    total = np.ones(len(tree.feature), np.int64)
    for node in reversed(range(len(tree.feature))):  # children come after their parents
        sizes = [int(total[c]) if c >= 0 else 1 for c in (tree.left[node], tree.right[node])]
        n_leaves[node], total[node] = sizes[0], sum(sizes)
    order = [0] * len(tree.value)
    starts = np.zeros(len(tree.feature), np.int64)
    for node in range(len(tree.feature)):
        middle = starts[node] + n_leaves[node]
        for child, start in ((tree.left[node], starts[node]), (tree.right[node], middle)):
            if child >= 0:
                starts[child] = start
            else:
                order[start] = int(~child)
    spans = [(int(start), int(size)) for start, size in zip(starts, n_leaves, strict=True)]
    return order, spans


def _without(start: int, size: int) -> int:
    """A mask of all bits but `size` of them from `start`."""
    return ~(((1 << size) - 1) << start)
