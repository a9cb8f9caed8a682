"""Caches live results in Redis by a digest of inputs.

One process computes a result; others that need the same one wait for it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable

import msgpack

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import Cause, Filters, Options, Ranked, Reason
from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
from shortlist.recsys.store.records import pack_item, unpack_item
from shortlist.recsys.store.redis import RedisStore

LAYOUT = 3
"""Version of the packed result; a result of another layout is computed again."""

CLAIM_MS = 2000
"""Most time that a process may hold a claim: one that died does not block others for longer."""

POLLS, POLL_SECONDS = 40, 0.005
"""Polls for another process's result: 0.2 s in all, longer than a live answer takes."""


class LiveCache:
    """Reads or computes live results."""

    def __init__(
        self, store: RedisStore, ttl: int, wait: Callable[[float], None] = time.sleep
    ) -> None:
        """ttl: seconds; wait: pauses between two polls, and blocks its thread."""
        self._store, self._ttl, self._wait = store, ttl, wait

    def get(
        self, version: str, user: str, digest: str, compute: Callable[[], Ranked]
    ) -> tuple[Ranked, bool]:
        """The result, and whether it was cached.

        Raises:
            StoreUnavailable: Redis does not answer; and what `compute` raises.
        """
        packed, is_mine = self._store.live_or_claim(version, user, digest, CLAIM_MS)
        if packed is None and not is_mine:
            packed = self._awaited(version, user, digest)
        ranked = None if packed is None else read_ranked(packed)
        return (compute(), False) if ranked is None else (ranked, True)

    def _awaited(self, version: str, user: str, digest: str) -> bytes | None:
        """Another process's result.

        None if it does not appear in time.
        """
        # A time limit as well as a count: with a slow store each poll takes long.
        ends = time.monotonic() + min(POLLS * POLL_SECONDS, deadline.left())
        for _ in range(POLLS):
            if time.monotonic() >= ends:
                return None
            self._wait(POLL_SECONDS)
            packed = self._store.live(version, user, digest)
            if packed is not None:
                return packed
        return None

    def put(
        self, version: str, user: str, digest: str, ranked: Ranked, record: bytes
    ) -> StoreUnavailable | None:
        """Caches a result of the user's packed `record`.

        Returns the error if that fails.
        """
        try:
            self._store.write_live(version, user, digest, pack_ranked(ranked), self._ttl, record)
        except StoreUnavailable as error:
            return error
        return None


def digest_of(k: int, filters: Filters, options: Options, record: bytes) -> str:
    """Digest of all inputs of a live result.

    record: the user's, packed.
    """
    payload = msgpack.packb(
        [
            filters.pool(k),
            sorted(filters.excluded),  # sets have no order of their own
            sorted(filters.categories),
            [condition.as_plain() for condition in filters.where],
            [selector.as_plain() for selector in filters.hidden],
            float(options.diversity),  # 0 and 0.0 are packed differently
            options.explain,
            options.allow_repeats,
            record,
        ]
    )
    return hashlib.sha256(payload).hexdigest()[:16]  # 64 bits: keys are per user and short-lived


def pack_ranked(ranked: Ranked) -> bytes:
    """Packs a live result."""
    payload = [
        LAYOUT,
        list(map(pack_item, ranked.items)),
        ranked.scores,
        ranked.retrieval,
        ranked.n_candidates,
        ranked.unknown_items,
        [_packable(reason) for reason in ranked.reasons],
    ]
    return msgpack.packb(payload)


def _packable(reason: Reason) -> list[object]:
    causes = [[cause.item_id, cause.title, cause.share] for cause in reason.causes]
    return [causes, reason.features, reason.habit]


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
            ) if layout == LAYOUT:
                records = tuple(map(unpack_item, items))
                _check_scores(scores, len(items))
                _check_scores(retrieval, len(items))
                unpacked = tuple(map(_reason, reasons))
                return Ranked(records, scores, retrieval, candidates, unknown, unpacked)
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise UnreadableRecord("a cached answer cannot be read: it is computed again")


def _reason(reason: object) -> Reason:
    match reason:
        case (tuple(causes), tuple(features), str(habit)):
            return Reason(tuple(map(_cause, causes)), tuple(map(_feature, features)), habit)
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


def _check_scores(scores: object, n: int) -> None:
    """Raises TypeError unless these are n finite numbers."""
    if not isinstance(scores, tuple) or len(scores) != n:
        raise TypeError
    if not all(isinstance(score, float | int) and math.isfinite(score) for score in scores):
        raise TypeError


def read_ranked(packed: bytes) -> Ranked | None:
    """Reads a cached result.

    None for an unreadable one, which is then computed again.
    """
    try:
        return unpack_ranked(packed)
    except UnreadableRecord:
        return None
