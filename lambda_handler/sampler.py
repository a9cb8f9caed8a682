"""Which feature rows of live answers are kept, to be compared with the training: one candidate's row of a share of the answers.

Rows are copied as they are and counted later, by the thread that sends the counts; no user's id
comes near them.
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

_BY = list(FEATURES).index(strata.COLUMN)

MAX_WAITING = 256
"""Rows of a release that wait to be counted; while there are so many, no more are taken."""


class Sampler:
    """The rows that this process sampled and has not counted yet."""

    def __init__(
        self, share: float, key_of: Callable[[str], Hash], rng: np.random.Generator | None = None
    ) -> None:
        """share: of the live answers, 0 to 1; key_of: where the counts of a release go."""
        self._share, self._key_of = share, key_of
        self._rng = np.random.default_rng() if rng is None else rng
        self._lock = Lock()
        self._waiting: dict[str, tuple[Sequence[Stratum], list[Float32]]] = {}

    def offer(self, version: str, trained: Sequence[Stratum], rows: Float32) -> None:
        """Keeps one of an answer's rows, float32[candidates, F], or none, as chance has it."""
        with self._lock:
            if len(rows) == 0 or self._rng.random() >= self._share:
                return
            _, waiting = self._waiting.setdefault(version, (trained, []))
            if len(waiting) < MAX_WAITING:
                waiting.append(rows[self._rng.integers(len(rows))].copy())

    def take(self) -> Counts:
        """Counts what waits in the cells of its release's training, as `stratum:feature:cell`; `aside` has none."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        return {
            self._key_of(version): _cells(trained, np.stack(rows))
            for version, (trained, rows) in waiting.items()
        }


def _cells(trained: Sequence[Stratum], rows: Float32) -> dict[str, int]:
    placed = strata.place(trained, rows[:, _BY])
    out = {strata.BELOW_TRAINING: int((placed < 0).sum())} if (placed < 0).any() else {}
    for at in np.unique(placed[placed >= 0]).tolist():
        columns = {name: rows[placed == at, f] for f, name in enumerate(FEATURES) if f != _BY}
        for name, cells in skew.tally(trained[at].trained, columns).items():
            out |= {
                f"{at}:{name}:{cell}": int(cells[cell]) for cell in np.flatnonzero(cells).tolist()
            }
    return out
