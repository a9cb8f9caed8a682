"""The records that cross process borders, and their msgpack codecs: stdlib and msgpack only.

Records are arrays whose first element is a layout number. They only ever grow at the end: a reader takes the elements it
knows and leaves the rest, so that an older reader survives a newer writer.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import UnionType
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

    def serving(self, user: str | None) -> str:
        """The release that serves this user (None: nobody in particular).

        A user's place in 0 to 100 is a hash of canary and user: the same in every process, kept as the percentage grows,
        and another for the next canary, so that not always the same users are first.
        """
        if self.canary is None or user is None:
            return self.current
        digest = hashlib.sha256(f"{self.canary.version}\n{user}".encode()).digest()
        place = int.from_bytes(digest[:4], "big") / 2**32 * 100
        return self.canary.version if place < self.canary.percent else self.current


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
    created_at, as_of, n_events, n_candidates = _typed("list", told[1:5], int, int, int, int)
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
    what, fields = "user record", _unpack(packed, "user record", 7)[1:7]
    items, steps, weights, n_events, seen, attributes = _typed(what, fields, tuple, tuple, bytes | None, int, tuple, dict)
    for values, kind in ((items, str), (seen, str), (steps, int)):
        _typed(what, values, *(kind,) * len(values))
    if len(steps) != len(items) or (weights is not None and len(weights) != 4 * len(items)):
        raise CorruptArtefact(f"a user record has {len(items)} items, and times or weights of another number: delete it")
    known: tuple[float | None, ...] = (None,) * len(items)
    if weights is not None:
        known = tuple(None if math.isnan(w) else w for w in struct.unpack(f"<{len(items)}f", weights))
    return UserRecord(items, tuple(accumulate(steps)), known, n_events, seen, attributes)


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
    told = [LAYOUT, event.event_id, event.user_id, event.item_id, event.timestamp, event.weight, event.recommendation_id]
    return msgpack.packb([*told, event.position])


def unpack_event(packed: bytes) -> EventRecord:
    """Reads `pack_event`. Raises CorruptArtefact for anything else."""
    what = "event"
    told = _unpack(packed, what, 7)
    fields = (*told[1:7], told[7] if len(told) > 7 else None)  # noqa: PLR2004 - older writers knew no position
    return EventRecord(*_typed(what, fields, str, str, str, int, int | float | None, str | None, int | None))


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
    raise CorruptArtefact(f"the release pointer holds the canary {told!r}: promote a release, which ends it")


def _unpack(packed: bytes, what: str, length: int) -> tuple[Any, ...]:
    told = _decoded(packed, what)
    if not isinstance(told, tuple) or len(told) < length or told[0] != LAYOUT:
        raise CorruptArtefact(f"a {what} of layout {LAYOUT} was expected, not {str(told)[:60]}: publish the release again")
    return told


def _typed(what: str, values: tuple[Any, ...], *kinds: type | UnionType) -> tuple[Any, ...]:
    for value, kind in zip(values, kinds, strict=True):
        if not isinstance(value, kind):
            raise CorruptArtefact(f"a {what} holds {str(value)[:60]!r} where {kind} belongs: publish the release again")
    return values


def _decoded(packed: bytes, what: str) -> Any:  # noqa: ANN401 - whatever was packed
    try:
        return msgpack.unpackb(packed, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptArtefact(f"a {what} is not msgpack ({error}): publish the release again") from error
