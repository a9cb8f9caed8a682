"""Similar items, by vectors and by neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.models.neighbours import NEIGHBOURS, Neighbours, Relation
from shortlist.recsys.models.similar import similar

N = 5
VECTORS = np.array([[1, 0], [0.08, 0.06], [6, 8], [0, 3], [-2, 0]], np.float32)
"""Of item 0, each is less like it than the one before, however long its vector."""


@pytest.fixture
def together() -> Neighbours:
    """Item 0 is taken with 3, and less often with 2."""
    rows = np.full((len(Relation), N + 1, NEIGHBOURS), N, np.int32)
    rows[Relation.NEAR, 0, :2] = 3, 2
    return Neighbours.packed(rows, np.zeros(rows.shape, np.float32))


def test_both_orders_count(together) -> None:
    """By 1 / (60 + place) of each, scaled to 1 for the first of both: 2 is second and second."""
    rows, scores = similar(VECTORS, together, 0, np.array([1, 2, 3, 4], np.int32))
    assert rows.tolist() == [3, 2, 1, 4]
    assert scores * 2 / 61 == pytest.approx([1 / 63 + 1 / 61, 1 / 62 + 1 / 62, 1 / 61, 1 / 64])


def test_places_count_among_given_rows(together) -> None:
    """Without 3, item 2 is the first neighbour, and the second in likeness."""
    rows, scores = similar(VECTORS, together, 0, np.array([1, 2, 4], np.int32))
    assert (rows.tolist(), scores[0]) == ([2, 1, 4], pytest.approx((61 / 62 + 1) / 2))


def test_no_neighbours_gives_nearest_vectors(together) -> None:
    """As a new one."""
    assert similar(VECTORS, together, 4, np.array([0, 1, 2, 3], np.int32))[0].tolist() == [
        3,
        2,
        1,
        0,
    ]


def test_nothing_to_choose_from(together) -> None:
    """Every item may be excluded."""
    assert [array.tolist() for array in similar(VECTORS, together, 0, np.array([], np.int32))] == [
        [],
        [],
    ]
