"""Marks the latest tenth of all events as recent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Events

RECENT_SHARE = 0.1
"""Share of the latest events that are recent, for trends and for recent popularity."""


def recent_events(events: Events) -> NDArray[np.bool_]:
    """bool[n]: whether an event is recent; events that share the earliest recent time are, too."""
    if len(events) == 0:
        return np.empty(0, np.bool_)
    start = np.quantile(events.time, 1 - RECENT_SHARE, method="nearest")
    return events.time >= start
