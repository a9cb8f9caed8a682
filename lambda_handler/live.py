"""The full two-stage path, on the bundle: the only file of the Lambda that needs numpy, FAISS and LightGBM."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lambda_handler import deadline
from lambda_handler.answers import PLAIN, Cause, Filters, Ranked, Reason, Shape
from lambda_handler.sampler import Sampler
from lambda_handler.tallies import Tallies
from recsys import bundle, strata
from recsys.artefacts import open_artefacts
from recsys.bundle import Bundle
from recsys.counts import Hash
from recsys.diversity import diversified
from recsys.errors import ArtefactsUnavailable, ShortlistError, UnknownItem
from recsys.events import MISSING, Float32, Int32, UserStates
from recsys.features import FEATURES, Candidates
from recsys.pipeline import Observe, Recommended, Sample, ranked_among, recommend, unobserved, unsampled
from recsys.reasons import RankedRows, contributions
from recsys.settings import Settings
from recsys.similar import similar
from recsys.store import Keys
from recsys.strata import Stratum
from recsys.wire import ItemRecord, UserRecord

AGAIN_SECONDS = 5.0
"""After a bundle could not be loaded, it is tried again no sooner than this."""

KEPT_BUNDLES = 2
"""Of a canary and of the release beside it; after a flip, of the release that a rollback would bring back."""

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


class BundleLive:
    """Answers from a release's bundle, which is fetched, verified and loaded once."""

    def __init__(
        self,
        settings: Settings,
        observe: Observe = unobserved,
        clock: Callable[[], float] = time.monotonic,
        sampler: Sampler | None = None,
    ) -> None:
        self._settings, self._observe, self._clock, self._sampler = settings, observe, clock, sampler
        self._lock = Lock()
        self._loaded: dict[str, _Loaded] = {}
        self._loading: tuple[str, Future[_Loaded]] | None = None
        self._failed: tuple[str, float, ShortlistError] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bundle")

    def recommend(self, version: str, user: UserRecord, k: int, filters: Filters, shape: Shape = PLAIN) -> Ranked:
        """See `Live`."""
        loaded = self._bundle(version)
        state, unknown = _state(loaded, user)
        allowed = _allowed(loaded, filters)
        wanted = k if shape.diversity == 0 else max(k, min(POOL * k, POOL_LIMIT))
        model = replace(loaded.bundle.model, n_candidates=max(loaded.bundle.model.n_candidates, wanted))
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
        """See `Live`."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.popular, k, filters)

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        loaded = self._bundle(version)
        return _in_order(loaded, loaded.bundle.model.trending, k, filters)

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """See `Live`, and `recsys.similar`.

        Raises:
            UnknownItem: the catalogue lacks the item.
        """
        loaded = self._bundle(version)
        row = loaded.bundle.catalogue.row_of.get(item_id)
        if row is None:
            raise UnknownItem(f"item {item_id!r} is not in the catalogue: see the items of a recommendation")
        allowed = _allowed(loaded, filters.without([item_id]))
        assert allowed is not None
        candidates = np.flatnonzero(allowed).astype(np.int32)
        rows, likeness = similar(loaded.unit, loaded.bundle.model.table.neighbours, row, candidates)
        return _ranked(loaded, rows[:k], likeness[:k], likeness[:k], len(candidates), 0)

    def rank(self, version: str, user: UserRecord, items: Sequence[str], filters: Filters) -> Ranked:
        """See `Live`."""
        loaded = self._bundle(version)
        state, _ = _state(loaded, user)
        row_of = loaded.bundle.catalogue.row_of
        asked = np.array(sorted({row_of[i] for i in items if i in row_of}), np.int32)
        allowed = _allowed(loaded, filters)
        found = ranked_among(loaded.bundle.model, state, asked if allowed is None else asked[allowed[asked]])
        unknown = len({i for i in items if i not in row_of})
        return _ranked(loaded, found.items[0], found.scores[0], found.retrieval[0], int(found.n_candidates[0]), unknown)

    def items(self, version: str, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """See `Live`."""
        catalogue = self._bundle(version).bundle.catalogue
        rows = [catalogue.row_of.get(item_id) for item_id in item_ids]
        return [
            None if row is None else ItemRecord(catalogue.ids[row], catalogue.titles[row], catalogue.categories[row])
            for row in rows
        ]

    def info(self, version: str) -> dict[str, object]:
        """See `Live`."""
        return self._bundle(version).bundle.manifest

    def _bundle(self, version: str) -> _Loaded:
        """The bundle of `version`; loaded in a thread of its own, so that a request can leave when its time is up.

        Raises:
            ArtefactsUnavailable: it is not there yet; the loading goes on.
        """
        with self._lock:
            if version in self._loaded:
                return self._loaded[version]
            if self._failed is not None and self._failed[0] == version and self._clock() < self._failed[1] + AGAIN_SECONDS:
                raise self._failed[2]
            if self._loading is None or self._loading[0] != version:
                self._loading = version, self._pool.submit(_load, self._settings, version)
            loading = self._loading[1]
        return self._awaited(version, loading)

    def _awaited(self, version: str, loading: Future[_Loaded]) -> _Loaded:
        seconds = deadline.left() - RESERVE * self._settings.redis_timeout_ms / 1000  # for popular items from Redis instead
        try:
            loaded = loading.result(None if seconds == math.inf else max(0.0, seconds))
        except Late as error:
            message = f"the bundle of {version} is not loaded before the request's deadline: it will be for a later one"
            raise ArtefactsUnavailable(message) from error
        except ShortlistError as error:
            with self._lock:
                self._failed, self._loading = (version, self._clock(), error), None
            raise
        with self._lock:
            latest = list(self._loaded.items())[1 - KEPT_BUNDLES :]
            self._loaded, self._loading, self._failed = {**dict(latest), version: loaded}, None, None
        return loaded


def open_live(settings: Settings, observe: Observe, tallies: Tallies, keys: Keys) -> BundleLive:
    """The live path that samples its feature rows for `tallies`."""
    sampler = Sampler(settings.skew_share, lambda version: Hash(keys.skew(version), settings.list_ttl_seconds))
    tallies.draw_from(sampler.take)
    return BundleLive(settings, observe, sampler=sampler)


def _load(settings: Settings, version: str) -> _Loaded:
    directory = Path(settings.bundle_dir) / "shortlist"
    fetched = open_artefacts(settings.artefacts).fetch(version, directory)
    opened = bundle.load(fetched)
    rows: dict[str, list[int]] = {}
    for row, names in enumerate(opened.catalogue.categories):
        for name in names:
            rows.setdefault(name, []).append(row)
    vectors = opened.model.towers.items[:, :-1]
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    unit = (vectors / np.where(length > 0, length, 1)).astype(np.float32)
    return _Loaded(opened, {name: np.array(found, np.int32) for name, found in rows.items()}, unit, strata.load(fetched))


def _state(loaded: _Loaded, user: UserRecord) -> tuple[UserStates, int]:
    history = (user.items, user.times, user.weights)
    return bundle.state_from(loaded.bundle, *history, user.n_events, user.seen, user.attributes or {})


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
    falling = np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32)
    return _ranked(loaded, rows[:k], falling[:k], falling[:k], len(rows), 0)


def _order(loaded: _Loaded, found: Recommended, k: int, diversity: float) -> NDArray[np.int64]:
    places = np.flatnonzero(found.items[0] != MISSING)
    if diversity == 0:
        return places[:k]
    return places[diversified(loaded.unit[found.items[0, places]], found.scores[0, places], k, diversity)]


def _reasons(loaded: _Loaded, state: UserStates, rows: Int32, ranked: RankedRows | None) -> tuple[Reason, ...]:
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


def _ranked(loaded: _Loaded, rows: Int32, scores: Float32, retrieval: Float32, n_candidates: int, unknown: int) -> Ranked:
    kept = rows != MISSING
    items = loaded.bundle.catalogue
    return Ranked(
        tuple(ItemRecord(items.ids[r], items.titles[r], items.categories[r]) for r in rows[kept].tolist()),
        tuple(scores[kept].tolist()),
        tuple(retrieval[kept].tolist()),
        n_candidates,
        unknown,
    )
