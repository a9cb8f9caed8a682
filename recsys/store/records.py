"""Records that cross process borders, with their msgpack codecs.

Records are arrays whose first element is a layout number. They only ever grow at the end: a reader
takes the elements it knows and leaves the rest, so that an older reader survives a newer writer.
Standard library and msgpack only, because the hit path imports it.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from types import UnionType
from typing import Any, NamedTuple

import msgpack

from shortlist.recsys.errors import UnreadableRecord
from shortlist.recsys.values import MAX_WEIGHT
from shortlist.recsys.where import CATEGORIES, AttributeValue

LAYOUT = 1

MAX_STORED_TIME = 1 << 53
"""The largest time in a record; earlier releases took such."""

MAX_STORED_EVENTS = 1 << 31
"""Events of one user are fewer: models count them in 32 bits."""

# Elements of each array in its first version: later ones only append.
_LIST_LENGTH, _USER_LENGTH, _ITEM_LENGTH, _EVENT_LENGTH = 8, 7, 5, 7


@dataclass(frozen=True, slots=True)
class ShortlistRecord:
    """A user's precomputed list, best first.

    created_at: unix seconds; as_of: time of the latest event it knows; n_events: events of this
    user it knows; n_candidates: items that were ranked; rows: item rows of the release; scores,
    retrieval: of the same items, at half precision; watermark: position in the stream of events up
    to which it has learnt (see `recsys.store.watermark`).
    """

    created_at: int
    as_of: int
    n_events: int
    n_candidates: int
    rows: tuple[int, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]
    watermark: int = 0


class Negative(NamedTuple):
    """Negative feedback in a record."""

    item: str
    time: int
    position: int
    """In the stream of events, 0 for feedback of the batch's table."""
    type: str | None = None
    spent: bool = False
    """Whether what it took back is no longer kept."""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A user as Redis keeps them, over all releases.

    items, times, weights: the latest positive events, oldest first, also those that were taken
    back; n_events: events ever that were not; seen: item ids had before those events; attributes:
    {column: value}; positions: of the same events in the stream of events, 0 for those of the
    batch's table, empty where all are of the table; spilled: the greatest position among events
    that have left for `seen` or `disliked`; types: of the same events, empty where none has one;
    negatives: the latest negative feedback, oldest first; disliked: item ids with negative feedback
    before that.
    """

    items: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    weights: tuple[float | None, ...] = ()
    n_events: int = 0
    seen: tuple[str, ...] = ()
    attributes: dict[str, Any] | None = None
    positions: tuple[int, ...] = ()
    spilled: int = 0
    types: tuple[str | None, ...] = ()
    negatives: tuple[Negative, ...] = ()
    disliked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """The parts of an item that an answer shows or is filtered by.

    attributes: {column: value} that are shown; unshown: those that are only filtered by.
    encoded: room for what an encoder of answers makes of the item once.
    """

    id: str
    title: str
    categories: tuple[str, ...] = ()
    available: bool = True
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    unshown: Mapping[str, AttributeValue] = field(default_factory=dict)
    encoded: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def value_of(self, attribute: str) -> AttributeValue:
        """What the item has of an attribute; None for nothing."""
        if attribute == CATEGORIES:
            return self.categories
        value = self.attributes.get(attribute)
        return self.unshown.get(attribute) if value is None else value


@dataclass(frozen=True, slots=True)
class Canary:
    """A release on trial for a share of the users."""

    version: str
    percent: float


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A user's action, waiting for the next training."""

    event_id: str
    user_id: str
    item_id: str
    timestamp: int
    weight: float | None = None
    recommendation_id: str | None = None
    position: int | None = None
    """The place in the answer, from 1, of the item that the user acted on."""
    event_type: str | None = None


@dataclass(frozen=True, slots=True)
class ReleasePointer:
    """The serving release, the one before, and the canary."""

    current: str
    previous: str | None = None
    canary: Canary | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """Releases that may have served lately, serving one first."""
        canary = None if self.canary is None else self.canary.version
        return tuple(
            dict.fromkeys(v for v in (self.current, canary, self.previous) if v is not None)
        )

    def serving(self, user: str | None) -> str:
        """The release for this user; None: for nobody in particular.

        A user's place in 0 to 100 is a hash of canary and user: the same in every process, kept as
        the percentage grows, and another for the next canary, so that not always the same users are
        first.
        """
        if self.canary is None or user is None:
            return self.current
        digest = hashlib.sha256(f"{self.canary.version}\n{user}".encode()).digest()
        # 32 bits resolve a share of users far finer than any percentage that is given.
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
    """Packs a ShortlistRecord with a checksum.

    Without it a flipped bit would be another item.
    """
    numbers = (created_at, as_of, n_events, n_candidates)
    checksum = _checksum((*numbers, watermark), (rows, scores, retrieval))
    return msgpack.packb([LAYOUT, *numbers, rows, scores, retrieval, watermark, checksum])


def unpack_list(packed: bytes) -> ShortlistRecord:
    """Reads `pack_list`. Raises UnreadableRecord for anything else."""
    fields = _unpack(packed, "list", _LIST_LENGTH)
    numbers = _typed("list", fields[1:5], int, int, int, int)
    columns = _typed("list", fields[5:8], bytes, bytes, bytes)
    watermark = 0
    if len(fields) > _LIST_LENGTH + 1:  # older writers knew neither watermark nor checksum
        watermark, checksum = _typed("list", fields[8:10], int, int)
        if checksum != _checksum((*numbers, watermark), columns):
            raise UnreadableRecord(
                "a list is not what its checksum says: publish the release again"
            )
    created_at, as_of, n_events, n_candidates = numbers
    rows, scores, retrieval = _scored_rows(columns)
    return ShortlistRecord(
        created_at, as_of, n_events, n_candidates, rows, scores, retrieval, watermark
    )


def _scored_rows(
    columns: tuple[bytes, ...],
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...]]:
    """A list's rows, scores and retrieval scores."""
    count = len(columns[0]) // 4
    try:
        rows = struct.unpack(f"<{count}i", columns[0])
        halves = f"<{count}e"
        scores, retrieval = struct.unpack(halves, columns[1]), struct.unpack(halves, columns[2])
    except struct.error as error:
        raise UnreadableRecord(
            f"a list's columns differ in length ({error}): publish the release again"
        ) from error
    return rows, scores, retrieval


def _checksum(numbers: tuple[int, ...], columns: tuple[bytes, ...]) -> int:
    """CRC-32 of a list's numbers and columns, against faults and not against forgers."""
    checksum = zlib.crc32(repr(numbers).encode())
    for column in columns:
        checksum = zlib.crc32(column, checksum)
    return checksum


def pack_user(record: UserRecord) -> bytes:
    """Packs a UserRecord.

    Times become steps; weights single precision, or nil where there are none.
    """
    fields = (
        LAYOUT,
        record.items,
        _steps(record.times),
        _packed_weights(record.weights),
        record.n_events,
        record.seen,
        record.attributes or {},
        record.positions if any(record.positions) else None,
        record.spilled,
        _packed_feedback(record),
    )
    return msgpack.packb(fields)


def _steps(times: Sequence[int]) -> list[int]:
    """Steps between times: small numbers, which msgpack packs into fewer bytes."""
    return [after - before for before, after in pairwise((0, *times))]


def _packed_types(types: tuple[str | None, ...]) -> list[object] | None:
    """The distinct types, and the place among them of each event's, 0 for none."""
    if all(name is None for name in types):
        return None
    names = list(dict.fromkeys(name for name in types if name is not None))
    places = {name: place for place, name in enumerate(names, 1)}
    return [names, [0 if name is None else places[name] for name in types]]


def _packed_feedback(record: UserRecord) -> list[object] | None:
    """Types, negatives and disliked items; None where there is nothing of it."""
    if not (record.types or record.negatives or record.disliked):
        return None
    columns = zip(*record.negatives, strict=True) if record.negatives else ((),) * 5
    items, times, positions, types, spent = columns
    places = [place for place, is_spent in enumerate(spent) if is_spent]
    known = positions if any(positions) else None
    negatives = [items, _steps(times), known, _packed_types(types), places]
    return [_packed_types(record.types), negatives, record.disliked]


def _packed_weights(weights: tuple[float | None, ...]) -> bytes | None:
    if all(weight is None for weight in weights):
        return None
    numbers = (math.nan if weight is None else weight for weight in weights)
    return struct.pack(f"<{len(weights)}f", *numbers)


def unpack_user(packed: bytes) -> UserRecord:
    """Reads `pack_user`. Raises UnreadableRecord for anything else."""
    what = "user record"
    fields = _unpack(packed, what, _USER_LENGTH)
    items, steps, weights, n_events, seen, attributes = _typed(
        what, fields[1:7], tuple, tuple, bytes | None, int, tuple, dict
    )
    _check_all(what, items, str)
    _check_all(what, seen, str)
    if not 0 <= n_events < MAX_STORED_EVENTS:
        raise _unusable(what, "a number of events beyond its range")
    _check_attributes(what, attributes)
    times = _unpacked_times(what, steps, len(items))
    known = _unpacked_weights(what, weights, len(items))
    positions, spilled = _unpacked_positions(what, fields[_USER_LENGTH:], len(items))
    types, negatives, disliked = _unpacked_feedback(what, fields[_USER_LENGTH + 2 :], len(items))
    return UserRecord(
        items,
        times,
        known,
        n_events,
        seen,
        attributes,
        positions,
        spilled,
        types,
        negatives,
        disliked,
    )


def _unpacked_times(what: str, steps: tuple[int, ...], count: int) -> tuple[int, ...]:
    _check_all(what, steps, int)
    if len(steps) != count:
        raise _unusable(what, f"{count} items, and {len(steps)} times")
    times = tuple(accumulate(steps))
    if any(not 0 <= time <= MAX_STORED_TIME for time in times):
        raise _unusable(what, "a time beyond its range")
    return times


def _unpacked_positions(
    what: str, fields: tuple[Any, ...], count: int
) -> tuple[tuple[int, ...], int]:
    """The positions and the greatest spilled one; older writers knew neither."""
    if len(fields) < 2:  # noqa: PLR2004 - both
        return (), 0
    stated, spilled = _typed(what, fields[:2], tuple | None, int)
    return _column_of(what, stated or (), int, count, "positions"), spilled


def _column_of(
    what: str, values: tuple[Any, ...], kind: type, count: int, name: str
) -> tuple[Any, ...]:
    """Values of one kind, none or one for each item."""
    _check_all(what, values, kind)
    if values and len(values) != count:
        raise _unusable(what, f"{count} items, and {len(values)} {name}")
    return values


def _unpacked_feedback(
    what: str, fields: tuple[Any, ...], count: int
) -> tuple[tuple[str | None, ...], tuple[Negative, ...], tuple[str, ...]]:
    """The types, the negatives and the disliked items; older writers knew none."""
    if not fields or fields[0] is None:
        return (), (), ()
    types, negatives, disliked = _parts(what, fields[0], tuple | None, tuple, tuple)
    _check_all(what, disliked, str)
    return _unpacked_types(what, types, count), _unpacked_negatives(what, negatives), disliked


def _parts(what: str, packed: object, *kinds: type | UnionType) -> tuple[Any, ...]:
    """An array of just these kinds of values."""
    if not isinstance(packed, tuple) or len(packed) != len(kinds):
        raise _unusable(what, f"no {len(kinds)} parts where they belong")
    return _typed(what, packed, *kinds)


def _unpacked_types(
    what: str, packed: tuple[Any, ...] | None, count: int
) -> tuple[str | None, ...]:
    if packed is None:
        return ()
    names, places = _parts(what, packed, tuple, tuple)
    _check_all(what, names, str)
    _column_of(what, places, int, count, "types")
    if any(not 0 <= place <= len(names) for place in places):
        raise _unusable(what, "a type beyond its names")
    return tuple((None, *names)[place] for place in places)


def _unpacked_negatives(what: str, packed: tuple[Any, ...]) -> tuple[Negative, ...]:
    kinds = (tuple, tuple, tuple | None, tuple | None, tuple)
    items, steps, stated, named, places = _parts(what, packed, *kinds)
    _check_all(what, items, str)
    times = _unpacked_times(what, steps, len(items))
    positions = _column_of(what, stated or (), int, len(items), "positions")
    types = _unpacked_types(what, named, len(items))
    _check_all(what, places, int)
    spent = (place in places for place in range(len(items)))
    nothing = (None,) * len(items)
    return tuple(
        map(Negative, items, times, positions or (0,) * len(items), types or nothing, spent)
    )


def _unpacked_weights(what: str, packed: bytes | None, count: int) -> tuple[float | None, ...]:
    if packed is None:
        return (None,) * count
    if len(packed) != 4 * count:
        raise _unusable(what, f"{count} items, and weights of another number")
    weights = struct.unpack(f"<{count}f", packed)
    if any(abs(weight) > MAX_WEIGHT for weight in weights):
        raise _unusable(what, "a weight that is infinite")
    return tuple(None if math.isnan(weight) else weight for weight in weights)


def _check_attributes(what: str, attributes: dict[Any, Any]) -> None:
    """Checks for names with texts, numbers or truth values."""
    _check_all(what, tuple(attributes), str)
    _check_all(what, tuple(attributes.values()), str | int | float | None)


def _unusable(what: str, why: str) -> UnreadableRecord:
    return UnreadableRecord(f"a {what} has {why}: delete it, and the next refresh writes it again")


def pack_item(item: ItemRecord) -> bytes:
    """Packs an ItemRecord."""
    parts = (item.id, item.title, item.categories, item.available, item.attributes, item.unshown)
    return msgpack.packb([LAYOUT, *parts])


def unpack_item(packed: bytes) -> ItemRecord:
    """Reads `pack_item`. Raises UnreadableRecord for anything else."""
    what = "item record"
    fields = _unpack(packed, what, _ITEM_LENGTH)
    item = ItemRecord(*_typed(what, fields[1:5], str, str, tuple, bool))
    _check_all(what, item.categories, str)
    if len(fields) < _ITEM_LENGTH + 2:  # older writers knew no attributes
        return item
    shown, unshown = _typed(what, fields[5:7], dict, dict)
    return replace(
        item, attributes=_item_attributes(what, shown), unshown=_item_attributes(what, unshown)
    )


def _item_attributes(what: str, attributes: dict[Any, Any]) -> dict[str, AttributeValue]:
    _check_all(what, tuple(attributes), str)
    _check_all(what, tuple(attributes.values()), str | int | float | tuple)
    for value in attributes.values():
        if isinstance(value, tuple):
            _check_all(what, value, str)
        if isinstance(value, float) and not math.isfinite(value):
            raise _unusable(what, "a number that JSON lacks")
    # A process keeps many records: their names are the same few texts.
    return {sys.intern(name): value for name, value in attributes.items()}


def pack_event(event: EventRecord) -> bytes:
    """Packs an EventRecord."""
    fields = (
        LAYOUT,
        event.event_id,
        event.user_id,
        event.item_id,
        event.timestamp,
        event.weight,
        event.recommendation_id,
        event.position,
        event.event_type,
    )
    return msgpack.packb(fields)


def unpack_event(packed: bytes) -> EventRecord:
    """Reads `pack_event`. Raises UnreadableRecord for anything else."""
    fields = _unpack(packed, "event", _EVENT_LENGTH)
    later = (*fields[_EVENT_LENGTH:9], None, None)[:2]  # older writers knew none of both
    kinds = (str, str, str, int, int | float | None, str | None, int | None, str | None)
    return EventRecord(*_typed("event", (*fields[1:_EVENT_LENGTH], *later), *kinds))


def pack_pointer(pointer: ReleasePointer) -> bytes:
    """Packs a ReleasePointer.

    It is a map, which a person can read in a Redis client.
    """
    fields: dict[str, Any] = {"current": pointer.current, "previous": pointer.previous}
    if pointer.canary is not None:
        fields["canary"] = {"version": pointer.canary.version, "percent": pointer.canary.percent}
    return msgpack.packb(fields)


def unpack_pointer(packed: bytes) -> ReleasePointer:
    """Reads `pack_pointer`. Raises UnreadableRecord for anything else."""
    fields = _decoded(packed, "release pointer")
    match fields:
        case {"current": str(current), **others}:
            previous = others.get("previous")
            if isinstance(previous, str | None):
                return ReleasePointer(current, previous, _canary(others.get("canary")))
    raise UnreadableRecord(f"the release pointer holds {fields!r}, not a release: promote one")


def _canary(value: object) -> Canary | None:
    if value is None:
        return None
    match value:
        case {"version": str(version), "percent": float() | int() as percent}:
            return Canary(version, float(percent))
    raise UnreadableRecord(
        f"the release pointer holds the canary {value!r}: promote a release, which ends it"
    )


def _unpack(packed: bytes, what: str, length: int) -> tuple[Any, ...]:
    """An array's elements, `length` or more."""
    fields = _decoded(packed, what)
    if not isinstance(fields, tuple) or len(fields) < length or fields[0] != LAYOUT:
        raise UnreadableRecord(f"a {what} is not of layout {LAYOUT}: publish the release again")
    return fields


def _typed(what: str, values: tuple[Any, ...], *kinds: type | UnionType) -> tuple[Any, ...]:
    """The values, each of its kind."""
    for value, kind in zip(values, kinds, strict=True):
        if not isinstance(value, kind):
            raise UnreadableRecord(
                f"a {what} holds a {type(value).__name__} where {kind} belongs: "
                "publish the release again"
            )
    return values


def _check_all(what: str, values: tuple[Any, ...], kind: type | UnionType) -> None:
    """Raises UnreadableRecord unless every value is of one kind."""
    _typed(what, values, *(kind,) * len(values))


def _decoded(packed: bytes, what: str) -> Any:  # noqa: ANN401 - whatever was packed
    try:
        return msgpack.unpackb(packed, use_list=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:  # TypeError: a map as a key
        raise UnreadableRecord(
            f"a {what} is not msgpack ({error}): publish the release again"
        ) from error
