"""Compares ranking quality on data sets of other kinds.

Run: `make worlds`, after `make evaluate`.

The default parameters run on synthetic worlds, and on MovieLens 100K without ratings, titles and
attributes, which `make evaluate` fetches. Each is evaluated as by `shortlist evaluate --protocol
last-10pct`, against the strongest baseline of the same run. The shop and the music are evaluated
twice: what a user had is never offered again, or it is, and then new and repeated items are also
reported apart. The figures go to docs/reports/worlds.json, from which a table in the documentation
is generated. Names of worlds as arguments evaluate these alone, and replace their rows.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from rich.table import Table

from shortlist.batch import offline_evaluation
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys import data
from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.data.synthetic import World, WorldSize, world
from shortlist.recsys.data.worlds.assortment import ShopSize
from shortlist.recsys.data.worlds.music import Music, MusicSize, music
from shortlist.recsys.data.worlds.shop import RULES, Shop, shop
from shortlist.recsys.evaluation.headline import strongest_baseline
from shortlist.recsys.evaluation.report import Report, table
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.training.parameters import FitParams

ROOT = Path(__file__).parents[2]
MOVIELENS = ROOT / ".demo" / "data" / "interactions.parquet"
REPORT = ROOT / "docs" / "reports" / "worlds.json"

WORLDS = {
    "short histories": WorldSize(
        n_users=6000, n_items=2000, events_per_user=9.0, events_spread=0.6, seed=11
    ),
    "long histories": WorldSize(n_users=350, n_items=2500, events_per_user=280.0, seed=12),
    "strong drift": WorldSize(
        n_users=1000, n_items=1700, events_per_user=90.0, drift=1.0, loyalty=0.9, seed=13
    ),
    "huge tail": WorldSize(n_users=2500, n_items=8000, events_per_user=30.0, tail=0.7, seed=14),
}


def made(tables: World | Shop | Music, rules: EventRules | None = None) -> Dataset:
    """A synthetic world, loaded from files like any user's tables."""
    frames = (tables.interactions, tables.items, tables.users)
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{name}.parquet" for name in ("interactions", "items", "users")]
        for path, frame in zip(paths, frames, strict=True):
            frame.write_parquet(path)
        return data.load(*map(str, paths), event_rules=rules).dataset


def made_of(size: WorldSize) -> Dataset:
    """A synthetic world of this size."""
    return made(world(size))


def bare() -> Dataset:
    """MovieLens 100K with users, items and times alone."""
    import polars as pl

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "interactions.parquet"
        pl.read_parquet(MOVIELENS).select("user_id", "item_id", "timestamp").write_parquet(path)
        return data.load(str(path)).dataset


SETS: dict[str, Callable[[], Dataset]] = {
    **{name: partial(made_of, size) for name, size in WORLDS.items()},
    "MovieLens 100K, bare": bare,
    "shop": lambda: made(shop(ShopSize()), RULES),
    "music": lambda: made(music(MusicSize())),
}

WITH_REPEATS = ("shop", "music")
"""The data in which users come back to what they had."""


def rows_of(name: str) -> list[dict[str, Any]]:
    """Evaluates one data set, and gives its rows of the report."""
    dataset = SETS[name]()
    if name not in WITH_REPEATS:
        return [row_of(name, evaluated(name, dataset, Repeats.NEVER))]
    never = evaluated(f"{name}, never again", dataset, Repeats.NEVER)
    allowed = evaluated(f"{name}, again", dataset, Repeats.ALLOW)
    parts = allowed["repeats"]["parts"]
    return [
        row_of(f"{name}, never again", never),
        row_of(f"{name}, again", allowed),
        *(row_of(f"{name}, again: {part}", allowed | parts[part]) for part in parts),
    ]


def evaluated(title: str, dataset: Dataset, repeats: Repeats) -> Report:
    """The report on one data set, which is printed as well."""
    reporter = ProgressReporter()
    reporter.say(title)
    report = offline_evaluation.run(dataset, "last-10pct", FitParams(repeats=repeats), reporter)
    reporter.console.print(table(report))
    return report


def row_of(name: str, report: Report) -> dict[str, Any]:
    """The row of the table for one report."""
    methods = report["methods"]
    rival = strongest_baseline(methods)
    assert rival is not None
    shown = ("popularity", rival, "retriever", "two_stage")
    size = {key: report["data"][key] for key in ("n_users", "n_items", "n_events")}
    return {
        "world": name,
        **size,
        "rival": rival,
        "ndcg@10": {method: methods[method]["ndcg@10"] for method in shown},
        "difference": report["paired"]["two_stage"][rival],
        "seconds": report["seconds_total"],
    }


def main(names: list[str]) -> None:
    """Evaluates every world and writes the report; or those of these names, and their rows."""
    rows = [row for name in names or SETS for row in rows_of(name)]
    others = [row for row in json.loads(REPORT.read_text()) if not _is_of(row, names or SETS)]
    write_atomically(REPORT, json.dumps([*others, *rows], indent=2) + "\n")
    ProgressReporter().console.print(summary(rows))
    assert np.isfinite([row["difference"]["low"] for row in rows]).all()


def _is_of(row: dict[str, Any], names: Iterable[str]) -> bool:
    """Whether a row of the report is of one of these worlds."""
    return any(row["world"] == name or row["world"].startswith(f"{name}, ") for name in names)


def summary(rows: list[dict[str, Any]]) -> Table:
    """NDCG@10 on each data set, with its ratio to the strongest baseline."""
    out = Table(title="NDCG@10, protocol last-10pct")
    for column in ("data", "two-stage", "strongest baseline", "its NDCG@10", "ratio"):
        out.add_column(column)
    for row in rows:
        rival, values = row["rival"], row["ndcg@10"]
        ours, theirs = values["two_stage"]["value"], values[rival]["value"]
        ratio = f"{ours / theirs:.3f}"
        out.add_row(row["world"], f"{ours:.4f}", rival, f"{theirs:.4f}", ratio)
    return out


if __name__ == "__main__":
    main(sys.argv[1:])
