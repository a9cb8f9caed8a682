"""Tests whom the curve by known events is measured on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from shortlist.batch.known_events import KNOWN, MIN_USERS, known_events
from shortlist.recsys.models.interactions import Events


def test_few_long_histories_have_no_curve() -> None:
    """A user less than MIN_USERS has ten events before the hold-out, so nothing is measured."""
    n_users, n_events = MIN_USERS, KNOWN[-1] + 1
    user = np.repeat(np.arange(n_users, dtype=np.int32), n_events)
    item, time = user.copy(), np.tile(np.arange(n_events, dtype=np.int64), n_users)
    weights = np.full(len(user), np.nan, np.float32)
    events = Events(user, item, time, weights, n_users, n_users)
    cut = events.offsets()[1:] - 1
    cut[0] += 1  # nothing is held out of the first
    dataset = SimpleNamespace(events=events)
    assert known_events(dataset, cut, None, events, "last-10pct", None) == []  # type: ignore[arg-type]
