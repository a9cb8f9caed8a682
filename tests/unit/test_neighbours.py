"""Co-visitation neighbours, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.models.decay import halving, position_weights
from shortlist.recsys.models.interactions import Events
from shortlist.recsys.models.neighbours import NEIGHBOURS, Neighbours, Relation
from shortlist.recsys.training import covisitation as module
from shortlist.recsys.training.covisitation import fit_neighbours


def events_of(histories: list[list[int]], n_items: int) -> Events:
    """One user for each history."""
    lengths = [len(h) for h in histories]
    item = np.array([i for h in histories for i in h], np.int32)
    user = np.repeat(np.arange(len(histories)), lengths).astype(np.int32)
    n = len(item)
    return Events(
        user,
        item,
        np.arange(n, dtype=np.int64),
        np.full(n, np.nan, np.float32),
        len(histories),
        n_items,
    )


def of(neighbours: Neighbours, relation: str, item: int, n_items: int) -> dict[int, float]:
    """The neighbours of an item, and their weights."""
    rows, weights = (
        a[Relation[relation.upper()], item] for a in (neighbours.rows, neighbours.weights)
    )
    return {int(r): float(w) for r, w in zip(rows, weights, strict=True) if r != n_items}


def test_steps_are_counted_in_one_direction() -> None:
    """In 0 1 2 3 4, 0 is followed by 1, within three by 1 to 3, within ten by all; 4 by none."""
    neighbours = fit_neighbours(events_of([[0, 1, 2, 3, 4]], 5))
    assert of(neighbours, "next_1", 0, 5) == {1: 0.5}
    assert of(neighbours, "next_3", 0, 5) == {1: 0.5, 2: 0.5, 3: 0.5}
    assert of(neighbours, "next_10", 0, 5) == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}
    assert of(neighbours, "next_10", 4, 5) == {}


def test_order_is_that_of_the_events() -> None:
    """Not that of the item rows: 3 was followed by 0, 0 by 2, and 2 by 1."""
    neighbours = fit_neighbours(events_of([[3, 0, 2, 1]], 4))
    assert [of(neighbours, "next_1", item, 4) for item in range(4)] == [
        {2: 0.5},
        {},
        {1: 0.5},
        {0: 0.5},
    ]


def test_ten_steps_are_the_furthest() -> None:
    """The eleventh item after another does not count as following it."""
    neighbours = fit_neighbours(events_of([list(range(12))], 12))
    assert set(of(neighbours, "next_10", 0, 12)) == set(range(1, 11))
    assert set(of(neighbours, "near", 11, 12)) == set(range(1, 11))


def test_near_is_a_symmetric_cosine() -> None:
    """0 and 1 stand together twice, once in either order; 0 came three times and 1 twice."""
    neighbours = fit_neighbours(events_of([[0, 1], [1, 0], [0]], 2))
    expected = 2 / np.sqrt((3 + 1) * (2 + 1))
    assert of(neighbours, "near", 0, 2) == pytest.approx({1: expected})
    assert of(neighbours, "near", 1, 2) == pytest.approx({0: expected})


def test_no_item_neighbours_itself() -> None:
    """A repeat is a step from an item to itself, and is left out of every relation."""
    neighbours = fit_neighbours(events_of([[0, 0, 1, 0], [0, 0]], 2))
    for item in range(2):
        for relation in Relation:
            assert item not in of(neighbours, relation.name, item, 2)


def test_users_are_counted_apart() -> None:
    """The last item of one user is not followed by the first of the next."""
    assert of(fit_neighbours(events_of([[0], [1], [2]], 3)), "next_10", 0, 3) == {}


def test_strongest_first_ties_by_row() -> None:
    """Whatever the order in which they were counted."""
    neighbours = fit_neighbours(events_of([[0, 3], [0, 3], [0, 2], [0, 1]], 4))
    assert list(of(neighbours, "next_1", 0, 4)) == [3, 1, 2]


def test_only_the_strongest_are_kept(monkeypatch) -> None:
    """Three for each item, where that is the limit."""
    monkeypatch.setattr(module, "NEIGHBOURS", 3)
    neighbours = fit_neighbours(events_of([list(range(9))], 9))
    assert neighbours.rows.shape == (len(Relation), 10, 3)
    assert list(of(neighbours, "next_10", 0, 9)) == [1, 2, 3]


def test_a_large_catalogue_has_no_regression(monkeypatch) -> None:
    """Its relation is there, and holds nothing."""
    monkeypatch.setattr(module, "MAX_REGRESSION_ITEMS", 2)
    neighbours = fit_neighbours(events_of([[0, 1, 2], [0, 1, 2]], 3))
    assert of(neighbours, "next_1", 0, 3) == pytest.approx({1: 2 / 3})
    assert [of(neighbours, "regression", item, 3) for item in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize(("histories", "n_items"), [([], 3), ([[]], 3), ([[2]], 3), ([[0]], 1)])
def test_without_pairs_there_are_no_neighbours(histories, n_items) -> None:
    """No events, or users of one: every place is padding with the weight zero."""
    neighbours = fit_neighbours(events_of(histories, n_items))
    assert neighbours.rows.shape == (len(Relation), n_items + 1, NEIGHBOURS)
    assert (neighbours.rows == n_items).all()
    assert (neighbours.weights == 0).all()


def test_decay_halves_by_the_half_life() -> None:
    """With a half-life of one event, the event before the last counts for a half."""
    assert position_weights((1.0, 2.0))[:, -3:].tolist() == [
        [0.25, 0.5, 1.0],
        [0.5, np.float32(0.5**0.5), 1.0],
    ]
    assert halving(3.0).tolist() == position_weights((3.0,))[0].tolist()
    assert halving(3.0).shape == (100,)
