"""Remembers the serving release, blocked items and item records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import (
    NO_RULING,
    Arrangement,
    Filters,
    NothingToServe,
    Ranked,
    Ruling,
)
from shortlist.lambda_handler.background import BackgroundReads
from shortlist.lambda_handler.latest import keep_latest
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_context import note_fallback
from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import (
    BrokenRelease,
    ShortlistError,
    StoreUnavailable,
    Unavailable,
    UnreadableRecord,
)
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.records import (
    ItemRecord,
    ReleasePointer,
    ShortlistRecord,
    pack_pointer,
    unpack_list,
    unpack_pointer,
)
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.release_facts import ReleaseFacts, facts_in, unpack_facts
from shortlist.recsys.store.rules import (
    AVAILABILITY_COLUMNS,
    NO_RULES,
    Rules,
    fitting,
    of_columns,
)
from shortlist.recsys.store.rules_notes import named_items, vain
from shortlist.recsys.store.rules_reading import unpack_rules
from shortlist.recsys.where import AttributeKind

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath

REMEMBERED_ITEMS = 100_000
"""Item records of a release that a process keeps, about 30 MB; with more it starts again."""

KEPT = 2
"""Releases whose items are kept: the serving one, and its canary or the previous one."""

NEVER = float("-inf")
"""When something was read that has not been read yet, or must be read again."""


@dataclass(frozen=True, slots=True)
class _FittedRules:
    """The rules as one release has them.

    packed: what they were read from; columns: those of the items that say when they are available;
    pinned: the records of pinned items.
    """

    packed: bytes | None
    rules: Rules
    columns: Mapping[str, AttributeKind] = field(default_factory=dict)
    pinned: tuple[ItemRecord, ...] = ()

    @property
    def say_something(self) -> bool:
        """Whether any list may differ."""
        return bool(self.columns) or self.rules != NO_RULES


class ServingRelease:
    """The serving release as the store names it, read again every few seconds."""

    def __init__(
        self,
        settings: Settings,
        store: RedisStore,
        live: LivePath,
        metrics: Metrics,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """now: unix seconds, for answers; clock: monotonic seconds, for the age of what is kept."""
        self._settings, self._store, self._live, self._metrics = settings, store, live, metrics
        self.now, self._clock = now, clock
        self._pointer: tuple[float, ReleasePointer] | None = None
        self.is_stale = False
        """True while the store does not give the pointer, and the last known one is used."""
        self._blocked: tuple[float, frozenset[str]] = (NEVER, frozenset())
        self._items: dict[str, dict[int, ItemRecord]] = {}
        self._facts: dict[str, ReleaseFacts] = {}
        self._stated: dict[str, ReleaseFacts] = {}
        """Facts of manifests, for while Redis is away."""
        self._manifests = BackgroundReads(self._stated_facts)
        self._rules: tuple[float, bytes | None, Rules] = (NEVER, None, NO_RULES)
        self._fitted: dict[str, _FittedRules] = {}

    def version(self, user: str | None = None) -> str:
        """The release that serves the user. Raises NothingToServe."""
        return self.pointer().serving(user)

    def pointer(self) -> ReleasePointer:
        """The pointer to the serving releases, or the last known one while Redis is away.

        Raises:
            NothingToServe: there is none, or Redis never answered.
        """
        read_at = self._clock()  # before reading: the age counts from the request
        if self._pointer is not None and self._is_recent(self._pointer[0], read_at):
            return self._pointer[1]
        try:
            pointer = self._store.release()
        except (StoreUnavailable, BrokenRelease) as error:
            return self._last_known(error)
        if pointer is None:
            message = "no release has been published: run `shortlist batch run` first"
            return self._last_known(NothingToServe(message))
        self.is_stale = False
        if self._pointer is None or self._pointer[1] != pointer:
            self._save(pointer)
        self._pointer = (read_at, pointer)
        self._metrics.release(pointer.current)
        return pointer

    def _is_recent(self, read_at: float, now: float) -> bool:
        return now - read_at < self._settings.release_cache_seconds

    def _last_known(self, error: ShortlistError) -> ReleasePointer:
        """The last pointer of this process, or of an earlier one on this disk."""
        self.is_stale = True
        self.degraded(error)
        if self._pointer is not None:
            return self._pointer[1]
        try:
            return unpack_pointer(self._pointer_file().read_bytes())
        except (OSError, BrokenRelease):
            raise NothingToServe(f"the release pointer cannot be read: {error}") from error

    def _save(self, pointer: ReleasePointer) -> None:
        try:
            write_atomically(self._pointer_file(), pack_pointer(pointer))
        except OSError:  # a copy for bad times only: requests are answered all the same
            self._metrics.count("shortlist_degraded_total", kind="UnwritableMemory")

    def _pointer_file(self) -> Path:
        name = self._settings.namespace.replace("/", "_")  # one file for each namespace
        return Path(self._settings.bundle_dir) / "shortlist" / f"{name}.release"

    def blocked(self) -> frozenset[str]:
        """The blocked items, read as often as the pointer.

        They are the last known ones while Redis is away, or has lost the release and these items
        with it.
        """
        read_at = self._clock()
        if not self._is_recent(self._blocked[0], read_at) and not self.is_stale:
            try:
                self._blocked = (read_at, self._store.blocked())
            except StoreUnavailable as error:
                self.degraded(error)
        return self._blocked[1]

    def invalidate(self) -> None:
        """Has pointer, blocked items and rules read again."""
        self._pointer = None if self._pointer is None else (NEVER, self._pointer[1])
        self._blocked = (NEVER, self._blocked[1])
        self._rules = (NEVER, *self._rules[1:])

    def facts(self, version: str) -> ReleaseFacts:
        """What the release's data mean, read once.

        Where Redis has none, an older version has published the release, or Redis has lost them:
        the bundle's manifest tells.

        Raises:
            Unavailable, BrokenRelease: neither can be read.
        """
        known = self._facts.get(version)
        if known is not None:
            return known
        try:
            packed = self._store.facts(version)
            facts = self._stated_by(version) if packed is None else unpack_facts(packed)
        except (StoreUnavailable, UnreadableRecord) as error:
            self.degraded(error)
            if version not in self._stated:
                keep_latest(self._stated, KEPT - 1)
                self._stated[version] = self._stated_by(version)
            return self._stated[version]
        keep_latest(self._facts, KEPT - 1)
        self._facts[version] = facts
        return facts

    def _stated_by(self, version: str) -> ReleaseFacts:
        """What the manifest states."""
        reserve = deadline.RESERVED_TIMEOUTS * self._settings.redis_timeout_ms / 1000
        return self._manifests.result(version, reserve)

    def _stated_facts(self, version: str) -> ReleaseFacts:
        return facts_in(open_artefacts(self._settings.artefacts).manifest(version))

    def ruling(self, version: str) -> Ruling:
        """What the business rules say of a release's items at this moment."""
        fitted = self._fitted_rules(version)
        if not fitted.say_something:
            return NO_RULING
        now = self.now()
        hidden = (*fitted.rules.hidden(now), *of_columns(fitted.columns, now))
        return Ruling(hidden, Arrangement(fitted.rules.at(now), fitted.pinned))

    def is_available(self, item: ItemRecord) -> bool:
        """Whether answers may show an item now: neither blocked nor hidden by a rule or column."""
        if not item.available or item.id in self.blocked():
            return False
        hidden = self.ruling(self.version()).hidden
        return not any(selector.selects(item) for selector in hidden)

    def unfit_rules(self, rules: Rules) -> list[str]:
        """Which rules change nothing in the serving release, and why."""
        version = self.version()
        facts, named = self.facts(version), named_items(rules)
        rows, is_whole = self._store.rows_of(version, named)
        unknown = [item for item, row in zip(named, rows, strict=True) if row is None and is_whole]
        fits, faults = fitting(rules, facts.attributes)
        return [*faults, *vain(fits, facts, unknown, self.now())]

    def _fitted_rules(self, version: str) -> _FittedRules:
        """The rules as the release's attributes have it; made once for each change."""
        packed, rules = self._read_rules()
        known = self._fitted.get(version)
        if known is not None and known.packed is packed:
            return known
        try:
            attributes = self.facts(version).attributes
            pinned = self._pinned(version, rules)
        except (Unavailable, BrokenRelease) as error:
            self.degraded(error)
            return _FittedRules(packed, fitting(rules, {})[0])  # not kept: tried again
        columns = {n: kind for n, kind in attributes.items() if n in AVAILABILITY_COLUMNS}
        fits, faults = fitting(rules, attributes)
        # Counted alone: they were reported when they were put, and another release may fit them.
        for _ in faults:
            self._metrics.count("shortlist_degraded_total", kind="UnfitRule")
        keep_latest(self._fitted, KEPT - 1)
        self._fitted[version] = _FittedRules(packed, fits, columns, pinned)
        return self._fitted[version]

    def _pinned(self, version: str, rules: Rules) -> tuple[ItemRecord, ...]:
        """The records of pinned items, as far as Redis has them."""
        rows = self._store.rows_of(version, [pin.item for pin in rules.pins])[0]
        known = self.records(version, [row for row in rows if row is not None])
        return tuple(record for record in known if record is not None)

    def _read_rules(self) -> tuple[bytes | None, Rules]:
        """The rules, read as often as the blocked items; the last known ones where that fails."""
        read_at = self._clock()
        _, packed, rules = self._rules
        if not self._is_recent(self._rules[0], read_at) and not self.is_stale:
            try:
                stored = self._store.packed_rules()
                if stored != packed:
                    rules = NO_RULES if stored is None else unpack_rules(stored)[1]
                    packed = stored
                self._rules = (read_at, packed, rules)
            except (StoreUnavailable, UnreadableRecord) as error:
                self.degraded(error)
        return packed, rules

    def item(self, item_id: str) -> ItemRecord | None:
        """An item of the serving release or its canary.

        None if neither catalogue has it.

        Raises:
            Unavailable: Redis has lost the catalogue, and the bundle cannot be read either.
        """
        pointer = self.pointer()
        item = self._item(pointer.current, item_id)
        if item is None and pointer.canary is not None:
            item = self._item(pointer.canary.version, item_id)
        return item

    def _item(self, version: str, item_id: str) -> ItemRecord | None:
        rows, is_whole = self._store.rows_of(version, [item_id])
        row = rows[0]
        item = None if row is None else self.records(version, [row])[0]
        if item is None and (row is not None or not is_whole):
            # Redis has lost the record, or the whole catalogue: the bundle has both.
            item = self._live.items(version, [item_id])[0]
        return item

    def is_whole(self) -> bool:
        """Tells if Redis has the whole serving release."""
        pointer = self._store.release()
        return pointer is not None and self._store.is_whole(pointer.current)

    def records(self, version: str, rows: Sequence[int]) -> list[ItemRecord | None]:
        """The records of catalogue rows.

        None if the store lacks one. They are kept once read.
        """
        known = self._items.get(version)
        if known is None or len(known) > REMEMBERED_ITEMS:
            # Starting again is simpler than an LRU over rows, and rare.
            self._items.pop(version, None)
            keep_latest(self._items, KEPT - 1)
            known = self._items[version] = {}
        records = list(map(known.get, rows))
        if all(records):  # mostly, once a process has answered for a while
            return records
        missing = [row for row in rows if row not in known]
        for row, item in zip(missing, self._store.items(version, missing), strict=True):
            if item is not None:
                known[row] = item
        return list(map(known.get, rows))

    def unpacked(self, packed: bytes | None) -> ShortlistRecord | None:
        """A stored list.

        None if there is none, or it cannot be read.
        """
        try:
            return None if packed is None else _finite(unpack_list(packed))
        except BrokenRelease as error:
            self.degraded(error)
            return None

    def cut(self, version: str, record: ShortlistRecord, k: int, filters: Filters) -> Ranked:
        """The best k items of a stored list that the filters admit.

        Items whose record is missing or unreadable are left out.
        """
        kept: list[ItemRecord | None] = []
        scores: list[float] = []
        retrieval: list[float] = []
        for start in range(0, len(record.rows), k):  # mostly the first k rows are enough
            part = slice(start, start + k)
            items = self.records(version, record.rows[part])
            shown = [item is not None and filters.admit(item) for item in items]
            kept += compress(items, shown)
            scores += compress(record.scores[part], shown)
            retrieval += compress(record.retrieval[part], shown)
            if len(kept) >= k:
                break
            if not any(items):  # Redis has lost the catalogue: further rows cost time in vain
                break
        best = cast("list[ItemRecord]", kept[:k])  # None was not shown
        return Ranked(tuple(best), tuple(scores[:k]), tuple(retrieval[:k]), record.n_candidates)

    def degraded(self, error: ShortlistError) -> None:
        """Counts a fallback by the error that caused it, and notes it for the request's log."""
        self._metrics.count("shortlist_degraded_total", kind=type(error).__name__)
        note_fallback(f"{type(error).__name__}: {error}")


def _finite(record: ShortlistRecord) -> ShortlistRecord:
    # One sum checks all scores: half-precision numbers are too small to overflow it.
    if not math.isfinite(sum(record.scores) + sum(record.retrieval)):
        raise UnreadableRecord("a list has a score that is no number: publish the release again")
    return record
