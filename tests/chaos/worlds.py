"""Makes two small worlds and trains a model on each.

Their catalogues differ; both share their interactions. The second has other titles, and one more
item in the first row, which shifts the rows of all others: an answer that mixes two releases would
show. Training is the one stage that later batch runs do not repeat: they copy what was trained
here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from rich.console import Console

from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.settings import Settings
from tests.smallest import smallest

NAMES = ("plain", "shifted")

ENVIRON = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "30",
    "LGBM_N_ESTIMATORS": "5",
    "SHORTLIST_THREADS": "1",
    "SHORTLIST_GATE": "off",
}
"""Settings of every batch run: the smallest models that there are."""

SIZE = WorldSize(n_users=36, n_items=60, events_per_user=14.0, seed=7)


@dataclass(frozen=True)
class World:
    """A catalogue, and the work directory of a batch that trained on it.

    items: path of its table; titles, categories: by item id.
    """

    name: str
    items: Path
    work: Path
    titles: dict[str, str]
    categories: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Worlds:
    """Both worlds; interactions: the table that they share, sorted by time."""

    by_name: dict[str, World]
    interactions: pl.DataFrame

    @property
    def users(self) -> list[str]:
        """Users with interactions, sorted."""
        return sorted(self.interactions["user_id"].unique())

    @property
    def items(self) -> list[str]:
        """Items that both catalogues have, sorted."""
        return sorted(set.intersection(*(set(each.titles) for each in self.by_name.values())))


def prepare(directory: Path, redis_url: str) -> Worlds:
    """Makes and trains the worlds below `directory`; finished stages there are used again."""
    interactions, items = _tables()
    directory.mkdir(parents=True, exist_ok=True)
    interactions.write_parquet(directory / "interactions.parquet")
    first = items.head(1).with_columns(pl.lit("item-000-new").alias("item_id"))
    tables = {"plain": items, "shifted": pl.concat([first, items])}
    made = {name: _world(directory / name, name, tables[name], redis_url) for name in NAMES}
    return Worlds(made, interactions)


def _tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions and items, with ids that occur nowhere else by chance."""
    made = world(SIZE)
    user = pl.format("user-{}", pl.col("user_id").cast(pl.String).str.zfill(3)).alias("user_id")
    item = pl.format("item-{}", pl.col("item_id").cast(pl.String).str.zfill(3)).alias("item_id")
    interactions = made.interactions.with_columns(user, item).sort(
        "timestamp", "user_id", "item_id"
    )
    return interactions, made.items.with_columns(item).sort("item_id")


def _world(directory: Path, name: str, items: pl.DataFrame, redis_url: str) -> World:
    directory.mkdir(exist_ok=True)
    items = items.with_columns(pl.format(name + ": {}", pl.col("item_id")).alias("title"))
    items.write_parquet(directory / "items.parquet")
    variables = {
        "REDIS_URL": redis_url,
        "SHORTLIST_NAMESPACE": f"trained-{name}",
        "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
    }
    settings = Settings.from_env(ENVIRON | variables)
    tables = (str(directory.parent / "interactions.parquet"), str(directory / "items.parquet"))
    silent = ProgressReporter(Console(file=io.StringIO()))
    params = smallest(settings)
    run_job(Job(*tables, None, directory / "work", settings, silent, config=params))
    titles = dict(items.select("item_id", "title").rows())
    return World(name, directory / "items.parquet", directory / "work", titles, _categories(items))


def _categories(items: pl.DataFrame) -> dict[str, frozenset[str]]:
    column = items["categories"]
    values = column.to_list() if column.dtype == pl.List else [str(v).split("|") for v in column]
    return {item: frozenset(v or ()) for item, v in zip(items["item_id"], values, strict=True)}
