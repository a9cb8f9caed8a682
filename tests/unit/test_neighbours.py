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
    rows, weights = neighbours.of(Relation[relation.upper()], np.array([item], np.int32))
    return {int(r): float(w) for r, w in zip(rows[0], weights[0], strict=True) if r != n_items}


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
    assert of(neighbours, "near", 0, 2) == pytest.approx({1: expected}, rel=1e-4)
    assert of(neighbours, "near", 1, 2) == pytest.approx({0: expected}, rel=1e-4)


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
    """The relation is left out; the others are as ever."""
    monkeypatch.setattr(module, "MAX_REGRESSION_ITEMS", 2)
    neighbours = fit_neighbours(events_of([[0, 1, 2], [0, 1, 2]], 3))
    assert of(neighbours, "next_1", 0, 3) == pytest.approx({1: 2 / 3}, rel=1e-4)
    assert not neighbours.has(Relation.REGRESSION)
    assert len(neighbours.rows) == len(neighbours.units) == Relation.REGRESSION


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


def test_weights_keep_sixteen_bits() -> None:
    """Packing moves a weight by at most half a unit, a 32,000th of its item's strongest."""
    rng = np.random.default_rng(0)
    weights = np.sort(rng.random((4, 50, 20)).astype(np.float32), axis=2)[:, :, ::-1]
    weights *= 10.0 ** rng.integers(-6, 4, (4, 50, 1)).astype(np.float32)
    weights[1, 3] = 0
    rows = np.zeros(weights.shape, np.int32)
    neighbours = Neighbours.packed(rows, weights)
    items = np.arange(50, dtype=np.int32)
    for relation in list(Relation)[:4]:
        found = neighbours.of(relation, items)[1]
        assert found.dtype == np.float32
        error = np.abs(found - weights[relation]).max(axis=1)
        assert (error <= weights[relation].max(axis=1) / 2**16).all()
    assert (neighbours.of(Relation.NEXT_3, items[3:4])[1] == 0).all()


def test_whole_units_are_kept_exactly() -> None:
    """Halves and quarters of the strongest are read back as they were."""
    weights = np.array([[[0.5, 0.25, 0.125], [3, 1.5, 0], [0, 0, 0]]], np.float32)
    neighbours = Neighbours.packed(np.zeros(weights.shape, np.int32), weights)
    assert (neighbours.of(Relation.NEXT_1, np.arange(3, dtype=np.int32))[1] == weights[0]).all()
