"""Counts recommendation answers shown, by release and source."""

from __future__ import annotations

import time

from shortlist.lambda_handler.counter_buffer import CounterBuffer
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.request_context import RequestContext
from shortlist.recsys.store.counts import Hash
from shortlist.recsys.store.keys import Keys

RETENTION_SECONDS = 90 * 86_400
"""How long the counts of a day are kept: a quarter of a year."""

OK = 200


class Impressions:
    """Counts impressions, the denominator of click rates, in the metrics and for Redis."""

    def __init__(self, metrics: Metrics, counters: CounterBuffer | None, keys: Keys) -> None:
        """counters: the buffer that sends counts to Redis; None counts in the metrics alone."""
        self._metrics, self._counters, self._keys = metrics, counters, keys

    def count(self, context: RequestContext, status: int) -> None:
        """Counts an answer that showed a recommendation.

        That needs a body and an item, and a user who sees them.
        """
        if context.preview:
            return
        source, version = context.source, context.version
        if status != OK or context.head or not context.shown or version is None or source is None:
            return
        self._metrics.count("shortlist_impressions_total", version=version, source=source)
        if self._counters is not None:
            day = time.strftime("%Y-%m-%d", time.gmtime(context.at))
            field = f"{source}:{context.shown}:{version}"
            self._counters.add(Hash(self._keys.impressions(day), RETENTION_SECONDS), field)
