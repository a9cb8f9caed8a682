"""Scores in the form of lists."""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.diversity import unit_vectors
from shortlist.recsys.models.scores import falling_scores, half_bytes, within_half


def test_scores_fall_from_one_towards_zero() -> None:
    """By equal steps; the last is above zero."""
    assert falling_scores(4).tolist() == [1.0, 0.75, 0.5, 0.25]
    assert falling_scores(0, "<f2").tobytes() == b""


def test_scores_are_clipped_to_half_precision() -> None:
    """Infinity would sort and print as no number."""
    scores = np.array([1e9, -1e9, 0.1], np.float32)
    assert within_half(scores).tolist() == [65504.0, -65504.0, np.float32(0.1)]
    assert half_bytes(scores) == np.array([65504, -65504, 0.1], "<f2").tobytes()


def test_unit_vectors_have_length_one() -> None:
    """Except for zeros, which have no direction."""
    unit = unit_vectors(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0]], rtol=1e-6)
