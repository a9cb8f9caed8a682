"""Commands that fetch data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from shortlist.batch.cli.options import PATH


@click.group()
def data() -> None:
    """Data sets to try things with."""


@data.command()
@click.argument(
    "name",
    type=click.Choice(["ml-100k", "ml-1m", "ml-25m", "ml-32m", "synthetic", "shop", "music"]),
)
@click.option("--out", type=PATH, required=True, help="Where the Parquet tables go.")
@click.option("--n-users", type=int, help="Of a synthetic world.")
@click.option("--n-items", type=int, help="Of a synthetic world.")
@click.option("--events-per-user", type=float, help="Mean, of a synthetic world.")
@click.option("--seed", type=int, help="Of a synthetic world.")
def fetch(name: str, out: Path, **size: float | None) -> None:
    """Writes interactions.parquet, items.parquet, users.parquet and data.toml of data set NAME."""
    fetch_data(name, out, {key: value for key, value in size.items() if value is not None})


def fetch_data(name: str, out: Path, size: dict[str, Any]) -> None:
    """Fetches a data set, and prints its origin."""
    from shortlist.recsys.data.datasets import SIZES, default_cache
    from shortlist.recsys.data.datasets import fetch as fetch_tables
    from shortlist.recsys.data.synthetic import WorldSize

    tables = fetch_tables(
        name,
        out,
        cache=default_cache(os.environ),
        announce=lambda text: click.echo(f"  {text}"),
        synthetic=SIZES.get(name, WorldSize)(**size),
    )
    click.echo(
        f"{tables.n_interactions} interactions, {tables.n_items} items and {tables.n_users} users"
        f" in {out} ({tables.source})"
    )
