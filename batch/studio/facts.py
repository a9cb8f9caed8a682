"""Keeps what a release's data and hold-out were like.

One file in the bundle, written by the batch and read by the studio alone. It has counts and no raw
tables. Users stand in it by the digest of their id: the file outlives a user's deletion, and Redis
has the ids of those who are still there.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact

FILE = "studio.msgpack"
"""In the work directory and in the bundle."""

REPORT = "report.json"
"""In the bundle: the run's report as `evaluate --json` writes it."""

LAYOUT = 1
"""Changes when older code could no longer read the file; such a file counts as absent."""

MOST_BYTES = 20 << 20
"""The largest file that is written or read."""

MOST_UNPACKED = 256 << 20
"""The largest content: a short file may unpack to gigabytes."""

NO_TYPE, NEGATIVE = "event", "negative feedback"
"""Names of the one kind of data without types, and of all negative feedback together."""

DIGEST_BYTES = 16
"""Of a user's digest: enough to tell 20,000 users apart."""

LISTED = 10
"""Items that are kept of each list made for the hold-out."""

ARRAYS = {
    "day": "<i8",
    "day_type": "|u1",
    "day_n": "<i4",
    "item_n": "<i4",
    "item_first": "<i4",
    "item_last": "<i4",
    "item_xy": "<f2",
    "month": "<i8",
    "curve_offsets": "<i4",
    "curve_month": "<u2",
    "curve_n": "<i4",
    "pick_digest": "|u1",
    "pick_n": "<i4",
    "pick_first": "<i8",
    "pick_last": "<i8",
    "pick_ndcg": "<f4",
    "held_offsets": "<i4",
    "held_item": "<i4",
    "held_rank": "<i2",
    "listed": "<i4",
}
"""The arrays of the file, and their types.

day, day_type, day_n: [r] the start of a period in unix seconds, the place of a type in `types`, its
events. item_n: [n] events; item_first, item_last: [n] days since 1970, -1 for none; item_xy: [2 n]
places on the map. month: [m] starts of periods in unix seconds; curve_month, curve_n: of item i the
entries curve_offsets[i]:curve_offsets[i + 1], its periods and their events.
pick_digest: [16 p] of p users; pick_n, pick_first, pick_last: [p] events, time of the first and the
last; pick_ndcg: [p] NDCG@10 of the hold-out, NaN for none; held_item, held_rank: of user u the
entries held_offsets[u]:held_offsets[u + 1], item rows held out and their rank in the list, 0 for
none; listed: [10 p] item rows of the list, -1 for none.
"""


@dataclass(frozen=True, slots=True)
class StudioFacts:
    """The facts of one release.

    arrays: see ARRAYS; plain: `types`, `unit` of the days, `activity`, `tail`, `gini`, `rejects`,
    `users_without_events`, `items_without_events`, `explained`, `sampled`.
    """

    arrays: Mapping[str, NDArray[Any]]
    plain: Mapping[str, Any]

    @property
    def n_items(self) -> int:
        """Items of the catalogue."""
        return len(self.arrays["item_n"])

    @property
    def n_picks(self) -> int:
        """Users that can be picked."""
        return len(self.arrays["pick_n"])

    def digest(self, pick: int) -> bytes:
        """A user's digest."""
        digests = self.arrays["pick_digest"]
        return digests[pick * DIGEST_BYTES : (pick + 1) * DIGEST_BYTES].tobytes()

    def held_out(self, pick: int) -> list[tuple[int, int]]:
        """A user's held-out item rows and their ranks, 0 for none."""
        start, stop = self.arrays["held_offsets"][pick : pick + 2]
        items, ranks = self.arrays["held_item"][start:stop], self.arrays["held_rank"][start:stop]
        return list(zip(items.tolist(), ranks.tolist(), strict=True))

    def listed(self, pick: int) -> list[int]:
        """The item rows of the list that was made for the hold-out."""
        rows = self.arrays["listed"][pick * LISTED : (pick + 1) * LISTED]
        return [row for row in rows.tolist() if row >= 0]

    def curve(self, row: int) -> list[tuple[int, int]]:
        """An item's events by month: the month's start in unix seconds, and their number."""
        start, stop = self.arrays["curve_offsets"][row : row + 2]
        months = self.arrays["month"][self.arrays["curve_month"][start:stop]].tolist()
        return list(zip(months, self.arrays["curve_n"][start:stop].tolist(), strict=True))


def digest_of(user: str) -> bytes:
    """Stands for a user."""
    return hashlib.sha256(f"studio:{user}".encode()).digest()[:DIGEST_BYTES]


def pack(facts: StudioFacts) -> bytes:
    """Packs facts."""
    arrays = {
        name: np.ascontiguousarray(facts.arrays[name], dtype).tobytes()
        for name, dtype in ARRAYS.items()
    }
    body = msgpack.packb({"layout": LAYOUT, "plain": dict(facts.plain), "arrays": arrays})
    return zlib.compress(body, 6)


def unpack(body: bytes) -> StudioFacts | None:
    """Reads `pack`; None for another layout.

    Raises:
        CorruptArtefact: it is not what `pack` writes.
    """
    try:
        opened = zlib.decompressobj()
        unpacked = opened.decompress(body, MOST_UNPACKED)
        if opened.unconsumed_tail:
            raise _corrupt(f"has more than {MOST_UNPACKED} bytes")
        fields = msgpack.unpackb(unpacked)
        if fields["layout"] != LAYOUT:
            return None
        arrays = {
            name: np.frombuffer(fields["arrays"][name], dtype) for name, dtype in ARRAYS.items()
        }
        facts = StudioFacts(arrays, dict(fields["plain"]))
    except (zlib.error, ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise _corrupt(f"is no record of facts ({error!r})") from error
    _check(facts)
    return facts


def _check(facts: StudioFacts) -> None:
    """Checks the lengths of the arrays, and that each row and place is within its array."""
    of = facts.arrays
    n, p = facts.n_items, facts.n_picks
    lengths = {
        "day_type": len(of["day"]),
        "day_n": len(of["day"]),
        "item_first": n,
        "item_last": n,
        "item_xy": 2 * n,
        "curve_n": len(of["curve_month"]),
        "curve_offsets": n + 1,
        "pick_digest": DIGEST_BYTES * p,
        "pick_first": p,
        "pick_last": p,
        "pick_ndcg": p,
        "held_offsets": p + 1,
        "held_rank": len(of["held_item"]),
        "listed": LISTED * p,
    }
    wrong = [name for name, length in lengths.items() if len(of[name]) != length]
    if wrong:
        raise _corrupt(f"has arrays of other lengths: {', '.join(wrong)}")
    holds = (
        _is_ragged(of["curve_offsets"], len(of["curve_month"]))
        and _is_ragged(of["held_offsets"], len(of["held_item"]))
        and _are_within(of["curve_month"], 0, len(of["month"]))
        and _are_within(of["day_type"], 0, len(facts.plain.get("types", ())))
        and _are_within(of["held_item"], 0, n)
        and _are_within(of["listed"], -1, n)
    )
    if not holds:
        raise _corrupt("names rows that it does not have")


def _is_ragged(offsets: NDArray[Any], length: int) -> bool:
    ends = int(offsets[0]) == 0 and int(offsets[-1]) == length
    return ends and bool((np.diff(offsets) >= 0).all())


def _are_within(values: NDArray[Any], low: int, stop: int) -> bool:
    return not len(values) or (int(values.min()) >= low and int(values.max()) < stop)


def _corrupt(what: str) -> CorruptArtefact:
    return CorruptArtefact(f"{FILE} {what}: publish the release again")
