"""What follows what, counted by hand."""

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


def of(found: Neighbours, relation: str, item: int, n_items: int) -> dict[int, float]:
    """The neighbours of an item, and their weights."""
    rows, weights = (a[Relation[relation.upper()], item] for a in (found.rows, found.weights))
    return {int(r): float(w) for r, w in zip(rows, weights, strict=True) if r != n_items}


def test_steps_are_counted_in_one_direction() -> None:
    """In 0 1 2 3 4, item 0 is followed by 1 at once, by 1 to 3 within three, and by all within ten; 4 by nothing."""
    found = fit_neighbours(events_of([[0, 1, 2, 3, 4]], 5))
    assert of(found, "next_1", 0, 5) == {1: 0.5}
    assert of(found, "next_3", 0, 5) == {1: 0.5, 2: 0.5, 3: 0.5}
    assert of(found, "next_10", 0, 5) == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}
    assert of(found, "next_10", 4, 5) == {}


def test_order_is_that_of_the_events() -> None:
    """Not that of the item rows: 3 was followed by 0, 0 by 2, and 2 by 1."""
    found = fit_neighbours(events_of([[3, 0, 2, 1]], 4))
    assert [of(found, "next_1", item, 4) for item in range(4)] == [{2: 0.5}, {}, {1: 0.5}, {0: 0.5}]


def test_ten_steps_are_the_furthest() -> None:
    """The eleventh item after another does not count as following it."""
    found = fit_neighbours(events_of([list(range(12))], 12))
    assert set(of(found, "next_10", 0, 12)) == set(range(1, 11))
    assert set(of(found, "near", 11, 12)) == set(range(1, 11))


def test_near_is_a_cosine_in_both_directions() -> None:
    """0 and 1 stand together twice, once in either order; 0 came three times and 1 twice."""
    found = fit_neighbours(events_of([[0, 1], [1, 0], [0]], 2))
    expected = 2 / np.sqrt((3 + 1) * (2 + 1))
    assert of(found, "near", 0, 2) == pytest.approx({1: expected})
    assert of(found, "near", 1, 2) == pytest.approx({0: expected})


def test_an_item_is_no_neighbour_of_itself() -> None:
    """A repeat is a step from an item to itself, and is left out of every relation."""
    found = fit_neighbours(events_of([[0, 0, 1, 0], [0, 0]], 2))
    for item in range(2):
        for relation in Relation:
            assert item not in of(found, relation.name, item, 2)


def test_users_do_not_run_into_each_other() -> None:
    """The last item of one user is not followed by the first of the next."""
    assert of(fit_neighbours(events_of([[0], [1], [2]], 3)), "next_10", 0, 3) == {}


def test_the_strongest_come_first_and_ties_by_row() -> None:
    """Whatever the order in which they were counted."""
    found = fit_neighbours(events_of([[0, 3], [0, 3], [0, 2], [0, 1]], 4))
    assert list(of(found, "next_1", 0, 4)) == [3, 1, 2]


def test_only_the_strongest_are_kept(monkeypatch) -> None:
    """Three for each item, where that is the limit."""
    monkeypatch.setattr(module, "NEIGHBOURS", 3)
    found = fit_neighbours(events_of([list(range(9))], 9))
    assert found.rows.shape == (len(Relation), 10, 3)
    assert list(of(found, "next_10", 0, 9)) == [1, 2, 3]


def test_a_large_catalogue_has_no_regression(monkeypatch) -> None:
    """Its relation is there, and holds nothing."""
    monkeypatch.setattr(module, "MAX_REGRESSION_ITEMS", 2)
    found = fit_neighbours(events_of([[0, 1, 2], [0, 1, 2]], 3))
    assert of(found, "next_1", 0, 3) == pytest.approx({1: 2 / 3})
    assert [of(found, "regression", item, 3) for item in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize(("histories", "n_items"), [([], 3), ([[]], 3), ([[2]], 3), ([[0]], 1)])
def test_without_pairs_there_are_no_neighbours(histories, n_items) -> None:
    """No events, or users of one: every place is padding with the weight zero."""
    found = fit_neighbours(events_of(histories, n_items))
    assert found.rows.shape == (len(Relation), n_items + 1, NEIGHBOURS)
    assert (found.rows == n_items).all()
    assert (found.weights == 0).all()


def test_decay_halves_by_the_half_life() -> None:
    """The last event counts for one, the one before it for a half where the half-life is one event."""
    assert position_weights((1.0, 2.0))[:, -3:].tolist() == [
        [0.25, 0.5, 1.0],
        [0.5, np.float32(0.5**0.5), 1.0],
    ]
    assert halving(3.0).tolist() == position_weights((3.0,))[0].tolist()
    assert halving(3.0).shape == (100,)
