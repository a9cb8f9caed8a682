"""Counts in how many lists each item stands."""

from __future__ import annotations

import io

import numpy as np
import pytest

from shortlist.batch.studio import reach as reach_module
from shortlist.batch.studio.reach import reach, read
from shortlist.recsys.errors import CorruptArtefact


def test_items_by_band(monkeypatch) -> None:
    """Item 0 is first in two lists, item 2 eleventh in one; what is beyond the bands is left."""
    monkeypatch.setattr(reach_module, "LISTS_AT_ONCE", 2)
    long = np.array([0, *[1] * 9, 2, *[3] * 120], np.int32)
    lists = [np.array([0], np.int32), np.empty(0, np.int32), long]
    counted = reach(lists, 4)
    assert counted.tolist() == [[2, 9, 0, 0], [0, 0, 1, 9], [0, 0, 0, 30], [0, 0, 0, 50]]


def test_another_catalogue_is_refused() -> None:
    """Counts of two items do not fit three."""
    body = io.BytesIO()
    np.save(body, reach([], 2))
    with pytest.raises(CorruptArtefact, match="3 items"):
        read(body, 3)
