"""Tests the structure that the shop world promises, as its tables show it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from shortlist.recsys.data.worlds.assortment import DURABLE, REFILL, START, VARIETY, ShopSize
from shortlist.recsys.data.worlds.shop import RULES, Shop, shop
from shortlist.recsys.errors import InvalidSettings

SIZE = ShopSize(n_users=800, n_items=400, cold_items=0.05, seed=7)
DAY = 86_400

FROZEN = ["1049463167aa9562", "decca1ef7407af31", "1155ba1ebd105c22"]
"""sha256 of the rows of interactions, items and users, cut off."""


@pytest.fixture(scope="module")
def made() -> Shop:
    return shop(SIZE)


@pytest.fixture(scope="module")
def events(made: Shop) -> pl.DataFrame:
    """The events as numbers, with each item's kind and the kind's role."""
    things, table = made.things, made.interactions
    item = table["item_id"].cast(pl.Int64).to_numpy() - 1
    return table.select(
        pl.col("user_id").cast(pl.Int64).alias("user") - 1,
        pl.Series("item", item),
        pl.Series("kind", things.kind[item]),
        pl.Series("role", things.role[things.kind[item]]),
        pl.col("timestamp").alias("time"),
        pl.col("event_type").alias("type"),
    )


def purchases(events: pl.DataFrame, role: int | None = None) -> pl.DataFrame:
    bought = events.filter(type="purchase")
    return bought if role is None else bought.filter(role=role)


def refill_gaps(events: pl.DataFrame) -> pl.DataFrame:
    """Days between a customer's purchases of one item."""
    bought = purchases(events, REFILL).sort("user", "item", "time")
    gap = pl.col("time").diff().over("user", "item") / DAY
    return bought.with_columns(gap.alias("gap")).drop_nulls()


def auc(score: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative, ties by half."""
    above = score[label][:, None] > score[~label]
    equal = score[label][:, None] == score[~label]
    return float((above + equal / 2).mean())


def test_same_seed_same_shop(made: Shop) -> None:
    """The same size and seed give the same tables; another seed others."""
    again, other = shop(SIZE), shop(replace(SIZE, seed=8))
    assert_frame_equal(made.interactions, again.interactions)
    assert_frame_equal(made.items, again.items)
    assert_frame_equal(made.users, again.users)
    assert not made.interactions.equals(other.interactions)


def test_rows_are_frozen() -> None:
    """The rows of a small shop are the same on every machine."""
    small = shop(ShopSize(n_users=20, n_items=60, events_per_user=30, seed=1))
    tables = (small.interactions, small.items, small.users)
    digests = [hashlib.sha256(repr(table.rows()).encode()).hexdigest()[:16] for table in tables]
    assert digests == FROZEN


def test_tables_are_in_the_schema(made: Shop) -> None:
    """The tables have the schema's columns, known ids, whole types, and the order of time."""
    events = made.interactions
    assert events.columns == ["user_id", "item_id", "timestamp", "event_type"]
    assert made.items.columns == ["item_id", "title", "categories", "brand", "price", "in_stock"]
    assert made.users.columns == ["user_id", "age", "region", "household", "newsletter"]
    assert (made.items.height, made.users.height) == (400, 800)
    assert set(events["item_id"]) <= set(made.items["item_id"])
    assert set(events["user_id"]) <= set(made.users["user_id"])
    assert set(events["event_type"]) == {*RULES.weights, *RULES.negative}
    assert events["timestamp"].is_sorted()
    assert events["timestamp"].is_between(START, SIZE.end, closed="left").all()
    assert not events.is_duplicated().any()


def test_number_of_events(made: Shop) -> None:
    """Customers leave about the wanted number of events."""
    assert made.interactions.height == pytest.approx(800 * 90, rel=0.2)


def test_types_make_a_funnel(events: pl.DataFrame) -> None:
    """Looks are most frequent and returns rare; a purchase mostly comes from the cart."""
    counts = dict(events["type"].value_counts().rows())
    assert counts["view"] > 2 * counts["cart"]
    assert 0.01 < counts["return"] / counts["purchase"] < 0.1
    carts = events.filter(type="cart").select("user", "item", pl.col("time").alias("cart"))
    bought = purchases(events).sort("time").with_columns(pl.col("time").alias("cart"))
    bought = bought.join_asof(
        carts.sort("cart").with_columns(pl.col("cart").alias("at")),
        on="cart",
        by=["user", "item"],
        tolerance=120,
        check_sortedness=False,
    )
    assert bought["at"].is_not_null().mean() == pytest.approx(0.9, abs=0.03)


def test_purchases_are_planned(events: pl.DataFrame) -> None:
    """Days before a durable is bought, others of its kind are looked at more often than after."""
    durable = purchases(events, DURABLE).select("user", "kind", pl.col("time").alias("bought"))
    looks = events.filter(type="view").join(durable, on=["user", "kind"])
    days = ((looks["time"] - looks["bought"]) / DAY).to_numpy()
    before, after = ((days > -7) & (days < -1)).sum(), ((days > 1) & (days < 7)).sum()
    assert before > 5 * after


def test_durables_call_for_refills(made: Shop, events: pl.DataFrame) -> None:
    """Within forty days of a durable its refill is bought far more often than other refills."""
    main = purchases(events, DURABLE).filter(pl.col("time") < SIZE.end - 40 * DAY)
    refill = purchases(events, REFILL).select("user", pl.col("kind").alias("refill"), "time")
    pairs = main.join(refill, on="user", suffix="_refill")
    soon = pairs.filter((pl.col("time_refill") - pl.col("time")).is_between(0, 40 * DAY))
    complement = made.things.complement[soon["kind"].to_numpy()]
    called = soon.filter(soon["refill"].to_numpy() == complement)
    users = called.select("user", "kind").unique().height / main.height
    n_refill_kinds = (made.things.role == REFILL).sum()
    others = (soon.height - called.height) / main.height / (n_refill_kinds - 1)
    assert users > 0.4
    assert users > 5 * others


def test_durables_are_bought_once(events: pl.DataFrame) -> None:
    """A durable's kind is bought once by a customer; of variety, no item is bought twice."""
    assert not purchases(events, DURABLE).select("user", "kind").is_duplicated().any()
    assert not purchases(events, VARIETY).select("user", "item").is_duplicated().any()


def test_repurchases_are_frequent(events: pl.DataFrame) -> None:
    """Between a third and a half of the purchases are of an item bought before."""
    bought = purchases(events)
    first = bought.select("user", "item").unique().height
    assert 1 / 3 < 1 - first / bought.height < 1 / 2


def test_refills_follow_their_interval(made: Shop, events: pl.DataFrame) -> None:
    """Gaps have their kind's interval in the middle, and are steady for a customer and item."""
    gaps = refill_gaps(events)
    usual = gaps.group_by("kind").agg(pl.col("gap").median(), pl.len()).filter(pl.col("len") > 50)
    true = made.things.interval_s[usual["kind"].to_numpy()] / DAY
    assert np.corrcoef(usual["gap"].to_numpy(), true)[0, 1] > 0.9
    own = gaps.group_by("user", "item").agg(
        (pl.col("gap").std() / pl.col("gap").mean()).alias("cv"), pl.len()
    )
    assert own.filter(pl.col("len") > 3)["cv"].median() < 0.3


def test_households_set_the_pace(made: Shop, events: pl.DataFrame) -> None:
    """Larger households buy refills again sooner."""
    gaps = refill_gaps(events)
    ratio = gaps["gap"].to_numpy() * DAY / made.things.interval_s[gaps["kind"].to_numpy()]
    household = made.users["household"].to_numpy()[gaps["user"].to_numpy()]
    assert np.median(ratio[household == 1]) > 1.5 * np.median(ratio[household == 5])


def test_time_since_tells_what_is_due(events: pl.DataFrame) -> None:
    """Time since over usual gap predicts next week's refills; counts and recency do not."""
    now = SIZE.end - 7 * DAY
    bought = purchases(events, REFILL)
    past = bought.filter(pl.col("time") < now).group_by("user", "item")
    had = past.agg(
        pl.len().alias("count"),
        pl.col("time").max().alias("last"),
        ((pl.col("time").max() - pl.col("time").min()) / (pl.len() - 1)).alias("gap"),
    ).filter(pl.col("count") > 1)
    later = bought.filter(pl.col("time") >= now).select("user", "item", again=True).unique()
    had = had.join(later, on=["user", "item"], how="left")
    again = had["again"].is_not_null().to_numpy()
    late = ((now - had["last"]) / had["gap"]).to_numpy()
    # After twice its gap a refill is given up rather than due.
    due = np.where(late < 2, late, -late)
    count, last = (had[name].cast(pl.Float64).to_numpy() for name in ("count", "last"))
    assert auc(due, again) > max(auc(count, again), auc(last, again)) + 0.1


def test_returns_end_the_matter(made: Shop, events: pl.DataFrame) -> None:
    """A return comes 2 to 15 days after its purchase, and the item is not bought again."""
    back = events.filter(type="return").select("user", "item", pl.col("time").alias("returned"))
    pairs = back.join(purchases(events), on=["user", "item"])
    assert pairs.height == back.height
    days = (pairs["returned"] - pairs["time"]) / DAY
    assert days.is_between(2, 15).all()


def test_flawed_items_come_back(made: Shop, events: pl.DataFrame) -> None:
    """Few items make many of the returns."""
    flawed = made.things.flaw > 1
    can_return = events.filter(pl.col("role") != REFILL)
    back = can_return.filter(type="return")["item"].to_numpy()
    bought = can_return.filter(type="purchase")["item"].to_numpy()
    rate = flawed[back].sum() / flawed[bought].sum()
    assert rate > 4 * (~flawed[back]).sum() / (~flawed[bought]).sum()


def test_brands_and_prices_matter(made: Shop, events: pl.DataFrame) -> None:
    """Customers prefer a brand, and things about as dear as their budget."""
    bought = purchases(events)
    user, item = bought["user"].to_numpy(), bought["item"].to_numpy()
    assert (made.things.brand[item] == made.people.brand[user]).mean() > 2 / SIZE.n_brands
    assert np.corrcoef(made.people.budget[user], made.things.tier[item])[0, 1] > 0.25
    assert made.items["price"].to_list() == made.things.price.tolist()


def test_departments_are_tastes(made: Shop, events: pl.DataFrame) -> None:
    """Most purchases are of the customer's two departments, and regions tell the first."""
    bought = purchases(events)
    department = made.things.department[bought["kind"].to_numpy()]
    own = made.people.departments[bought["user"].to_numpy()] == department[:, None]
    assert own.any(axis=1).mean() > 0.7
    region = made.users["region"].str.strip_prefix("region-").cast(pl.Int32).to_numpy()
    assert (region == made.people.departments[:, 0]).mean() > 0.7


def test_seasons(made: Shop, events: pl.DataFrame) -> None:
    """A department is wanted more in its half of the year than in the other."""
    wanted = events.filter((pl.col("type") == "view") & (pl.col("role") != REFILL))
    phase = ((wanted["time"].to_numpy() - START) / (365.25 * DAY)) % 1
    peak = made.things.peak[made.things.department[wanted["kind"].to_numpy()]]
    in_season = np.cos(2 * np.pi * (phase - peak)) > 0
    assert in_season.mean() > 0.6


def test_trends(made: Shop, events: pl.DataFrame) -> None:
    """In its thirty days an item that trends is looked at more often than in thirty others."""
    looks = events.filter(type="view")
    since = (looks["time"].to_numpy() - made.things.trend[looks["item"].to_numpy()]) / DAY
    during, before = ((since >= 0) & (since < 30)).sum(), ((since >= -30) & (since < 0)).sum()
    assert during > 2 * before


def test_launches_and_stock(made: Shop, events: pl.DataFrame) -> None:
    """Nothing is bought before its launch or after it is sold out; the coldest has no event."""
    bought = purchases(events)
    item, time = bought["item"].to_numpy(), bought["time"].to_numpy()
    assert (made.things.launched[item] < time + 1).all()
    assert (time < made.things.sold_out[item]).all()
    assert (made.things.launched == SIZE.end).sum() == 20
    assert set(np.flatnonzero(made.things.launched == SIZE.end)).isdisjoint(events["item"])
    gone = made.items.filter(~pl.col("in_stock"))["item_id"].cast(pl.Int64).to_numpy() - 1
    assert 0 < len(gone) < 40
    assert (made.things.sold_out[gone] < SIZE.end).all()


def test_ranges_do_not_touch(made: Shop) -> None:
    """The first customers' tastes and the item table do not depend on later draws."""
    assert_frame_equal(made.items, shop(replace(SIZE, n_users=3)).items)


@pytest.mark.parametrize(
    "size",
    [
        ShopSize(n_users=1, n_items=1, events_per_user=1),
        ShopSize(n_users=3, n_items=2, cold_items=1),
        ShopSize(n_users=2, n_items=60, n_departments=1, n_brands=1, tail=0, events_spread=0),
        ShopSize(n_users=2, n_items=60, complements=1, regular=1, returns=1, days=30),
    ],
)
def test_extreme_shops(size: ShopSize) -> None:
    """The smallest and oddest shops still have an event, and all their items."""
    made = shop(size)
    assert made.interactions.height >= 1
    assert made.items.height == size.n_items


@pytest.mark.parametrize(
    "wrong",
    [{"n_users": 0}, {"returns": 1.5}, {"events_per_user": float("nan")}, {"days": 3}],
)
def test_impossible_shops(wrong: dict[str, float]) -> None:
    """A size that no shop can have is refused with its rule."""
    with pytest.raises(InvalidSettings, match="it must be"):
        ShopSize(**wrong)  # type: ignore[arg-type]
