"""Finds the least values of each row."""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.interactions import Float32, Int64

GROUP = 16
"""Columns of which only the least is looked at first."""


def least(loss: Float32, m: int) -> Int64:
    """int64[U, m]: the columns of each row's m least values, least first, equal ones by column."""
    n_users, n = loss.shape
    if m == 0:
        return np.empty((n_users, 0), np.int64)
    bound = _bound(loss, m)
    chosen = loss < bound
    lacking = m - np.count_nonzero(chosen, axis=1)
    # Many values may equal the bound; of those, the first fill what is left.
    short = np.flatnonzero(lacking > 0)
    at = loss[short] == bound[short]
    at &= np.cumsum(at, axis=1, dtype=np.int32) <= lacking[short, None]
    chosen[short] |= at
    rows, columns = np.divmod(np.flatnonzero(chosen), n)
    counts = np.count_nonzero(chosen, axis=1)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = n_users, int(counts.max(initial=m))
    values, of = np.full(shape, np.inf, loss.dtype), np.zeros(shape, np.int64)
    values[rows, places], of[rows, places] = loss[rows, columns], columns
    order = np.argsort(values, axis=1, kind="stable")[:, :m]
    return np.take_along_axis(of, order, axis=1)


def _bound(loss: Float32, m: int) -> Float32:
    """float32[U, 1]: a value that is at least the m-th least of each row, and seldom far above.

    That of the minima of GROUP columns each is such a value, and found much sooner.
    """
    width = loss.shape[1] // GROUP
    if width < 2 * m:
        return np.partition(loss, m - 1, axis=1)[:, m - 1 : m]
    minima = loss[:, :width].copy()
    for start in range(width, GROUP * width, width):
        np.minimum(minima, loss[:, start : start + width], out=minima)
    return np.partition(minima, m - 1, axis=1)[:, m - 1 : m]
