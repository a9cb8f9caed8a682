"""Samples feature rows of live answers for skew detection.

A share of the answers gives the row of one candidate. Rows are copied in the request and counted
later, in the thread that flushes the counts. They have no user ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np

from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.interactions import Float32
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.monitoring.strata import Stratum
from shortlist.recsys.store.counts import Counts, Hash

_STRATUM_COLUMN = list(FEATURES).index(strata.COLUMN)

MAX_WAITING = 256
"""Rows of a release that wait to be counted, some 30 kB; more are not taken."""


class Sampler:
    """Holds the rows that this process sampled and has not counted yet."""

    def __init__(
        self, share: float, key_of: Callable[[str], Hash], rng: np.random.Generator | None = None
    ) -> None:
        """share: of the live answers, 0 to 1; key_of: the Redis hash for a release's counts."""
        self._share, self._key_of = share, key_of
        self._rng = np.random.default_rng() if rng is None else rng
        self._lock = Lock()
        self._waiting: dict[str, tuple[Sequence[Stratum], list[Float32]]] = {}

    def renew(self) -> None:
        """Seeds the generator again: copies of a snapshot would all sample the same."""
        self._rng = np.random.default_rng()

    def offer(self, version: str, trained: Sequence[Stratum], rows: Float32) -> None:
        """Keeps a random row with `share`'s chance; rows: float32[candidates, F]."""
        with self._lock:
            if len(rows) == 0 or self._rng.random() >= self._share:
                return
            _, waiting = self._waiting.setdefault(version, (trained, []))
            if len(waiting) < MAX_WAITING:
                # A copy: a view would keep all rows of the answer in memory.
                waiting.append(rows[self._rng.integers(len(rows))].copy())

    def take(self) -> Counts:
        """Counts the waiting rows in their release's training cells, as `stratum:feature:cell`.

        Rows below the training range are counted under `aside`.
        """
        with self._lock:  # counting takes longer, and live answers must not wait
            waiting, self._waiting = self._waiting, {}
        return {
            self._key_of(version): _cells(trained, np.stack(rows))
            for version, (trained, rows) in waiting.items()
        }


def _cells(trained: Sequence[Stratum], rows: Float32) -> dict[str, int]:
    """Counts by field of the Redis hash."""
    placed = strata.place(trained, rows[:, _STRATUM_COLUMN])
    below = int((placed < 0).sum())
    counts = {strata.BELOW_TRAINING: below} if below else {}
    for stratum in np.unique(placed[placed >= 0]).tolist():
        own = rows[placed == stratum]
        columns = {name: own[:, f] for f, name in enumerate(FEATURES) if f != _STRATUM_COLUMN}
        for name, cells in skew.tally(trained[stratum].trained, columns).items():
            for cell in np.flatnonzero(cells).tolist():
                counts[f"{stratum}:{name}:{cell}"] = int(cells[cell])
    return counts
