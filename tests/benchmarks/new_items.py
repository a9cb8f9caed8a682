"""Measures what embeddings of their own give to new items.

Run: `python tests/benchmarks/new_items.py [SEED]`.

A synthetic world is evaluated twice with the default parameters: its items have a category and a
year, or an embedding besides. The embedding is a centre of the item's hidden group with as much
noise, as a model of texts would tell what items are about. A tenth of the items is kept out of
training, and ranked by content alone, as by `shortlist evaluate --cold-start`. Beside the two
stages stands the retriever's order of the same items. The figures are in docs/quality.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import polars as pl
from rich.table import Table

from shortlist.batch import cold_start
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys import data
from shortlist.recsys.data.synthetic import World, WorldSize, world
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.training.parameters import FitParams

DIMENSIONS = 32
"""Of the embeddings."""


def size_of(seed: int) -> WorldSize:
    """Of 800 items, so that 80 are new and twenty of them are no great part."""
    return WorldSize(n_users=300, n_items=800, events_per_user=30.0, seed=seed)


def embedded(made: World, seed: int) -> pl.DataFrame:
    """The items with embeddings that tell their groups."""
    rng = np.random.default_rng([seed, 1])
    centres = rng.normal(size=(int(made.item_group.max()) + 1, DIMENSIONS))
    noise = rng.normal(size=(len(made.item_group), DIMENSIONS))
    vectors = centres[made.item_group] + noise
    return made.items.with_columns(pl.Series("embedding", vectors.tolist()))


def dataset_of(made: World, items: pl.DataFrame) -> Dataset:
    """The world with these items, loaded from files like any user's tables."""
    frames = {"interactions": made.interactions, "items": items, "users": made.users}
    with tempfile.TemporaryDirectory() as directory:
        paths = {name: Path(directory) / f"{name}.parquet" for name in frames}
        for name, frame in frames.items():
            frame.write_parquet(paths[name])
        return data.load(*map(str, paths.values())).dataset


def main(seed: int) -> None:
    """Prints recall@20 with and without embeddings."""
    reporter, made = ProgressReporter(), world(size_of(seed))
    table = Table(title=f"recall@20 of new items, seed {seed}")
    for column in ("content", "users", "chance", "retriever", "two-stage"):
        table.add_column(column)
    for name, items in (
        ("category and year", made.items),
        ("and embedding", embedded(made, seed)),
    ):
        reporter.say(name)
        found = cold_start.new_items(
            dataset_of(made, items), "last-10pct", FitParams(), reporter.stage
        )
        add(table, name, found)
    reporter.console.print(table)


def add(table: Table, name: str, found: dict[str, Any]) -> None:
    """Adds the row of one kind of content."""
    recalls = [f"{found[key]['value']:.3f}" for key in ("retriever", "recall@20")]
    table.add_row(name, str(found["n_users"]), f"{found['random']:.3f}", *recalls)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
