"""The full two-stage path, on the bundle: the only file of the Lambda that needs numpy, FAISS and LightGBM."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.answers import PLAIN, Cause, Filters, Options, Ranked, Reason
from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.sampler import Sampler
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
from shortlist.recsys.models.interactions import MISSING, Float32, Int32, UserStates
from shortlist.recsys.models.pipeline import (
    Observe,
    Recommended,
    Sample,
    ranked_among,
    recommend,
    unobserved,
    unsampled,
)
from shortlist.recsys.models.reasons import RankedRows, contributions
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

AGAIN_SECONDS = 5.0
"""After a bundle could not be loaded, it is tried again no sooner than this; after the first failure of this machine (a file
that could not be read, memory that was short) at the next request, for such a cause is often gone
and costs little to ask."""

REMEMBERED_FAILURES = 8
"""Releases of which the last failure is kept; a pointer names three at most."""

RESERVE = 3
"""How many of Redis's timeouts a request keeps back while it waits for a bundle."""

POOL, POOL_LIMIT = 5, 300
"""Diversity chooses among so many times k items, and no more than the limit."""

CAUSES = 3
FEATURES_TOLD = 5


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A bundle, and what answers need of it that is made once. rows: int32 item rows by category."""

    bundle: Bundle
    rows: dict[str, Int32]
    unit: Float32
    """float32[n, d]: item vectors of length one, without the bias."""
    trained: list[Stratum]
    """Of the features in training, where the bundle has them."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a bundle could not be loaded, how often in a row, and when (monotonic seconds) it is tried again."""

    error: Unavailable | BrokenRelease
    times: int
    until: float


class BundleLive:
    """Answers from a release's bundle, which is fetched, verified and loaded once.

    clock: seconds that never run backwards.
    """

    def __init__(
        self,
        settings: Settings,
        observe: Observe = unobserved,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler | None = None,
    ) -> None:
        self._settings, self._observe, self._clock, self._sampler = (
            settings,
            observe,
            clock,
            sampler,
        )
        self._lock = Lock()
        self._loaded: dict[str, _Loaded] = {}
        """By version, the most recently used last."""
        self._loading: dict[str, Future[_Loaded]] = {}
        self._failures: dict[str, _Failure] = {}
        self._one_at_a_time = Lock()

    def recommend(
        self, version: str, user: UserRecord, k: int, filters: Filters, shape: Options = PLAIN
    ) -> Ranked:
        """See `LivePath`."""
        loaded = self._bundle(version)
        state, unknown = _state(loaded, user)
        allowed = _allowed(loaded, filters)
        wanted = k if shape.diversity == 0 else max(k, min(POOL * k, POOL_LIMIT))
        model = replace(
            loaded.bundle.model, n_candidates=max(loaded.bundle.model.n_candidates, wanted)
        )
        sample = self._sample(version, loaded, user, filters)
        seen: list[RankedRows] = []

        def look(candidates: Candidates, rows: Float32) -> None:
            seen.append((candidates, rows))
            sample(candidates, rows)

        found = recommend(model, state, wanted, allowed=allowed, observe=self._observe, sample=look)
        order = _order(loaded, found, k, shape.diversity)
        rows = found.items[0, order]
        columns = (found.scores[0, order], found.retrieval[0, order], int(found.n_candidates[0]))
        ranked = _ranked(loaded, rows, *columns, unknown)
        if not shape.explain:
            return ranked
        return replace(ranked, reasons=_reasons(loaded, state, rows, seen[0] if seen else None))

    def _sample(self, version: str, loaded: _Loaded, user: UserRecord, filters: Filters) -> Sample:
        """Who sees the feature rows: only those as training has them, of users with a history and of all categories."""
        sampler, trained = self._sampler, loaded.trained
        if sampler is None or not trained or not user.items or filters.categories:
            return unsampled
        return lambda _, rows: sampler.offer(version, trained, rows)

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.popular, k, filters)

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.model.trending, k, filters)

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """See `LivePath`, and `recsys.models.similar`.

        Raises:
            UnknownItem: the catalogue lacks the item.
        """
        loaded = self._bundle(version)
        row = loaded.bundle.catalogue.row_of.get(item_id)
        if row is None:
            raise UnknownItem(
                f"item {item_id!r} is not in the catalogue: see the items of a recommendation"
            )
        allowed = _allowed(loaded, filters.without([item_id]))
        assert allowed is not None
        candidates = np.flatnonzero(allowed).astype(np.int32)
        rows, likeness = similar(loaded.unit, loaded.bundle.model.table.neighbours, row, candidates)
        return _ranked(loaded, rows[:k], likeness[:k], likeness[:k], len(candidates), 0)

    def rank(
        self, version: str, user: UserRecord, items: Sequence[str], filters: Filters
    ) -> Ranked:
        """See `LivePath`."""
        loaded = self._bundle(version)
        state, _ = _state(loaded, user)
        row_of = loaded.bundle.catalogue.row_of
        asked = np.array(sorted({row_of[i] for i in items if i in row_of}), np.int32)
        allowed = _allowed(loaded, filters)
        found = ranked_among(
            loaded.bundle.model, state, asked if allowed is None else asked[allowed[asked]]
        )
        unknown = len({i for i in items if i not in row_of})
        return _ranked(
            loaded,
            found.items[0],
            found.scores[0],
            found.retrieval[0],
            int(found.n_candidates[0]),
            unknown,
        )

    def items(self, version: str, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """See `LivePath`."""
        catalogue = self._bundle(version).bundle.catalogue
        rows = [catalogue.row_of.get(item_id) for item_id in item_ids]
        return [
            None
            if row is None
            else ItemRecord(catalogue.ids[row], catalogue.titles[row], catalogue.categories[row])
            for row in rows
        ]

    def info(self, version: str) -> dict[str, object]:
        """See `LivePath`; a figure that is no number is None, as JSON has it."""
        return {
            name: _as_json(value) for name, value in self._bundle(version).bundle.manifest.items()
        }

    def _bundle(self, version: str) -> _Loaded:
        """The bundle of `version`; loaded in a thread of its own, so that a request can leave when its time is up.

        Raises:
            ArtefactsUnavailable: it is not there yet; the loading goes on.
            Unavailable, BrokenRelease: it could not be loaded, now or a moment ago.
        """
        with self._lock:
            loaded = self._loaded.pop(version, None)
            if loaded is not None:
                self._loaded[version] = loaded  # the last in order is the last used
                return loaded
            failure = self._failures.get(version)
            if failure is not None and self._clock() < failure.until:
                raise _again(failure.error)
            loading = self._loading.get(version)
            if loading is None:
                loading = self._loading[version] = self._started(version)
        return self._awaited(version, loading)

    def _started(self, version: str) -> Future[_Loaded]:
        """Loads in a daemon thread: a process that is told to end does not wait for a download."""
        future: Future[_Loaded] = Future()
        try:
            Thread(target=self._load, args=(version, future), name="bundle", daemon=True).start()
        except RuntimeError as error:  # no more threads: nothing has begun that could fail later
            raise LoadFailed(
                f"the bundle of {version} cannot be loaded ({error}): it is tried again"
            ) from error
        return future

    def _awaited(self, version: str, loading: Future[_Loaded]) -> _Loaded:
        seconds = (
            deadline.left() - RESERVE * self._settings.redis_timeout_ms / 1000
        )  # for popular items from Redis instead
        try:
            return loading.result(None if seconds == math.inf else max(0.0, seconds))
        except Late as error:
            message = f"the bundle of {version} is not loaded before the request's deadline: it will be for a later one"
            raise ArtefactsUnavailable(message) from error
        except (Unavailable, BrokenRelease) as error:
            raise _again(error) from error

    def _load(self, version: str, future: Future[_Loaded]) -> None:
        """Loads a bundle, and notes the outcome, whatever it is, before anybody learns of it."""
        with self._one_at_a_time:
            try:
                loaded = self._tried(version)
            except BaseException as error:  # noqa: BLE001 - whatever it was, the process goes on serving, and tries again
                failure = _explained(version, error)
                with self._lock:
                    self._note_failure(version, failure)
                    self._loading.pop(version, None)
                future.set_exception(failure)
                return
            with self._lock:
                self._loaded[version] = loaded
                self._failures.pop(version, None)
                self._loading.pop(version, None)
        future.set_result(loaded)

    def _tried(self, version: str) -> _Loaded:
        """The bundle; where the disk or the memory is too small for another one, without those that are loaded."""
        with self._lock:
            for old in list(self._loaded)[: -(local_copies.KEPT - 1)]:
                del self._loaded[old]
            kept = list(self._loaded)
        local_copies.note_use(_directory(self._settings), kept)
        try:
            return _load(self._settings, version)
        except (NoRoom, MemoryError):
            if not kept:
                raise
        with self._lock:
            self._loaded.clear()  # a mapped file keeps its room on the disk until it is let go of
        return _load(self._settings, version)

    def _note_failure(self, version: str, error: Unavailable | BrokenRelease) -> None:
        before = self._failures.pop(version, None)
        times = 1 if before is None else before.times + 1
        wait = 0.0 if isinstance(error, LoadFailed) and times == 1 else AGAIN_SECONDS
        kept = list(self._failures.items())[1 - REMEMBERED_FAILURES :]
        self._failures = {
            **dict(kept),
            version: _Failure(_again(error), times, self._clock() + wait),
        }


def _explained(version: str, error: BaseException) -> Unavailable | BrokenRelease:
    """The error as one that every caller has an answer to."""
    if isinstance(error, (Unavailable, BrokenRelease)):
        return error
    what = f"{type(error).__name__}: {error}"
    failure = LoadFailed(
        f"the bundle of {version} could not be loaded ({what}): mend the cause; it is tried again by itself"
    )
    failure.__cause__ = error
    return failure


def _again(error: Unavailable | BrokenRelease) -> Unavailable | BrokenRelease:
    """The same error for another request: one object raised many times would gather the frames of all of them."""
    return type(error)(*error.args)


def open_live(
    settings: Settings, observe: Observe, tallies: CounterBuffer, keys: Keys
) -> BundleLive:
    """The live path that samples its feature rows for `tallies`."""
    sampler = Sampler(
        settings.skew_share, lambda version: Hash(keys.skew(version), settings.list_ttl_seconds)
    )
    tallies.add_source(sampler.take)
    return BundleLive(settings, observe, sampler=sampler)


def _directory(settings: Settings) -> Path:
    return Path(settings.bundle_dir) / "shortlist"


def _load(settings: Settings, version: str) -> _Loaded:
    with open_artefacts(settings.artefacts).open(version, _directory(settings)) as release:
        opened, trained = bundle.read(release), strata.read(release)
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(opened.catalogue.categories):
        for name in names:
            rows.setdefault(name, []).append(row)
    unit = unit_vectors(opened.model.towers.items[:, :-1])
    return _Loaded(
        opened, {name: np.array(found, np.int32) for name, found in rows.items()}, unit, trained
    )


def _state(loaded: _Loaded, user: UserRecord) -> tuple[UserStates, int]:
    history = (user.items, user.times, user.weights)
    return bundle.state_from(
        loaded.bundle, *history, user.n_events, user.seen, user.attributes or {}
    )


def _allowed(loaded: _Loaded, filters: Filters) -> NDArray[np.bool_] | None:
    if not filters.excluded and not filters.categories:
        return None
    catalogue = loaded.bundle.catalogue
    allowed = np.full(len(catalogue.ids), not filters.categories, np.bool_)
    for name in filters.categories:
        allowed[loaded.rows.get(name, np.empty(0, np.int32))] = True
    allowed[[catalogue.row_of[i] for i in filters.excluded if i in catalogue.row_of]] = False
    return allowed


def _in_order(loaded: _Loaded, rows: Int32, k: int, filters: Filters) -> Ranked:
    """Items of a fixed order, with scores that tell no more than it."""
    allowed = _allowed(loaded, filters)
    rows = rows if allowed is None else rows[allowed[rows]]
    falling = falling_scores(len(rows))
    return _ranked(loaded, rows[:k], falling[:k], falling[:k], len(rows), 0)


def _order(loaded: _Loaded, found: Recommended, k: int, diversity: float) -> NDArray[np.int64]:
    places = np.flatnonzero(found.items[0] != MISSING)
    if diversity == 0:
        return places[:k]
    return places[
        diversified(loaded.unit[found.items[0, places]], found.scores[0, places], k, diversity)
    ]


def _reasons(
    loaded: _Loaded, state: UserStates, rows: Int32, ranked: RankedRows | None
) -> tuple[Reason, ...]:
    told = contributions(loaded.bundle.model, state, rows, ranked)
    names, history = [*FEATURES, "base"], state.items[0].tolist()
    return tuple(
        Reason(_causes(loaded, history, shares), _strongest(names, features))
        for shares, features in zip(told.history.tolist(), told.features, strict=True)
    )


def _causes(loaded: _Loaded, history: Sequence[int], shares: Sequence[float]) -> tuple[Cause, ...]:
    """The strongest items of the history, each once."""
    total: dict[int, float] = {}
    for item, share in zip(history, shares, strict=True):
        if share > 0:
            total[item] = total.get(item, 0.0) + share
    best = sorted(total.items(), key=lambda pair: -pair[1])[:CAUSES]
    items = loaded.bundle.catalogue
    return tuple(Cause(items.ids[row], items.titles[row], round(share, 4)) for row, share in best)


def _strongest(names: Sequence[str], values: Float32) -> tuple[tuple[str, float], ...]:
    if np.isnan(values).any():
        return ()
    best = np.argsort(-np.abs(values[:-1]), kind="stable")[:FEATURES_TOLD].tolist()
    return tuple((names[at], round(float(values[at]), 6)) for at in best if values[at] != 0)


def _ranked(
    loaded: _Loaded,
    rows: Int32,
    scores: Float32,
    retrieval: Float32,
    n_candidates: int,
    unknown: int,
) -> Ranked:
    kept = rows != MISSING
    items = loaded.bundle.catalogue
    return Ranked(
        tuple(
            ItemRecord(items.ids[r], items.titles[r], items.categories[r])
            for r in rows[kept].tolist()
        ),
        tuple(scores[kept].tolist()),
        tuple(retrieval[kept].tolist()),
        n_candidates,
        unknown,
    )


def _as_json(value: object) -> object:
    """A manifest's value without NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
