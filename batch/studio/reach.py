"""Counts in how many users' lists each item stands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import BinaryIO

import numpy as np

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.arrays import read_npy
from shortlist.recsys.models.interactions import MISSING, Int32

FILE = "reach.npy"
"""In the bundle, once the lists are made."""

BANDS = ((1, 10), (11, 20), (21, 50), (51, 100))
"""First and last rank of each band."""

LISTS_AT_ONCE = 4096
"""Lists that are counted together."""


def reach(lists: Iterable[Int32], n_items: int) -> Int32:
    """int32[bands, n_items]: the lists with each item, by the band of its rank.

    lists: int32[K] item rows of each user, best first.
    """
    counted = np.zeros((len(BANDS), n_items), np.int64)
    following = iter(lists)
    while some := list(islice(following, LISTS_AT_ONCE)):
        ranked = np.full((len(some), BANDS[-1][1]), MISSING, np.int32)
        for row, listed in enumerate(some):
            ranked[row, : len(listed)] = listed[: ranked.shape[1]]
        for band, (first, last) in enumerate(BANDS):
            items = ranked[:, first - 1 : last]
            counted[band] += np.bincount(items[items != MISSING], minlength=n_items)
    return counted.astype(np.int32)


def read(file: BinaryIO, n_items: int) -> Int32:
    """Reads int32[bands, n_items]. Raises CorruptArtefact."""
    counted = read_npy(file, "<i4", 0, np.iinfo(np.int32).max)
    if counted.shape != (len(BANDS), n_items):
        raise CorruptArtefact(
            f"{FILE} is of shape {counted.shape}, the catalogue has {n_items} items: "
            "publish the release again"
        )
    return counted
