"""Tests the structure that the world of music promises, as its tables show it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from shortlist.recsys.data.worlds.music import START, Music, MusicSize, music
from shortlist.recsys.errors import InvalidSettings

SIZE = MusicSize(n_users=150, n_items=600, events_per_user=120, cold_items=0.05, seed=7)
DAY = 86_400

FROZEN = ["2c62e68bb27159ef", "080c2cd76c1c08f9", "282e77c1742ea0d9"]
"""sha256 of the rows of interactions, items and users, cut off."""


@pytest.fixture(scope="module")
def made() -> Music:
    return music(SIZE)


@pytest.fixture(scope="module")
def plays(made: Music) -> pl.DataFrame:
    """The plays as numbers, by listener and time, each with the track and time before it.

    is_new: whether the listener had not played the track before; opens: whether a session starts.
    """
    table = made.interactions.select(
        pl.col("user_id").cast(pl.Int64).alias("user") - 1,
        pl.col("item_id").cast(pl.Int64).alias("item") - 1,
        pl.col("timestamp").alias("time"),
    ).sort("user", "time")
    return table.with_columns(
        pl.int_range(pl.len()).over("user", "item").eq(0).alias("is_new"),
        pl.col("item").shift(1).over("user").alias("last"),
        (pl.col("time").diff().over("user").fill_null(DAY) > 600).alias("opens"),
    )


def within(plays: pl.DataFrame) -> pl.DataFrame:
    """The plays that go on with a session."""
    return plays.filter(~pl.col("opens"))


def columns(frame: pl.DataFrame, *names: str) -> list[NDArray[np.int64]]:
    return [frame[name].to_numpy() for name in names]


def mean_reciprocal_rank(plays: pl.DataFrame, kernel: NDArray[np.float64]) -> float:
    """How far ahead the repeated track is where the play `lag` plays ago counts kernel[lag]."""
    ranks = []
    for (_,), own in plays.group_by(["user"], maintain_order=True):
        tracks, is_new = own["item"].to_numpy(), own["is_new"].to_numpy()
        for n in np.flatnonzero(~is_new):
            scores = np.bincount(tracks[:n], kernel[n:0:-1])
            own_score = scores[tracks[n]]
            ties = (scores == own_score).sum() - 1
            ranks.append(1 + (scores > own_score).sum() + ties / 2)
    return float((1 / np.array(ranks)).mean())


def test_same_seed_same_music(made: Music) -> None:
    """The same size and seed give the same tables; another seed others."""
    again, other = music(SIZE), music(replace(SIZE, seed=8))
    assert_frame_equal(made.interactions, again.interactions)
    assert_frame_equal(made.items, again.items)
    assert_frame_equal(made.users, again.users)
    assert not made.interactions.equals(other.interactions)


def test_rows_are_frozen() -> None:
    """The rows of a small world are the same on every machine."""
    small = music(MusicSize(n_users=20, n_items=60, events_per_user=30, seed=1))
    tables = (small.interactions, small.items, small.users)
    digests = [hashlib.sha256(repr(table.rows()).encode()).hexdigest()[:16] for table in tables]
    assert digests == FROZEN


def test_tables_are_in_the_schema(made: Music) -> None:
    """The tables have the schema's columns, known ids, one type, and the order of time."""
    events = made.interactions
    assert events.columns == ["user_id", "item_id", "timestamp", "event_type"]
    assert made.items.columns == ["item_id", "title", "categories", "artist", "year"]
    assert made.users.columns == ["user_id", "age", "region"]
    assert (made.items.height, made.users.height) == (600, 150)
    assert set(events["item_id"]) <= set(made.items["item_id"])
    assert set(events["user_id"]) == set(made.users["user_id"])
    assert set(events["event_type"]) == {"play"}
    assert events["timestamp"].is_sorted()
    assert events["timestamp"].is_between(START, SIZE.end, closed="left").all()
    assert not events.is_duplicated().any()


def test_number_of_plays(made: Music) -> None:
    """Listeners play about the wanted number of tracks."""
    assert made.interactions.height == pytest.approx(150 * 120, rel=0.2)


def test_plays_come_in_sessions(plays: pl.DataFrame) -> None:
    """Sessions have a dozen plays, some minutes apart, and most are more than a day apart."""
    assert plays["opens"].mean() == pytest.approx(1 / 12, abs=0.02)
    pauses = plays.select(pl.col("time").diff().over("user").alias("pause"), "opens").drop_nulls()
    assert pauses.filter(~pl.col("opens"))["pause"].is_between(120, 300).all()
    assert pauses.filter("opens")["pause"].median() > DAY


def test_most_plays_are_repeats(plays: pl.DataFrame) -> None:
    """More than three fifths of the plays are of a track played before."""
    assert 0.6 < 1 - plays["is_new"].mean() < 0.8


def test_repeats_are_frequent_and_recent(plays: pl.DataFrame) -> None:
    """Counts that fade with 1 / lag foresee a repeat better than counts alone or the last play."""
    lag = np.arange(plays.height + 1.0)
    rest = lag < 4  # nothing comes back at once
    fading = np.where(rest, 0, 1 / np.maximum(lag, 1))
    counts = np.where(rest, 0, 1.0)
    last = np.where(rest, 0, np.exp2(-np.minimum(lag, 1000)))
    ranks = [mean_reciprocal_rank(plays, kernel) for kernel in (fading, counts, last)]
    assert ranks[0] > max(ranks[1:]) + 0.02


def test_discovery_goes_to_neighbours(made: Music, plays: pl.DataFrame) -> None:
    """A new track is of an artist next to the last one far more often than chance has it."""
    new = within(plays).filter("is_new")
    item, last = columns(new, "item", "last")
    artist = made.library.artist
    n_artists = len(made.library.tag)
    steps = (artist[item] - artist[last]) % n_artists
    near = np.isin(steps, [1, 2, n_artists - 1, n_artists - 2])
    assert near.mean() > 0.25
    assert near.mean() > 3 * 4 / n_artists


def test_albums_are_followed(made: Music, plays: pl.DataFrame) -> None:
    """After a track the next of the same artist comes often among the new ones."""
    item, last = columns(within(plays).filter("is_new"), "item", "last")
    assert (made.library.following[last] == item).mean() > 0.15


def test_tags_are_tastes(made: Music, plays: pl.DataFrame) -> None:
    """Most sessions open in the listener's two tags, and regions tell the first."""
    user, item = columns(plays.filter("opens"), "user", "item")
    tag = made.library.tag[made.library.artist[item]]
    assert (made.tags[user] == tag[:, None]).any(axis=1).mean() > 0.6
    region = made.users["region"].str.strip_prefix("region-").cast(pl.Int32).to_numpy()
    assert (region == made.tags[:, 0]).mean() > 0.7


def test_sessions_keep_their_tag(made: Music, plays: pl.DataFrame) -> None:
    """Within a session the tag stays far more often than between two sessions."""
    tag = made.library.tag[made.library.artist]
    pairs = plays.drop_nulls("last")
    item, last, opens = columns(pairs, "item", "last", "opens")
    same = tag[item] == tag[last]
    assert same[~opens].mean() > same[opens].mean() + 0.1


def test_releases(made: Music, plays: pl.DataFrame) -> None:
    """No track is played before its release; new ones say so; the coldest have no plays."""
    item, time = columns(plays, "item", "time")
    released = made.library.released
    assert (released[item] <= time).all()
    assert (released == SIZE.end).sum() == 30
    assert set(np.flatnonzero(released == SIZE.end)).isdisjoint(item)
    assert (made.items["year"].to_numpy() == 2023).tolist() == (released > START).tolist()


def test_popularity_has_a_tail(plays: pl.DataFrame) -> None:
    """A tenth of the tracks has more than a third of the plays."""
    counts = np.sort(np.bincount(plays["item"].to_numpy(), minlength=600))[::-1]
    assert counts[:60].sum() > counts.sum() / 3


@pytest.mark.parametrize(
    "size",
    [
        MusicSize(n_users=1, n_items=1, events_per_user=1),
        MusicSize(n_users=3, n_items=4, n_tags=9, tracks_per_artist=1),
        MusicSize(n_users=3, n_items=30, new_items=1, cold_items=1),
        MusicSize(n_users=2, n_items=40, repetition=1, follow=1, tail=0, events_spread=0),
        MusicSize(n_users=1, n_items=5, events_per_user=20_000, days=30),
    ],
)
def test_extreme_worlds(size: MusicSize) -> None:
    """The smallest and oddest worlds still have a play, all their items, and no wrong time."""
    made = music(size)
    assert made.interactions.height >= 1
    assert made.items.height == size.n_items
    assert made.interactions["timestamp"].is_between(START, size.end, closed="left").all()


@pytest.mark.parametrize(
    "wrong",
    [{"n_users": 0}, {"repetition": 1.5}, {"events_per_user": float("inf")}, {"days": 3}],
)
def test_impossible_worlds(wrong: dict[str, float]) -> None:
    """A size that no world can have is refused with its rule."""
    with pytest.raises(InvalidSettings, match="it must be"):
        MusicSize(**wrong)  # type: ignore[arg-type]
