"""Times a training step of the towers by size of the catalogue.

`make bench-training` runs it. The events are made up: short histories of a shop, with some
categories for each item. The batches are alike in all rows, so that only the catalogue grows.
"""

from __future__ import annotations

import os
import time
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.models.interactions import Events, Repeats
from shortlist.recsys.training import two_tower
from shortlist.recsys.training.fit import pinned_torch
from shortlist.recsys.training.parameters import TowerParams

REPORT = Path("docs/reports/training.json")
ITEMS = (10_000, 30_000, 100_000, 300_000)
CATEGORIES, CATEGORIES_OF_ITEM = 600, 4
USERS, EVENTS_OF_USER = 20_000, 9
STEPS, WARM_STEPS, TURNS = 100, 20, 3
SETUP = "A training step of the towers: 512 positions of short histories, one thread"


def milliseconds(n_items: int) -> dict[str, float]:
    """CPU time of a step, with the running average of the weights, and of the end of a round."""
    rng = np.random.default_rng(0)
    n = USERS * EVENTS_OF_USER
    events = Events(
        user=np.repeat(np.arange(USERS, dtype=np.int32), EVENTS_OF_USER),
        item=rng.integers(0, n_items, n).astype(np.int32),
        time=np.arange(n),
        weight=np.full(n, np.nan, np.float32),
        n_users=USERS,
        n_items=n_items,
    )
    content = np.zeros((n_items, CATEGORIES), np.float32)
    categories = rng.integers(0, CATEGORIES, (n_items, CATEGORIES_OF_ITEM))
    np.put_along_axis(content, categories, np.float32(1), axis=1)
    params = TowerParams()
    attributes = np.empty((USERS, 0), np.int32)
    with pinned_torch(1):
        counts = np.bincount(events.item, minlength=n_items)
        net = two_tower._Net(counts, content, 0, params)
        windows = two_tower._Windows(events, attributes, Repeats.NEVER)
        optimisation = two_tower._begin(net, params, warm_up=STEPS)
        batches = windows.epoch(windows.batch_size(params), rng)
        optimisation.run(islice(batches, WARM_STEPS), rng)
        started = time.process_time()
        optimisation.run(islice(batches, STEPS), rng)
        stepped = time.process_time()
        optimisation.export()
        ended = time.process_time()
    return {
        "step_ms": round((stepped - started) / STEPS * 1000, 1),
        "round_end_ms": round((ended - stepped) * 1000),
    }


def main() -> None:
    """Prints the table, and writes the report."""
    # In turns, of which the best counts: other processes only add.
    turns = [[milliseconds(n) for n in ITEMS] for _ in range(TURNS)]
    rows: list[dict[str, float]] = [
        {"items": n} | {name: min(each[name] for each in times) for name in times[0]}
        for n, times in zip(ITEMS, zip(*turns, strict=True), strict=True)
    ]
    table = Table("items", "CPU ms a step", "at the end of a round", "step ratio", title=SETUP)
    for row in rows:
        row["ratio"] = round(row["step_ms"] / rows[0]["step_ms"], 2)
        table.add_row(*(f"{value:,}" for value in row.values()))
    Console().print(table)
    write_json({"setup": SETUP, "steps": rows}, REPORT)


if __name__ == "__main__":
    main()
