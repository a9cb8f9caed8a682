"""Draws the order of events that share a time.

Events of one user at one time have no order of their own. The order of rows must not stand in for
it: a file that is sorted by item, by rating or by popularity would pass for a history. The order is
drawn by a hash of the events themselves, so it is the same for any order of rows, on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Float32, Int32, Int64, UInt8

UInt64 = NDArray[np.uint64]


def draws(
    user_ids: Iterable[str],
    item_ids: Iterable[str],
    user: Int32,
    item: Int32,
    time: Int64,
    weight: Float32,
) -> UInt64:
    """uint64[n]: a number for each event, by which events of one user and time are sorted.

    user, item: int32[n] positions in the ids; time: int64[n]; weight: float32[n], NaN where there
    is none. Events that differ in anything have different numbers, but for chance: one pair in
    2^64.
    """
    drawn = _mixed(_hashes(user_ids)[user]) ^ _hashes(item_ids)[item]
    drawn = _mixed(drawn) ^ time.astype(np.uint64)
    one_nan = np.where(np.isnan(weight), np.float32(np.nan), weight)  # NaNs differ in their bits
    return _mixed(_mixed(drawn) ^ one_nan.view(np.uint32).astype(np.uint64))


def drawn_by_kind(drawn: UInt64, names: Iterable[str], kind: UInt8) -> UInt64:
    """uint64[n]: numbers that differ by the kinds of events as well.

    drawn: uint64[n], the draw of each event; names: of all kinds; kind: uint8[n] positions in them.
    """
    return _mixed(drawn) ^ _hashes(names)[kind]


def _hashes(ids: Iterable[str]) -> UInt64:
    """uint64[m]: the first 8 bytes of each id's BLAKE2b."""
    whole = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.frombuffer(whole, "<u8").astype(np.uint64)


def _mixed(values: UInt64) -> UInt64:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), which mixes all bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
