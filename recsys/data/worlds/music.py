"""Makes a world of music whose structure is known.

Listeners play tracks in sessions, most of them again and again. What comes back is a past play,
the more likely the fewer plays ago it was; so frequent and recent tracks return. Discovery goes
from an artist to its neighbours, or to any artist of the session's tag. Tracks of an artist are
often played in their order, and new ones come out all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.data.drawing import (
    DAY_S,
    NOTHING,
    Float64,
    chosen,
    drawn_between,
    identifiers,
    lognormal,
    members,
    names,
    ranked_popularity,
    regions,
    require_at_least,
    require_shares,
    two_tastes,
    user_ranges,
)
from shortlist.recsys.models.interactions import Int32, Int64

START = 1_672_531_200
"""1 January 2023, 00:00 UTC."""

# The longest history, in averages: all are drawn as long as the longest.
_MAX_FACTOR = 6
# Cells of the arrays that are held at once: some 50 MB each.
_CELLS_AT_ONCE = 6_000_000
_SESSION_PLAYS = 12
_TRACK_S = (120, 300)
# Of sessions: in the first tag, in the second; the rest in any.
_TAG_SHARES = (0.6, 0.3)
# At the start of a history there is little to repeat.
_HALF_REPEATS_AFTER = 15
# A track rests for some others before it comes back.
_REST = 4
# Past plays that are thought of, until one is of the session's tag.
_THOUGHTS = 3
_WALK_SHARE = 0.6
# Neighbours on the ring of artists.
_STEPS = np.array([-2, -1, 1, 2])
_FIRST_YEAR = 2023
_OLD_YEARS = (1970, _FIRST_YEAR)
_AGES = (14, 75)


@dataclass(frozen=True, slots=True)
class MusicSize:
    """Size and behaviour of a world of music; the default trains within minutes on two cores.

    Listeners play about `events_per_user` tracks, log-normally spread by `events_spread`. A play
    is of a track played before with a probability that soon grows to `repetition`; else the next
    track of the artist with probability `follow`; else a discovery. Popularity of artists, and of
    the tracks of each, falls as rank ** -tail. The share `new_items` comes out within the time, and
    `cold_items` have not been played yet.
    """

    n_users: int = 600
    n_items: int = 1500
    events_per_user: float = 200.0
    events_spread: float = 0.6
    n_tags: int = 10
    tracks_per_artist: int = 10
    repetition: float = 0.75
    follow: float = 0.3
    tail: float = 0.7
    new_items: float = 0.15
    cold_items: float = 0.03
    days: int = 365
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InvalidSettings where a value is out of range."""
        require_at_least(self, n_users=1, n_items=1, n_tags=1, tracks_per_artist=1, seed=0)
        require_at_least(self, events_per_user=1, events_spread=0, tail=0, days=30)
        require_shares(self, "repetition", "follow", "new_items", "cold_items")

    @property
    def end(self) -> int:
        """The moment after the last play, in Unix seconds."""
        return START + self.days * DAY_S


@dataclass(frozen=True, slots=True)
class Library:
    """The tracks [n_items] and their artists [n_artists].

    Artists stand on a ring in the order of their numbers, so that those of a tag are together, and
    neighbours are at most two places apart.
    artist; following: the next track of the artist, the first after the last; popularity within the
    artist; released: Unix seconds, the end for tracks without plays.
    tag, crowd: by artist, its tag and the popularity of all artists up to it.
    starts: int64[n_tags + 1], where on the ring each tag starts.
    albums: int64[n_artists, W], the tracks of each, padded.
    """

    artist: Int64
    following: Int64
    popularity: Float64
    released: Float64
    tag: Int64
    crowd: Float64
    starts: Int64
    albums: Int64


@dataclass(frozen=True, slots=True)
class Music:
    """Tables in the schema, and the structure that they were drawn from. Id = position + 1.

    interactions: user_id, item_id, timestamp and event_type, always `play`, in the order of time.
    tags: int32[n_users, 2], first and second taste.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    library: Library
    tags: Int32


@dataclass(frozen=True, slots=True)
class _Plan:
    """When listeners play, [n_users, n_plays] each, whatever it is.

    time: Unix seconds; opens: whether a session starts; tag: that of the session.
    """

    time: Int64
    opens: NDArray[np.bool_]
    tag: Int64


def music(size: MusicSize) -> Music:
    """The world of `size`: the same size and seed give the same tables, row for row."""
    rng = np.random.default_rng([size.seed, 0])
    library = _library(size, rng)
    tags = two_tastes(size.n_users, size.n_tags, rng)
    wanted = lognormal(size.events_per_user, size.events_spread, size.n_users, rng)
    # Nobody joins in the second half, which has to hold all plays.
    time_for = (size.days / 2 - 1) * DAY_S / max(_TRACK_S)
    most = max(1, int(min(_MAX_FACTOR * size.events_per_user, time_for)))
    counts = np.clip(np.rint(wanted), 1, most).astype(np.int64)
    width = max(most, library.albums.shape[1])
    parts = [
        _plays(size, library, tags[start:stop], counts[start:stop], start)
        for start, stop in user_ranges(size.n_users, _CELLS_AT_ONCE // width)
    ]
    plays = pl.concat(parts).sort("timestamp", "user", "item")
    interactions = plays.select(
        identifiers("user_id", plays["user"].to_numpy()),
        identifiers("item_id", plays["item"].to_numpy()),
        "timestamp",
        pl.lit("play").alias("event_type"),
    )
    items = _item_table(size, library, rng)
    return Music(interactions, items, _user_table(size, tags, rng), library, tags)


def _library(size: MusicSize, rng: np.random.Generator) -> Library:
    n = size.n_items
    n_artists = -(-n // size.tracks_per_artist)
    artist = rng.permutation(n) % n_artists
    albums = members(artist, n_artists)
    following = np.arange(n)
    for album in albums:
        tracks = album[album != NOTHING]
        following[tracks] = np.roll(tracks, -1)
    tag = np.arange(n_artists) * size.n_tags // n_artists
    return Library(
        artist=artist,
        following=following,
        popularity=ranked_popularity(n, size.tail, rng),
        released=_released(size, rng),
        tag=tag,
        crowd=np.cumsum(ranked_popularity(n_artists, size.tail, rng)),
        starts=np.searchsorted(tag, np.arange(size.n_tags + 1)),
        albums=albums,
    )


def _released(size: MusicSize, rng: np.random.Generator) -> Float64:
    n = size.n_items
    order = rng.permutation(n)  # at least one is out from the start
    is_new = order < round(min(1.0, size.new_items + size.cold_items) * (n - 1))
    when = np.where(is_new, START + rng.random(n) * (size.end - START), START)
    return np.where(order < round(size.cold_items * (n - 1)), size.end, when)


def _plays(
    size: MusicSize, library: Library, tags: Int32, counts: Int64, first_user: int
) -> pl.DataFrame:
    """The plays of listeners first_user:first_user + len(counts)."""
    # A generator for each range, so that none depends on how much another one drew.
    rng = np.random.default_rng([size.seed, 1, first_user])
    plan = _plan(size, tags, counts, rng)
    tracks = np.zeros_like(plan.time)
    for n_before in range(tracks.shape[1]):
        before = tracks[:, :n_before]
        tracks[:, n_before] = _next_tracks(size, library, plan, before, rng)
    user, play = np.nonzero(np.arange(tracks.shape[1]) < counts[:, None])
    return pl.DataFrame(
        {
            "user": user + first_user,
            "item": tracks[user, play],
            "timestamp": plan.time[user, play],
        }
    )


def _plan(size: MusicSize, tags: Int32, counts: Int64, rng: np.random.Generator) -> _Plan:
    """Sessions of some dozen plays, which never overlap, between joining and the end."""
    shape = len(counts), int(counts.max())
    opens = rng.random(shape) < 1 / _SESSION_PLAYS
    opens[:, 0] = True
    session = np.cumsum(opens, axis=1) - 1
    elapsed = np.cumsum(rng.integers(*_TRACK_S, size=shape), axis=1)
    begins = START + rng.random(len(counts)) * 0.5 * (size.end - START)
    rows = np.arange(len(counts))
    listening = elapsed[rows, counts - 1]
    pauses = np.maximum(0, size.end - begins - listening - DAY_S)
    # As many sorted moments as the listener has sessions; later ones are not used.
    moments = rng.random(shape)
    moments[np.arange(shape[1]) > session[rows, counts - 1][:, None]] = 1
    moments.sort(axis=1)
    paused = np.take_along_axis(moments, session, axis=1) * pauses[:, None]
    time = (begins[:, None] + paused + elapsed).astype(np.int64)
    tag = np.take_along_axis(_session_tags(size, tags, shape, rng), session, axis=1)
    return _Plan(time, opens, tag)


def _session_tags(
    size: MusicSize, tags: Int32, shape: tuple[int, int], rng: np.random.Generator
) -> Int64:
    first, second = _TAG_SHARES
    drawn = rng.random(shape)
    other = rng.integers(size.n_tags, size=shape)
    own = np.where(drawn < first, tags[:, :1], tags[:, 1:])
    return np.where(drawn < first + second, own, other)


def _next_tracks(
    size: MusicSize, library: Library, plan: _Plan, before: Int64, rng: np.random.Generator
) -> Int64:
    """int64[n_users]: what each plays after the plays `before` (int64[n_users, play])."""
    play = before.shape[1]
    opens, tag, time = plan.opens[:, play], plan.tag[:, play], plan.time[:, play]
    last = before[:, -1] if play else np.zeros(len(tag), np.int64)
    track = _discovered(library, last, opens, tag, time, rng)
    following = library.following[last]
    follows = ~opens & (rng.random(len(tag)) < size.follow) & (library.released[following] <= time)
    track = np.where(follows, following, track)
    if play <= _REST:
        return track
    chance = size.repetition * play / (play + _HALF_REPEATS_AFTER)
    repeats = rng.random(len(tag)) < chance
    return np.where(repeats, _remembered(library, before, tag, rng), track)


def _remembered(library: Library, before: Int64, tag: Int64, rng: np.random.Generator) -> Int64:
    """A past play, `lag` plays ago with probability ~ 1 / lag, best of the session's tag."""
    n_users, play = before.shape
    rows = np.arange(n_users)
    span = np.log(play / _REST)
    track = before[rows, 0]
    fits = np.zeros(n_users, np.bool_)
    for _ in range(_THOUGHTS):
        lag = (_REST * np.exp(rng.random(n_users) * span)).astype(np.int64)
        thought = before[rows, play - np.minimum(lag, play)]
        track = np.where(fits, track, thought)
        fits |= library.tag[library.artist[thought]] == tag
    return track


def _discovered(
    library: Library,
    last: Int64,
    opens: NDArray[np.bool_],
    tag: Int64,
    time: Int64,
    rng: np.random.Generator,
) -> Int64:
    """A released track of a neighbour of the last artist, or of an artist of the session's tag."""
    starts = library.starts
    known = drawn_between(library.crowd, starts[tag], starts[tag + 1], rng)
    step = _STEPS[rng.integers(len(_STEPS), size=len(last))]
    neighbour = (library.artist[last] + step) % len(library.tag)
    walks = ~opens & (rng.random(len(last)) < _WALK_SHARE)
    artist = np.where(walks, neighbour, known)
    album = library.albums[artist]
    is_out = (album != NOTHING) & (library.released[album] <= time[:, None])
    column = chosen(library.popularity[album] * is_out, rng)
    track = album[np.arange(len(last)), column]
    none_is_out = column == NOTHING
    out = library.released <= time[none_is_out, None]
    track[none_is_out] = chosen(library.popularity * out, rng)
    return track


def _item_table(size: MusicSize, library: Library, rng: np.random.Generator) -> pl.DataFrame:
    n, n_artists = size.n_items, len(library.tag)
    is_old = library.released == START
    year = np.where(is_old, rng.integers(*_OLD_YEARS, size=n), _FIRST_YEAR)
    frame = pl.DataFrame(
        {
            "artist": names("artist", library.artist, n_artists),
            "tag": names("tag", library.tag[library.artist], size.n_tags),
        }
    )
    return frame.select(
        identifiers("item_id", np.arange(n)),
        pl.format("{} no. {}", "artist", pl.int_range(1, n + 1)).alias("title"),
        pl.concat_list("tag").alias("categories"),
        "artist",
        pl.Series("year", year.astype(np.int32)),
    )


def _user_table(size: MusicSize, tags: Int32, rng: np.random.Generator) -> pl.DataFrame:
    n = size.n_users
    return pl.DataFrame(
        [
            identifiers("user_id", np.arange(n)),
            pl.Series("age", rng.integers(*_AGES, size=n)),
            regions(tags[:, 0], size.n_tags, rng),
        ]
    )
