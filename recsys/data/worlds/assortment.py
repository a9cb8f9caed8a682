"""Makes the things that a shop world sells, and its customers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shortlist.recsys.data.drawing import (
    DAY_S,
    NOTHING,
    Float64,
    chosen,
    lognormal,
    members,
    ranked_popularity,
    require_at_least,
    require_shares,
    two_tastes,
)
from shortlist.recsys.models.interactions import Int32, Int64

START = 1_672_531_200
"""The shop opens on 1 January 2023, 00:00 UTC."""

DURABLE, REFILL, VARIETY = 0, 1, 2
"""Bought once; bought again when it is used up; never the same item twice."""

# A department: two durables, each with the refill that it needs, and two kinds of variety.
_ROLES = (DURABLE, REFILL, DURABLE, REFILL, VARIETY, VARIETY)
_INTERVALS_DAYS = (10, 60)
# Prices of a kind in the middle of its range, and the spread around it.
_BASE_PRICES = (4, 120)
_TIER_SPREAD = 0.5
# How far from the customer's usual price range things are still bought.
_BUDGET_WIDTH = 0.5
# Liking of a brand against any other one.
_BRAND_PULL = 15.0
_LATE_SHARE = 0.2
_SOLD_OUT_SHARE = 0.06
_SOLD_OUT_DAYS = 60
_TREND_SHARE = 0.08
_TREND_DAYS = 30
_TREND_PULL = 6.0
_SEASON = 0.8
_YEAR_S = 365.25 * DAY_S
# A tenth of the things disappoints, and comes back eight times as often.
_FLAWED_SHARE = 0.1
_FLAW = 8.0
_HOUSEHOLDS = (1, 6)
_FIRST_TASTE_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class ShopSize:
    """Size and behaviour of a shop; the default trains within minutes on two cores.

    Customers leave about `events_per_user` events, log-normally spread by `events_spread`. A need
    is of the customer's two departments with probability `loyalty`, or of any. A durable is
    followed by its refill with probability `complements`; what can be refilled becomes a habit
    with probability `regular`. Of other purchases the share `returns` is taken back. Popularity
    within a kind falls as rank ** -tail; `cold_items` are on sale, but not bought yet.
    """

    n_users: int = 1500
    n_items: int = 800
    events_per_user: float = 90.0
    events_spread: float = 0.6
    n_departments: int = 8
    n_brands: int = 12
    loyalty: float = 0.8
    complements: float = 0.6
    regular: float = 0.6
    returns: float = 0.1
    tail: float = 0.8
    cold_items: float = 0.03
    days: int = 420
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidSettings where a value is out of range."""
        require_at_least(self, n_users=1, n_items=1, n_departments=1, n_brands=1, days=30, seed=0)
        require_at_least(self, events_per_user=1, events_spread=0, tail=0)
        require_shares(self, "loyalty", "complements", "regular", "returns", "cold_items")

    @property
    def n_kinds(self) -> int:
        """Kinds of things in all departments."""
        return self.n_departments * len(_ROLES)

    @property
    def end(self) -> int:
        """The moment after the last event, in Unix seconds."""
        return START + self.days * DAY_S


@dataclass(frozen=True, slots=True)
class Assortment:
    """What the shop sells, by item [n_items] and by kind [n_kinds].

    kind, brand; popularity within the kind; tier: log of the price over the kind's base price;
    launched, sold_out, trend: Unix seconds when the item comes, goes, and is suddenly wanted
    (launched at the end: no events; sold_out after the end: in stock); flaw: how often it comes
    back, 1 on average.
    department, role; complement: the refill that a durable needs, or NOTHING; interval_s between
    two refills; base_price.
    peak: by department, the time of its season as a share of a year.
    shelf: int64[n_kinds, W], each kind's items, padded with NOTHING.
    """

    kind: Int64
    brand: Int64
    popularity: Float64
    tier: Float64
    launched: Float64
    sold_out: Float64
    trend: Float64
    flaw: Float64
    department: Int64
    role: Int64
    complement: Int64
    interval_s: Float64
    base_price: Float64
    peak: Float64
    shelf: Int64

    @property
    def price(self) -> Float64:
        """float64[n_items]: prices, to the cent."""
        return np.round(self.base_price[self.kind] * np.exp(self.tier), 2)


@dataclass(frozen=True, slots=True)
class Customers:
    """Who buys, [n_users] each.

    departments: int32[n_users, 2], first and second taste; brand: the favourite; budget: the usual
    tier of price; household: persons, who use up a refill the faster; joined: Unix seconds; needs:
    how often the customer wants something new.
    """

    departments: Int32
    brand: Int64
    budget: Float64
    household: Int64
    joined: Float64
    needs: Int64

    def part(self, start: int, stop: int) -> Customers:
        """Customers start:stop."""
        rows = slice(start, stop)
        return Customers(
            self.departments[rows],
            self.brand[rows],
            self.budget[rows],
            self.household[rows],
            self.joined[rows],
            self.needs[rows],
        )


def assortment(size: ShopSize, rng: np.random.Generator) -> Assortment:
    """The things on sale."""
    n, n_kinds = size.n_items, size.n_kinds
    kinds = np.arange(n_kinds)
    role = np.tile(_ROLES, size.n_departments)
    kind = rng.permutation(n) % n_kinds
    low, high = np.log(_BASE_PRICES)
    span = size.end - START
    return Assortment(
        kind=kind,
        brand=rng.integers(size.n_brands, size=n),
        popularity=ranked_popularity(n, size.tail, rng),
        tier=rng.normal(0, _TIER_SPREAD, n),
        launched=_launched(size, rng),
        sold_out=_sold_out(size, rng),
        trend=np.where(rng.random(n) < _TREND_SHARE, START + rng.random(n) * span, np.inf),
        flaw=_flaws(n, rng),
        department=kinds // len(_ROLES),
        role=role,
        complement=np.where(role == DURABLE, kinds + 1, NOTHING),
        interval_s=DAY_S * rng.uniform(*_INTERVALS_DAYS, n_kinds),
        base_price=np.exp(rng.uniform(low, high, n_kinds)),
        peak=rng.random(size.n_departments),
        shelf=members(kind, n_kinds),
    )


def _launched(size: ShopSize, rng: np.random.Generator) -> Float64:
    """Most items are there from the start, some come later, and the coldest at the end."""
    n = size.n_items
    order = rng.permutation(n)  # at least one is there from the start
    late = order < round(min(1.0, _LATE_SHARE + size.cold_items) * (n - 1))
    when = np.where(late, START + rng.random(n) * (size.end - START), START)
    return np.where(order < round(size.cold_items * (n - 1)), size.end, when)


def _sold_out(size: ShopSize, rng: np.random.Generator) -> Float64:
    goes = rng.permutation(size.n_items) < round(_SOLD_OUT_SHARE * (size.n_items - 1))
    when = size.end - rng.random(size.n_items) * _SOLD_OUT_DAYS * DAY_S
    return np.where(goes, when, np.inf)


def _flaws(n: int, rng: np.random.Generator) -> Float64:
    flaw = np.where(rng.random(n) < _FLAWED_SHARE, _FLAW, 1.0)
    return flaw / (1 + _FLAWED_SHARE * (_FLAW - 1))


def customers(size: ShopSize, needs_per_user: float, rng: np.random.Generator) -> Customers:
    """Who buys; `needs_per_user` on average."""
    n = size.n_users
    return Customers(
        departments=two_tastes(n, size.n_departments, rng),
        brand=rng.integers(size.n_brands, size=n),
        budget=rng.normal(0, _TIER_SPREAD, n),
        household=rng.integers(*_HOUSEHOLDS, size=n),
        # Nobody joins in the last part, so that each has a history.
        joined=START + rng.random(n) * 0.6 * (size.end - START),
        needs=np.maximum(1, np.rint(lognormal(needs_per_user, size.events_spread, n, rng))).astype(
            np.int64
        ),
    )


def season(things: Assortment, time: Float64) -> Float64:
    """float64[n, n_departments]: how much a department is wanted, 1 on average of a year."""
    phase = (time[:, None] - START) / _YEAR_S - things.peak
    return 1 + _SEASON * np.cos(2 * np.pi * phase)


def wanted_kinds(
    size: ShopSize,
    things: Assortment,
    departments: Int32,
    time: Float64,
    rng: np.random.Generator,
) -> Int64:
    """int64[n]: what is wanted by customers of these tastes (int32[n, 2]) at these times."""
    n = len(time)
    taste = np.full((n, size.n_departments), (1 - size.loyalty) / size.n_departments)
    rows = np.arange(n)
    taste[rows, departments[:, 0]] += size.loyalty * _FIRST_TASTE_SHARE
    taste[rows, departments[:, 1]] += size.loyalty * (1 - _FIRST_TASTE_SHARE)
    on_sale = (things.shelf[:, 0] != NOTHING).astype(np.float64)
    weights = (taste * season(things, time))[:, things.department] * on_sale
    return chosen(weights, rng)


def chosen_items(
    things: Assortment,
    kind: Int64,
    brand: Int64,
    budget: Float64,
    time: Float64,
    rng: np.random.Generator,
) -> Int64:
    """int64[n]: an item of the kind by popularity, brand, price and time; NOTHING if none is there.

    brand: the preferred one; budget: the usual tier of price.
    """
    shelf = things.shelf[kind]
    gap = (things.tier[shelf] - budget[:, None]) / _BUDGET_WIDTH
    at = time[:, None]
    since_trend = at - things.trend[shelf]
    trending = (since_trend >= 0) & (since_trend < _TREND_DAYS * DAY_S)
    weights = (
        things.popularity[shelf]
        * np.where(things.brand[shelf] == brand[:, None], _BRAND_PULL, 1.0)
        * np.exp(-gap * gap / 2)
        * np.where(trending, _TREND_PULL, 1.0)
        * is_on_sale(things, shelf, at)
    )
    column = chosen(weights, rng)
    item = shelf[np.arange(len(kind)), column]
    return np.where(column == NOTHING, NOTHING, item)


def is_on_sale(things: Assortment, item: Int64, time: Float64) -> Float64:
    """1 where the item is there at the time, 0 where it is not, or is NOTHING; any shape."""
    there = (things.launched[item] <= time) & (time < things.sold_out[item]) & (item != NOTHING)
    return there.astype(np.float64)
