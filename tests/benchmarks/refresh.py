"""Times whole refreshes as users, items and events grow.

`make bench-refresh` runs it; `python tests/benchmarks/refresh.py WORLD ...` runs some worlds and
keeps the other rows of the report. Each refresh is `shortlist batch run` in a process of its own,
with the defaults, on every core, from files to lists in a Redis.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.evaluation.report import write_json

DEMO = Path(".demo")
REPORT = Path("docs/reports/refresh.json")
SETUP = "A whole refresh with the defaults"

SMALL = WorldSize(n_users=1000, n_items=2000, events_per_user=40.0, seed=31)
WORLDS = {
    "small": SMALL,
    "four times the users": replace(SMALL, n_users=4 * SMALL.n_users),
    "four times the items": replace(SMALL, n_items=4 * SMALL.n_items),
    "four times the events": replace(SMALL, events_per_user=4 * SMALL.events_per_user),
    "short histories": WorldSize(
        n_users=22_000, n_items=12_000, events_per_user=9.0, events_spread=0.6, seed=32
    ),
    "1m": WorldSize(n_users=6040, n_items=3706, events_per_user=165.0),
}
"""The last has MovieLens 1M's size. `make bench-large` takes its release."""

STAGES = {
    "towers_seconds": ("train towers",),
    "rankers_seconds": ("train the ranker",),
    "evaluation_seconds": ("leak audit", "lists", "baselines", "evaluation", "by known events"),
}
"""Beginnings of the names of stages, by column."""


def refreshed(name: str) -> dict[str, object]:
    """Runs a world's refresh; gives its row of the report."""
    directory = DEMO / name.replace(" ", "-")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    made = world(WORLDS[name])
    tables = {"interactions": made.interactions, "items": made.items, "users": made.users}
    command = [sys.executable, "-m", "shortlist", "batch", "run", "--work", str(directory / "work")]
    for table, frame in tables.items():
        path = directory / f"{table}.parquet"
        frame.write_parquet(path)
        command += [f"--{table}", str(path)]
    with redis_url({}) as url:
        settings = {
            "REDIS_URL": url,
            "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
            "SHORTLIST_GATE": "off",
        }
        started = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, **settings})
        # With the resources of the processes that it started and waited for.
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"the refresh of {name!r} ended with {status}: see its output")
    report = json.loads((directory / "work" / "metrics.json").read_text())
    columns = {
        column: round(sum(s for stage, s in report["seconds"].items() if stage.startswith(names)))
        for column, names in STAGES.items()
    }
    return {
        "world": name,
        "users": made.users.height,
        "items": made.items.height,
        "events": made.interactions.height,
        "seconds": round(seconds),
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        **columns,
        "peak_mib": round(used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)),
    }


def main() -> None:
    """Prints the table, and writes the report."""
    names = sys.argv[1:] or list(WORLDS)
    for name in names:
        if name not in WORLDS:
            raise SystemExit(f"there is no world {name!r}: take one of {', '.join(WORLDS)}")
    kept = json.loads(REPORT.read_text())["worlds"] if REPORT.exists() else []
    rows = {row["world"]: row for row in kept}
    for name in names:
        rows[name] = refreshed(name)
        worlds = [rows[name] for name in WORLDS if name in rows]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        write_json({"setup": f"{SETUP}, {cores} cores", "worlds": worlds}, REPORT)
    table = Table(*(column.removesuffix("_seconds") for column in worlds[0]), title=SETUP)
    for row in worlds:
        table.add_row(
            *(f"{value:,}" if isinstance(value, int) else value for value in row.values())
        )
    Console().print(table)


if __name__ == "__main__":
    main()
