"""Tests event arrays and user states by known answers.

Every model sees these user states.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.recsys.models.interactions import MISSING, NEVER, Events, Negatives, states_at
from shortlist.recsys.store.histories import HISTORY_LENGTH
from shortlist.recsys.training.split import before

# user 0: items 4 1 4; user 1: nothing; user 2: item 2.
EVENTS = Events(
    np.array([0, 0, 0, 2], np.int32),
    np.array([4, 1, 4, 2], np.int32),
    np.array([10, 20, 20, 5], np.int64),
    np.array([3.5, np.nan, 1.0, 2.0], np.float32),
    3,
    5,
)


def tail(row: np.ndarray, n: int) -> list[float]:
    """The last n places of a state's row."""
    return row[-n:].tolist()


def test_offsets_count_users_without_events_too() -> None:
    """A user of no events has an empty range."""
    assert EVENTS.offsets().tolist() == [0, 3, 3, 4]


def test_taking_events_keeps_rows() -> None:
    """User and item rows, and how many of each there are, stay as they were."""
    taken = EVENTS.take(EVENTS.item == 4)
    assert (taken.user.tolist(), taken.item.tolist(), taken.time.tolist()) == (
        [0, 0],
        [4, 4],
        [10, 20],
    )
    assert (len(taken), taken.n_users, taken.n_items, taken.offsets().tolist()) == (
        2,
        3,
        5,
        [0, 2, 2, 2],
    )


def test_state_columns_are_in_step() -> None:
    """The latest event stands at the end, what is missing before the first is padding."""
    states = states_at(EVENTS, np.array([0, 3, 3]), np.array([3, 3, 4]))
    assert tail(states.items[0], 4) == [MISSING, 4, 1, 4]
    assert tail(states.times[0], 4) == [0, 10, 20, 20]
    np.testing.assert_array_equal(
        states.weights[0, -4:], np.array([np.nan, 3.5, np.nan, 1.0], np.float32)
    )
    assert (states.items[1] == MISSING).all()
    assert np.isnan(states.weights[1]).all()
    assert tail(states.items[2], 2) == [MISSING, 2]
    assert [states.seen(user).tolist() for user in range(3)] == [[4, 1, 4], [], [2]]
    assert states.n_events.tolist() == [3, 0, 1]


def test_types_and_shapes_are_as_declared() -> None:
    """Whatever the number of users, none included."""
    for users in (0, 2):
        states = states_at(EVENTS, np.zeros(users, np.int64), np.full(users, 3, np.int64))
        columns = (states.items, states.times, states.weights)
        assert [c.shape for c in columns] == [(users, HISTORY_LENGTH)] * 3
        assert [c.dtype.name for c in columns] == ["int32", "int64", "float32"]
        assert (states.attributes.shape, states.attributes.dtype.name) == ((users, 0), "int32")
        assert (states.seen_rows.dtype.name, states.seen_offsets.dtype.name, len(states)) == (
            "int32",
            "int64",
            users,
        )


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_state_ends_before_the_cut(cut) -> None:
    """Only the events before it are, whatever the later ones hold."""
    other = Events(EVENTS.user, EVENTS.item.copy(), EVENTS.time.copy(), EVENTS.weight.copy(), 3, 5)
    other.item[cut:], other.time[cut:], other.weight[cut:] = 0, 99, 9.0
    both = [states_at(e, np.array([0]), np.array([cut])) for e in (EVENTS, other)]
    for name in ("items", "times", "weights", "n_events", "seen_rows", "seen_offsets"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(both[1], name))


def test_states_of_no_events_are_empty() -> None:
    """A catalogue that nobody touched has users all the same."""
    nothing = EVENTS.take(np.zeros(4, bool))
    states = states_at(
        nothing,
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
        np.array([[1], [2], [MISSING]], np.int32),
    )
    assert (states.items == MISSING).all()
    assert (states.seen_offsets.tolist(), states.attributes.tolist()) == (
        [0, 0, 0, 0],
        [[1], [2], [MISSING]],
    )


def test_slice_is_its_own_batch() -> None:
    """Its seen items start at zero again, and attributes go with their users."""
    attributes = np.array([[7], [8], [9]], np.int32)
    states = states_at(EVENTS, np.array([0, 3, 3]), np.array([3, 3, 4]), attributes)
    part = states.slice(1, 3)
    assert (len(part), part.seen_offsets.tolist(), part.seen(1).tolist()) == (2, [0, 0, 1], [2])
    assert (part.attributes.tolist(), part.n_events.tolist(), tail(part.items[1], 1)) == (
        [[8], [9]],
        [0, 1],
        [2],
    )
    assert len(states.slice(1, 1)) == 0


RETURNED = Events(
    np.zeros(4, np.int32),
    np.array([0, 1, 2, 1], np.int32),
    np.array([1, 2, 4, 6], np.int64),
    np.full(4, np.nan, np.float32),
    1,
    4,
    cancelled=np.array([NEVER, 3, NEVER, NEVER]),
    negatives=Negatives(
        np.zeros(1, np.int32), np.array([1], np.int32), np.array([3]), np.array([6])
    ),
)
"""A user takes 0 and 1, returns 1 at time 3, takes 2, and takes 1 again at time 6."""


@pytest.mark.parametrize(
    ("cut", "history", "disliked"),
    [(1, [0], []), (2, [0], [1]), (3, [0, 2], [1]), (4, [0, 2, 1], [])],
)
def test_returns_leave_the_history(cut: int, history: list[int], disliked: list[int]) -> None:
    """A return takes its event out of the state from its time on, until the item is had again."""
    state = states_at(RETURNED, np.array([0]), np.array([cut]))
    assert [row for row in state.items[0] if row != MISSING] == history
    assert state.disliked(0).tolist() == disliked
    past = before(RETURNED, np.array([cut]))
    assert past.standing().item.tolist() == history


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_past_is_the_state_of_its_end(cut: int) -> None:
    """Nothing after a cut is left in the past: its last state is that of the cut."""
    past = before(RETURNED, np.array([cut]))
    states = [
        states_at(events, np.array([0]), np.array([cut]), users=np.array([0]))
        for events in (RETURNED, past)
    ]
    for name in ("items", "kinds", "n_events", "seen_rows", "disliked_rows"):
        np.testing.assert_array_equal(getattr(states[0], name), getattr(states[1], name))


def test_states_without_events_know_dislikes() -> None:
    """Of users without an event before their cut, dislikes before their first event are known."""
    events = replace(RETURNED.take(RETURNED.time > 3), n_users=2)
    events = replace(events, negatives=replace(RETURNED.negatives, item=np.array([3], np.int32)))
    none = np.zeros(1, np.int64)
    for time, expected in ((3, [3]), (4, []), (9, [])):
        negatives = replace(events.negatives, time=np.array([time]), until=np.array([NEVER]))
        states = states_at(replace(events, negatives=negatives), none, none, users=np.array([0]))
        assert states.disliked(0).tolist() == expected


def test_standing_events_leave_out_the_rest() -> None:
    """What was taken back is no event to learn from, and none to predict."""
    assert RETURNED.standing().item.tolist() == [0, 2, 1]
    assert RETURNED.to_predict.tolist() == [True, False, True, True]


def test_selection_takes_feedback_along() -> None:
    """Events and feedback of other users and items are left out."""
    both = np.array([True])
    assert (
        len(RETURNED.select(users=~both)) == len(RETURNED.select(users=~both).negatives.user) == 0
    )
    chosen = RETURNED.select(items=np.array([True, False, True, True]))
    assert (chosen.item.tolist(), len(chosen.negatives.user)) == ([0, 2], 0)
    assert len(RETURNED.select(both).negatives.user) == 1
