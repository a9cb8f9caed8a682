"""Times the commands of a store."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.store.redis import RedisStore


def timed(store: RedisStore, metrics: Metrics) -> RedisStore:
    """Wraps a store to time its commands.

    `shortlist_store_seconds` has failed ones too.
    """
    return cast("RedisStore", _TimedStore(store, metrics))


class _TimedStore:
    def __init__(self, store: RedisStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        attribute = getattr(self._store, name)
        if name.startswith("_") or not callable(attribute):
            return attribute
        command = _timed_command(self._store, name, self._metrics)
        setattr(self, name, command)  # the next use does not come here
        return command


def _timed_command(store: RedisStore, name: str, metrics: Metrics) -> Callable[..., Any]:
    def command(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the store's own
        started = time.perf_counter()
        try:
            return getattr(store, name)(*args, **kwargs)
        finally:
            metrics.record("shortlist_store_seconds", time.perf_counter() - started, command=name)

    return command
