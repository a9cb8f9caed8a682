"""Decides where an answer comes from: the cached list, the live path, or popular items; light enough for the hit path.

Every fall-back is flagged in the answer and counted. What can be answered without an error is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgpack

from lambda_handler.metrics import Metrics
from recsys.errors import BrokenRelease, CorruptArtefact, ShortlistError, StoreUnavailable, Unavailable
from recsys.settings import Settings
from recsys.store import Store
from recsys.wire import ItemRecord, ReleasePointer, ShortlistRecord, UserRecord, unpack_list, unpack_user

LAYOUT = 1
"""Of a cached live answer."""

REMEMBERED_ITEMS = 100_000
"""Item records that a process keeps, about 30 MB; beyond that it starts afresh."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What an answer may not contain (item ids), and the categories of which it must have one (none: any)."""

    excluded: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()

    def admit(self, item: ItemRecord) -> bool:
        """Whether the item may be shown."""
        if not item.available or item.id in self.excluded:
            return False
        return not self.categories or not self.categories.isdisjoint(item.categories)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Items, best first, with their scores."""

    items: tuple[ItemRecord, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]
    n_candidates: int
    unknown_items: int = 0


class Live(Protocol):
    """The heavy path, loaded when first needed. Every method may raise Unavailable or BrokenRelease."""

    def recommend(self, version: str, user: UserRecord, k: int, filters: Filters) -> Ranked:
        """The two stages for one user."""

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """The most popular items."""

    def info(self, version: str) -> dict[str, object]:
        """The release's manifest."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with ids as strings and its history as a record (None: none was given)."""

    user: str
    k: int
    use_cache: bool = True
    session: UserRecord | None = None
    filters: Filters = field(default_factory=Filters)


@dataclass(frozen=True, slots=True)
class Answer:
    """A ranked list and where it came from."""

    ranked: Ranked
    source: str
    version: str
    cache_hit: bool = False
    list_age_s: int | None = None
    degraded: bool = False


class NothingToServe(Unavailable):
    """There is no release, or no part of it can be reached."""


class Recommender:
    """Answers requests from a store and a live path."""

    def __init__(self, settings: Settings, store: Store, live: Live, metrics: Metrics, now: Callable[[], float]) -> None:
        self._settings, self._store, self._live, self._metrics, self._now = settings, store, live, metrics, now
        self._pointer: tuple[float, ReleasePointer] | None = None
        self._blocked: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
        self._items: tuple[str, dict[int, ItemRecord]] = ("", {})

    def recommend(self, asked: Asked) -> Answer:
        """The answer to a request.

        Raises:
            NothingToServe: no release can be reached.
        """
        started = time.perf_counter()
        version = self.version(asked.user)
        asked = replace(asked, filters=replace(asked.filters, excluded=asked.filters.excluded | self._blocked_now()))
        answer = self._session(version, asked) if asked.session is not None else self._known(version, asked)
        self._metrics.observe(time.perf_counter() - started)
        self._tell(asked, answer)
        return answer

    def version(self, user: str | None = None) -> str:
        """The release that serves the user, read again every few seconds; the last one known while Redis is away.

        Raises:
            NothingToServe: there is none, or Redis never answered.
        """
        now = self._now()
        if self._pointer is not None and now - self._pointer[0] < self._settings.release_cache_seconds:
            return self._pointer[1].serving(user)
        try:
            pointer = self._store.release()
        except (StoreUnavailable, BrokenRelease) as error:
            if self._pointer is None:
                raise NothingToServe(f"the release pointer cannot be read ({error})") from error
            self._degraded(error)
            return self._pointer[1].serving(user)
        if pointer is None:
            raise NothingToServe("no release has been published: run `shortlist batch run` first")
        self._pointer = (now, pointer)
        self._metrics.release(pointer.current)
        return pointer.serving(user)

    def item(self, item_id: str) -> ItemRecord | None:
        """What is known of an item; None for an unknown one."""
        version = self.version()
        row = self._store.row_of(version, item_id)
        return None if row is None else next(iter(self._records(version, [row])), None)

    def info(self) -> dict[str, object]:
        """The serving release's manifest."""
        return self._live.info(self.version())

    def health(self) -> dict[str, str]:
        """Whether the store answers, and which release serves. Raises Unavailable."""
        self._store.ping()
        return {"status": "ok", "store": "ok", "release": self.version()}

    def _known(self, version: str, asked: Asked) -> Answer:
        try:
            packed, n_events = self._store.read_user(version, asked.user)
        except StoreUnavailable as error:
            self._degraded(error)
            return self._popular(version, asked, degraded=True)
        record = self._unpacked(packed)
        fresh = record is not None and (n_events is None or record.n_events >= n_events)
        if record is not None and fresh and asked.use_cache:
            hit = self._hit(version, record, asked)
            if hit is not None:
                return hit
        if record is None and n_events is None:
            return self._popular(version, asked, degraded=packed is not None)
        try:
            return self._live_answer(version, asked)
        except ShortlistError as error:
            self._degraded(error)
        ranked = None if record is None else self._cut(version, record, asked)
        if record is None or ranked is None or not ranked.items:
            return self._popular(version, asked, degraded=True)
        return Answer(ranked, "stale", version, list_age_s=self._age(record), degraded=True)

    def _hit(self, version: str, record: ShortlistRecord, asked: Asked) -> Answer | None:
        ranked = self._cut(version, record, asked)
        if len(ranked.items) < asked.k:
            return None
        return Answer(ranked, "batch", version, cache_hit=True, list_age_s=self._age(record))

    def _age(self, record: ShortlistRecord) -> int:
        return max(0, int(self._now()) - record.created_at)

    def _cut(self, version: str, record: ShortlistRecord, asked: Asked) -> Ranked:
        kept: list[tuple[ItemRecord, float, float]] = []
        for start in range(0, len(record.rows), asked.k):
            part = slice(start, start + asked.k)
            items = self._records(version, record.rows[part])
            scored = zip(items, record.scores[part], record.retrieval[part], strict=False)
            kept += [s for s in scored if asked.filters.admit(s[0])]
            if len(kept) >= asked.k or len(items) < len(record.rows[part]):
                break
        kept = kept[: asked.k]
        return Ranked(
            tuple(i for i, _, _ in kept), tuple(s for _, s, _ in kept), tuple(r for _, _, r in kept), record.n_candidates
        )

    def _records(self, version: str, rows: Sequence[int]) -> list[ItemRecord]:
        """The records of these rows, up to the first that the store lacks; what was read once is remembered."""
        if self._items[0] != version or len(self._items[1]) > REMEMBERED_ITEMS:
            self._items = (version, {})
        known = self._items[1]
        lacking = [row for row in rows if row not in known]
        if lacking:
            found = self._store.items(version, lacking)
            known.update({row: item for row, item in zip(lacking, found, strict=True) if item is not None})
        out = []
        for row in rows:
            if row not in known:
                break
            out.append(known[row])
        return out

    def _unpacked(self, packed: bytes | None) -> ShortlistRecord | None:
        try:
            return None if packed is None else unpack_list(packed)
        except BrokenRelease as error:
            self._degraded(error)
            return None

    def _live_answer(self, version: str, asked: Asked) -> Answer:
        packed = self._store.user_record(asked.user)
        if packed is None:
            return self._popular(version, asked)
        digest = _digest(asked.k, asked.filters, packed)
        if asked.use_cache:
            cached = self._cached(version, asked.user, digest)
            if cached is not None:
                return Answer(cached, "live", version, cache_hit=True)
        ranked = self._live.recommend(version, unpack_user(packed), asked.k, asked.filters)
        try:
            self._store.write_live(version, asked.user, digest, _packed(ranked), self._settings.cache_ttl_seconds)
        except StoreUnavailable as error:
            self._degraded(error)  # the answer is there all the same
        return Answer(ranked, "live", version)

    def _cached(self, version: str, user: str, digest: str) -> Ranked | None:
        packed = self._store.live(version, user, digest)
        try:
            return None if packed is None else _ranked(packed)
        except BrokenRelease as error:
            self._degraded(error)
            return None

    def _session(self, version: str, asked: Asked) -> Answer:
        """From what the request tells of the user, and what the store knows beside it."""
        assert asked.session is not None
        degraded = False
        stored: UserRecord | None = None
        try:
            packed = self._store.user_record(asked.user)
            stored = None if packed is None else unpack_user(packed)
        except (StoreUnavailable, BrokenRelease) as error:
            self._degraded(error)
            degraded = True
        try:
            ranked = self._live.recommend(version, _joined(asked.session, stored), asked.k, asked.filters)
        except (Unavailable, BrokenRelease) as error:
            self._degraded(error)
            return self._popular(version, asked, degraded=True)
        return Answer(ranked, "session", version, degraded=degraded)

    def _popular(self, version: str, asked: Asked, *, degraded: bool = False) -> Answer:
        had = asked.session.items if asked.session is not None else ()
        filters = replace(asked.filters, excluded=asked.filters.excluded | frozenset(had))
        asked = replace(asked, filters=filters)
        try:
            record = self._unpacked(self._store.popular(version))
            ranked = None if record is None else self._cut(version, record, asked)
        except StoreUnavailable as error:
            self._degraded(error)
            degraded, ranked = True, None
        if ranked is None or len(ranked.items) < asked.k:
            try:
                ranked = self._live.popular(version, asked.k, filters)
            except (Unavailable, BrokenRelease) as error:
                self._degraded(error)
                degraded = True
                if ranked is None:
                    raise NothingToServe(f"neither Redis nor the bundle can be reached ({error})") from error
        return Answer(ranked, "popular", version, degraded=degraded)

    def _blocked_now(self) -> frozenset[str]:
        now = self._now()
        if now - self._blocked[0] >= self._settings.release_cache_seconds:
            try:
                self._blocked = (now, self._store.blocked())
            except StoreUnavailable as error:
                self._degraded(error)
        return self._blocked[1]

    def _tell(self, asked: Asked, answer: Answer) -> None:
        self._metrics.count("shortlist_answers_total", source=answer.source)
        self._metrics.record("shortlist_candidates", answer.ranked.n_candidates)
        if asked.use_cache and asked.session is None:
            self._metrics.count("shortlist_cache_total", result="hit" if answer.cache_hit else "miss")
        if answer.list_age_s is not None:
            self._metrics.record("shortlist_list_age_seconds", answer.list_age_s)

    def _degraded(self, error: ShortlistError) -> None:
        self._metrics.count("shortlist_degraded_total", kind=type(error).__name__)


def _joined(session: UserRecord, stored: UserRecord | None) -> UserRecord:
    """The request's history in place of the stored one, if it has one; its attributes above the stored ones.

    What the store knows that the user had stays excluded either way.
    """
    if stored is None:
        return session
    attributes = {**(stored.attributes or {}), **(session.attributes or {})}
    if not session.items:
        return replace(stored, attributes=attributes)
    return replace(session, seen=(*stored.seen, *stored.items), attributes=attributes)


def _digest(k: int, filters: Filters, record: bytes) -> str:
    """What shaped a live result: k, the filters, and the user's whole record."""
    told = msgpack.packb([k, sorted(filters.excluded), sorted(filters.categories), record])
    return hashlib.sha256(told).hexdigest()[:16]


def _packed(ranked: Ranked) -> bytes:
    items = [[i.id, i.title, i.categories, i.available] for i in ranked.items]
    return msgpack.packb([LAYOUT, items, ranked.scores, ranked.retrieval, ranked.n_candidates, ranked.unknown_items])


def _ranked(packed: bytes) -> Ranked:
    try:
        layout, items, scores, retrieval, n_candidates, unknown = msgpack.unpackb(packed, use_list=False)
        if layout == LAYOUT:
            return Ranked(tuple(ItemRecord(*i) for i in items), scores, retrieval, n_candidates, unknown)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptArtefact(f"a cached answer cannot be read ({error}): it is computed again") from error
    raise CorruptArtefact(f"a cached answer has layout {layout!r}, not {LAYOUT}: it is computed again")


def session_of(events: Iterable[tuple[str, int | None, float | None]], attributes: dict[str, object] | None) -> UserRecord:
    """A request's history as a record; an event without a time takes the one before it."""
    items, times, weights = [], [], []
    last = 0
    for item, when, weight in events:
        last = last if when is None else when
        items.append(item)
        times.append(last)
        weights.append(weight)
    return UserRecord(tuple(items), tuple(times), tuple(weights), len(items), (), attributes)
