"""Draws what a shop's customers buy, buy again and take back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.data.drawing import DAY_S, NOTHING, Float64, lognormal
from shortlist.recsys.data.worlds.assortment import (
    REFILL,
    VARIETY,
    Assortment,
    Customers,
    ShopSize,
    chosen_items,
    is_on_sale,
    wanted_kinds,
)
from shortlist.recsys.models.interactions import Int64

# Days from a durable to its refill: from the next day on, two weeks on average.
_COMPLEMENT_DAYS = 13.0
# Larger households use up more: the interval is that of the kind for three persons.
_USUAL_HOUSEHOLD = 3.0
_OWN_SPREAD = 0.25
_GAP_SPREAD = 0.2
# At each refill a habit may end, or move to another item of the kind.
_STOP = 0.06
_SWITCH = 0.08
_RETURN_DAYS = (2, 15)


@dataclass(frozen=True, slots=True)
class Purchases:
    """Events of some customers.

    user: int64[n] rows of the customers; item: int64[n]; time: float64[n] Unix seconds.
    """

    user: Int64
    item: Int64
    time: Float64

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[Any]) -> Purchases:
        """Those of a mask or of positions."""
        return Purchases(self.user[rows], self.item[rows], self.time[rows])


def joined(parts: list[Purchases]) -> Purchases:
    """All of them, one part after the other."""
    return Purchases(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.time for part in parts]),
    )


def needs(
    size: ShopSize,
    things: Assortment,
    people: Customers,
    counts: Int64,
    rng: np.random.Generator,
) -> tuple[Int64, Int64, Float64]:
    """Rows of customers, kinds that they want, and times: `counts` (int64[n_users]) of each."""
    user = np.repeat(np.arange(len(counts)), counts)
    begins = people.joined[user]
    time = begins + rng.random(len(user)) * (size.end - begins)
    kind = wanted_kinds(size, things, people.departments[user], time, rng)
    return user, kind, time


def first_purchases(
    size: ShopSize, things: Assortment, people: Customers, rng: np.random.Generator
) -> Purchases:
    """What is bought for a new need, and to complement it: each durable and refill once."""
    user, kind, time = needs(size, things, people, people.needs, rng)
    item = chosen_items(things, kind, people.brand[user], people.budget[user], time, rng)
    bought = _once(things, Purchases(user, item, time))
    return _once(things, joined([bought, _complements(size, things, people, bought, rng)]))


def _complements(
    size: ShopSize,
    things: Assortment,
    people: Customers,
    bought: Purchases,
    rng: np.random.Generator,
) -> Purchases:
    """The refills that durables need, of the durable's brand rather than of another."""
    kind = things.complement[things.kind[bought.item]]
    is_needed = (kind != NOTHING) & (rng.random(len(bought)) < size.complements)
    main, kind = bought.take(is_needed), kind[is_needed]
    wait = DAY_S * (1 + rng.exponential(_COMPLEMENT_DAYS, len(main)))
    time = main.time + wait
    budget = people.budget[main.user]
    item = chosen_items(things, kind, things.brand[main.item], budget, time, rng)
    late = time >= size.end
    return Purchases(main.user, np.where(late, NOTHING, item), time)


def _once(things: Assortment, bought: Purchases) -> Purchases:
    """The first of each customer and kind, of variety the first of each item, by user and time."""
    bought = bought.take(bought.item != NOTHING)
    bought = bought.take(np.lexsort((bought.time, bought.user)))
    kind, n_kinds = things.kind[bought.item], len(things.role)
    key = np.where(things.role[kind] == VARIETY, n_kinds + bought.item, kind)
    _, first = np.unique(bought.user * (n_kinds + len(things.kind)) + key, return_index=True)
    return bought.take(np.sort(first))


def refills(
    size: ShopSize,
    things: Assortment,
    people: Customers,
    first: Purchases,
    rng: np.random.Generator,
) -> Purchases:
    """What customers buy again, when it is used up."""
    is_habit = things.role[things.kind[first.item]] == REFILL
    habit = first.take(is_habit & (rng.random(len(first)) < size.regular))
    own = lognormal(1.0, _OWN_SPREAD, len(habit), rng)
    usual = (
        things.interval_s[things.kind[habit.item]]
        * (_USUAL_HOUSEHOLD / people.household[habit.user]) ** 0.5
        * own
    )
    rounds = list(_refilled(size, things, people, habit, usual, rng))
    return joined([habit.take(np.empty(0, np.int64)), *rounds])  # not one habit may have gone on


def _refilled(
    size: ShopSize,
    things: Assortment,
    people: Customers,
    habit: Purchases,
    usual: Float64,
    rng: np.random.Generator,
) -> Iterator[Purchases]:
    """The next purchase of each habit, until all have ended."""
    while len(habit):
        user = habit.user
        time = habit.time + usual * lognormal(1.0, _GAP_SPREAD, len(habit), rng)
        moves = rng.random(len(habit)) < _SWITCH
        moves |= is_on_sale(things, habit.item, time) == 0
        kind = things.kind[habit.item]
        other = chosen_items(things, kind, people.brand[user], people.budget[user], time, rng)
        item = np.where(moves, other, habit.item)
        goes_on = (time < size.end) & (rng.random(len(habit)) >= _STOP) & (item != NOTHING)
        habit, usual = Purchases(user, item, time).take(goes_on), usual[goes_on]
        yield habit


def returns(
    size: ShopSize, things: Assortment, first: Purchases, rng: np.random.Generator
) -> Purchases:
    """The durables and variety that are taken back after some days."""
    can_return = things.role[things.kind[first.item]] != REFILL
    chance = size.returns * things.flaw[first.item] * can_return
    back = first.take(rng.random(len(first)) < chance)
    time = back.time + DAY_S * rng.uniform(*_RETURN_DAYS, len(back))
    return Purchases(back.user, back.item, time).take(time < size.end)
