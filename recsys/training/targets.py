"""Says which events training predicts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Events, Repeats


def targets_of(events: Events, repeats: Repeats) -> NDArray[np.bool_]:
    """bool[n]: whether an event is a target of training.

    It is where the user had not had the item with that strength or more: a purchase after a view
    is one, a view after a view or a purchase is none. Where the user's own items may be offered,
    each event of a kind to predict is one.
    """
    key = events.user.astype(np.int64) * events.n_items + events.item
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), np.bool_)
    first[1:] = key[order[1:]] != key[order[:-1]]
    strengths = [kind.strength for kind in events.kinds]
    level = np.unique(strengths, return_inverse=True)[1][events.kind[order]] + 1
    # Each pair's levels lie above those of the pairs before it, so that one pass has the greatest
    # level so far of every pair.
    floor = np.cumsum(first) * (len(strengths) + 1)
    greatest = np.maximum.accumulate(level + floor) - floor
    had = np.where(first, 0, np.roll(greatest, 1))
    targets = np.empty(len(key), np.bool_)
    targets[order] = level > had
    return targets | events.is_target if repeats is not Repeats.NEVER else targets
