"""The records that cross process borders, and their msgpack codecs: stdlib and msgpack only.

Records are arrays whose first element is a layout number. They only ever grow at the end: a reader
takes the elements it knows and leaves the rest, so that an older reader survives a newer writer.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import UnionType
from typing import Any

import msgpack

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.values import MAX_TIME, MAX_WEIGHT

LAYOUT = 1


@dataclass(frozen=True, slots=True)
class ShortlistRecord:
    """A user's precomputed list, best first.

    created_at: unix seconds; as_of: time of the latest event it knows; n_events: events of this
    user it knows; n_candidates: items that were ranked; rows: item rows of the release; scores,
    retrieval: of the same items, at half precision;
    watermark: position in the stream of events up to which it has learnt (see
    `recsys.store.watermark`).
    """

    created_at: int
    as_of: int
    n_events: int
    n_candidates: int
    rows: tuple[int, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]
    watermark: int = 0


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as Redis keeps them, over all releases.

    items, times, weights: the latest events, oldest first; n_events: events ever; seen: item ids
    had before those events;
    attributes: {column: value}; positions: of the same events in the stream of events, 0 for those
    of the batch's table; empty where all are of the table; spilled: the greatest position among
    events that have left for `seen`.
    """

    items: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    weights: tuple[float | None, ...] = ()
    n_events: int = 0
    seen: tuple[str, ...] = ()
    attributes: dict[str, Any] | None = None
    positions: tuple[int, ...] = ()
    spilled: int = 0


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """What an answer shows of an item."""

    id: str
    title: str
    categories: tuple[str, ...] = ()
    available: bool = True


@dataclass(frozen=True, slots=True)
class Canary:
    """A release that a share of the users is served from, to see how it does."""

    version: str
    percent: float


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that a user did, as it waits for the next training."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: int
    weight: float | None = None
    recommendation_id: str | None = None
    position: int | None = None
    """The place in the answer, from 1, of the item that the user acted on."""


@dataclass(frozen=True, slots=True)
class ReleasePointer:
    """Which release serves, which one served before, and which one is tried on some users."""

    current: str
    previous: str | None = None
    canary: Canary | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """Every release that somebody may have been served from lately: the serving one first."""
        canary = None if self.canary is None else self.canary.version
        return tuple(
            dict.fromkeys(v for v in (self.current, canary, self.previous) if v is not None)
        )

    def serving(self, user: str | None) -> str:
        """The release that serves this user (None: nobody in particular).

        A user's place in 0 to 100 is a hash of canary and user: the same in every process, kept as
        the percentage grows, and another for the next canary, so that not always the same users are
        first.
        """
        if self.canary is None or user is None:
            return self.current
        digest = hashlib.sha256(f"{self.canary.version}\n{user}".encode()).digest()
        place = int.from_bytes(digest[:4], "big") / 2**32 * 100
        return self.canary.version if place < self.canary.percent else self.current


def pack_list(  # the batch hands over little-endian int32 and half-precision bytes as they are
    created_at: int,
    as_of: int,
    n_events: int,
    n_candidates: int,
    rows: bytes,
    scores: bytes,
    retrieval: bytes,
    watermark: int = 0,
) -> bytes:
    """A ShortlistRecord as bytes, with a checksum: a flipped bit would otherwise be another item."""
    numbers = (created_at, as_of, n_events, n_candidates)
    checksum = _checksum((*numbers, watermark), (rows, scores, retrieval))
    return msgpack.packb([LAYOUT, *numbers, rows, scores, retrieval, watermark, checksum])


def unpack_list(packed: bytes) -> ShortlistRecord:
    """Reads `pack_list`. Raises CorruptArtefact for anything else."""
    told = _unpack(packed, "list", 8)
    numbers, columns = (
        _typed("list", told[1:5], int, int, int, int),
        _typed("list", told[5:8], bytes, bytes, bytes),
    )
    watermark = 0
    if len(told) > 9:  # noqa: PLR2004 - older writers knew neither watermark nor checksum
        watermark, checksum = _typed("list", told[8:10], int, int)
        if checksum != _checksum((*numbers, watermark), columns):
            raise CorruptArtefact("a list is not what its checksum says: publish the release again")
    count = len(columns[0]) // 4
    try:
        rows = struct.unpack(f"<{count}i", columns[0])
        scores, retrieval = (struct.unpack(f"<{count}e", part) for part in columns[1:])
    except struct.error as error:
        raise CorruptArtefact(
            f"a list's columns have other lengths than its rows ({error}): publish the release again"
        ) from error
    created_at, as_of, n_events, n_candidates = numbers
    return ShortlistRecord(
        created_at, as_of, n_events, n_candidates, rows, scores, retrieval, watermark
    )


def _checksum(numbers: tuple[int, ...], columns: tuple[bytes, ...]) -> int:
    """CRC-32 of a list's numbers and columns; enough against faults, no protection against forgers."""
    checksum = zlib.crc32(repr(numbers).encode())
    for column in columns:
        checksum = zlib.crc32(column, checksum)
    return checksum


MAX_STORED_EVENTS = 1 << 31
"""Events of one user are fewer: models count them in 32 bits."""


def pack_user(record: UserRecord) -> bytes:
    """A UserRecord as bytes: times as steps, weights at single precision or nil when there are none."""
    steps = [b - a for a, b in pairwise((0, *record.times))]
    weights = None
    if any(w is not None for w in record.weights):
        weights = struct.pack(
            f"<{len(record.weights)}f", *(float("nan") if w is None else w for w in record.weights)
        )
    told = [
        LAYOUT,
        record.items,
        steps,
        weights,
        record.n_events,
        record.seen,
        record.attributes or {},
    ]
    return msgpack.packb(
        [*told, record.positions if any(record.positions) else None, record.spilled]
    )


def unpack_user(packed: bytes) -> UserRecord:
    """Reads `pack_user`. Raises CorruptArtefact for anything else."""
    what, told = "user record", _unpack(packed, "user record", 7)
    items, steps, weights, n_events, seen, attributes = _typed(
        what, told[1:7], tuple, tuple, bytes | None, int, tuple, dict
    )
    kept, spilled = _typed(what, told[7:9], tuple | None, int) if len(told) > 8 else (None, 0)  # noqa: PLR2004 - older ones
    positions = kept or ()
    for values, kind in ((items, str), (seen, str), (steps, int), (positions, int)):
        _typed(what, values, *(kind,) * len(values))
    times = tuple(accumulate(steps))
    if len(steps) != len(items) or (weights is not None and len(weights) != 4 * len(items)):
        raise _unusable(what, f"{len(items)} items, and times or weights of another number")
    if positions and len(positions) != len(items):
        raise _unusable(what, f"{len(items)} items, and {len(positions)} positions")
    if not 0 <= n_events < MAX_STORED_EVENTS or any(not 0 <= time <= MAX_TIME for time in times):
        raise _unusable(what, "a time or a number of events beyond its range")
    _attributes(what, attributes)
    known: tuple[float | None, ...] = (None,) * len(items)
    if weights is not None:
        known = tuple(
            None if math.isnan(w) else w for w in struct.unpack(f"<{len(items)}f", weights)
        )
        if any(w is not None and abs(w) > MAX_WEIGHT for w in known):
            raise _unusable(what, "a weight that is infinite")
    return UserRecord(items, times, known, n_events, seen, attributes, positions, spilled)


def _attributes(what: str, attributes: dict[Any, Any]) -> None:
    """Raises CorruptArtefact unless these are names with texts, numbers or truth values."""
    _typed(what, tuple(attributes), *(str,) * len(attributes))
    _typed(what, tuple(attributes.values()), *(str | int | float | None,) * len(attributes))


def _unusable(what: str, why: str) -> CorruptArtefact:
    return CorruptArtefact(f"a {what} has {why}: delete it, and the next refresh writes it again")


def pack_item(item: ItemRecord) -> bytes:
    """An ItemRecord as bytes."""
    return msgpack.packb([LAYOUT, item.id, item.title, item.categories, item.available])


def unpack_item(packed: bytes) -> ItemRecord:
    """Reads `pack_item`. Raises CorruptArtefact for anything else."""
    what = "item record"
    item = ItemRecord(*_typed(what, _unpack(packed, what, 5)[1:5], str, str, tuple, bool))
    _typed(what, item.categories, *(str,) * len(item.categories))
    return item


def pack_event(event: EventRecord) -> bytes:
    """An EventRecord as bytes."""
    told = [
        LAYOUT,
        event.event_id,
        event.user_id,
        event.item_id,
        event.timestamp,
        event.weight,
        event.recommendation_id,
    ]
    return msgpack.packb([*told, event.position])


def unpack_event(packed: bytes) -> EventRecord:
    """Reads `pack_event`. Raises CorruptArtefact for anything else."""
    what = "event"
    told = _unpack(packed, what, 7)
    fields = (*told[1:7], told[7] if len(told) > 7 else None)  # noqa: PLR2004 - older writers knew no position
    return EventRecord(
        *_typed(what, fields, str, str, str, int, int | float | None, str | None, int | None)
    )


def pack_pointer(pointer: ReleasePointer) -> bytes:
    """A ReleasePointer as bytes."""
    told: dict[str, Any] = {"current": pointer.current, "previous": pointer.previous}
    if pointer.canary is not None:
        told["canary"] = {"version": pointer.canary.version, "percent": pointer.canary.percent}
    return msgpack.packb(told)


def unpack_pointer(packed: bytes) -> ReleasePointer:
    """Reads `pack_pointer`. Raises CorruptArtefact for anything else."""
    told = _decoded(packed, "release pointer")
    known = isinstance(told, dict) and isinstance(told.get("current"), str)
    if not known or not isinstance(told.get("previous"), str | None):
        raise CorruptArtefact(f"the release pointer holds {told!r}, not a release: promote one")
    return ReleasePointer(told["current"], told.get("previous"), _canary(told.get("canary")))


def _canary(told: object) -> Canary | None:
    if told is None:
        return None
    match told:
        case {"version": str(version), "percent": float() | int() as percent}:
            return Canary(version, float(percent))
    raise CorruptArtefact(
        f"the release pointer holds the canary {told!r}: promote a release, which ends it"
    )


def _unpack(packed: bytes, what: str, length: int) -> tuple[Any, ...]:
    told = _decoded(packed, what)
    if not isinstance(told, tuple) or len(told) < length or told[0] != LAYOUT:
        raise CorruptArtefact(f"a {what} is not of layout {LAYOUT}: publish the release again")
    return told


def _typed(what: str, values: tuple[Any, ...], *kinds: type | UnionType) -> tuple[Any, ...]:
    for value, kind in zip(values, kinds, strict=True):
        if not isinstance(value, kind):
            raise CorruptArtefact(
                f"a {what} holds a {type(value).__name__} where {kind} belongs: publish the release again"
            )
    return values


def _decoded(packed: bytes, what: str) -> Any:  # noqa: ANN401 - whatever was packed
    try:
        return msgpack.unpackb(packed, use_list=False)
    except (
        ValueError,
        TypeError,
        msgpack.UnpackException,
    ) as error:  # TypeError: a map's key that is itself a map
        raise CorruptArtefact(
            f"a {what} is not msgpack ({error}): publish the release again"
        ) from error
