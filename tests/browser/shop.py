"""Writes a small shop with readable names, as tables and a mapping file.

It is the made-up shop of `shortlist data fetch shop`, whose names are numbers, dressed for the eye:
views, carts, purchases and returns of 240 users and 160 items, and a few rows that are rejected.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from shortlist.recsys.data.worlds.assortment import ShopSize
from shortlist.recsys.data.worlds.shop import shop

SIZE = ShopSize(n_users=240, n_items=160, events_per_user=28.0, n_departments=6, seed=5)

BRANDS = (
    "Alder", "Bruna", "Corvo", "Dahl", "Elm & Son", "Falke", "Gora", "Hektor", "Ines", "Jarl",
    "Kestrel", "Lumo",
)  # fmt: skip

DEPARTMENTS = {
    "Kitchen": (
        "Kettle",
        "Pan",
        "Coffee beans",
        "Descaler",
        "Bread knife",
        "Café bowl",
        "Tea",
    ),
    "Garden": ("Hose", "Planter", "Seeds", "Sprinkler", "Rake", "Charcoal", "Gloves"),
    "Books": ("Novel", "Atlas", "Cookbook", "Audiobook", "Travel guide", "Comic", "Diary"),
    "Toys": ("Puzzle", "Train set", "Doll", "Board game", "Kite", "Building bricks", "Robot"),
    "Office": (
        "Notebook",
        "Ink cartridge",
        "Paper",
        "Fountain pen",
        "Stapler",
        "Desk lamp",
        "Tape",
    ),
    "Sports": ("Backpack", "Tent", "Socks", "Water bottle", "Bicycle bell", "Yoga mat", "Cap"),
}

MARKUP = 'Jarl <img src=x onerror="alert(1)"> & sons'
"""The title of item 1, which must be shown as it is."""

MAPPING = """\
[interactions]
paths = ["interactions.parquet"]

[items]
paths = ["items.parquet"]

[users]
paths = ["users.parquet"]

[events]
weights = { view = 1, cart = 2, purchase = 4 }
negative = ["return"]
"""


def write_shop(directory: Path) -> Path:
    """Writes the tables and `data.toml`, and gives the mapping's path."""
    directory.mkdir(parents=True, exist_ok=True)
    made = shop(SIZE)
    _with_faults(made.interactions).write_parquet(directory / "interactions.parquet")
    _dressed(made.items).write_parquet(directory / "items.parquet")
    made.users.write_parquet(directory / "users.parquet")
    mapping = directory / "data.toml"
    mapping.write_text(MAPPING)
    return mapping


def _with_faults(interactions: pl.DataFrame) -> pl.DataFrame:
    """The interactions, and rows of an item that the items table lacks and without a user."""
    rows = interactions.head(12)
    strange = rows.with_columns(item_id=pl.lit("9999"))
    nobody = rows.head(5).with_columns(user_id=pl.lit(None, pl.String))
    return pl.concat([interactions, strange, nobody])


def _dressed(items: pl.DataFrame) -> pl.DataFrame:
    """The items with names of things for the numbers of departments, kinds and brands."""
    departments = list(DEPARTMENTS)
    titles, categories, brands = [], [], []
    for row in items.iter_rows(named=True):
        department, kind, brand = (
            int(name.rpartition("-")[2]) for name in (*row["categories"], row["brand"])
        )
        named = departments[department % len(departments)]
        things = DEPARTMENTS[named]
        brands.append(BRANDS[brand % len(BRANDS)])
        titles.append(f"{brands[-1]} {things[kind % len(things)]} {row['item_id']}")
        categories.append([named])
    titles[0] = MARKUP
    return items.with_columns(
        title=pl.Series(titles), categories=pl.Series(categories), brand=pl.Series(brands)
    )
