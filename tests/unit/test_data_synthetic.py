"""Tests the structure that the synthetic world promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from shortlist.recsys.data.synthetic import World, WorldSize, world
from shortlist.recsys.errors import InvalidSettings

SIZE = WorldSize(
    n_users=400, n_items=800, events_per_user=40, cold_items=0.1, cold_users=0.1, seed=7
)


@pytest.fixture(scope="module")
def made() -> World:
    return world(SIZE)


def rows(made: World) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    events = made.interactions
    users, items = (events[c].cast(pl.Int64).to_numpy() - 1 for c in ("user_id", "item_id"))
    return users, items


def test_same_seed_same_world(made: World) -> None:
    """The same size and seed give the same tables; another seed others."""
    again, other = world(SIZE), world(replace(SIZE, seed=8))
    assert_frame_equal(made.interactions, again.interactions)
    assert_frame_equal(made.items, again.items)
    assert_frame_equal(made.users, again.users)
    assert not made.interactions.equals(other.interactions)


def test_tables_are_in_the_schema(made: World) -> None:
    """The tables have the schema's columns, all ids are known, and no user takes an item twice."""
    assert made.interactions.columns == ["user_id", "item_id", "timestamp", "rating"]
    assert made.items.columns == ["item_id", "title", "categories", "year"]
    assert made.users.columns == ["user_id", "age", "region"]
    assert (made.items.height, made.users.height) == (800, 400)
    assert set(made.interactions["item_id"]) <= set(made.items["item_id"])
    assert not made.interactions.select("user_id", "item_id").is_duplicated().any()
    assert made.interactions["rating"].unique().sort().to_list() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_number_of_events(made: World) -> None:
    """Users have about the wanted number of events."""
    assert made.interactions.height == pytest.approx(360 * 40, rel=0.2)


def test_members_take_their_groups_items(made: World) -> None:
    """Most events are of the user's two tastes, eight groups or not."""
    user, item = rows(made)
    own = (made.item_group[item][:, None] == made.user_groups[user]).any(axis=1)
    assert own.mean() > 0.7


def test_taste_drifts(made: World) -> None:
    """The second taste is rare in the first quarter of a history, and common in the last."""
    user, item = rows(made)
    place = np.arange(len(user)) - np.searchsorted(user, user)
    share = place / np.bincount(user)[user]
    second = made.item_group[item] == made.user_groups[user, 1]
    assert second[share < 0.25].mean() < 0.2
    assert second[share > 0.75].mean() > 0.3


def test_popularity_has_a_tail(made: World) -> None:
    """A tenth of the items has more than a third of the events."""
    _, item = rows(made)
    counts = np.sort(np.bincount(item, minlength=800))[::-1]
    assert counts[:80].sum() > counts.sum() / 3


def test_series_are_followed(made: World) -> None:
    """After an item the next of its series comes far more often than chance has it."""
    user, item = rows(made)
    same_user = user[1:] == user[:-1]
    assert (made.next_item[item[:-1]] == item[1:])[same_user].mean() > 0.15


def test_cold_items_and_users(made: World) -> None:
    """Cold items and users have no events, but categories, year and attributes."""
    user, item = rows(made)
    assert (made.cold_items.sum(), made.cold_users.sum()) == (80, 40)
    assert not made.cold_items[item].any()
    assert not made.cold_users[user].any()
    cold = made.items.filter(made.cold_items)
    assert cold["categories"].list.len().min() == 1
    assert cold["year"].null_count() == 0
    assert made.users["region"].null_count() == 0


def test_categories_tell_the_group(made: World) -> None:
    """An item's first category names its group."""
    assert made.items["categories"].list.first().to_list() == [
        f"group-{g}" for g in made.item_group.tolist()
    ]


def test_time_goes_forward(made: World) -> None:
    """Within a user, rows are in the order of time."""
    user, _ = rows(made)
    time = made.interactions["timestamp"].to_numpy()
    assert (np.diff(time)[user[1:] == user[:-1]] >= 0).all()


def test_ratings_are_optional() -> None:
    """A world may be without ratings."""
    assert world(replace(SIZE, ratings=False)).interactions.columns == [
        "user_id",
        "item_id",
        "timestamp",
    ]


@pytest.mark.parametrize(
    "size",
    [
        WorldSize(n_users=1, n_items=1),
        WorldSize(n_users=1, n_items=3, n_groups=8),
        WorldSize(n_users=3, n_items=2, cold_items=1, cold_users=1),
        WorldSize(n_users=2, n_items=40, follow=1),
        WorldSize(n_users=2, n_items=40, n_groups=1, tail=0, events_spread=0),
    ],
)
def test_extreme_worlds(size: WorldSize) -> None:
    """The smallest and oddest worlds still have an event of a user with an item."""
    made = world(size)
    assert made.interactions.height >= 1
    assert made.items.height == size.n_items


@pytest.mark.parametrize(
    "wrong", [{"n_users": 0}, {"drift": 1.5}, {"events_per_user": 0.5}, {"seed": -1}]
)
def test_impossible_worlds(wrong: dict[str, float]) -> None:
    """A size that no world can have is refused with its rule."""
    with pytest.raises(InvalidSettings, match="must be"):
        WorldSize(**wrong)  # type: ignore[arg-type]
