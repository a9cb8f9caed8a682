"""Computes answers with the models of a release's bundle.

The only file of the Lambda, with the sampler, that needs numpy, FAISS and LightGBM: it is imported
when the first request needs it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import PLAIN, Cause, Filters, Options, Ranked, Reason
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.latest import keep_latest
from shortlist.lambda_handler.request_context import current
from shortlist.lambda_handler.sampler import Sampler
from shortlist.lambda_handler.sessions import repeats_unknown
from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    BrokenRelease,
    LoadFailed,
    NoRoom,
    Unavailable,
    UnknownItem,
)
from shortlist.recsys.models import bundle
from shortlist.recsys.models.bundle import Bundle
from shortlist.recsys.models.diversity import diversified, unit_vectors
from shortlist.recsys.models.features import FEATURES, Candidates
from shortlist.recsys.models.filter_columns import FilterColumns
from shortlist.recsys.models.interactions import (
    MISSING,
    Float32,
    Int32,
    Repeats,
    UserStates,
)
from shortlist.recsys.models.pipeline import (
    Observe,
    Recommended,
    Sample,
    ranked_among,
    recommend,
    unobserved,
    unsampled,
)
from shortlist.recsys.models.reasons import RankedRows, contributions, habits
from shortlist.recsys.models.scores import falling_scores
from shortlist.recsys.models.similar import similar
from shortlist.recsys.monitoring import strata
from shortlist.recsys.monitoring.strata import Stratum
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import local_copies
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.counts import Hash
from shortlist.recsys.store.keys import Keys
from shortlist.recsys.store.records import ItemRecord, UserRecord

RELOAD_SECONDS = 5.0
"""Pause after a bundle could not be loaded, since checking its sums takes seconds.

The first failure of this machine itself (an unreadable file, too little memory) has no pause: its
cause is often gone at the next request, and costs little to test.
"""

REMEMBERED_RECORDS = 5_000
"""Item records of a bundle that a process keeps with their JSON, a KiB each of short titles."""

REMEMBERED_FAILURES = 8
"""Releases whose last failure is kept; a pointer names three releases at most."""

POOL, POOL_LIMIT = 5, 300
"""Diversity chooses among POOL times k items; the limit bounds its time."""

CAUSES = 3
"""Items of the history that a reason names."""

SHOWN_FEATURES = 5
"""Features that a reason names."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A bundle, and what is derived from it once.

    columns: what items are filtered by; trained: strata of the features in training, if the bundle
    has them; record: what an answer shows of the item in a row, made once.
    """

    bundle: Bundle
    columns: FilterColumns
    trained: list[Stratum]
    record: Callable[[int], ItemRecord]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a bundle could not be loaded, how often in a row, and when it may be tried again.

    until: seconds of the monotonic clock.
    """

    error: Unavailable | BrokenRelease
    times: int
    until: float


class LivePath:
    """Answers from a release's bundle, which is fetched, verified and loaded once.

    Every method that takes a version may raise Unavailable or BrokenRelease.
    """

    def __init__(
        self,
        settings: Settings,
        observe: Observe = unobserved,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler | None = None,
    ) -> None:
        """observe: receives the time of each step; clock: monotonic seconds."""
        self._settings = settings
        self._observe = observe
        self._clock = clock
        self._sampler = sampler
        self._lock = Lock()
        self._loaded: dict[str, _Loaded] = {}
        """By version, the most recently used last."""
        self._loading: dict[str, Future[_Loaded]] = {}
        self._failures: dict[str, _Failure] = {}
        self._one_at_a_time = Lock()  # apart from _lock, which is never held for long

    def prepare(self) -> None:
        """Opens the place of bundles once: the first client of S3 takes a fifth of a second."""
        open_artefacts(self._settings.artefacts)

    def renew(self) -> None:
        """Gives a restored copy of this process random numbers of its own."""
        if self._sampler is not None:
            self._sampler.renew()

    def recommend(
        self,
        version: str,
        user: UserRecord,
        k: int,
        filters: Filters,
        options: Options = PLAIN,
        now: float | None = None,
    ) -> Ranked:
        """The two stages for one user; more than k items where rules choose among them.

        now: unix seconds of the request; None for the end of the release's data.

        Raises:
            InvalidInput: repeats are asked for, and the release has not learnt from them.
        """
        loaded = self._bundle(version)
        state, unknown = bundle.state_of(loaded.bundle, user, now)
        state = _with_repeats(loaded, state, options.allow_repeats)
        model = loaded.bundle.model
        # What rules choose from, as far as it is ranked anyway: more would change the ranking.
        k = max(k, min(filters.pool(k), model.n_candidates))
        n = k if options.diversity == 0 else max(k, min(POOL * k, POOL_LIMIT))
        # A k above the candidates is still filled while the catalogue has items.
        model = replace(model, n_candidates=max(model.n_candidates, n))
        sample = self._sample(version, loaded, user, filters)
        ranked: list[RankedRows] = []

        def keep(candidates: Candidates, rows: Float32) -> None:
            ranked.append((candidates, rows))
            sample(candidates, rows)

        recommended = recommend(
            model,
            state,
            n,
            allowed=_allowed(loaded, filters),
            observe=self._observe,
            sample=keep,
        )
        places = _chosen(loaded, recommended, k, options.diversity)
        rows = recommended.items[0, places]
        answer = _answer(
            loaded,
            rows,
            recommended.scores[0, places],
            recommended.retrieval[0, places],
            int(recommended.n_candidates[0]),
            unknown,
        )
        if not options.explain:
            return answer
        reasons = _reasons(loaded, state, rows, ranked[0] if ranked else None)
        return replace(answer, reasons=reasons)

    def _sample(self, version: str, loaded: _Loaded, user: UserRecord, filters: Filters) -> Sample:
        """Samples rows that are made as in training.

        They need a history, candidates of all kinds, and a user who sees the answer.
        """
        sampler, trained = self._sampler, loaded.trained
        if sampler is None or not trained or not user.items or filters.narrows or current().preview:
            return unsampled
        return lambda _, rows: sampler.offer(version, trained, rows)

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """The most popular items."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.popular, k, filters)

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """The items of the most recent interest."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.model.trending, k, filters)

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """The items most like one of the catalogue; see `recsys.models.similar`.

        Raises:
            UnknownItem: the catalogue lacks the item.
        """
        loaded = self._bundle(version)
        row = loaded.bundle.catalogue.row_of.get(item_id)
        if row is None:
            message = f"item {item_id!r} is not in the catalogue: see the items of a recommendation"
            raise UnknownItem(message)
        allowed = _allowed(loaded, filters.without([item_id]))
        assert allowed is not None  # one item is excluded
        candidates = np.flatnonzero(allowed).astype(np.int32)
        model = loaded.bundle.model
        rows, likeness = similar(model.towers.vectors, model.table.neighbours, row, candidates)
        return _answer(loaded, rows[:k], likeness[:k], likeness[:k], len(candidates), 0)

    def rank(
        self,
        version: str,
        user: UserRecord,
        items: Sequence[str],
        filters: Filters,
        now: float | None = None,
    ) -> Ranked:
        """These items in the ranker's order.

        now: as in `recommend`.

        `unknown_items` counts those that the catalogue lacks.
        """
        loaded = self._bundle(version)
        state, _ = bundle.state_of(loaded.bundle, user, now)
        row_of = loaded.bundle.catalogue.row_of
        distinct = set(items)
        rows = np.array(sorted(row_of[item] for item in distinct if item in row_of), np.int32)
        allowed = _allowed(loaded, filters)
        if allowed is not None:
            rows = rows[allowed[rows]]
        ranked = ranked_among(loaded.bundle.model, state, rows)
        return _answer(
            loaded,
            ranked.items[0],
            ranked.scores[0],
            ranked.retrieval[0],
            int(ranked.n_candidates[0]),
            sum(item not in row_of for item in distinct),
        )

    def items(self, version: str, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """The release's own records of items.

        None for those that its catalogue lacks.
        """
        loaded = self._bundle(version)
        rows = [loaded.bundle.catalogue.row_of.get(item_id) for item_id in item_ids]
        return [None if row is None else loaded.record(row) for row in rows]

    def info(self, version: str) -> dict[str, object]:
        """The release's manifest.

        NaN and infinity are None, since JSON lacks them.
        """
        manifest = self._bundle(version).bundle.manifest
        return {name: _as_json(value) for name, value in manifest.items()}

    def _bundle(self, version: str) -> _Loaded:
        """The bundle of `version`.

        A thread loads it, so that a request can leave in time.

        Raises:
            ArtefactsUnavailable: it is not loaded yet; loading goes on.
            Unavailable, BrokenRelease: it could not be loaded, now or a moment ago.
        """
        with self._lock:
            loaded = self._loaded.pop(version, None)
            if loaded is not None:
                self._loaded[version] = loaded  # the last in order is the last used
                return loaded
            failure = self._failures.get(version)
            if failure is not None and self._clock() < failure.until:
                raise _copied(failure.error)
            loading = self._loading.get(version)
            if loading is None:
                loading = self._loading[version] = self._start(version)
        return self._awaited(version, loading)

    def _start(self, version: str) -> Future[_Loaded]:
        """Starts loading in a daemon thread.

        Such a thread does not keep a process from ending during a download.
        """
        future: Future[_Loaded] = Future()
        try:
            # Not a pool: its threads are joined when the interpreter exits.
            Thread(target=self._load, args=(version, future), name="bundle", daemon=True).start()
        except RuntimeError as error:  # no more threads: nothing has begun that could fail later
            message = f"the bundle of {version} cannot be loaded ({error}): it is tried again"
            raise LoadFailed(message) from error
        return future

    def _awaited(self, version: str, loading: Future[_Loaded]) -> _Loaded:
        # What is kept back lets the request answer with popular items from Redis.
        seconds = (
            deadline.left() - deadline.RESERVED_TIMEOUTS * self._settings.redis_timeout_ms / 1000
        )
        try:
            return loading.result(None if seconds == math.inf else max(0.0, seconds))
        except FutureTimeout as error:
            message = (
                f"the bundle of {version} is not loaded before the request's deadline: "
                "it will be for a later one"
            )
            raise ArtefactsUnavailable(message) from error
        except (Unavailable, BrokenRelease) as error:
            raise _copied(error) from error

    def _load(self, version: str, future: Future[_Loaded]) -> None:
        """Loads a bundle.

        Records the outcome, whatever it is, before anyone can see it.
        """
        with self._one_at_a_time:  # two bundles at once could exceed a Lambda's memory
            try:
                loaded = self._with_room(version)
            except BaseException as error:  # noqa: BLE001 - the process goes on and tries again
                failure = _explained(version, error)
                with self._lock:
                    self._add_failure(version, failure)
                    self._loading.pop(version, None)
                future.set_exception(failure)
                return
            with self._lock:
                self._loaded[version] = loaded
                self._failures.pop(version, None)
                self._loading.pop(version, None)
        future.set_result(loaded)

    def _with_room(self, version: str) -> _Loaded:
        """Loads a bundle, and makes room for it.

        Unloads the others if disk or memory has too little room for it.
        """
        with self._lock:
            keep_latest(self._loaded, local_copies.KEPT - 1)
            kept = list(self._loaded)
        # Tells the cache on disk which copies it must not remove.
        local_copies.note_use(_directory(self._settings), kept)
        try:
            return _load(self._settings, version)
        except (NoRoom, MemoryError):
            if not kept:
                raise
        with self._lock:
            self._loaded.clear()  # a mapped file takes room on the disk until it is closed
        return _load(self._settings, version)

    def _add_failure(self, version: str, error: Unavailable | BrokenRelease) -> None:
        previous = self._failures.pop(version, None)
        times = 1 if previous is None else previous.times + 1
        wait = 0.0 if isinstance(error, LoadFailed) and times == 1 else RELOAD_SECONDS
        keep_latest(self._failures, REMEMBERED_FAILURES - 1)
        self._failures[version] = _Failure(_copied(error), times, self._clock() + wait)


def _explained(version: str, error: BaseException) -> Unavailable | BrokenRelease:
    """Converts any error to one that every caller handles."""
    if isinstance(error, (Unavailable, BrokenRelease)):
        return error
    cause = f"{type(error).__name__}: {error}"
    failure = LoadFailed(
        f"the bundle of {version} could not be loaded ({cause}): "
        "mend the cause; it is tried again by itself"
    )
    failure.__cause__ = error
    return failure


def _copied(error: Unavailable | BrokenRelease) -> Unavailable | BrokenRelease:
    """The same error as a new object.

    One object raised for many requests would collect the frames of all of them.
    """
    return type(error)(*error.args)


def open_live(
    settings: Settings, observe: Observe, counters: CounterBuffer, keys: Keys
) -> LivePath:
    """Opens the live path.

    Its sampled feature rows are counted in `counters`.
    """
    sampler = Sampler(
        settings.skew_share, lambda version: Hash(keys.skew(version), settings.list_ttl_seconds)
    )
    counters.add_source(sampler.take)
    return LivePath(settings, observe, sampler=sampler)


def _directory(settings: Settings) -> Path:
    return Path(settings.bundle_dir) / "shortlist"


def _load(settings: Settings, version: str) -> _Loaded:
    with open_artefacts(settings.artefacts).open(version, _directory(settings)) as release:
        opened, trained = bundle.read(release), strata.read(release)
    record = lru_cache(REMEMBERED_RECORDS)(opened.catalogue.record)
    return _Loaded(opened, FilterColumns(opened.catalogue), trained, record)


def _with_repeats(loaded: _Loaded, state: UserStates, allow: bool | None) -> UserStates:  # noqa: FBT001 - as the request has it
    """The state with what the request says of repeats, if it says something."""
    if allow is None:
        return state
    if allow and loaded.bundle.model.repeats is not Repeats.ALLOW:
        raise repeats_unknown(loaded.bundle.manifest["version"])
    return replace(state, repeats=Repeats.ALLOW if allow else Repeats.NEVER)


def _allowed(loaded: _Loaded, filters: Filters) -> NDArray[np.bool_] | None:
    """bool[n]: the items that the filters admit; None for all."""
    if not filters.excluded and not filters.narrows and not filters.hidden:
        return None
    catalogue = loaded.bundle.catalogue
    allowed = np.full(len(catalogue.ids), not filters.categories, np.bool_)
    for name in filters.categories:
        allowed[loaded.columns.categories.get(name, np.empty(0, np.int32))] = True
    for condition in filters.where:
        allowed &= loaded.columns.fulfilling(condition)
    for selector in filters.hidden:
        allowed &= ~loaded.columns.selected(selector)
    row_of = catalogue.row_of
    allowed[[row_of[item] for item in filters.excluded if item in row_of]] = False
    return allowed


def _in_order(loaded: _Loaded, rows: Int32, k: int, filters: Filters) -> Ranked:
    """Items of a fixed order.

    Their scores fall evenly and say no more than the order.
    """
    allowed = _allowed(loaded, filters)
    rows = rows if allowed is None else rows[allowed[rows]]
    falling = falling_scores(len(rows))
    return _answer(loaded, rows[:k], falling[:k], falling[:k], len(rows), 0)


def _chosen(
    loaded: _Loaded, recommended: Recommended, k: int, diversity: float
) -> NDArray[np.int64]:
    """The places of the k items to show, in order."""
    places = np.flatnonzero(recommended.items[0] != MISSING)
    if diversity == 0:
        return places[:k]
    vectors = loaded.bundle.model.towers.vectors[recommended.items[0, places]]
    return places[diversified(unit_vectors(vectors), recommended.scores[0, places], k, diversity)]


def _reasons(
    loaded: _Loaded, state: UserStates, rows: Int32, ranked: RankedRows | None
) -> tuple[Reason, ...]:
    parts = contributions(loaded.bundle.model, state, rows, ranked)
    names, history = [*FEATURES, "base"], state.items[0].tolist()
    has_clock = loaded.bundle.facts.has_clock_times
    own = habits(loaded.bundle.model, state, rows, has_clock=has_clock)
    return tuple(
        map(
            Reason,
            _causes(loaded, history, parts.history),
            _strongest(names, parts.features),
            own,
        )
    )


def _causes(loaded: _Loaded, history: Sequence[int], shares: Float32) -> list[tuple[Cause, ...]]:
    """The strongest items of the history for each share of its places, float32[k, N], each once."""
    items = list(dict.fromkeys(history))
    is_of = np.array(history)[:, None] == np.array(items)
    total = np.matmul(shares.astype(np.float64), is_of.astype(np.float64))  # [k, items]
    best = np.argsort(-total, axis=1, kind="stable")[:, :CAUSES]
    amounts = np.take_along_axis(total, best, axis=1)
    ids, titles = loaded.bundle.catalogue.ids, loaded.bundle.catalogue.titles
    causes = []
    for own, parts in zip(best.tolist(), amounts.tolist(), strict=True):
        pairs = [(items[at], part) for at, part in zip(own, parts, strict=True) if part > 0]
        causes.append(tuple(Cause(ids[row], titles[row], round(part, 4)) for row, part in pairs))
    return causes


def _strongest(names: Sequence[str], parts: Float32) -> list[tuple[tuple[str, float], ...]]:
    """The features that add most to each score, up or down; parts: float32[k, F + 1].

    The base is left out.
    """
    values = parts[:, :-1]
    best = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :SHOWN_FEATURES]
    amounts = np.take_along_axis(values, best, axis=1)
    amounts[np.isnan(parts).any(axis=1)] = 0  # without the ranker nothing adds to a score
    return [
        tuple((names[at], round(part, 6)) for at, part in zip(own, each, strict=True) if part)
        for own, each in zip(best.tolist(), amounts.tolist(), strict=True)
    ]


def _answer(
    loaded: _Loaded,
    rows: Int32,
    scores: Float32,
    retrieval: Float32,
    n_candidates: int,
    unknown: int,
) -> Ranked:
    kept = rows != MISSING  # a list may be shorter than k
    return Ranked(
        tuple(map(loaded.record, rows[kept].tolist())),
        tuple(scores[kept].tolist()),
        tuple(retrieval[kept].tolist()),
        n_candidates,
        unknown,
    )


def _as_json(value: object) -> object:
    """A manifest's value with None for NaN and infinity."""
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
