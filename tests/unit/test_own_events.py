"""Tests features of the user's own items by known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.catalogue import Catalogue
from shortlist.recsys.models.features import FEATURES, Candidates, features
from shortlist.recsys.models.interactions import MISSING, Events, UserStates, states_at
from shortlist.recsys.training.covisitation import fit_neighbours
from shortlist.recsys.training.item_table import fit_item_table

DAY = 86_400
NAN = np.float32(np.nan)
CATALOGUE = Catalogue(
    tuple("abcd"),
    tuple("ABCD"),
    (("x",), ("x",), (), ()),
    ("x",),
    np.array([[1], [1], [0], [0]], np.float32),
    np.full(4, NAN),
)
# The first user takes a every ten days, and b once; the second c twice, two days apart.
EVENTS = Events(
    np.array([0, 0, 0, 0, 1, 1], np.int32),
    np.array([0, 1, 0, 0, 2, 2], np.int32),
    np.array([0, 5, 10, 20, 3, 5]) * DAY,
    np.full(6, NAN),
    2,
    4,
)
OWN = ("own_count", "own_recent", "own_all", "own_age", "own_activation", "own_activation_time")
DUE = ("due_own", "due_usual", "due")
RATES = ("item_repeats", "user_repeats")


def whole_states(events: Events) -> UserStates:
    """Every user after all their events."""
    return states_at(events, events.offsets()[:-1], events.offsets()[1:])


def columns(states: UserStates, items: list[list[int]], events: Events = EVENTS) -> dict:
    """The features of each user's candidates, by name."""
    table = fit_item_table(events, CATALOGUE, fit_neighbours(events))
    scores = np.zeros((len(items), len(items[0])), np.float32)
    rows = features(states, Candidates(np.array(items, np.int32), scores), table)
    return dict(zip(FEATURES, rows.T.tolist(), strict=True))


def test_items_never_had_have_defaults() -> None:
    """Nothing tells one such candidate from another."""
    made = columns(whole_states(EVENTS), [[2, 3], [0, 1]])
    for name in ("had", *OWN, *DUE, *RATES):
        assert made[name] == [FEATURES[name].default] * 4, name


def test_own_events_are_counted() -> None:
    """The latest event has age 0, and counts half as much after its half-life."""
    made = columns(whole_states(EVENTS), [[0, 1], [2, MISSING]])
    assert made["had"] == [1.0, 1.0, 1.0]
    assert made["own_count"] == pytest.approx(np.log1p([3, 1, 2]))
    decays = 0.5 ** (np.arange(4) / 5)
    assert made["own_recent"] == pytest.approx(
        [decays[[0, 1, 3]].sum(), decays[2], decays[:2].sum()]
    )
    assert made["own_age"] == pytest.approx(np.log1p([0, 2, 0]))


def test_activation_sums_fading_memories() -> None:
    """Each event adds its age ** -0.5, in events from 1 on, or in the time until now."""
    states = replace(whole_states(EVENTS), now=np.array([30, 9]) * DAY)
    made = columns(states, [[0, 1], [2, MISSING]])
    ages = np.array([1.0, 2.0, 4.0])
    expected = np.log([(ages**-0.5).sum(), 3**-0.5, 1 + 2**-0.5])
    assert made["own_activation"] == pytest.approx(expected, rel=1e-6)
    times = np.array([30.0, 20.0, 10.0]) * DAY
    own = np.log([(times**-0.5).sum(), (25 * DAY) ** -0.5])
    assert made["own_activation_time"][:2] == pytest.approx(own, rel=1e-6)


def test_due_after_own_interval() -> None:
    """Ten days after the last of three events that were ten days apart, an item is due: 0."""
    states = replace(whole_states(EVENTS), now=np.array([30, 9]) * DAY)
    made = columns(states, [[0, 1], [2, MISSING]])
    unknown = FEATURES["due_own"].default
    assert made["due_own"] == pytest.approx([0.0, unknown, np.log(2)], abs=1e-5)


def test_due_by_the_items_interval() -> None:
    """B was never repeated: the intervals of its category stand in, shrunk to all intervals."""
    states = replace(whole_states(EVENTS), now=np.array([30, 9]) * DAY)
    made = columns(states, [[0, 1], [2, 3]])
    overall = (2 * np.log(10 * DAY) + np.log(2 * DAY)) / 3
    category = (2 * np.log(10 * DAY) + 5 * overall) / (2 + 5)
    assert made["due_usual"][1] == pytest.approx(np.log(25 * DAY) - category, abs=1e-5)
    of_a = (2 * np.log(10 * DAY) + 5 * category) / (2 + 5)
    blended = (2 * np.log(10 * DAY) + 2 * of_a) / 4
    assert made["due"][0] == pytest.approx(np.log(10 * DAY) - blended, abs=1e-5)


def test_features_have_no_unit_of_time() -> None:
    """Hours for seconds change the activation by a constant, and all others by nothing."""
    times = np.array([0, 5, 10, 20, 3, 5])
    made = []
    for unit in (1, 3600):
        events = replace(EVENTS, time=times * unit)
        states = replace(whole_states(events), now=np.array([30, 9]) * unit)
        made.append(columns(states, [[0, 1], [2, MISSING]], events))
    shift = made[0].pop("own_activation_time") - np.array(made[1].pop("own_activation_time"))
    assert shift == pytest.approx([np.log(3600) / 2] * 3, abs=1e-5)
    for name, values in made[0].items():
        assert values == pytest.approx(made[1][name], abs=1e-5), name


def test_rates_of_repeats() -> None:
    """Two of the first user's four events are repeats; a's two of three are shrunk to half."""
    made = columns(whole_states(EVENTS), [[0, 1], [2, 3]])
    assert made["user_repeats"][:3] == [0.5, 0.5, 0.5]
    assert made["item_repeats"] == pytest.approx(
        [(2 + 5 * 0.5) / 8, 5 * 0.5 / 6, (1 + 5 * 0.5) / 7, FEATURES["item_repeats"].default]
    )


def test_had_outlasts_the_window() -> None:
    """An item of before the last hundred events is had, and nothing is known of when."""
    n = 150
    events = Events(
        np.zeros(n, np.int32),
        np.array([3] + [0, 1] * 74 + [0], np.int32),
        np.arange(n),
        np.full(n, NAN),
        1,
        4,
    )
    made = columns(whole_states(events), [[3, 2]], events)
    assert made["had"] == [1.0, 0.0]
    assert made["own_count"] == [0.0, 0.0]
    assert made["due"] == [FEATURES["due"].default] * 2
    assert made["user_repeats"][0] == pytest.approx(0.98)


def test_only_target_events_are_taken() -> None:
    """A look at an item is no purchase of it."""
    kinds = (EventKind("purchase", 1.0, is_target=True), EventKind("view", 0.2, is_target=False))
    events = replace(EVENTS, kind=np.array([0, 1, 0, 1, 0, 1], np.uint8), kinds=kinds)
    made = columns(whole_states(events), [[0, 1], [2, 3]], events)
    assert made["had"] == [1.0, 0.0, 1.0, 0.0]
    assert made["own_count"] == pytest.approx([np.log1p(2), 0.0, np.log1p(1), 0.0])


def test_a_list_asked_at_the_last_event() -> None:
    """No time has gone by, whose logarithm would be infinite."""
    made = columns(whole_states(EVENTS), [[0], [2]])
    assert np.isfinite(made["due_own"]).all()
    assert made["due_own"] == pytest.approx(-np.log([10 * DAY, 2 * DAY]), abs=1e-5)
