"""Tests round trips of every record, and unreadable bytes.

Longer arrays are read, and any other bytes raise UnreadableRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.recsys.errors import UnreadableRecord
from shortlist.recsys.store.records import (
    ItemRecord,
    Negative,
    ReleasePointer,
    ShortlistRecord,
    UserRecord,
    pack_item,
    pack_list,
    pack_pointer,
    pack_user,
    unpack_item,
    unpack_list,
    unpack_pointer,
    unpack_user,
)

Case = tuple[Callable[[bytes], Any], bytes, Any]
TEXT = st.text(max_size=20)
MOMENTS = st.integers(0, 2**40)
HALVES = st.floats(width=16, allow_nan=False)
ATTRIBUTES = st.dictionaries(TEXT, TEXT | st.floats(allow_nan=False), max_size=4)
ITEM_ATTRIBUTES = st.dictionaries(
    TEXT,
    TEXT
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(TEXT, max_size=3).map(tuple),
    max_size=3,
)
WEIGHTS = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)
NEGATIVES = st.tuples(TEXT, MOMENTS, st.integers(0, 2**61), st.none() | TEXT, st.booleans()).map(
    lambda fields: Negative(*fields)
)
COUNTS = st.integers(0, 2**31 - 1)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | TEXT
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@st.composite
def _lists(draw: st.DrawFn) -> Case:
    count = draw(st.integers(0, 30))
    rows = tuple(draw(st.lists(st.integers(0, 2**31 - 1), min_size=count, max_size=count)))
    scores, retrieval = (
        tuple(draw(st.lists(HALVES, min_size=count, max_size=count))) for _ in range(2)
    )
    record = ShortlistRecord(
        *(draw(MOMENTS) for _ in range(4)), rows, scores, retrieval, draw(MOMENTS)
    )
    numbers = (record.created_at, record.as_of, record.n_events, record.n_candidates)
    columns = (
        struct.pack(f"<{count}{code}", *v)
        for code, v in (("i", rows), ("e", scores), ("e", retrieval))
    )
    return unpack_list, pack_list(*numbers, *columns, record.watermark), record


@st.composite
def _users(draw: st.DrawFn) -> Case:
    items = tuple(draw(st.lists(TEXT, max_size=20)))
    times = tuple(accumulate(draw(st.lists(MOMENTS, min_size=len(items), max_size=len(items)))))
    weights = tuple(draw(st.lists(WEIGHTS, min_size=len(items), max_size=len(items))))
    positions = draw(st.just(()) | st.tuples(*(st.integers(1, 2**61) for _ in items)))
    seen = tuple(draw(st.lists(TEXT, max_size=9)))
    types = draw(st.just(()) | st.tuples(*(st.none() | TEXT for _ in items)))
    negatives = sorted(draw(st.lists(NEGATIVES, max_size=5)), key=lambda each: each.time)
    record = UserRecord(
        items,
        times,
        weights,
        draw(COUNTS),
        seen,
        draw(ATTRIBUTES),
        positions,
        draw(MOMENTS),
        types if any(each is not None for each in types) else (),
        tuple(negatives),
        tuple(draw(st.lists(TEXT, max_size=3))),
    )
    return unpack_user, pack_user(record), record


@st.composite
def _items(draw: st.DrawFn) -> Case:
    record = ItemRecord(
        draw(TEXT),
        draw(TEXT),
        tuple(draw(st.lists(TEXT, max_size=4))),
        draw(st.booleans()),
        draw(ITEM_ATTRIBUTES),
        draw(ITEM_ATTRIBUTES),
    )
    return unpack_item, pack_item(record), record


@st.composite
def _pointers(draw: st.DrawFn) -> Case:
    record = ReleasePointer(draw(TEXT), draw(st.none() | TEXT))
    return unpack_pointer, pack_pointer(record), record


ARRAYS = _lists() | _users() | _items()
CASES = ARRAYS | _pointers()
READERS = (unpack_list, unpack_user, unpack_item, unpack_pointer)


@given(CASES)
def test_round_trip(case: Case) -> None:
    """Every record is read back as it was written."""
    unpack, packed, record = case
    assert unpack(packed) == record


@given(ARRAYS, st.lists(VALUES, max_size=3))
def test_longer_arrays(case: Case, more: list[Any]) -> None:
    """What a later writer appends to a record does not disturb an older reader."""
    unpack, packed, record = case
    assert unpack(msgpack.packb([*msgpack.unpackb(packed), *more])) == record


@given(CASES, st.data())
def test_cut_off(case: Case, data: st.DataObject) -> None:
    """A record that was cut off is corrupt."""
    unpack, packed, _ = case
    with pytest.raises(UnreadableRecord):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


def _only_corrupt(unpack: Callable[[bytes], Any], packed: bytes) -> None:
    try:
        unpack(packed)
    except UnreadableRecord:
        return


@given(CASES, st.data())
def test_changed_byte(case: Case, data: st.DataObject) -> None:
    """A record with a changed byte is read or corrupt, and nothing else."""
    unpack, packed, _ = case
    at = data.draw(st.integers(0, len(packed) - 1))
    _only_corrupt(
        unpack, packed[:at] + data.draw(st.binary(min_size=1, max_size=1)) + packed[at + 1 :]
    )


@given(st.sampled_from(READERS), st.binary(max_size=60))
def test_any_bytes(unpack: Callable[[bytes], Any], packed: bytes) -> None:
    """Any bytes are a record or corrupt, and nothing else."""
    _only_corrupt(unpack, packed)


@given(st.sampled_from(READERS), st.lists(VALUES, min_size=4, max_size=8))
def test_any_values(unpack: Callable[[bytes], Any], values: list[Any]) -> None:
    """An array of the right layout and any values is a record or corrupt, and nothing else."""
    _only_corrupt(unpack, msgpack.packb([1, *values]))
