"""The full two-stage path, on the bundle: the only file of the Lambda that needs numpy, FAISS and LightGBM."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lambda_handler.answers import Filters, Ranked
from recsys import bundle
from recsys.artefacts import open_artefacts
from recsys.bundle import Bundle
from recsys.events import MISSING, Float32, Int32
from recsys.pipeline import Observe, recommend, unobserved
from recsys.settings import Settings
from recsys.wire import ItemRecord, UserRecord


class BundleLive:
    """Answers from a release's bundle, which is fetched, verified and loaded once."""

    def __init__(self, settings: Settings, observe: Observe = unobserved) -> None:
        self._settings, self._observe = settings, observe
        self._lock = Lock()
        self._loaded: Bundle | None = None

    def recommend(self, version: str, user: UserRecord, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        loaded = self._bundle(version)
        state, unknown = bundle.state_from(
            loaded, user.items, user.times, user.weights, user.n_events, user.seen, user.attributes or {}
        )
        found = recommend(loaded.model, state, k, allowed=_allowed(loaded, filters), observe=self._observe)
        n_candidates = int(found.n_candidates[0])
        return _ranked(loaded, found.items[0], found.scores[0], found.retrieval[0], n_candidates, unknown)

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """See `Live`."""
        loaded = self._bundle(version)
        allowed = _allowed(loaded, filters)
        rows = loaded.popular if allowed is None else loaded.popular[allowed[loaded.popular]]
        falling = np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32)
        return _ranked(loaded, rows[:k], falling[:k], falling[:k], len(rows), 0)

    def info(self, version: str) -> dict[str, object]:
        """See `Live`."""
        return self._bundle(version).manifest

    def _bundle(self, version: str) -> Bundle:
        with self._lock:
            if self._loaded is None or self._loaded.manifest["version"] != version:
                directory = Path(self._settings.bundle_dir) / "shortlist"
                self._loaded = bundle.load(open_artefacts(self._settings.artefacts).fetch(version, directory))
            return self._loaded


def _allowed(loaded: Bundle, filters: Filters) -> NDArray[np.bool_] | None:
    if not filters.excluded and not filters.categories:
        return None
    allowed = np.ones(len(loaded.catalogue.ids), np.bool_)
    if filters.categories:
        allowed[:] = [not filters.categories.isdisjoint(c) for c in loaded.catalogue.categories]
    row_of = loaded.catalogue.row_of
    allowed[[row_of[i] for i in filters.excluded if i in row_of]] = False
    return allowed


def _ranked(loaded: Bundle, rows: Int32, scores: Float32, retrieval: Float32, n_candidates: int, unknown: int) -> Ranked:
    kept = rows != MISSING
    items = loaded.catalogue
    return Ranked(
        tuple(ItemRecord(items.ids[r], items.titles[r], items.categories[r]) for r in rows[kept].tolist()),
        tuple(scores[kept].tolist()),
        tuple(retrieval[kept].tolist()),
        n_candidates,
        unknown,
    )
