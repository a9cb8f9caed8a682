"""Tests the codecs of the records, and their errors.

The subjects are halves, steps, tolerance, and bad records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from shortlist.recsys.errors import UnreadableRecord
from shortlist.recsys.store.records import (
    Canary,
    ItemRecord,
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

Unpack = Callable[[bytes], Any]
LISTS = (
    1,
    10,
    20,
    3,
    500,
    struct.pack("<2i", 7, 8),
    struct.pack("<2e", 2.5, 1.0),
    struct.pack("<2e", 0.5, 0.25),
)
USER = (1, ("a", "b"), (100, 5), None, 4, ("c",), {"age": 31.0})
ITEM = (1, "a", "A", ("x",), True)


def test_list() -> None:
    """A packed list is read back with its scores at half precision."""
    packed = pack_list(10, 20, 3, 500, *LISTS[5:])
    assert unpack_list(packed) == ShortlistRecord(10, 20, 3, 500, (7, 8), (2.5, 1.0), (0.5, 0.25))


def test_empty_list() -> None:
    """A user for whom nothing is left has a list of no items."""
    assert unpack_list(pack_list(1, 2, 0, 0, b"", b"", b"")) == ShortlistRecord(
        1, 2, 0, 0, (), (), ()
    )


def test_user() -> None:
    """A user's times are kept as steps, and a weight that is missing among others stays missing."""
    record = UserRecord(
        ("a", "b", "c"), (100, 105, 105), (4.5, None, 1.0), 9, ("d",), {"age": 31.0, "region": "n"}
    )
    assert msgpack.unpackb(pack_user(record))[2] == [100, 5, 0]
    assert unpack_user(pack_user(record)) == record


def test_user_without_weights() -> None:
    """Weights that nobody gave take no room and are read back as missing."""
    record = UserRecord(("a", "b"), (1, 2), (None, None), 2, (), {})
    assert msgpack.unpackb(pack_user(record))[3] is None
    assert unpack_user(pack_user(record)) == record


def test_new_user() -> None:
    """A record of nothing but its defaults is read back, with no attributes instead of none."""
    assert unpack_user(pack_user(UserRecord())) == UserRecord(attributes={})


def test_item() -> None:
    """An item is read back, also one that is not available."""
    item = ItemRecord("a", "A (1999)", ("x", "y"), available=False)
    assert unpack_item(pack_item(item)) == item


@pytest.mark.parametrize("pointer", [ReleasePointer("v1"), ReleasePointer("v2", "v1")])
def test_pointer(pointer: ReleasePointer) -> None:
    """The pointer is read back, with and without a release before."""
    assert unpack_pointer(pack_pointer(pointer)) == pointer


def test_pointer_tolerates_more() -> None:
    """A field that a later writer adds to the pointer is passed over."""
    assert unpack_pointer(msgpack.packb({"current": "v1", "since": 5})) == ReleasePointer("v1")


def _with(fields: tuple[Any, ...], at: int, value: object) -> tuple[Any, ...]:
    return (*fields[:at], value, *fields[at + 1 :])


BROKEN: list[tuple[Unpack, object]] = [
    (unpack_list, _with(LISTS, 0, 2)),
    (unpack_list, LISTS[:7]),
    (unpack_list, _with(LISTS, 5, LISTS[5][:7])),
    (unpack_list, _with(LISTS, 6, LISTS[6][:2])),
    (unpack_list, _with(LISTS, 7, "text")),
    (unpack_list, _with(LISTS, 5, 5)),
    (unpack_list, _with(LISTS, 1, "yesterday")),
    (unpack_list, {"layout": 1}),
    (unpack_user, _with(USER, 0, None)),
    (unpack_user, USER[:6]),
    (unpack_user, _with(USER, 1, 5)),
    (unpack_user, _with(USER, 1, (5, 6))),
    (unpack_user, _with(USER, 2, ("x", "y"))),
    (unpack_user, _with(USER, 2, 7)),
    (unpack_user, _with(USER, 2, (100,))),
    (unpack_user, _with(USER, 3, b"xyz")),
    (unpack_user, _with(USER, 3, 3.0)),
    (unpack_user, _with(USER, 4, "many")),
    (unpack_user, _with(USER, 5, None)),
    (unpack_user, _with(USER, 6, ["age"])),
    (unpack_user, (*USER, None, 0, "feedback")),
    (unpack_user, (*USER, None, 0, [None, [[], [], None, None, []]])),
    (unpack_user, (*USER, None, 0, [None, [], []])),
    (unpack_user, (*USER, None, 0, [None, [[], [], None, None, []], [7]])),
    (unpack_user, (*USER, None, 0, [None, [["a"], [], None, None, []], []])),
    (unpack_user, (*USER, None, 0, [None, [["a"], [-1], None, None, []], []])),
    (unpack_user, (*USER, None, 0, [None, [["a"], [1], [1, 2], None, []], []])),
    (unpack_user, (*USER, None, 0, [[["buy"], [1]], [[], [], None, None, []], []])),
    (unpack_user, (*USER, None, 0, [[["buy"], [1, 2]], [[], [], None, None, []], []])),
    (unpack_item, ITEM[:4]),
    (unpack_item, _with(ITEM, 1, 7)),
    (unpack_item, _with(ITEM, 3, None)),
    (unpack_item, "a"),
    (unpack_pointer, ["v1"]),
    (unpack_pointer, {"current": 5}),
    (unpack_pointer, {"current": "v2", "previous": 5}),
    (unpack_pointer, {}),
]


@pytest.mark.parametrize(("unpack", "fields"), BROKEN)
def test_broken(unpack: Unpack, fields: object) -> None:
    """A record of another layout, length or type is corrupt, and never a half-read one."""
    with pytest.raises(UnreadableRecord):
        unpack(msgpack.packb(fields))


@pytest.mark.parametrize("unpack", [unpack_list, unpack_user, unpack_item, unpack_pointer])
@pytest.mark.parametrize(
    "packed",
    [b"", b"\xc1", b"\x98\x01", b"\xa2\xff\xff", b"\xd6\xff\x00\x00\x00\x00", b"\x91" * 2000],
)
def test_no_record(unpack: Unpack, packed: bytes) -> None:
    """Bytes that are no record are unreadable, and the message says what to do."""
    with pytest.raises(UnreadableRecord, match=r"publish the release again|promote one"):
        unpack(packed)


def test_pointer_with_and_without_canary() -> None:
    """An older reader of a pointer without a canary sees no difference."""
    pointer = ReleasePointer("b", "a", Canary("c", 12.5))
    assert unpack_pointer(pack_pointer(pointer)) == pointer
    assert msgpack.unpackb(pack_pointer(ReleasePointer("b", "a"))) == {
        "current": "b",
        "previous": "a",
    }


@pytest.mark.parametrize("canary", ["v", {"version": 1, "percent": 2}, {"version": "v"}])
def test_pointer_with_broken_canary(canary) -> None:
    """And says what ends it."""
    with pytest.raises(UnreadableRecord, match="promote a release"):
        unpack_pointer(msgpack.packb({"current": "b", "canary": canary}))
