"""A store whose commands are timed, each under its own name; standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.store.redis import RedisStore


def observed(store: RedisStore, metrics: Metrics) -> RedisStore:
    """The same store, which records `shortlist_store_seconds` of every command, failed ones too."""
    return cast("RedisStore", _Observed(store, metrics))


class _Observed:
    def __init__(self, store: RedisStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the store has
        found = getattr(self._store, name)
        if name.startswith("_") or not callable(found):
            return found
        timed = _timed(self._store, name, self._metrics)
        setattr(self, name, timed)  # so that this is not asked again
        return timed


def _timed(store: RedisStore, name: str, metrics: Metrics) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the command
        started = time.perf_counter()
        try:
            return getattr(store, name)(*args, **kwargs)
        finally:
            metrics.record("shortlist_store_seconds", time.perf_counter() - started, command=name)

    return timed
