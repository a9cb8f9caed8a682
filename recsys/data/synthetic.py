"""Makes a synthetic world whose structure is known.

A test can ask whether a model finds that structure: items and users belong to groups of taste; a
user's taste drifts from one group to another over their history; popularity has a long tail; items
come in short series, which tend to be followed in order; cold items have no events, but categories
and a year that tell their group; cold users have no events, but attributes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.data.drawing import (
    drawn_between,
    identifiers,
    lognormal,
    names,
    ranked_popularity,
    regions,
    require_at_least,
    require_shares,
    two_tastes,
)
from shortlist.recsys.models.interactions import Float32, Int32, Int64

# Some 100 MB of arrays at once, so that a world of any size fits in memory.
_DRAWS_PER_CHUNK = 2_000_000
# Draws for each event: repeats of an item are dropped, and popular ones are drawn often.
_OVERSAMPLING = 3
# The longest history, in averages: the log-normal's tail would hold users of every item.
_MAX_FACTOR = 12
# 31 December 2000, 22:00 UTC: far from 0, as real times are.
_START = 978_300_000
_HORIZON_S = 3 * 365 * 86_400
_AGES = (16, 75)
_SECOND_CATEGORY_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class WorldSize:
    """Size and behaviour of a world; the defaults have the size of MovieLens 100K.

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
        """Raises InvalidSettings where a value is out of range."""
        require_at_least(self, n_users=1, n_items=1, n_groups=1, series_length=1, seed=0)
        require_at_least(self, events_per_user=1, events_spread=0, tail=0)
        require_shares(self, "loyalty", "drift", "follow", "cold_items", "cold_users")


@dataclass(frozen=True, slots=True)
class World:
    """Tables in the schema, and the structure that they were drawn from.

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
    """The items, indexed for drawing.

    group, cold, following (the next item of the series), part (place in the series) and series:
    [n_items]. by_group: the warm items by group, then popularity; `cumulated` sums their
    popularity; group g's are starts[g]:starts[g + 1].
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
    rng = np.random.default_rng([size.seed, 0])
    items = _items(size, rng)
    groups = two_tastes(size.n_users, size.n_groups, rng)
    cold_users = rng.permutation(size.n_users) < round(size.cold_users * (size.n_users - 1))
    wanted = _wanted(size, rng)
    wanted[cold_users] = 0
    parts = []
    for number, (start, stop) in enumerate(_chunks(wanted)):
        # A generator for each chunk, so that no chunk depends on how much another one drew.
        chunk_rng = np.random.default_rng([size.seed, 1, number])
        groups_of_chunk, wanted_of_chunk = groups[start:stop], wanted[start:stop]
        parts.append(
            _histories(size, items, groups_of_chunk, wanted_of_chunk, first=start, rng=chunk_rng)
        )
    return World(
        pl.concat(parts),
        _item_table(size, items, rng),
        _user_table(size, groups, rng),
        items.group,
        items.following,
        groups,
        items.cold,
        cold_users,
    )


def _items(size: WorldSize, rng: np.random.Generator) -> _Items:
    n = size.n_items
    group = (rng.permutation(n) % size.n_groups).astype(np.int32)
    cold = rng.permutation(n) < round(size.cold_items * (n - 1))
    popularity = ranked_popularity(n, size.tail, rng)
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


def _wanted(size: WorldSize, rng: np.random.Generator) -> Int64:
    """int64[n_users]: the wanted number of events of each user."""
    raw = lognormal(size.events_per_user, size.events_spread, size.n_users, rng)
    most = max(1, min(size.n_items, int(_MAX_FACTOR * size.events_per_user)))
    return np.clip(np.rint(raw), 1, most).astype(np.int64)


def _chunks(wanted: Int64) -> list[tuple[int, int]]:
    """Ranges of users whose draws fit in memory, the same on every machine."""
    chunk_of_user = np.cumsum(wanted * _OVERSAMPLING) // _DRAWS_PER_CHUNK
    edges = np.flatnonzero(np.diff(chunk_of_user)) + 1
    return list(pairwise([0, *edges.tolist(), len(wanted)]))


def _histories(
    size: WorldSize,
    items: _Items,
    groups: Int32,
    wanted: Int64,
    *,
    first: int,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """The interactions of users first:first + len(wanted), each user's in the order of time."""
    n_draws = wanted * _OVERSAMPLING
    user = np.repeat(np.arange(len(wanted)), n_draws)
    slot = np.arange(len(user)) - np.repeat(np.cumsum(n_draws) - n_draws, n_draws)
    progress = np.minimum(slot / wanted[user], 1.0)
    taste = _tastes(size, groups, user, progress, rng)
    drawn = _follow(size, items, _draw(items, taste, rng), slot, rng)
    # The first draw of each (user, item), and of these as many as are wanted.
    _, kept = np.unique(user * np.int64(size.n_items) + drawn, return_index=True)
    kept.sort()
    place = np.arange(len(kept)) - np.searchsorted(user[kept], user[kept])
    kept = kept[place < wanted[user[kept]]]
    user, drawn = user[kept], drawn[kept]
    columns = {
        "user_id": identifiers("user_id", user + first),
        "item_id": identifiers("item_id", drawn),
        "timestamp": _times(user, len(wanted), rng),
    }
    if size.ratings:
        columns["rating"] = _ratings(items.group[drawn], groups[user], rng)
    return pl.DataFrame(columns)


def _tastes(
    size: WorldSize,
    groups: Int32,
    user: Int64,
    progress: NDArray[np.float64],
    rng: np.random.Generator,
) -> Int64:
    """The group that each draw is from, or -1 for any."""
    drifted = rng.random(len(user)) < size.drift * progress
    loyal = rng.random(len(user)) < size.loyalty
    return np.where(loyal, groups[user, drifted.astype(np.int64)], -1)


def _draw(items: _Items, taste: Int64, rng: np.random.Generator) -> Int32:
    """An item by popularity for each group in `taste`: any item for -1 or an empty group."""
    first = np.where(taste < 0, 0, items.starts[taste])
    after = np.where(taste < 0, 0, items.starts[taste + 1])
    drawn: Int32 = items.by_group[drawn_between(items.cumulated, first, after, rng)]
    return drawn


def _follow(
    size: WorldSize, items: _Items, drawn: Int32, slot: Int64, rng: np.random.Generator
) -> Int32:
    """The draws, some replaced by the next item of the series before; a run walks it once."""
    at = np.arange(len(slot))
    starts_run = (slot == 0) | (rng.random(len(slot)) >= size.follow)
    steps = (at - np.maximum.accumulate(np.where(starts_run, at, 0))) % size.series_length
    out: Int32 = drawn[at - steps]
    for step in range(1, size.series_length):
        out = np.where(steps >= step, items.following[out], out)
    return out


def _times(user: Int64, n_users: int, rng: np.random.Generator) -> Int64:
    """Seconds, never decreasing within a user, who is active for a span of the three years."""
    begins = rng.random(n_users) * 0.6
    spans = 0.05 + rng.random(n_users) * (0.95 - begins)
    order = np.sort(user + rng.random(len(user)))  # a user's draws lie between user and user + 1
    return (_START + (begins[user] + (order - user) * spans[user]) * _HORIZON_S).astype(np.int64)


def _ratings(group: Int32, tastes: Int32, rng: np.random.Generator) -> Float32:
    liked = (group[:, None] == tastes).any(axis=1)
    stars = np.rint(3.0 + 0.9 * liked + rng.normal(0.0, 0.9, len(group)))
    ratings: Float32 = np.clip(stars, 1, 5).astype(np.float32)
    return ratings


def _item_table(size: WorldSize, items: _Items, rng: np.random.Generator) -> pl.DataFrame:
    """Titles, one or two categories, the group's own first, and years around the group's own."""
    n = size.n_items
    centre = 1960 + 50 * (items.group + 1) / (size.n_groups + 1)
    year = np.clip(np.rint(centre + rng.normal(0, 6, n)), 1930, 2025).astype(np.int32)
    has_second = rng.random(n) < _SECOND_CATEGORY_SHARE
    second = np.where(has_second, rng.integers(size.n_groups, size=n), items.group)
    frame = pl.DataFrame(
        {
            "item_id": identifiers("item_id", np.arange(n)),
            "year": year,
            "part": items.part + 1,
            "series": items.series + 1,
            "first": names("group", items.group, size.n_groups),
            "second": names("group", second, size.n_groups),
        }
    )
    return frame.select(
        "item_id",
        pl.format("Series {}, part {} ({})", "series", "part", "year").alias("title"),
        pl.concat_list("first", "second").list.unique(maintain_order=True).alias("categories"),
        "year",
    )


def _user_table(size: WorldSize, groups: Int32, rng: np.random.Generator) -> pl.DataFrame:
    """Ages, and regions that mostly say the first taste."""
    n = size.n_users
    region = regions(groups[:, 0], size.n_groups, rng)
    ages = pl.Series("age", rng.integers(*_AGES, size=n))
    return pl.DataFrame([identifiers("user_id", np.arange(n)), ages, region])
