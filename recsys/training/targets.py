"""Says which events training predicts, and how strongly they count.

The towers predict at once what a user will come to take: the first view of what is bought later
counts as the purchase. That a purchase follows its own view teaches nothing about taste. The
ranker, which also orders what the user has met, has each step of a funnel as a label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.interactions import Events, Float32, Int64, Repeats

Bool = NDArray[np.bool_]


def tower_targets(events: Events, repeats: Repeats) -> tuple[Bool, Float32]:
    """Whether each event is a target of the towers, bool[n], and its strength, float32[n].

    A funnel of a user and an item ends with an event of a kind to predict. Its first event is a
    target, and has the strength of the strongest one. Of several funnels only the first counts,
    unless the user's own items may be offered again.
    """
    order, is_first = _by_pair(events)
    if len(order) == 0:
        return np.empty(0, np.bool_), np.empty(0, np.float32)
    begins = is_first | np.append(False, events.is_target[order][:-1])
    strongest = np.maximum.reduceat(events.strength[order], np.flatnonzero(begins))
    strength = np.zeros(len(order), np.float32)
    strength[order[begins]] = strongest
    targets = np.zeros(len(order), np.bool_)
    targets[order] = begins if repeats is not Repeats.NEVER else is_first
    return targets, strength


def are_new(events: Events) -> Bool:
    """bool[n]: whether no event of a kind to predict of the same user and item came before."""
    order, is_first = _by_pair(events)
    ended = np.cumsum(events.is_target[order])
    before = np.append(0, ended)[: len(order)]
    # Counts go on from pair to pair: what the pair began with is taken off.
    group = np.cumsum(is_first) - 1
    new = np.empty(len(order), np.bool_)
    new[order] = before == before[is_first][group]
    return new


def ranker_labels(events: Events, repeats: Repeats) -> Bool:
    """bool[n]: whether an event is a label of the ranker.

    It is where the user had not had the item with that strength or more: a purchase after a view
    is one, a view after a view or a purchase is none. Where the user's own items may be offered,
    each event of a kind to predict is one.
    """
    order, is_first = _by_pair(events)
    strengths = [kind.strength for kind in events.kinds]
    level = np.unique(strengths, return_inverse=True)[1][events.kind[order]] + 1
    # Each pair's levels lie above those of the pairs before it, so that one pass has the greatest
    # level so far of every pair.
    floor = np.cumsum(is_first) * (len(strengths) + 1)
    greatest = np.maximum.accumulate(level + floor) - floor
    had = np.where(is_first, 0, np.roll(greatest, 1))
    labels = np.empty(len(order), np.bool_)
    labels[order] = level > had
    return labels | events.is_target if repeats is not Repeats.NEVER else labels


def _by_pair(events: Events) -> tuple[Int64, Bool]:
    """The events pair by pair, oldest to newest, and whether each is the first of its pair."""
    key = events.user.astype(np.int64) * events.n_items + events.item
    order = np.argsort(key, kind="stable")
    is_first = np.ones(len(key), np.bool_)
    is_first[1:] = key[order[1:]] != key[order[:-1]]
    return order, is_first
