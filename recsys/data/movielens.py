"""Converts the files of MovieLens to the input schema.

ml-100k is `u.data`, `u.item` and `u.user`; ml-1m is `ratings.dat`, `movies.dat` and `users.dat`;
later ones are `ratings.csv` and `movies.csv`. All keep the order of their rows, which decides
between events of the same second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

CITATION = (
    "MovieLens: F. Maxwell Harper and Joseph A. Konstan. 2015. "
    "The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 19. "
    "Its licence forbids passing the data on."
)

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
"""The flag columns of u.item, in their order."""

_ITEM_100K = ("item_id", "title", "release_date", "video_release_date", "url", *GENRES_100K)
_NOT_A_GENRE = ("unknown", "(no genres listed)", "")
_YEAR_IN_TITLE = r"^.*\(([0-9]{4})(?:[-\x{2013}][0-9]{0,4})?\)"
# The unit separator is in no title: read_csv then takes a line for one field.
_ONE_FIELD = "\x1f"


@dataclass(frozen=True, slots=True)
class Tables:
    """The three tables in the schema."""

    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


def year_in(title: str) -> pl.Expr:
    """The last year in brackets in column `title`, as Int32; null where there is none."""
    return pl.col(title).str.extract(_YEAR_IN_TITLE).cast(pl.Int32)


def read_dat(path: Path, fields: tuple[str, ...]) -> tuple[pl.DataFrame, pl.Series]:
    """A `::`-separated latin-1 file as text columns `fields`, and whether a line had more."""
    lines = pl.read_csv(
        path,
        has_header=False,
        separator=_ONE_FIELD,
        quote_char=None,
        encoding="latin1",
        infer_schema=False,
        new_columns=["line"],
        glob=False,
        truncate_ragged_lines=True,
    )
    line = pl.col("line").str.strip_chars_end("\r")
    table = lines.select(parts=line.str.splitn("::", len(fields) + 1)).unnest("parts")
    columns = table.select(pl.nth(i).alias(field) for i, field in enumerate(fields))
    return columns, table.to_series(-1).is_not_null()


def from_100k_files(directory: Path) -> Tables:
    """The schema's tables from ml-100k's u.data, u.item and u.user."""
    data = _text(directory / "u.data", ("user_id", "item_id", "rating", "timestamp"), "\t")
    users = _text(directory / "u.user", ("user_id", "age", "gender", "occupation", "zip_code"), "|")
    return from_100k_frames(data, _text(directory / "u.item", _ITEM_100K, "|"), users)


def from_100k_frames(data: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame) -> Tables:
    """The schema's tables from the columns of u.data, u.item and u.user, typed or text.

    The wheel's copy has other names and types than the zip.
    """
    data = data.rename({"movie_id": "item_id"}, strict=False)
    items = items.rename({"movie_id": "item_id", "movie_title": "title"}, strict=False)
    genres = [genre for genre in GENRES_100K if genre != "unknown"]
    flags = [pl.when(pl.col(g).cast(pl.Int64) == 1).then(pl.lit(g)) for g in genres]
    release_date = pl.col("release_date").cast(pl.String)
    items = items.with_columns(
        pl.concat_list(flags).list.drop_nulls().alias("categories"),
        released=release_date.str.extract(r"([0-9]{4})$").cast(pl.Int32),
    )
    age = pl.col("age").cast(pl.Int64)
    users = users.select(
        _id("user_id"), age, *(_clean(c) for c in ("gender", "occupation", "zip_code"))
    )
    return Tables(_interactions(data), _items(items, pl.col("released")), users)


def from_dat_files(directory: Path) -> Tables:
    """The schema's tables from ml-1m's ratings.dat, movies.dat and users.dat.

    Occupations stay codes.
    """
    ratings, _ = read_dat(directory / "ratings.dat", ("user_id", "item_id", "rating", "timestamp"))
    movies, _ = read_dat(directory / "movies.dat", ("item_id", "title", "genres"))
    users, _ = read_dat(
        directory / "users.dat", ("user_id", "gender", "age", "occupation", "zip_code")
    )
    users = users.select(
        _id("user_id"),
        pl.col("age").cast(pl.Int64),
        *(_clean(c) for c in ("gender", "occupation", "zip_code")),
    )
    return Tables(_interactions(ratings), _items(_genres(movies)), users)


def from_csv_files(directory: Path) -> Tables:
    """The schema's tables from ratings.csv and movies.csv, which know users by id alone."""
    types = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64}
    ratings = pl.read_csv(directory / "ratings.csv", schema_overrides=types)
    ratings = ratings.rename({"userId": "user_id", "movieId": "item_id"})
    movies = pl.read_csv(directory / "movies.csv", infer_schema=False).rename(
        {"movieId": "item_id"}
    )
    users = ratings.select(pl.col("user_id").unique().sort()).select(_id("user_id"))
    return Tables(_interactions(ratings), _items(_genres(movies)), users)


def _text(path: Path, columns: tuple[str, ...], separator: str) -> pl.DataFrame:
    """A latin-1 file without header or quotes, as text columns."""
    return pl.read_csv(
        path,
        has_header=False,
        separator=separator,
        quote_char=None,
        encoding="latin1",
        infer_schema=False,
        new_columns=list(columns),
    )


def _id(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String).str.strip_chars()


def _clean(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text).alias(column)


def _interactions(data: pl.DataFrame) -> pl.DataFrame:
    return data.select(
        _id("user_id"),
        _id("item_id"),
        pl.col("timestamp").cast(pl.Int64),
        pl.col("rating").cast(pl.Float32),
    )


def _genres(movies: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("genres").fill_null("").str.split("|")
    kept = pl.element().filter(~pl.element().is_in(_NOT_A_GENRE))
    return movies.with_columns(genres.list.eval(kept).alias("categories"))


def _items(items: pl.DataFrame, released: pl.Expr | None = None) -> pl.DataFrame:
    """item_id, title, categories and year: that in the title, else that of `released`."""
    year = year_in("title") if released is None else pl.coalesce(year_in("title"), released)
    return items.select(_id("item_id"), _clean("title"), "categories", year.alias("year"))
