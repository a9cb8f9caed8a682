"""The records that cross process borders, and their msgpack codecs: stdlib and msgpack only.

Records are arrays whose first element is a layout number. They only ever grow at the end: a reader takes the elements it
knows and leaves the rest, so that an older reader survives a newer writer.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import msgpack

from recsys.errors import CorruptArtefact

LAYOUT = 1


@dataclass(frozen=True, slots=True)
class ShortlistRecord:
    """A user's precomputed list, best first.

    created_at: unix seconds; as_of: time of the latest event it knows; n_events: events of this user it knows; n_candidates:
    items that were ranked; rows: item rows of the release; scores, retrieval: of the same items, at half precision.
    """

    created_at: int
    as_of: int
    n_events: int
    n_candidates: int
    rows: tuple[int, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as Redis keeps them, over all releases.

    items, times, weights: the latest events, oldest first; n_events: events ever; seen: item ids had before those events;
    attributes: {column: value}.
    """

    items: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    weights: tuple[float | None, ...] = ()
    n_events: int = 0
    seen: tuple[str, ...] = ()
    attributes: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """What an answer shows of an item."""

    id: str
    title: str
    categories: tuple[str, ...] = ()
    available: bool = True


@dataclass(frozen=True, slots=True)
class ReleasePointer:
    """Which release serves, and which one served before."""

    current: str
    previous: str | None = None


def pack_list(  # the batch hands over little-endian int32 and half-precision bytes as they are
    created_at: int, as_of: int, n_events: int, n_candidates: int, rows: bytes, scores: bytes, retrieval: bytes
) -> bytes:
    """A ShortlistRecord as bytes."""
    return msgpack.packb([LAYOUT, created_at, as_of, n_events, n_candidates, rows, scores, retrieval])


def unpack_list(packed: bytes) -> ShortlistRecord:
    """Reads `pack_list`. Raises CorruptArtefact for anything else."""
    told = _unpack(packed, "list", 8)
    try:
        count = len(told[5]) // 4
        rows = struct.unpack(f"<{count}i", told[5])
        scores, retrieval = (struct.unpack(f"<{count}e", part) for part in told[6:8])
    except (struct.error, TypeError) as error:
        raise CorruptArtefact(
            f"a list's columns have other lengths than its rows ({error}): publish the release again"
        ) from error
    created_at, as_of, n_events, n_candidates = told[1:5]
    return ShortlistRecord(created_at, as_of, n_events, n_candidates, rows, scores, retrieval)


def pack_user(record: UserRecord) -> bytes:
    """A UserRecord as bytes: times as steps, weights at single precision or nil when there are none."""
    steps = [b - a for a, b in pairwise((0, *record.times))]
    weights = None
    if any(w is not None for w in record.weights):
        weights = struct.pack(f"<{len(record.weights)}f", *(float("nan") if w is None else w for w in record.weights))
    told = [LAYOUT, record.items, steps, weights, record.n_events, record.seen, record.attributes or {}]
    return msgpack.packb(told)


def unpack_user(packed: bytes) -> UserRecord:
    """Reads `pack_user`. Raises CorruptArtefact for anything else."""
    _, items, steps, weights, n_events, seen, attributes = _unpack(packed, "user record", 7)[:7]
    try:
        times = tuple(accumulate(steps))
        known: tuple[float | None, ...] = (None,) * len(items)
        if weights is not None:
            known = tuple(None if math.isnan(w) else w for w in struct.unpack(f"<{len(items)}f", weights))
    except (struct.error, TypeError) as error:
        raise CorruptArtefact(f"a user record's columns do not fit together ({error}): delete it") from error
    if len(times) != len(items) or not isinstance(n_events, int) or not all(isinstance(t, int) for t in times):
        raise CorruptArtefact(f"a user record has {len(items)} items, {len(times)} times, {n_events!r} events: delete it")
    return UserRecord(items, times, known, n_events, seen, attributes)


def pack_item(item: ItemRecord) -> bytes:
    """An ItemRecord as bytes."""
    return msgpack.packb([LAYOUT, item.id, item.title, item.categories, item.available])


def unpack_item(packed: bytes) -> ItemRecord:
    """Reads `pack_item`. Raises CorruptArtefact for anything else."""
    return ItemRecord(*_unpack(packed, "item record", 5)[1:5])


def pack_pointer(pointer: ReleasePointer) -> bytes:
    """A ReleasePointer as bytes."""
    return msgpack.packb({"current": pointer.current, "previous": pointer.previous})


def unpack_pointer(packed: bytes) -> ReleasePointer:
    """Reads `pack_pointer`. Raises CorruptArtefact for anything else."""
    told = _decoded(packed, "release pointer")
    if not isinstance(told, dict) or not isinstance(told.get("current"), str):
        raise CorruptArtefact(f"the release pointer holds {told!r}, not a release: promote one")
    return ReleasePointer(told["current"], told.get("previous"))


def _unpack(packed: bytes, what: str, length: int) -> tuple[Any, ...]:
    told = _decoded(packed, what)
    if not isinstance(told, tuple) or len(told) < length or told[0] != LAYOUT:
        raise CorruptArtefact(f"a {what} of layout {LAYOUT} was expected, not {str(told)[:60]}: publish the release again")
    return told


def _decoded(packed: bytes, what: str) -> Any:  # noqa: ANN401 - whatever was packed
    try:
        return msgpack.unpackb(packed, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptArtefact(f"a {what} is not msgpack ({error}): publish the release again") from error
