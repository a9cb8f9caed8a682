"""What this process remembers of the serving release: its version, the blocked items, and the items it has shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

from lambda_handler.answers import Filters, NothingToServe, Ranked
from lambda_handler.metrics import Metrics
from recsys.errors import BrokenRelease, CorruptArtefact, ShortlistError, StoreUnavailable
from recsys.settings import Settings
from recsys.store import Store
from recsys.wire import ItemRecord, ReleasePointer, ShortlistRecord, pack_pointer, unpack_list, unpack_pointer

REMEMBERED_ITEMS = 100_000
"""Item records of a release that a process keeps, about 30 MB; beyond that it starts afresh."""

KEPT = 2
"""Releases whose items are remembered: the serving one, and its canary or the one before."""


class Serving:
    """The serving release, as far as the store tells it."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics, now: Callable[[], float]) -> None:
        self._settings, self._store, self._metrics, self.now = settings, store, metrics, now
        self._pointer: tuple[float, ReleasePointer] | None = None
        self.is_remembered = False
        """Whether the version is what was last known, because the store does not tell it now."""
        self._blocked: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
        self._items: dict[str, dict[int, ItemRecord]] = {}

    def version(self, user: str | None = None) -> str:
        """The release that serves the user, read again every few seconds; the last one known while Redis is away.

        Raises:
            NothingToServe: there is none, or Redis never answered.
        """
        now = self.now()
        if self._pointer is not None and now - self._pointer[0] < self._settings.release_cache_seconds:
            return self._pointer[1].serving(user)
        try:
            pointer = self._store.release()
        except (StoreUnavailable, BrokenRelease) as error:
            return self._last_known(error, user)
        if pointer is None:
            return self._last_known(NothingToServe("no release has been published: run `shortlist batch run` first"), user)
        self.is_remembered = False
        if self._pointer is None or self._pointer[1] != pointer:
            self._remember(pointer)
        self._pointer = (now, pointer)
        self._metrics.release(pointer.current)
        return pointer.serving(user)

    def _last_known(self, error: ShortlistError, user: str | None) -> str:
        """From this process, or from the file of one that ran before it on this disk."""
        self.is_remembered = True
        self.degraded(error)
        if self._pointer is not None:
            return self._pointer[1].serving(user)
        try:
            return unpack_pointer(self._memory().read_bytes()).serving(user)
        except (OSError, BrokenRelease):
            raise NothingToServe(f"the release pointer cannot be read: {error}") from error

    def _remember(self, pointer: ReleasePointer) -> None:
        draft = self._memory().with_suffix(".draft")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(pack_pointer(pointer))
            draft.replace(self._memory())
        except OSError:
            self._metrics.count("shortlist_degraded_total", kind="UnwritableMemory")  # it serves all the same

    def _memory(self) -> Path:
        return Path(self._settings.bundle_dir) / "shortlist" / f"{self._settings.namespace.replace('/', '_')}.release"

    def blocked(self) -> frozenset[str]:
        """The items never to be shown, read again as often as the release; the last ones known while Redis is away."""
        now = self.now()
        if now - self._blocked[0] >= self._settings.release_cache_seconds:
            try:
                self._blocked = (now, self._store.blocked())
            except StoreUnavailable as error:
                self.degraded(error)
        return self._blocked[1]

    def forget(self) -> None:
        """Reads release and blocked items again, at the next request."""
        self._pointer = None if self._pointer is None else (float("-inf"), self._pointer[1])
        self._blocked = (float("-inf"), self._blocked[1])

    def item(self, item_id: str) -> ItemRecord | None:
        """What is known of an item; None for an unknown one."""
        version = self.version()
        row = self._store.row_of(version, item_id)
        return None if row is None else next(iter(self.records(version, [row])), None)

    def records(self, version: str, rows: Sequence[int]) -> list[ItemRecord]:
        """The records of these rows, up to the first that the store lacks; what was read once is remembered."""
        known = self._items.get(version)
        if known is None or len(known) > REMEMBERED_ITEMS:
            known = {}
            self._items = dict([*self._items.items()][1 - KEPT :]) | {version: known}
        lacking = [row for row in rows if row not in known]
        if lacking:
            found = self._store.items(version, lacking)
            known.update({row: item for row, item in zip(lacking, found, strict=True) if item is not None})
        return [known[row] for row in takewhile(known.__contains__, rows)]

    def unpacked(self, packed: bytes | None) -> ShortlistRecord | None:
        """A stored list; None where there is none that can be read."""
        try:
            return None if packed is None else _finite(unpack_list(packed))
        except BrokenRelease as error:
            self.degraded(error)
            return None

    def cut(self, version: str, record: ShortlistRecord, k: int, filters: Filters) -> Ranked:
        """The best k items of a stored list that the filters admit, or as many as there are."""
        kept: list[tuple[ItemRecord, float, float]] = []
        for start in range(0, len(record.rows), k):
            part = slice(start, start + k)
            found = self.records(version, record.rows[part])
            scored = zip(found, record.scores[part], record.retrieval[part], strict=False)
            kept += [s for s in scored if filters.admit(s[0])]
            if len(kept) >= k or len(found) < len(record.rows[part]):
                break
        items, scores, retrieval = zip(*kept[:k], strict=True) if kept else ((), (), ())
        return Ranked(items, scores, retrieval, record.n_candidates)

    def degraded(self, error: ShortlistError) -> None:
        """Counts a fall-back, by what failed."""
        self._metrics.count("shortlist_degraded_total", kind=type(error).__name__)


def _finite(record: ShortlistRecord) -> ShortlistRecord:
    if not math.isfinite(sum(record.scores) + sum(record.retrieval)):  # half-precision numbers are too small to add up to it
        raise CorruptArtefact("a list has a score that is no number: publish the release again")
    return record
