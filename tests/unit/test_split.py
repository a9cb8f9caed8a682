"""Where each protocol cuts, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import InvalidInput
from recsys.events import Events, states_at
from recsys.training.split import before, cuts


def events_of(lengths: list[int], times: list[int] | None = None) -> Events:
    """Users with so many events each, of items 0, 1, 2 and so on."""
    n = sum(lengths)
    user = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    item = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    time = np.arange(n) if times is None else np.array(times)
    return Events(user, item, time.astype(np.int64), np.full(n, np.nan, np.float32), len(lengths), max(lengths))


def test_leave_one_out_holds_out_the_last_event() -> None:
    """A user of one event keeps it; a user of none has nothing."""
    assert cuts(events_of([3, 1, 0, 2]), "leave-one-out").tolist() == [2, 4, 4, 5]


def test_the_last_tenth_is_at_least_one_event() -> None:
    """25 events: 2 held out; 10: 1; 2: 1; 1: none."""
    held = events_of([25, 10, 2, 1])
    assert (held.offsets()[1:] - cuts(held, "last-10pct")).tolist() == [2, 1, 1, 0]


def test_the_time_cut_is_one_moment_for_all() -> None:
    """Whatever is not older than the 90% quantile is held out, ties whole."""
    held = events_of([5, 5], [1, 2, 3, 4, 9, 1, 5, 6, 9, 9])
    past = before(held, cuts(held, "time"))
    assert past.time.max() < 9
    assert past.user.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_an_unknown_protocol_is_told() -> None:
    """With those that there are."""
    with pytest.raises(InvalidInput, match="last-10pct"):
        cuts(events_of([2]), "random")


def test_a_state_holds_what_is_before_its_cut_and_nothing_else() -> None:
    """Oldest to newest, aligned at the end; seen beyond the window as well."""
    events = events_of([130, 3])
    states = states_at(events, np.array([0, 130]), np.array([120, 132]))
    assert states.items[0].tolist() == list(range(20, 120))
    assert states.items[1].tolist() == [-1] * 98 + [0, 1]
    assert (states.seen(0).tolist(), states.seen(1).tolist()) == (list(range(120)), [0, 1])
    assert states.n_events.tolist() == [120, 2]
    one = states.slice(1, 2)
    assert (one.items[0].tolist(), one.seen(0).tolist()) == (states.items[1].tolist(), [0, 1])
