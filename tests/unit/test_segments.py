"""Tests segments of users and items on small cases.

The cases can be checked by eye.
"""

from __future__ import annotations

import numpy as np

from shortlist.recsys.evaluation import segments
from shortlist.recsys.evaluation.ranking_metrics import ItemFacts
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import MISSING, Events, UserStates, states_at


def states_of(seen: list[list[int]], n_items: int) -> UserStates:
    users = np.repeat(np.arange(len(seen)), [len(s) for s in seen]).astype(np.int32)
    items = np.array([i for s in seen for i in s], np.int32)
    events = Events(
        users,
        items,
        np.arange(len(items)),
        np.full(len(items), np.nan, np.float32),
        len(seen),
        n_items,
    )
    return states_at(events, events.offsets()[:-1], events.offsets()[1:])


def test_history_lengths_split_at_quartiles() -> None:
    """Eight users with 1 to 8 events: two in each bin, and the labels leave no number out."""
    actual = segments.by_history_length(np.array([1, 2, 3, 4, 5, 6, 7, 80], np.int32))
    assert actual.labels == ("1-2", "3-4", "5-6", "7-80")
    assert actual.of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_equal_quartiles_make_fewer_bins() -> None:
    """Where most users have five events, there is one bin for these and no empty one."""
    actual = segments.by_history_length(np.array([5, 5, 5, 5, 9], np.int32))
    assert (actual.labels, actual.of.tolist()) == (("5-5", "6-9"), [0, 0, 0, 0, 1])


def test_nobody_is_in_no_bin() -> None:
    """Without users there are no segments."""
    assert segments.by_history_length(np.empty(0, np.int32)).labels == ()


def test_favourite_has_the_greatest_sum() -> None:
    """Repeated events count each time; items without categories, or no events, count nothing."""
    membership = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], np.float32)
    states = states_of([[0, 0, 1], [0, 1], [2], [3], [0, 1, 2]], 4)
    assert segments.favourite_categories(states, membership).tolist() == [0, 0, 1, MISSING, 1]


def test_favourite_uses_last_hundred_events() -> None:
    """Events that have left the window do not count: sixty of another category here."""
    states = states_of([[0] * 60 + [1] * 100], 2)
    assert segments.favourite_categories(states, np.eye(2, dtype=np.float32)).tolist() == [1]


def test_rare_favourites_and_none_are_other() -> None:
    """Of ten categories the eight most frequent have a segment, the most frequent first."""
    favourites = np.array([9, 9, 9, 4, 4, 0, 1, 2, 3, 5, 6, 7, 8, MISSING])
    actual = segments.by_favourite_category(favourites, list("abcdefghij"))
    assert actual.labels == ("j", "e", "a", "b", "c", "d", "f", "g", "other")
    assert actual.of.tolist() == [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8]


def test_few_favourites_have_no_other() -> None:
    """Categories that are nobody's favourite have no segment."""
    actual = segments.by_favourite_category(np.array([2, 0, 2]), ["a", "b", "c"])
    assert (actual.labels, actual.of.tolist()) == (("c", "a"), [0, 1, 0])


def test_each_third_holds_its_pairs() -> None:
    """Of twelve pairs each third holds four; an item without users is of the tail."""
    assert segments.popularity_thirds(np.array([1, 2, 4, 1, 2, 1, 1, 0])).tolist() == [
        2,
        1,
        0,
        2,
        1,
        2,
        2,
        2,
    ]


def test_dominant_item_leaves_no_middle() -> None:
    """The item at which a third is reached is of the head as a whole."""
    assert segments.popularity_thirds(np.array([9, 1, 0])).tolist() == [0, 2, 2]
    assert segments.popularity_thirds(np.zeros(2, np.int64)).tolist() == [2, 2]


def test_found_items_are_counted_by_third() -> None:
    """Held-out items count at any rank; hits only in the first twenty ranks of their user."""
    n_items = 30
    facts = ItemFacts(np.ones(n_items, np.int64), 3, np.empty((n_items, 0), np.float32))
    thirds = np.arange(n_items) // 10
    held, offsets = np.array([0, 1, 15, 25, 29], np.int32), np.array([0, 3, 5])
    truth = Truth(np.arange(2, dtype=np.int32), states_of([[], []], n_items), offsets, held)
    ranked = np.stack((np.arange(21), np.array([29, *range(19), 25]))).astype(np.int32)
    assert segments.held_out_by_third(truth, thirds).tolist() == [2, 1, 2]
    assert segments.hits_by_third(ranked, truth, facts, thirds).tolist() == [2, 1, 1]
