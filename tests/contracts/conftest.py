"""Provides a release whose items have attributes."""

from __future__ import annotations

import io
from dataclasses import replace

import polars as pl
import pytest
from rich.console import Console

from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.settings import Settings
from tests.smallest import smallest

BRANDS = ("acme", "bruna", "kestrel")


@pytest.fixture(scope="session")
def shop(published, tables, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A release of the small world, whose items have brands, prices and stock."""
    directory = tmp_path_factory.mktemp("shop")
    items = pl.read_parquet(tables / "items.parquet")
    number = pl.col("item_id").cast(pl.Int64)
    items = items.with_columns(
        number.map_elements(lambda n: BRANDS[n % 3], pl.String).alias("brand"),
        (number % 40 + 0.5).alias("price"),
        (number % 2 == 0).alias("in_stock"),
        pl.lit("a note").alias("note"),
        (number % 10 != 0).alias("available"),
    )
    items.write_parquet(directory / "items.parquet")
    settings = replace(
        published.settings,
        namespace="shop",
        artefacts=str(directory / "artefacts"),
        bundle_dir=str(directory),
        admin_key="the-key-of-the-shop",
    )
    paths = [str(tables / "interactions.parquet"), str(directory / "items.parquet")]
    silent = ProgressReporter(Console(file=io.StringIO()))
    run_job(Job(*paths, None, directory / "work", settings, silent, config=smallest(settings)))
    return settings
