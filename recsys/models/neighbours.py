"""Item-to-item co-visitation: the strongest neighbours of each item."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.decay import decayed
from shortlist.recsys.models.interactions import MISSING, Float32, Int32
from shortlist.recsys.store.histories import HISTORY_LENGTH

UInt16 = NDArray[np.uint16]


class Relation(IntEnum):
    """A kind of neighbourhood; its value is its index in `Neighbours`."""

    NEXT_1 = 0
    """How often j was the event after i, for each time i occurred."""
    NEXT_3 = 1
    """The same within 3 events."""
    NEXT_10 = 2
    """The same within 10 events."""
    NEAR = 3
    """Within 10 events in either direction, normalised by both items' counts (a cosine)."""
    REGRESSION = 4
    """Weights of the item-item ridge regression (Steck, 2019).

    The last one, so that catalogues too large for it do without.
    """


NEIGHBOURS = 50
"""Neighbours kept for each item and relation: 100 were measured to be no better."""

UNITS = float(np.iinfo(np.uint16).max)
"""The largest weight, in units of its item."""

PROPOSING_RELATIONS = (Relation.NEXT_10, Relation.NEAR, Relation.REGRESSION)
"""The relations that propose candidates; NEXT_10 counts what NEXT_1 and NEXT_3 count."""

PROPOSING_HALF_LIFE = 10.0
"""In events: how fast a history's items lose their say in what is proposed."""

_DECAY = decayed(np.arange(HISTORY_LENGTH - 1, -1, -1, dtype=np.float32), PROPOSING_HALF_LIFE)
"""float32[N], in single precision as the weights are: doubles would reorder near ties."""

DENSE_ITEMS = 500_000
"""Catalogues up to this size are summed over as a whole, which is faster than sorting the few."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The strongest neighbours of n items under the first R relations.

    rows: int32[R, n + 1, K] item rows, strongest first, n where there is none.
    weights: uint16[R, n + 1, K], in units of their item, zero there.
    units: float32[R, n + 1], powers of two.
    The last item row is padding, so that MISSING (-1) reads no neighbours.

    Two bytes a weight are half of single precision, and 16 bits below an item's strongest neighbour
    tell the others apart better than half precision would. They are also faster to read.
    """

    rows: Int32
    weights: UInt16
    units: Float32

    @staticmethod
    def packed(rows: Int32, weights: Float32) -> Neighbours:
        """The neighbours of weights float32[R, n + 1, K], at least 0, rounded to units."""
        exponent = np.frexp(weights.max(axis=2, initial=0) / UNITS)[1]
        units = np.ldexp(np.float32(1), exponent).astype(np.float32)
        return Neighbours(rows, np.rint(weights / units[:, :, None]).astype(np.uint16), units)

    def has(self, relation: Relation) -> bool:
        """Whether there are neighbours of this relation."""
        return relation < len(self.rows)

    def of(self, relation: Relation, items: Int32) -> tuple[Int32, Float32]:
        """The neighbours of items int32[m]: their rows int32[m, K] and weights float32[m, K]."""
        # `take` is faster here than brackets.
        weights = self.weights[relation].take(items, axis=0).astype(np.float32)
        weights *= self.units[relation].take(items)[:, None]
        return self.rows[relation].take(items, axis=0), weights


def proposed(
    neighbours: Neighbours, history: Int32, limit: int, allowed: NDArray[np.bool_]
) -> Int32:
    """int32[m]: a history's strongest neighbours, the relations taking turns.

    limit: items of each proposing relation.
    history: int32[N] item rows, MISSING-padded; allowed: bool[n] masks what may be proposed.
    """
    past = history[history != MISSING]
    if len(past) == 0:
        return np.empty(0, np.int32)
    decay = _DECAY[len(_DECAY) - len(past) :, None]
    lists: list[Int32] = []
    for relation in filter(neighbours.has, PROPOSING_RELATIONS):
        rows, weights = neighbours.of(relation, past)
        weights *= decay
        items, total = _totals(rows.ravel(), weights.ravel(), allowed)
        lists.append(strongest(items, total, limit).astype(np.int32))
    return _interleaved(lists)


def strongest(items: NDArray[Any], scores: NDArray[Any], limit: int) -> NDArray[Any]:
    """[<= limit]: the items [m] of the highest scores [m], best first, ties by item."""
    if 0 < limit < len(items):  # sorting the few is faster than sorting all
        least = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        kept = scores >= least
        items, scores = items[kept], scores[kept]
    return items[np.lexsort((items, -scores))[:limit]]


def _totals(
    rows: Int32, weights: Float32, allowed: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The allowed among the rows, ascending, and the positive sum of the weights of each."""
    n = len(allowed)
    if n <= DENSE_ITEMS:
        total = np.bincount(rows, weights, minlength=n + 1)[:n]
        items = np.flatnonzero((total > 0) & allowed)
        return items, total[items]
    items, inverse = np.unique(rows, return_inverse=True)
    total = np.bincount(inverse.ravel(), weights)
    kept = (items < n) & (total > 0)
    kept[kept] = allowed[items[kept]]
    return items[kept], total[kept]


def _interleaved(lists: list[Int32]) -> Int32:
    """The lists' distinct items, one of each list in turn."""
    width = max(map(len, lists))
    grid = np.full((width, len(lists)), MISSING, np.int32)
    for column, items in enumerate(lists):
        grid[: len(items), column] = items
    flat = grid.ravel()
    flat = flat[flat != MISSING]
    first = np.unique(flat, return_index=True)[1]
    return flat[np.sort(first)]
