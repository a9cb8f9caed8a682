"""Makes a shop whose structure is known.

Customers view, put into the cart, purchase and return. Departments hold kinds of things. A durable
is bought once, and calls for its refill soon after. Refills come back at an interval of their kind,
customer and chance, so the time since the last purchase says when the next is due. Other things are
never bought twice. Brand, price, season, trends, launches and stock decide which item it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from shortlist.recsys.data.drawing import identifiers, names, regions, user_ranges
from shortlist.recsys.data.worlds.assortment import (
    START,
    Assortment,
    Customers,
    ShopSize,
    assortment,
    customers,
)
from shortlist.recsys.data.worlds.funnel import funnel
from shortlist.recsys.data.worlds.purchases import (
    Purchases,
    first_purchases,
    refills,
    returns,
)
from shortlist.recsys.event_rules import EventRules

RULES = EventRules(weights={"view": 1, "cart": 2, "purchase": 4}, negative=("return",))
"""What the shop's types of events mean."""

# Events that follow from one need, measured at the default size.
_EVENTS_PER_NEED = 9.5
# Cells of the arrays that are held at once: some 50 MB each.
_CELLS_AT_ONCE = 6_000_000
_AGES = (18, 80)
_NEWSLETTER_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Shop:
    """Tables in the schema, and the structure that they were drawn from. Id = position + 1.

    interactions: user_id, item_id, timestamp and event_type, which is view, cart, purchase or
    return, in the order of time.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    things: Assortment
    people: Customers


def shop(size: ShopSize) -> Shop:
    """The shop of `size`: the same size and seed give the same tables, row for row."""
    things = assortment(size, np.random.default_rng([size.seed, 0]))
    rng = np.random.default_rng([size.seed, 1])
    people = customers(size, size.events_per_user / _EVENTS_PER_NEED, rng)
    at_once = int(_CELLS_AT_ONCE / (things.shelf.shape[1] * size.events_per_user))
    parts = [
        _events(size, things, people, start, stop)
        for start, stop in user_ranges(size.n_users, at_once)
    ]
    return Shop(
        _in_order(pl.concat(parts)),
        _item_table(size, things),
        _user_table(size, people, rng),
        things,
        people,
    )


def _events(
    size: ShopSize, things: Assortment, everyone: Customers, start: int, stop: int
) -> pl.DataFrame:
    """All events of customers start:stop."""
    # A generator for each range, so that none depends on how much another one drew.
    rng = np.random.default_rng([size.seed, 2, start])
    people = everyone.part(start, stop)
    first = first_purchases(size, things, people, rng)
    again = refills(size, things, people, first, rng)
    looks = funnel(size, things, people, first, again, rng)
    by_type = {
        "view": [looks.views],
        "cart": [looks.carts],
        "purchase": [first, again],
        "return": [returns(size, things, first, rng)],
    }
    frames = [_frame(part, name, start) for name, parts in by_type.items() for part in parts]
    return pl.concat(frames)


def _frame(events: Purchases, event_type: str, first_user: int) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "user": events.user + first_user,
            "item": events.item,
            "timestamp": events.time.astype(np.int64),
        }
    )
    frame = frame.with_columns(pl.lit(event_type).alias("event_type"))
    return frame.filter(pl.col("timestamp") >= START)  # a look may fall before the opening


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows by time, each once, with ids in place of positions."""
    frame = frame.unique().sort("timestamp", "user", "item", "event_type")
    return frame.select(
        identifiers("user_id", frame["user"].to_numpy()),
        identifiers("item_id", frame["item"].to_numpy()),
        "timestamp",
        "event_type",
    )


def _item_table(size: ShopSize, things: Assortment) -> pl.DataFrame:
    n = size.n_items
    kind = names("kind", things.kind, size.n_kinds)
    department = names("department", things.department[things.kind], size.n_departments)
    brand = names("brand", things.brand, size.n_brands)
    frame = pl.DataFrame({"department": department, "kind": kind, "brand": brand})
    return frame.select(
        identifiers("item_id", np.arange(n)),
        pl.format("{} {} no. {}", "brand", "kind", pl.int_range(1, n + 1)).alias("title"),
        pl.concat_list("department", "kind").alias("categories"),
        "brand",
        pl.Series("price", things.price),
        pl.Series("in_stock", things.sold_out >= size.end),
    )


def _user_table(size: ShopSize, people: Customers, rng: np.random.Generator) -> pl.DataFrame:
    n = size.n_users
    return pl.DataFrame(
        [
            identifiers("user_id", np.arange(n)),
            pl.Series("age", rng.integers(*_AGES, size=n)),
            regions(people.departments[:, 0], size.n_departments, rng),
            pl.Series("household", people.household),
            pl.Series("newsletter", rng.random(n) < _NEWSLETTER_SHARE),
        ]
    )
