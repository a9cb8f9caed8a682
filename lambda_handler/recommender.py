"""Answers from the cached list, live path or popular items.

It is part of the hit path and imports nothing heavy. Every fallback is flagged in the answer and
counted; an error is raised only when no source is left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shortlist.lambda_handler.answers import (
    BATCH,
    LIVE,
    NO_RULING,
    PLAIN,
    PLAIN_ORDER,
    POPULAR,
    SESSION,
    STALE,
    Answer,
    Filters,
    NothingToServe,
    Ranked,
    RecommendationQuery,
)
from shortlist.lambda_handler.live_cache import LiveCache, digest_of
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_context import note_fallback
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.lambda_handler.sessions import (
    ALLOW,
    Session,
    excluded,
    record_of,
    repeats_unknown,
)
from shortlist.recsys.errors import (
    BrokenRelease,
    InvalidInput,
    ShortlistError,
    StoreUnavailable,
    Unavailable,
    UnknownItem,
)
from shortlist.recsys.store.records import ShortlistRecord, UserRecord, unpack_user
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.release_facts import ReleaseFacts
from shortlist.recsys.store.watermark import BEGINNING
from shortlist.recsys.where import checked

if TYPE_CHECKING:
    from shortlist.lambda_handler.live import LivePath

DeferredAnswer = Callable[[], Answer]
"""Computes an answer that the cached list cannot give; may take long."""

Compute = Callable[["LivePath", str, int, Filters], Ranked]
"""Calls one method of the live path: for a release's version, a number of items, under filters."""

NO_FILTERS = Filters()

_STORE_ERRORS = (StoreUnavailable, BrokenRelease)
"""Redis does not answer, or what it holds cannot be read."""

_BUNDLE_ERRORS = (Unavailable, BrokenRelease)
"""The bundle cannot be fetched, or cannot be read."""


class Recommender:
    """Answers recommendation queries from a store and a live path."""

    def __init__(
        self,
        serving: ServingRelease,
        store: RedisStore,
        live: LivePath,
        cache: LiveCache,
        metrics: Metrics,
    ) -> None:
        self._serving = serving
        self._store = store
        self._live = live
        self._cache = cache
        self._metrics = metrics

    def now(self) -> float:
        """Unix seconds."""
        return self._serving.now()

    def recommend(self, query: RecommendationQuery) -> Answer:
        """Answers a query.

        Raises:
            NothingToServe: no release can be reached.
            InvalidInput: a condition or an option does not fit the release.
            Unavailable, BrokenRelease: what conditions may ask for cannot be read.
        """
        return _resolved(self.look_up(query))

    def look_up(self, query: RecommendationQuery) -> Answer | DeferredAnswer:
        """Answers from the cached list, or defers the answer.

        Raises:
            NothingToServe: as `recommend`.
        """
        started = time.perf_counter()
        version = self._serving.version(query.user)
        filters = self._filters(version, query.filters)
        query = query if filters is query.filters else replace(query, filters=filters)
        query, is_unread = self._with_repeats(version, query), False
        if filters.arrangement.pinned:
            query, is_unread = self._without_own_pins(version, query)
        answer: Answer | DeferredAnswer
        if query.session is not None:
            answer = partial(self._for_session, version, query, query.session)
        elif query.user is not None:
            answer = self._for_user(version, query, query.user)
        else:
            answer = self._popular_or_deferred(version, query.k, query.filters)

        def finished(answer: Answer) -> Answer:
            answer = replace(answer, degraded=True) if is_unread else answer
            return self._counted(query, answer, started)

        return _mapped(answer, finished)

    def _without_own_pins(
        self, version: str, query: RecommendationQuery
    ) -> tuple[RecommendationQuery, bool]:
        """The query without pinned items that may not be offered to its user.

        Without all of them where the user's record cannot be read; then the second value is true.
        """
        pinned = {each.id for each in query.filters.arrangement.pinned}
        stored, is_unread = (None, False) if query.user is None else self._stored(query.user)
        if is_unread:
            return query.without(pinned), True
        if query.session is not None:
            stored = record_of(query.session, stored, self._facts(version), self.now())
        own = set() if stored is None else self._excluded(version, query, stored)
        return query.without(own & pinned), False

    def _with_repeats(self, version: str, query: RecommendationQuery) -> RecommendationQuery:
        """The query without what it says of repeats, where the release's lists do so anyway.

        Raises:
            InvalidInput: it asks for repeats, and the release has not learnt from them.
        """
        allow = query.options.allow_repeats
        if allow is None:
            return query
        try:
            is_allowed = self._serving.facts(version).repeats == ALLOW
        except _BUNDLE_ERRORS as error:
            self._serving.degraded(error)
            return query  # answered live, if at all: the bundle itself tells
        if allow and not is_allowed:
            raise repeats_unknown(version)
        if allow != is_allowed:
            return query
        return replace(query, options=replace(query.options, allow_repeats=None))

    def _facts(self, version: str) -> ReleaseFacts:
        """The release's facts; the defaults where they cannot be read."""
        try:
            return self._serving.facts(version)
        except _BUNDLE_ERRORS as error:
            self._serving.degraded(error)
            return ReleaseFacts()

    def popular(self, k: int, filters: Filters) -> Answer | DeferredAnswer:
        """The most popular items from Redis, or deferred to the bundle where Redis has too few."""
        version = self._serving.version()
        filters = self._filters(version, filters)
        answer = self._popular_or_deferred(version, k, filters)
        return _mapped(answer, lambda answer: self._flagged(answer, k, filters))

    def from_live(self, compute: Compute, k: int, filters: Filters) -> Answer:
        """Has the live path compute a list without blocked items.

        Raises:
            UnknownItem: neither the serving release nor its canary has the item.
            Unavailable, BrokenRelease: the bundle cannot be read, and there is no other source.
        """
        pointer = self._serving.pointer()
        try:
            return self._computed(compute, pointer.current, k, filters)
        except UnknownItem:
            if pointer.canary is None:
                raise
            # Its users are shown items that are new in it.
            return self._computed(compute, pointer.canary.version, k, filters)

    def _computed(self, compute: Compute, version: str, k: int, filters: Filters) -> Answer:
        filters = self._filters(version, filters)
        ranked = compute(self._live, version, filters.pool(k), filters)
        return self._flagged(Answer(ranked, LIVE, version), k, filters)

    def from_live_or_popular(self, compute: Compute, k: int, filters: Filters) -> Answer:
        """Answers as `from_live`, or with popular items where the bundle cannot be read."""
        version = self._serving.version()
        admitting = self._filters(version, filters)
        try:
            return self._computed(compute, version, k, filters)
        except _BUNDLE_ERRORS as error:
            self._serving.degraded(error)
            answer = self._popular(version, k, admitting, degraded=True)
            return self._flagged(answer, k, admitting)

    def rank(
        self,
        user: str | None,
        session: Session | None,
        items: Sequence[str],
        filters: Filters = NO_FILTERS,
    ) -> Answer:
        """Ranks items for the stored history, the request's, or an empty one."""
        version = self._serving.version(user)
        stored, degraded = (None, False) if user is None else self._stored(user)
        if session is not None:
            record = record_of(session, stored, self._facts(version), self.now())
            source = SESSION
        elif stored is not None:
            source, record = LIVE, stored
        else:
            source, record = POPULAR, UserRecord()
        # The caller asks for the order of these items, which no rule changes.
        filters = replace(self._filters(version, filters), arrangement=PLAIN_ORDER)
        ranked = self._live.rank(version, record, items, filters, self.now())
        answer = Answer(ranked, source, version, degraded=degraded)
        return self._flagged(answer, len(items), filters)

    def _filters(self, version: str, filters: Filters) -> Filters:
        """The filters with blocked items, the rules that hold, and conditions of known kinds.

        Raises:
            InvalidInput: a condition does not fit the release.
        """
        if filters.where:
            known = self._serving.facts(version).attributes
            filters = replace(filters, where=checked(filters.where, known))
        ruling = self._serving.ruling(version)
        if ruling is not NO_RULING:
            filters = replace(filters, hidden=ruling.hidden, arrangement=ruling.arrangement)
        return filters.without(self._serving.blocked())

    def _flagged(self, answer: Answer, k: int, filters: Filters) -> Answer:
        """The answer of k items, arranged by the rules.

        It is flagged as degraded while Redis cannot confirm its release, and tells what the filters
        ask for in vain.
        """
        if filters.arrangement.rules.rearranges:
            answer = replace(answer, ranked=filters.arranged(answer.ranked, k))
        if filters.narrows:
            try:
                unknown = filters.unknown_values(self._serving.facts(answer.version))
            except _BUNDLE_ERRORS as error:  # the answer does not depend on it
                self._serving.degraded(error)
            else:
                answer = replace(answer, unknown_values=unknown)
        return replace(answer, degraded=True) if self._serving.is_stale else answer

    def _for_user(
        self, version: str, query: RecommendationQuery, user: str
    ) -> Answer | DeferredAnswer:
        """From the user's stored list or history."""
        may_be_listed, stored = _may_be_listed(query), None
        try:
            if may_be_listed:
                packed, latest = self._store.read_user(version, user)
            else:
                packed, latest, stored = self._store.read_whole_user(version, user)
        except _STORE_ERRORS as error:
            self._serving.degraded(error)
            return self._popular_or_deferred(version, query.k, query.filters, degraded=True)
        record = self._serving.unpacked(packed)
        if record is not None and may_be_listed and _is_fresh(record, latest):
            answer = self._listed(version, record, query)
            if answer is not None:
                return answer
        if record is None and latest is None:
            is_unreadable = packed is not None  # a list that is there, but cannot be read
            return self._popular_or_deferred(
                version, query.k, query.filters, degraded=is_unreadable
            )
        read = partial(self._store.user_record, user) if may_be_listed else lambda: stored
        return partial(self._for_history, version, query, user, record, read)

    def _listed(
        self, version: str, record: ShortlistRecord, query: RecommendationQuery
    ) -> Answer | None:
        """The cached list.

        None if filters leave fewer than k items, or items are missing.
        """
        ranked = self._cut(version, record, query)
        if ranked is None or len(query.filters.arranged(ranked, query.k).items) < query.k:
            return None  # the live path can fill it up
        return Answer(ranked, BATCH, version, cache_hit=True, list_age_s=self._age(record))

    def _age(self, record: ShortlistRecord) -> int:
        # Not below 0: the clocks of batch and Lambda differ.
        return max(0, int(self._serving.now()) - record.created_at)

    def _for_history(
        self,
        version: str,
        query: RecommendationQuery,
        user: str,
        listed: ShortlistRecord | None,
        read: Callable[[], bytes | None],
    ) -> Answer:
        """A live list from the stored history, or else the outdated list and popular items."""
        stored: UserRecord | None = None
        try:
            packed = read()
            if packed is not None:
                stored = unpack_user(packed)
                return self._live_answer(version, query, user, packed, stored)
            note_fallback("Redis has lost the user's record: a refresh writes it again")
        except InvalidInput:
            raise
        except ShortlistError as error:
            self._serving.degraded(error)
        if stored is not None:  # what the list does not know of is excluded here
            query = query.without(self._excluded(version, query, stored))
        return self._stale(version, query, listed)

    def _excluded(self, version: str, query: RecommendationQuery, user: UserRecord) -> set[str]:
        """The items that may not be offered where the models cannot say so."""
        allow = query.options.allow_repeats
        return excluded(user, self._facts(version), allow_repeats=allow)

    def _live_answer(
        self,
        version: str,
        query: RecommendationQuery,
        user: str,
        packed: bytes,
        stored: UserRecord,
    ) -> Answer:
        """The live list, cached or computed."""

        def compute() -> Ranked:  # the live path is not opened if the cache has the result
            return self._recommended(version, query, stored)

        if self._serving.is_stale:
            # Redis has lost the release: a cached result would outlive the user's deletion.
            return Answer(compute(), LIVE, version)
        # The time of the request is none of its inputs: what it changes in CACHE_TTL_SECONDS is
        # little, next to the days and hours after which items are due again.
        digest = digest_of(query.k, query.filters, query.options, packed)
        hit = degraded = False
        try:
            if query.use_cache:
                ranked, hit = self._cache.get(version, user, digest, compute)
            else:
                ranked = compute()
        except StoreUnavailable as error:
            self._serving.degraded(error)
            ranked, degraded = compute(), True
        if not hit:
            failure = self._cache.put(version, user, digest, ranked, packed)
            if failure is not None:  # the answer does not depend on it
                self._serving.degraded(failure)
        return Answer(ranked, LIVE, version, cache_hit=hit, degraded=degraded)

    def _recommended(self, version: str, query: RecommendationQuery, user: UserRecord) -> Ranked:
        """The live path's list."""
        return self._live.recommend(
            version, user, query.k, query.filters, query.options, self.now()
        )

    def _stale(
        self, version: str, query: RecommendationQuery, listed: ShortlistRecord | None
    ) -> Answer:
        """The outdated list, filtered and filled up with popular items."""
        ranked = None if listed is None else self._cut(version, listed, query)
        if listed is None or ranked is None or not ranked.items:
            return self._popular(version, query.k, query.filters, degraded=True)
        lacking = query.k - len(ranked.items)
        if lacking > 0:
            filters = query.filters.without(item.id for item in ranked.items)
            with contextlib.suppress(NothingToServe):  # fewer items are an answer too
                ranked = _concatenated(ranked, self._popular(version, lacking, filters).ranked)
        return Answer(ranked, STALE, version, list_age_s=self._age(listed), degraded=True)

    def _cut(
        self, version: str, listed: ShortlistRecord, query: RecommendationQuery
    ) -> Ranked | None:
        """The list's items that the filters admit.

        None if Redis does not give them.
        """
        try:
            n = query.filters.pool(query.k)
            return self._serving.cut(version, listed, n, query.filters)
        except _STORE_ERRORS as error:
            self._serving.degraded(error)
            return None

    def _for_session(self, version: str, query: RecommendationQuery, session: Session) -> Answer:
        """From the request's history and the stored record."""
        stored, degraded = (None, False) if query.user is None else self._stored(query.user)
        user = record_of(session, stored, self._facts(version), self.now())
        try:
            ranked = self._recommended(version, query, user)
        except _BUNDLE_ERRORS as error:
            self._serving.degraded(error)
            filters = query.filters.without(self._excluded(version, query, user))
            return self._popular(version, query.k, filters, degraded=True)
        return Answer(ranked, SESSION, version, degraded=degraded)

    def _stored(self, user: str) -> tuple[UserRecord | None, bool]:
        """The user's record, and whether reading it failed."""
        try:
            packed = self._store.user_record(user)
            return None if packed is None else unpack_user(packed), False
        except _STORE_ERRORS as error:
            self._serving.degraded(error)
            return None, True

    def _popular(self, version: str, k: int, filters: Filters, *, degraded: bool = False) -> Answer:
        return _resolved(self._popular_or_deferred(version, k, filters, degraded=degraded))

    def _popular_or_deferred(
        self, version: str, k: int, filters: Filters, *, degraded: bool = False
    ) -> Answer | DeferredAnswer:
        """Popular items from Redis, or deferred to the bundle where Redis has fewer than k."""
        ranked, failed = self._popular_list(version, k, filters)
        degraded = degraded or failed
        if ranked is not None and len(ranked.items) >= k:
            return Answer(ranked, POPULAR, version, degraded=degraded)
        return partial(self._popular_of_bundle, version, k, filters, ranked, degraded=degraded)

    def _popular_of_bundle(
        self, version: str, k: int, filters: Filters, few: Ranked | None, *, degraded: bool
    ) -> Answer:
        """Popular items from the bundle.

        `few`, which Redis has, if the bundle cannot be read.
        """
        try:
            ranked = self._live.popular(version, filters.pool(k), filters)
        except _BUNDLE_ERRORS as error:
            self._serving.degraded(error)
            if few is None:
                message = f"neither Redis nor the bundle can be reached ({error})"
                raise NothingToServe(message) from error
            ranked, degraded = few, True
        return Answer(ranked, POPULAR, version, degraded=degraded)

    def _popular_list(self, version: str, k: int, filters: Filters) -> tuple[Ranked | None, bool]:
        """Popular items in Redis (None: no list), and whether reading failed."""
        try:
            record = self._serving.unpacked(self._store.popular(version))
            if record is None:
                note_fallback(f"Redis has no popular items of release {version}: run a refresh")
                return None, True
            return self._serving.cut(version, record, filters.pool(k), filters), False
        except _STORE_ERRORS as error:
            self._serving.degraded(error)
            return None, True

    def _counted(self, query: RecommendationQuery, answer: Answer, started: float) -> Answer:
        """Flags the answer and records its metrics."""
        answer = self._flagged(answer, query.k, query.filters)
        self._metrics.observe(time.perf_counter() - started)
        self._metrics.count("shortlist_answers_total", source=answer.source)
        self._metrics.record("shortlist_candidates", answer.ranked.n_candidates)
        if query.use_cache and query.session is None:
            result = "hit" if answer.cache_hit else "miss"
            self._metrics.count("shortlist_cache_total", result=result)
        if answer.list_age_s is not None:
            self._metrics.record("shortlist_list_age_seconds", answer.list_age_s)
        return answer


def _resolved(answer: Answer | DeferredAnswer) -> Answer:
    """The answer, which is computed now if it is deferred."""
    return answer if isinstance(answer, Answer) else answer()


def _mapped(
    answer: Answer | DeferredAnswer, change: Callable[[Answer], Answer]
) -> Answer | DeferredAnswer:
    """Applies `change` to the answer, as soon as it is computed."""
    if isinstance(answer, Answer):
        return change(answer)
    return lambda: change(answer())


def _concatenated(first: Ranked, second: Ranked) -> Ranked:
    return replace(
        first,
        items=first.items + second.items,
        scores=first.scores + second.scores,
        retrieval=first.retrieval + second.retrieval,
    )


def _may_be_listed(query: RecommendationQuery) -> bool:
    """Tells if a precomputed list can serve the query."""
    return query.use_cache and query.options == PLAIN


def _is_fresh(listed: ShortlistRecord, latest: int | None) -> bool:
    """Tells if the list includes the user's latest event.

    A user without a record has no known event, which proves nothing: such a list is fresh only if
    it names no watermark. Lists of older batches do so, from before records named positions.
    """
    if latest is None:
        return listed.watermark == BEGINNING
    return latest <= listed.watermark
