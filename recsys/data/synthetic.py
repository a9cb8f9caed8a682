"""A made-up world of any size whose structure is known, so that a model can be asked whether it found it.

What there is to find: items and users belong to groups of taste; a user's taste drifts from one
group to another over their history; popularity has a long tail; items come in short series which
tend to be followed in order; cold items were never taken but say by their categories and year where
they belong; cold users did nothing yet, but have attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.models.interactions import Float32, Int32, Int64

_DRAWS_PER_CHUNK = 2_000_000
_OVERSAMPLING = 3
_MAX_FACTOR = 12
_START = 978_300_000
_HORIZON_S = 3 * 365 * 86_400
_AGES = (16, 75)
_SECOND_CATEGORY = 0.3
_REGION_TELLS = 0.8


@dataclass(frozen=True, slots=True)
class WorldSize:
    """How large a world is and how it behaves; the defaults have the size of MovieLens 100K.

    Users take about `events_per_user` items each, log-normally spread by `events_spread`, never one
    twice. An event is the next item of the series just taken with probability `follow`; else it is
    of the user's taste with probability `loyalty`, or of any group. Taste moves to the user's
    second group with a probability that grows to `drift` at the end of the history. Popularity
    falls as rank ** -tail.
    """

    n_users: int = 943
    n_items: int = 1682
    events_per_user: float = 106.0
    events_spread: float = 0.9
    n_groups: int = 8
    loyalty: float = 0.85
    drift: float = 0.5
    tail: float = 1.0
    follow: float = 0.3
    series_length: int = 5
    cold_items: float = 0.03
    cold_users: float = 0.02
    ratings: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no world can be."""
        for name, least in (
            ("n_users", 1),
            ("n_items", 1),
            ("n_groups", 1),
            ("series_length", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InvalidSettings(
                    f"{name} is {getattr(self, name)}: it must be at least {least}"
                )
        for name in ("loyalty", "drift", "follow", "cold_items", "cold_users"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSettings(f"{name} is {getattr(self, name)}: it must be from 0 to 1")
        if self.events_per_user < 1 or self.events_spread < 0 or self.tail < 0:
            raise InvalidSettings(
                "events_per_user must be at least 1, events_spread and tail at least 0"
            )


@dataclass(frozen=True, slots=True)
class World:
    """Tables in the schema, and the truth behind them.

    item_group: int32[n_items]; next_item: int32[n_items], the item that follows in its series,
    itself for a series of one; user_groups: int32[n_users, 2], first and second taste; cold_items,
    cold_users: bool masks. Id = position + 1.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    item_group: Int32
    next_item: Int32
    user_groups: Int32
    cold_items: NDArray[np.bool_]
    cold_users: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Items:
    """The items as the drawing sees them.

    by_group holds the warm items by group, then popularity, and `cumulated` sums their popularity;
    group g's are starts[g]:starts[g + 1].
    """

    group: Int32
    cold: NDArray[np.bool_]
    following: Int32
    part: Int32
    series: Int32
    by_group: Int32
    starts: Int64
    cumulated: NDArray[np.float64]


def world(size: WorldSize) -> World:
    """The world of `size`: the same size and seed give the same tables, row for row."""
    chance = np.random.default_rng([size.seed, 0])
    items = _items(size, chance)
    groups = _user_groups(size, chance)
    cold_users = chance.permutation(size.n_users) < round(size.cold_users * (size.n_users - 1))
    wanted = _wanted(size, chance)
    wanted[cold_users] = 0
    parts = [
        _histories(
            size,
            items,
            groups[start:stop],
            wanted[start:stop],
            first=start,
            chance=np.random.default_rng([size.seed, 1, i]),
        )
        for i, (start, stop) in enumerate(_chunks(wanted))
    ]
    return World(
        pl.concat(parts),
        _item_table(size, items, chance),
        _user_table(size, groups, chance),
        items.group,
        items.following,
        groups,
        items.cold,
        cold_users,
    )


def _items(size: WorldSize, chance: np.random.Generator) -> _Items:
    n = size.n_items
    group = (chance.permutation(n) % size.n_groups).astype(np.int32)
    cold = chance.permutation(n) < round(size.cold_items * (n - 1))
    popularity = (1.0 + chance.permutation(n)) ** -size.tail
    warm = np.flatnonzero(~cold)
    by_group = warm[np.lexsort((-popularity[warm], group[warm]))].astype(np.int32)
    starts = np.searchsorted(group[by_group], np.arange(size.n_groups + 1)).astype(np.int64)
    following, part, series = _series(size, by_group, starts, n)
    return _Items(
        group, cold, following, part, series, by_group, starts, np.cumsum(popularity[by_group])
    )


def _series(size: WorldSize, by_group: Int32, starts: Int64, n: int) -> tuple[Int32, Int32, Int32]:
    """The item after each one, its place in its series, and the series' number.

    A series is a ring within a group, of items about equally popular.
    """
    at = np.arange(len(by_group))
    groups = np.searchsorted(starts, at, side="right") - 1
    place = at - starts[groups]
    first = at - place % size.series_length
    last = np.minimum(first + size.series_length, starts[groups + 1]) - 1
    following, part, series = (np.arange(n, dtype=np.int32) for _ in range(3))
    following[by_group] = by_group[np.where(at == last, first, at + 1)]
    part[:] = 0
    part[by_group] = place % size.series_length
    series[by_group] = by_group[first]
    return following, part, series


def _user_groups(size: WorldSize, chance: np.random.Generator) -> Int32:
    """int32[n_users, 2]: first and second taste, different where there is more than one group."""
    first = chance.integers(size.n_groups, size=size.n_users)
    step = chance.integers(1, max(size.n_groups, 2), size=size.n_users)
    return np.column_stack([first, (first + step) % size.n_groups]).astype(np.int32)


def _wanted(size: WorldSize, chance: np.random.Generator) -> Int64:
    """int64[n_users]: how many events each user is to have, `events_per_user` on average before the longest are cut."""
    spread = size.events_spread
    raw = size.events_per_user * np.exp(chance.normal(-spread * spread / 2, spread, size.n_users))
    most = max(1, min(size.n_items, int(_MAX_FACTOR * size.events_per_user)))
    return np.clip(np.rint(raw), 1, most).astype(np.int64)


def _chunks(wanted: Int64) -> list[tuple[int, int]]:
    """Ranges of users whose draws fit in memory; they depend on the world only, so that it is the same everywhere."""
    which = np.cumsum(wanted * _OVERSAMPLING) // _DRAWS_PER_CHUNK
    edges = np.flatnonzero(np.diff(which)) + 1
    bounds = [0, *edges.tolist(), len(wanted)]
    return list(pairwise(bounds))


def _histories(
    size: WorldSize,
    items: _Items,
    groups: Int32,
    wanted: Int64,
    *,
    first: int,
    chance: np.random.Generator,
) -> pl.DataFrame:
    """The interactions of users first:first + len(wanted), each user's in the order of time."""
    user = np.repeat(np.arange(len(wanted)), wanted * _OVERSAMPLING)
    slot = np.arange(len(user)) - np.repeat(
        np.cumsum(wanted * _OVERSAMPLING) - wanted * _OVERSAMPLING, wanted * _OVERSAMPLING
    )
    taste = _tastes(size, groups, user, np.minimum(slot / wanted[user], 1.0), chance)
    drawn = _follow(size, items, _draw(items, taste, chance), slot, chance)
    _, kept = np.unique(user * np.int64(size.n_items) + drawn, return_index=True)
    kept.sort()
    place = np.arange(len(kept)) - np.searchsorted(user[kept], user[kept])
    kept = kept[place < wanted[user[kept]]]
    user, drawn = user[kept], drawn[kept]
    columns = {
        "user_id": pl.Series(user + first + 1).cast(pl.String),
        "item_id": pl.Series(drawn + 1).cast(pl.String),
        "timestamp": _times(user, len(wanted), chance),
    }
    if size.ratings:
        columns["rating"] = _ratings(items.group[drawn], groups[user], chance)
    return pl.DataFrame(columns)


def _tastes(
    size: WorldSize,
    groups: Int32,
    user: Int64,
    progress: NDArray[np.float64],
    chance: np.random.Generator,
) -> Int64:
    """The group that each draw is from, or -1 for any."""
    drifted = chance.random(len(user)) < size.drift * progress
    loyal = chance.random(len(user)) < size.loyalty
    return np.where(loyal, groups[user, drifted.astype(np.int64)], -1)


def _draw(items: _Items, taste: Int64, chance: np.random.Generator) -> Int32:
    """An item of each group in `taste` by popularity; any item for -1 or for a group without warm items."""
    total = np.concatenate(([0.0], items.cumulated))
    below, above = items.starts[taste], items.starts[taste + 1]
    any_group = (taste < 0) | (below == above)
    low = np.where(any_group, 0.0, total[below])
    high = np.where(any_group, total[-1], total[above])
    at = np.searchsorted(
        items.cumulated, low + chance.random(len(taste)) * (high - low), side="right"
    )
    drawn: Int32 = items.by_group[np.minimum(at, len(items.by_group) - 1)]
    return drawn


def _follow(
    size: WorldSize, items: _Items, drawn: Int32, slot: Int64, chance: np.random.Generator
) -> Int32:
    """Some draws replaced by the item that follows the one before; a run of them walks once around a series."""
    at = np.arange(len(slot))
    starts_run = (slot == 0) | (chance.random(len(slot)) >= size.follow)
    steps = (at - np.maximum.accumulate(np.where(starts_run, at, 0))) % size.series_length
    out: Int32 = drawn[at - steps]
    for step in range(1, size.series_length):
        out = np.where(steps >= step, items.following[out], out)
    return out


def _times(user: Int64, n_users: int, chance: np.random.Generator) -> Int64:
    """Seconds, never decreasing within a user: each user is active for a span of the three years."""
    begins = chance.random(n_users) * 0.6
    spans = 0.05 + chance.random(n_users) * (0.95 - begins)
    order = np.sort(
        user + chance.random(len(user))
    )  # a user's own draws stay within user and user + 1
    return (_START + (begins[user] + (order - user) * spans[user]) * _HORIZON_S).astype(np.int64)


def _ratings(group: Int32, tastes: Int32, chance: np.random.Generator) -> Float32:
    liked = (group[:, None] == tastes).any(axis=1)
    ratings: Float32 = np.clip(
        np.rint(3.0 + 0.9 * liked + chance.normal(0.0, 0.9, len(group))), 1, 5
    ).astype(np.float32)
    return ratings


def _item_table(size: WorldSize, items: _Items, chance: np.random.Generator) -> pl.DataFrame:
    """Titles, one or two categories of which the first tells the group, and years around the group's own."""
    n = size.n_items
    width = len(str(size.n_groups - 1))
    centre = 1960 + 50 * (items.group + 1) / (size.n_groups + 1)
    year = np.clip(np.rint(centre + chance.normal(0, 6, n)), 1930, 2025).astype(np.int32)
    other = np.where(
        chance.random(n) < _SECOND_CATEGORY, chance.integers(size.n_groups, size=n), items.group
    )
    frame = pl.DataFrame(
        {
            "item": np.arange(1, n + 1),
            "year": year,
            "part": items.part + 1,
            "series": items.series + 1,
        }
    )
    names = [
        pl.format("group-{}", pl.Series(g).cast(pl.String).str.zfill(width))
        for g in (items.group, other)
    ]
    return frame.select(
        pl.col("item").cast(pl.String).alias("item_id"),
        pl.format("Series {}, part {} ({})", "series", "part", "year").alias("title"),
        pl.concat_list(names).list.unique(maintain_order=True).alias("categories"),
        "year",
    )


def _user_table(size: WorldSize, groups: Int32, chance: np.random.Generator) -> pl.DataFrame:
    """Ages, and regions that mostly tell the first taste."""
    n = size.n_users
    region = np.where(
        chance.random(n) < _REGION_TELLS, groups[:, 0], chance.integers(size.n_groups, size=n)
    )
    ids = pl.Series("user_id", np.arange(1, n + 1)).cast(pl.String)
    regions = pl.Series(region).cast(pl.String)
    return pl.DataFrame([ids, pl.Series("age", chance.integers(*_AGES, size=n))]).with_columns(
        (pl.lit("region-") + regions).alias("region")
    )


def described(size: WorldSize) -> str:
    """The parameters as one line, for a log."""
    return ", ".join(f"{f.name}={getattr(size, f.name)}" for f in fields(size))
