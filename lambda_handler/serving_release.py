"""What this process remembers of the serving release: its version, the blocked items, and the items it has shown."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from shortlist.lambda_handler.answers import Filters, LivePath, NothingToServe, Ranked
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import (
    BrokenRelease,
    ShortlistError,
    StoreUnavailable,
    UnreadableRecord,
)
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.records import (
    ItemRecord,
    ReleasePointer,
    ShortlistRecord,
    pack_pointer,
    unpack_list,
    unpack_pointer,
)
from shortlist.recsys.store.redis import RedisStore

REMEMBERED_ITEMS = 100_000
"""Item records of a release that a process keeps, about 30 MB; beyond that it starts afresh."""

KEPT = 2
"""Releases whose items are remembered: the serving one, and its canary or the one before."""


class ServingRelease:
    """The serving release, as far as the store tells it."""

    def __init__(
        self,
        settings: Settings,
        store: RedisStore,
        live: LivePath,
        metrics: Metrics,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """now: unix seconds, for what answers say; clock: seconds that never go back, for how old a memory is."""
        self._settings, self._store, self._live, self._metrics = settings, store, live, metrics
        self.now, self._clock = now, clock
        self._pointer: tuple[float, ReleasePointer] | None = None
        self.is_stale = False
        """Whether the version is what was last known, because the store does not tell it now."""
        self._blocked: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
        self._items: dict[str, dict[int, ItemRecord]] = {}

    def version(self, user: str | None = None) -> str:
        """The release that serves the user. Raises NothingToServe."""
        return self.pointer().serving(user)

    def pointer(self) -> ReleasePointer:
        """Which releases serve, read again every few seconds; the last ones known while Redis is away.

        Raises:
            NothingToServe: there is none, or Redis never answered.
        """
        read_at = self._clock()
        if (
            self._pointer is not None
            and read_at - self._pointer[0] < self._settings.release_cache_seconds
        ):
            return self._pointer[1]
        try:
            pointer = self._store.release()
        except (StoreUnavailable, BrokenRelease) as error:
            return self._last_known(error)
        if pointer is None:
            return self._last_known(
                NothingToServe("no release has been published: run `shortlist batch run` first")
            )
        self.is_stale = False
        if self._pointer is None or self._pointer[1] != pointer:
            self._remember(pointer)
        self._pointer = (read_at, pointer)
        self._metrics.release(pointer.current)
        return pointer

    def _last_known(self, error: ShortlistError) -> ReleasePointer:
        """From this process, or from the file of one that ran before it on this disk."""
        self.is_stale = True
        self.degraded(error)
        if self._pointer is not None:
            return self._pointer[1]
        try:
            return unpack_pointer(self._memory().read_bytes())
        except (OSError, BrokenRelease):
            raise NothingToServe(f"the release pointer cannot be read: {error}") from error

    def _remember(self, pointer: ReleasePointer) -> None:
        try:
            write_atomically(self._memory(), pack_pointer(pointer))
        except OSError:
            self._metrics.count(
                "shortlist_degraded_total", kind="UnwritableMemory"
            )  # it serves all the same

    def _memory(self) -> Path:
        return (
            Path(self._settings.bundle_dir)
            / "shortlist"
            / f"{self._settings.namespace.replace('/', '_')}.release"
        )

    def blocked(self) -> frozenset[str]:
        """The items never to be shown, read again as often as the release; the last ones known while Redis is away.

        A Redis that has lost the release has lost these, too.
        """
        read_at = self._clock()
        if read_at - self._blocked[0] >= self._settings.release_cache_seconds and not self.is_stale:
            try:
                self._blocked = (read_at, self._store.blocked())
            except StoreUnavailable as error:
                self.degraded(error)
        return self._blocked[1]

    def forget(self) -> None:
        """Reads release and blocked items again, at the next request."""
        self._pointer = None if self._pointer is None else (float("-inf"), self._pointer[1])
        self._blocked = (float("-inf"), self._blocked[1])

    def item(self, item_id: str) -> ItemRecord | None:
        """What is known of an item; None for one that the catalogue lacks.

        Raises:
            Unavailable: Redis has lost the catalogue, and the bundle, which has it too, cannot be
                read.
        """
        pointer = self.pointer()
        shown = (
            (pointer.current,)
            if pointer.canary is None
            else (pointer.current, pointer.canary.version)
        )
        return next(
            (item for version in shown if (item := self._item(version, item_id)) is not None), None
        )

    def _item(self, version: str, item_id: str) -> ItemRecord | None:
        rows, is_whole = self._store.rows_of(version, [item_id])
        item = None if rows[0] is None else self.records(version, [rows[0]])[0]
        if item is None and (rows[0] is not None or not is_whole):
            item = self._live.items(version, [item_id])[0]
        return item

    def is_whole(self) -> bool:
        """Whether Redis has the serving release: its pointer, its catalogue and its popular items."""
        pointer = self._store.release()
        return pointer is not None and self._store.is_whole(pointer.current)

    def records(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """The records of these rows, None for those that the store lacks; what was read once is remembered."""
        known = self._items.get(version)
        if known is None or len(known) > REMEMBERED_ITEMS:
            known = {}
            self._items = dict([*self._items.items()][1 - KEPT :]) | {version: known}
        lacking = [row for row in rows if row not in known]
        if lacking:
            items = self._store.items(version, lacking)
            known.update(
                {row: item for row, item in zip(lacking, items, strict=True) if item is not None}
            )
        return [known.get(row) for row in rows]

    def unpacked(self, packed: bytes | None) -> ShortlistRecord | None:
        """A stored list; None where there is none that can be read."""
        try:
            return None if packed is None else _finite(unpack_list(packed))
        except BrokenRelease as error:
            self.degraded(error)
            return None

    def cut(self, version: str, record: ShortlistRecord, k: int, filters: Filters) -> Ranked:
        """The best k items of a stored list that the filters admit, or as many as there are.

        An item whose record is lacking or unreadable is left out by itself.
        """
        kept: list[tuple[ItemRecord, float, float]] = []
        for start in range(0, len(record.rows), k):
            part = slice(start, start + k)
            items = self.records(version, record.rows[part])
            scored = zip(items, record.scores[part], record.retrieval[part], strict=True)
            kept += [
                (i, score, near) for i, score, near in scored if i is not None and filters.admit(i)
            ]
            if len(kept) >= k or not any(
                items
            ):  # the rest of a catalogue that is gone is gone, too
                break
        items_, scores, retrieval = zip(*kept[:k], strict=True) if kept else ((), (), ())
        return Ranked(items_, scores, retrieval, record.n_candidates)

    def degraded(self, error: ShortlistError) -> None:
        """Counts a fall-back, by what failed."""
        self._metrics.count("shortlist_degraded_total", kind=type(error).__name__)


def _finite(record: ShortlistRecord) -> ShortlistRecord:
    if not math.isfinite(
        sum(record.scores) + sum(record.retrieval)
    ):  # half-precision numbers are too small to add up to it
        raise UnreadableRecord("a list has a score that is no number: publish the release again")
    return record
