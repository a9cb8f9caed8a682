"""Draws what a shop's customers look at and put into their carts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shortlist.recsys.data.drawing import DAY_S, NOTHING, Float64
from shortlist.recsys.data.worlds.assortment import (
    Assortment,
    Customers,
    ShopSize,
    chosen_items,
    is_on_sale,
)
from shortlist.recsys.data.worlds.purchases import Purchases, joined, needs

# Whoever buys something new compares up to so many others of its kind first ...
_MOST_COMPARED = 4
# ... and has often looked around some days before.
_PLANNED_SHARE = 0.5
_PLANNED_DAYS = (1, 6)
_SEEN_BEFORE_SHARE = 0.5
# A refill is mostly bought without a look.
_REFILL_LOOK_SHARE = 0.35
_CART_SHARE = 0.9
# Visits without a purchase, for each need.
_IDLE_VISITS = 0.8
_ABANDONED_SHARE = 0.2
# Before the purchase: looks from half an hour to three minutes, carts in the last two minutes.
_LOOK_S = (180, 1800)
_CART_S = (20, 120)


@dataclass(frozen=True, slots=True)
class Funnel:
    """Events before and without purchases."""

    views: Purchases
    carts: Purchases


def funnel(
    size: ShopSize,
    things: Assortment,
    people: Customers,
    first: Purchases,
    again: Purchases,
    rng: np.random.Generator,
) -> Funnel:
    """The looks and carts of the purchases, first and again, and those that come to nothing."""
    planned = first.take(rng.random(len(first)) < _PLANNED_SHARE)
    planned = _earlier(planned, DAY_S * rng.uniform(*_PLANNED_DAYS, len(planned)))
    idle = _idle(size, things, people, rng)
    abandoned = idle.take(rng.random(len(idle)) < _ABANDONED_SHARE)
    looked_again = again.take(rng.random(len(again)) < _REFILL_LOOK_SHARE)
    seen_before = planned.take(rng.random(len(planned)) < _SEEN_BEFORE_SHARE)
    views = [
        _look(first, rng),
        _compared(things, people, first, rng),
        _look(seen_before, rng),
        _compared(things, people, planned, rng),
        _look(idle, rng),
        _compared(things, people, idle, rng),
        _look(looked_again, rng),
    ]
    bought = joined([first, again])
    to_cart = joined([bought.take(rng.random(len(bought)) < _CART_SHARE), abandoned])
    carts = _earlier(to_cart, rng.uniform(*_CART_S, len(to_cart)))
    return Funnel(_possible(things, joined(views)), _possible(things, carts))


def _idle(
    size: ShopSize, things: Assortment, people: Customers, rng: np.random.Generator
) -> Purchases:
    """Visits that end without a purchase, as what might have been bought."""
    counts = rng.poisson(_IDLE_VISITS * people.needs)
    user, kind, time = needs(size, things, people, counts, rng)
    item = chosen_items(things, kind, people.brand[user], people.budget[user], time, rng)
    return Purchases(user, item, time).take(item != NOTHING)


def _compared(
    things: Assortment, people: Customers, about: Purchases, rng: np.random.Generator
) -> Purchases:
    """Looks at other items of the same kind, chosen as the item itself was."""
    counts = rng.integers(0, _MOST_COMPARED + 1, size=len(about))
    around = about.take(np.repeat(np.arange(len(about)), counts))
    user, kind, time = around.user, things.kind[around.item], around.time
    item = chosen_items(things, kind, people.brand[user], people.budget[user], time, rng)
    return _look(Purchases(user, item, time).take(item != NOTHING), rng)


def _look(about: Purchases, rng: np.random.Generator) -> Purchases:
    return _earlier(about, rng.uniform(*_LOOK_S, len(about)))


def _earlier(events: Purchases, seconds: Float64) -> Purchases:
    return Purchases(events.user, events.item, events.time - seconds)


def _possible(things: Assortment, events: Purchases) -> Purchases:
    """Those of items that were there: a look may fall before the launch."""
    return events.take(is_on_sale(things, events.item, events.time) > 0)
