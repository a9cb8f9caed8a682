"""Tests that the bytes of records in Redis are frozen.

Older writers and older readers still work. A change here is a change of layout: raise it in
`recsys/store/records.py`, and keep reading the old one while its lists live.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shortlist.recsys.store.records import (
    EventRecord,
    ItemRecord,
    Negative,
    ReleasePointer,
    ShortlistRecord,
    UserRecord,
    pack_event,
    pack_item,
    pack_list,
    pack_pointer,
    pack_user,
    unpack_event,
    unpack_item,
    unpack_list,
    unpack_pointer,
    unpack_user,
)

FROZEN: dict[str, str] = json.loads((Path(__file__).parent / "records.json").read_text())
SHORTLIST = ShortlistRecord(
    1785542400,
    1785538800,
    42,
    500,
    (3, 70000, 0),
    (2.5, -0.125, -9.0),
    (0.5, 0.25, 0.75),
    1873476493639680,
)
USER = UserRecord(
    ("50", "é", "172"),
    (100, 100, 86500),
    (5.0, None, 0.5),
    150,
    ("1", "2"),
    {"age": 31.0, "region": "north"},
)
ITEM = ItemRecord("50", "Star Wars (1977)", ("Action", "Sci-Fi"))
WITH_ATTRIBUTES = replace(
    ITEM,
    attributes={"studio": "Lucasfilm", "price": 9.99, "year": 1977, "dubbed": ("de", "fr")},
    unshown={"in_stock": True, "released": "1977-05-25"},
)


def _pack_shortlist(record: ShortlistRecord) -> bytes:
    count = len(record.rows)
    columns = [struct.pack(f"<{count}i", *record.rows)]
    columns += [struct.pack(f"<{count}e", *values) for values in (record.scores, record.retrieval)]
    numbers = (record.created_at, record.as_of, record.n_events, record.n_candidates)
    return pack_list(*numbers, *columns, record.watermark)


CASES: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any], Any]] = {
    "list": (_pack_shortlist, unpack_list, SHORTLIST),
    "list of nothing": (
        _pack_shortlist,
        unpack_list,
        ShortlistRecord(1785542400, 1785538800, 0, 0, (), (), ()),
    ),
    "user": (pack_user, unpack_user, USER),
    "user without weights": (
        pack_user,
        unpack_user,
        UserRecord(("50",), (100,), (None,), 1, (), {}),
    ),
    "new user": (pack_user, unpack_user, UserRecord(attributes={})),
    "user with events over HTTP": (
        pack_user,
        unpack_user,
        UserRecord(
            ("50", "1"),
            (100, 200),
            (None, None),
            2,
            (),
            {},
            (0, 1873476493639681),
            1873476493639680,
        ),
    ),
    "user with feedback": (
        pack_user,
        unpack_user,
        UserRecord(
            ("50", "1", "50"),
            (100, 200, 300),
            (None, 2.0, None),
            2,
            ("7",),
            {},
            (0, 0, 1873476493639681),
            types=("view", None, "buy"),
            negatives=(
                Negative("1", 250, 1873476493639680, "return"),
                Negative("9", 260, 0, spent=True),
            ),
            disliked=("8",),
        ),
    ),
    "event": (
        pack_event,
        unpack_event,
        EventRecord("e1", "42", "50", 1785542400, -1.0, "r1", 3, "return"),
    ),
    "item": (pack_item, unpack_item, ITEM),
    "item not available": (pack_item, unpack_item, ItemRecord("9", "é", (), available=False)),
    "item with attributes": (pack_item, unpack_item, WITH_ATTRIBUTES),
    "pointer": (
        pack_pointer,
        unpack_pointer,
        ReleasePointer("20260801T000000Z-3f9a81bc", "20260731T000000Z-81bc3f9a"),
    ),
    "first pointer": (pack_pointer, unpack_pointer, ReleasePointer("20260801T000000Z-3f9a81bc")),
}


OLDER: dict[str, tuple[Callable[[bytes], Any], Any]] = {
    "list without a watermark": (unpack_list, replace(SHORTLIST, watermark=0)),
    "user without positions": (unpack_user, USER),
    "user without feedback": (unpack_user, USER),
    "event without a position": (unpack_event, EventRecord("e1", "42", "50", 1785542400, 4.0)),
    "event without a type": (
        unpack_event,
        EventRecord("e1", "42", "50", 1785542400, 4.0, "r1", 3),
    ),
    "item without attributes": (unpack_item, ITEM),
}
"""What older writers wrote, which is still read."""


def test_every_record_is_frozen() -> None:
    """The file and this module know the same records."""
    assert set(FROZEN) == {*CASES, *OLDER}


@pytest.mark.parametrize("name", OLDER)
def test_older_records_are_read(name: str) -> None:
    """What an older batch wrote serves until the next refresh."""
    unpack, record = OLDER[name]
    assert unpack(bytes.fromhex(FROZEN[name])) == record


@pytest.mark.parametrize("name", CASES)
def test_written(name: str) -> None:
    """A record is written as the very bytes that were frozen."""
    pack, _, record = CASES[name]
    assert pack(record).hex() == FROZEN[name]


@pytest.mark.parametrize("name", CASES)
def test_read(name: str) -> None:
    """The frozen bytes are read as the record that they were."""
    _, unpack, record = CASES[name]
    assert unpack(bytes.fromhex(FROZEN[name])) == record
