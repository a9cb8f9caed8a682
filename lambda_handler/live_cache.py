"""Live results in the store: under everything that shaped them, and computed once by whoever is first."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable

import msgpack

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import Cause, Filters, Options, Ranked, Reason
from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.store.redis import RedisStore

LAYOUT = 2
"""Of a cached live answer."""

CLAIM_MS = 2000
"""How long others wait for whoever computes a result, at most."""

POLLS, POLL_SECONDS = 40, 0.005
"""How often, and how far apart, a result is looked for that another process computes."""


class LiveCache:
    """Finds or computes live results. `wait` pauses between two looks, and the thread with it, which must be no event loop's."""

    def __init__(
        self, store: RedisStore, ttl: int, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._store, self._ttl, self._wait = store, ttl, wait

    def get(
        self, version: str, user: str, digest: str, compute: Callable[[], Ranked]
    ) -> tuple[Ranked, bool]:
        """The result, and whether it was there.

        Raises:
            StoreUnavailable: the store could not be asked; what `compute` raises.
        """
        packed, is_mine = self._store.live_or_claim(version, user, digest, CLAIM_MS)
        ends = time.monotonic() + min(POLLS * POLL_SECONDS, deadline.left())
        for _ in range(0 if is_mine else POLLS):
            if (
                packed is not None or time.monotonic() >= ends
            ):  # a slow store makes each look a long one
                break
            self._wait(POLL_SECONDS)
            packed = self._store.live(version, user, digest)
        found = None if packed is None else read_ranked(packed)
        return (compute(), False) if found is None else (found, True)

    def put(
        self, version: str, user: str, digest: str, ranked: Ranked, record: bytes
    ) -> StoreUnavailable | None:
        """Keeps a result that was made of the user's packed `record`; gives what went wrong, if anything did."""
        try:
            self._store.write_live(version, user, digest, pack_ranked(ranked), self._ttl, record)
        except StoreUnavailable as error:
            return error
        return None


def digest_of(k: int, filters: Filters, shape: Options, record: bytes) -> str:
    """What shaped a live result: k, the filters, the shape, and the user's whole record."""
    told = msgpack.packb(
        [
            k,
            sorted(filters.excluded),
            sorted(filters.categories),
            float(shape.diversity),
            shape.explain,
            record,
        ]
    )
    return hashlib.sha256(told).hexdigest()[:16]


def pack_ranked(ranked: Ranked) -> bytes:
    """A live result as bytes."""
    items = [[i.id, i.title, i.categories, i.available] for i in ranked.items]
    reasons = [
        [[[c.item_id, c.title, c.share] for c in r.causes], r.features] for r in ranked.reasons
    ]
    told = [
        LAYOUT,
        items,
        ranked.scores,
        ranked.retrieval,
        ranked.n_candidates,
        ranked.unknown_items,
        reasons,
    ]
    return msgpack.packb(told)


def unpack_ranked(packed: bytes) -> Ranked:
    """Reads `pack_ranked`. Raises UnreadableRecord for anything else."""
    try:
        match msgpack.unpackb(packed, use_list=False):
            case (
                int(layout),
                tuple(items),
                scores,
                retrieval,
                int(candidates),
                int(unknown),
                reasons,
            ) if layout == LAYOUT and len(_numbers(scores)) == len(_numbers(retrieval)) == len(
                items
            ):
                shown = tuple(_shown(item) for item in items)
                return Ranked(
                    shown, scores, retrieval, candidates, unknown, tuple(map(_reason, reasons))
                )
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise UnreadableRecord("a cached answer cannot be read: it is computed again")


def _shown(item: object) -> ItemRecord:
    match item:
        case (str(item_id), str(title), tuple(categories), bool(available)):
            if all(isinstance(name, str) for name in categories):
                return ItemRecord(item_id, title, categories, available)
    raise TypeError


def _reason(reason: object) -> Reason:
    match reason:
        case (tuple(causes), tuple(features)):
            return Reason(tuple(map(_cause, causes)), tuple(map(_feature, features)))
    raise TypeError


def _cause(cause: object) -> Cause:
    match cause:
        case (str(item_id), str(title), float() | int() as share):
            return Cause(item_id, title, share)
    raise TypeError


def _feature(feature: object) -> tuple[str, float]:
    match feature:
        case (str(name), float() | int() as value):
            return name, value
    raise TypeError


def _numbers(values: object) -> tuple[float, ...]:
    """The values, which must be finite numbers."""
    if isinstance(values, tuple) and all(
        isinstance(v, float | int) and math.isfinite(v) for v in values
    ):
        return values
    raise TypeError


def read_ranked(packed: bytes) -> Ranked | None:
    """A cached result; None for one that cannot be read, which is as good as none."""
    try:
        return unpack_ranked(packed)
    except UnreadableRecord:
        return None
