"""Decides where an answer comes from: the cached list, the live path, or popular items; light enough for the hit path.

Every fall-back is flagged in the answer and counted. What can be answered without an error is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from shortlist.lambda_handler.answers import (
    PLAIN,
    Answer,
    Filters,
    LivePath,
    NothingToServe,
    Ranked,
    RecommendationQuery,
    joined,
)
from shortlist.lambda_handler.live_cache import LiveCache, digest_of
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.errors import (
    BrokenRelease,
    ShortlistError,
    StoreUnavailable,
    Unavailable,
    UnknownItem,
)
from shortlist.recsys.store.records import ShortlistRecord, UserRecord, unpack_user
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.watermark import BEGINNING

DeferredAnswer = Callable[[], Answer]
"""Makes an answer that the cached list does not give: by the live path, or of popular items."""


class Recommender:
    """Answers requests for recommendations from a store and a live path."""

    def __init__(
        self,
        serving: ServingRelease,
        store: RedisStore,
        live: LivePath,
        cache: LiveCache,
        metrics: Metrics,
    ) -> None:
        self._serving, self._store, self._live, self._cache, self._metrics = (
            serving,
            store,
            live,
            cache,
            metrics,
        )

    def now(self) -> float:
        """Unix seconds."""
        return self._serving.now()

    def recommend(self, asked: RecommendationQuery) -> Answer:
        """The answer to a request.

        Raises:
            NothingToServe: no release can be reached.
        """
        found = self.look_up(asked)
        return found if isinstance(found, Answer) else found()

    def look_up(self, asked: RecommendationQuery) -> Answer | DeferredAnswer:
        """The answer that the cached list gives; where it gives none, what makes another, and may take its time.

        Raises:
            NothingToServe: as `recommend`.
        """
        started = time.perf_counter()
        version = self._serving.version(asked.user)
        asked = asked.without(self._serving.blocked())
        found = (
            partial(self._session, version, asked)
            if asked.session is not None
            else self._known(version, asked)
        )
        if isinstance(found, Answer):
            return self._told(asked, found, started)
        return lambda: self._told(asked, found(), started)

    def popular(self, k: int, filters: Filters) -> Answer | DeferredAnswer:
        """The most popular items, whoever asks; where Redis has too few of them, what asks the bundle for them."""
        version = self._serving.version()
        found = self._popular_or_rest(version, k, filters.without(self._serving.blocked()))
        return self._flagged(found) if isinstance(found, Answer) else lambda: self._flagged(found())

    def trending(self, k: int, filters: Filters) -> Answer:
        """The items of the most recent interest; popular ones where the bundle cannot be read."""
        version = self._serving.version()
        filters = filters.without(self._serving.blocked())
        try:
            return self._flagged(Answer(self._live.trending(version, k, filters), "live", version))
        except (Unavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return self._popular(version, k, filters, degraded=True)

    def similar(self, item_id: str, k: int, filters: Filters) -> Answer:
        """The items most like one. Raises UnknownItem, and what the live path raises: there is no other source."""
        pointer = self._serving.pointer()
        filters = filters.without(self._serving.blocked())
        try:
            version, ranked = (
                pointer.current,
                self._live.similar(pointer.current, item_id, k, filters),
            )
        except UnknownItem:
            if pointer.canary is None:
                raise
            version = pointer.canary.version  # whose items its users are shown
            ranked = self._live.similar(version, item_id, k, filters)
        return self._flagged(Answer(ranked, "live", version))

    def rank(self, user: str | None, session: UserRecord | None, items: Sequence[str]) -> Answer:
        """These items in the ranker's order, for a stored history, a given one, or one without an event."""
        version = self._serving.version(user)
        stored, degraded = (None, False) if user is None else self._stored(user)
        known = session or stored
        filters = Filters().without(self._serving.blocked())
        told = joined(session, stored) if session is not None else stored or UserRecord()
        source = "popular" if known is None else "live" if session is None else "session"
        return self._flagged(
            Answer(
                self._live.rank(version, told, items, filters), source, version, degraded=degraded
            )
        )

    def _flagged(self, answer: Answer) -> Answer:
        """The answer, degraded where nobody can say now whether its release still serves."""
        return replace(answer, degraded=True) if self._serving.is_stale else answer

    def _known(self, version: str, asked: RecommendationQuery) -> Answer | DeferredAnswer:
        try:
            packed, latest = self._store.read_user(version, asked.user)
        except (StoreUnavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return self._popular_or_rest(version, asked.k, asked.filters, degraded=True)
        record = self._serving.unpacked(packed)
        if (
            record is not None
            and asked.use_cache
            and asked.shape == PLAIN
            and _is_fresh(record, latest)
        ):
            hit = self._hit(version, record, asked)
            if hit is not None:
                return hit
        if record is None and latest is None:
            return self._popular_or_rest(
                version, asked.k, asked.filters, degraded=packed is not None
            )
        return partial(self._of_record, version, asked, record)

    def _hit(
        self, version: str, record: ShortlistRecord, asked: RecommendationQuery
    ) -> Answer | None:
        """The cached list, unless too little of it is left, or its items are no longer where they were."""
        try:
            ranked = self._serving.cut(version, record, asked.k, asked.filters)
        except (StoreUnavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return None
        if len(ranked.items) < asked.k:
            return None
        return Answer(ranked, "batch", version, cache_hit=True, list_age_s=self._age(record))

    def _age(self, record: ShortlistRecord) -> int:
        return max(0, int(self._serving.now()) - record.created_at)

    def _of_record(
        self, version: str, asked: RecommendationQuery, listed: ShortlistRecord | None
    ) -> Answer:
        """From the stored history, live; failing that the list there is, filled up with popular items."""
        stored: UserRecord | None = None
        try:
            packed = self._store.user_record(asked.user)
            stored = None if packed is None else unpack_user(packed)
            if packed is not None and stored is not None:
                return self._live_answer(version, asked, packed, stored)
        except ShortlistError as error:
            self._serving.degraded(error)
        had = () if stored is None else (*stored.seen, *stored.items)
        return self._stale(version, replace(asked, filters=asked.filters.without(had)), listed)

    def _live_answer(
        self, version: str, asked: RecommendationQuery, packed: bytes, stored: UserRecord
    ) -> Answer:
        def compute() -> Ranked:
            return self._live.recommend(version, stored, asked.k, asked.filters, asked.shape)

        if (
            self._serving.is_stale
        ):  # under a release that Redis has lost nobody would find it to delete it
            return Answer(compute(), "live", version)
        digest = digest_of(asked.k, asked.filters, asked.shape, packed)
        degraded = False
        try:
            ranked, hit = (
                self._cache.get(version, asked.user, digest, compute)
                if asked.use_cache
                else (compute(), False)
            )
        except StoreUnavailable as error:
            self._serving.degraded(error)
            ranked, hit, degraded = compute(), False, True
        if not hit:
            failed = self._cache.put(version, asked.user, digest, ranked, packed)
            if failed is not None:
                self._serving.degraded(failed)  # the answer is there all the same
        return Answer(ranked, "live", version, cache_hit=hit, degraded=degraded)

    def _stale(
        self, version: str, asked: RecommendationQuery, listed: ShortlistRecord | None
    ) -> Answer:
        ranked = None
        if listed is not None:
            try:
                ranked = self._serving.cut(version, listed, asked.k, asked.filters)
            except (StoreUnavailable, BrokenRelease) as error:
                self._serving.degraded(error)
        if listed is None or ranked is None or not ranked.items:
            return self._popular(version, asked.k, asked.filters, degraded=True)
        lacking = asked.k - len(ranked.items)
        if lacking:
            more = asked.filters.without(item.id for item in ranked.items)
            ranked = _followed_by(ranked, self._popular(version, lacking, more).ranked)
        return Answer(ranked, "stale", version, list_age_s=self._age(listed), degraded=True)

    def _session(self, version: str, asked: RecommendationQuery) -> Answer:
        """From what the request tells of the user, and what the store knows beside it."""
        assert asked.session is not None
        stored, degraded = self._stored(asked.user)
        user = joined(asked.session, stored)
        try:
            ranked = self._live.recommend(version, user, asked.k, asked.filters, asked.shape)
        except (Unavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return self._popular(
                version, asked.k, asked.filters.without((*user.seen, *user.items)), degraded=True
            )
        return Answer(ranked, "session", version, degraded=degraded)

    def _stored(self, user: str) -> tuple[UserRecord | None, bool]:
        """The user's record, and whether it could not be read."""
        try:
            packed = self._store.user_record(user)
            return None if packed is None else unpack_user(packed), False
        except (StoreUnavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return None, True

    def _popular(self, version: str, k: int, filters: Filters, *, degraded: bool = False) -> Answer:
        found = self._popular_or_rest(version, k, filters, degraded=degraded)
        return found if isinstance(found, Answer) else found()

    def _popular_or_rest(
        self, version: str, k: int, filters: Filters, *, degraded: bool = False
    ) -> Answer | DeferredAnswer:
        """Popular items from the store; where it has too few, what asks the bundle, and may take its time."""
        ranked, failed = self._popular_list(version, k, filters)
        degraded = degraded or failed
        if ranked is not None and len(ranked.items) >= k:
            return Answer(ranked, "popular", version, degraded=degraded)
        return lambda: self._popular_of_bundle(version, k, filters, ranked, degraded=degraded)

    def _popular_of_bundle(
        self, version: str, k: int, filters: Filters, few: Ranked | None, *, degraded: bool
    ) -> Answer:
        """few: what the store has, which is answered where the bundle cannot be read."""
        try:
            ranked = self._live.popular(version, k, filters)
        except (Unavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            if few is None:
                raise NothingToServe(
                    f"neither Redis nor the bundle can be reached ({error})"
                ) from error
            ranked, degraded = few, True
        return Answer(ranked, "popular", version, degraded=degraded)

    def _popular_list(self, version: str, k: int, filters: Filters) -> tuple[Ranked | None, bool]:
        """From the store, None where it has none; and whether that failed."""
        try:
            record = self._serving.unpacked(self._store.popular(version))
            return (
                (None, True)
                if record is None
                else (self._serving.cut(version, record, k, filters), False)
            )
        except (StoreUnavailable, BrokenRelease) as error:
            self._serving.degraded(error)
            return None, True

    def _told(self, asked: RecommendationQuery, answer: Answer, started: float) -> Answer:
        """The answer, flagged and counted."""
        answer = self._flagged(answer)
        self._metrics.observe(time.perf_counter() - started)
        self._metrics.count("shortlist_answers_total", source=answer.source)
        self._metrics.record("shortlist_candidates", answer.ranked.n_candidates)
        if asked.use_cache and asked.session is None:
            self._metrics.count(
                "shortlist_cache_total", result="hit" if answer.cache_hit else "miss"
            )
        if answer.list_age_s is not None:
            self._metrics.record("shortlist_list_age_seconds", answer.list_age_s)
        return answer


def _followed_by(first: Ranked, second: Ranked) -> Ranked:
    return replace(
        first,
        items=first.items + second.items,
        scores=first.scores + second.scores,
        retrieval=first.retrieval + second.retrieval,
    )


def _is_fresh(listed: ShortlistRecord, latest: int | None) -> bool:
    """Whether the list has learnt from the user's latest accepted event.

    A user whose record is gone has none that is known, which proves nothing; lists of older
    batches, which name no watermark, are from before records named positions.
    """
    if latest is None:
        return listed.watermark == BEGINNING
    return latest <= listed.watermark
