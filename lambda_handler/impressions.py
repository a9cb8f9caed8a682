"""Counts the recommendation answers that were shown, by release and source: what clicks are divided by."""

from __future__ import annotations

import time

from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_context import RequestContext
from shortlist.recsys.store.counts import Hash
from shortlist.recsys.store.keys import Keys

RETENTION_SECONDS = 90 * 86_400
"""How long the counts of a day are kept."""

OK = 200


class Impressions:
    """Counts in the metrics and, with `tallies`, for Redis: nothing is written while a request waits."""

    def __init__(self, metrics: Metrics, tallies: CounterBuffer | None, keys: Keys) -> None:
        self._metrics, self._tallies, self._keys = metrics, tallies, keys

    def count(self, note: RequestContext, status: int) -> None:
        """Counts the answer if it showed a recommendation: not one without a body or without an item."""
        if (
            status != OK
            or note.head
            or not note.shown
            or note.version is None
            or note.source is None
        ):
            return
        self._metrics.count("shortlist_impressions_total", version=note.version, source=note.source)
        if self._tallies is not None:
            day = time.strftime("%Y-%m-%d", time.gmtime(note.at))
            field = f"{note.source}:{note.shown}:{note.version}"
            self._tallies.add(Hash(self._keys.impressions(day), RETENTION_SECONDS), field)
