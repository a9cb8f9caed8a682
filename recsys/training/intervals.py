"""Counts how often and after what time items are had again.

Only events that are predicted count, and of events that share user, item and time one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Events, Float32, Int64

Float64 = NDArray[np.float64]

SHRINKAGE = 5.0
"""Repeats at the mean of its categories, or events at the overall rate, that each item begins with.

A category begins with as many at the mean of all items.
"""


def usual_intervals(events: Events, membership: Float32) -> Float64:
    """float64[n]: the logarithm of the usual time until a user has each item again.

    It is the mean of the logarithms, which is the median's where these lie evenly around it, and
    long breaks move it little. It is shrunk to the mean of the item's categories (membership:
    float32[n, M]), and that to the mean of all items. NaN everywhere where nothing repeats.
    """
    item, log_gap = _gaps(events)
    if len(item) == 0:
        return np.full(events.n_items, np.nan)
    overall = log_gap.mean()
    total = np.bincount(item, log_gap, minlength=events.n_items)
    count = np.bincount(item, minlength=events.n_items).astype(np.float64)
    weight = membership.astype(np.float64)
    of_category = _shrunk(weight.T @ total, weight.T @ count, overall)
    n_categories = weight.sum(axis=1)
    prior = np.where(n_categories > 0, weight @ of_category / np.maximum(n_categories, 1), overall)
    return _shrunk(total, count, prior)


def repeat_rates(events: Events) -> Float64:
    """float64[n]: the share of each item's events whose user had it before, shrunk to that of all.

    NaN everywhere without an event.
    """
    item, is_repeat, _ = _pairs(events)
    if len(item) == 0:
        return np.full(events.n_items, np.nan)
    repeats = np.bincount(item, is_repeat, minlength=events.n_items)
    count = np.bincount(item, minlength=events.n_items)
    return _shrunk(repeats, count, is_repeat.mean())


def _shrunk(total: NDArray[Any], count: NDArray[Any], prior: Float64) -> Float64:
    return (total + SHRINKAGE * prior) / (count + SHRINKAGE)


def _gaps(events: Events) -> tuple[Int64, Float64]:
    """The item of each repeat, and the logarithm of the time since the event before."""
    item, is_repeat, gap = _pairs(events)
    return item[is_repeat], np.log(gap[is_repeat].astype(np.float64))


def _pairs(events: Events) -> tuple[Int64, NDArray[np.bool_], Int64]:
    """The item of each event, whether its user had it before, and the time since then.

    int64[e], bool[e] and int64[e].
    """
    rows = np.flatnonzero(events.is_target)
    key = events.user[rows].astype(np.int64) * events.n_items + events.item[rows]
    order = np.argsort(key, kind="stable")  # events are in order of time within a user
    key, time = key[order], events.time[rows][order]
    same = np.append(False, key[1:] == key[:-1])[: len(key)]
    gap = np.append(0, np.diff(time))[: len(key)]
    distinct = ~same | (gap > 0)
    item = (key % max(1, events.n_items))[distinct]
    return item, same[distinct], gap[distinct]
