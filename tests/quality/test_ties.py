"""Tests that ties are not taken for an order.

Figures do not depend on the order of rows, and random items are not predicted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.batch import dataset_file, offline_evaluation
from shortlist.recsys import data
from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

N_USERS, N_ITEMS, N_EVENTS = 200, 90, 20
DAY = 86_400
PARAMS = FitParams(
    TowerParams(dimension=16, hidden=16, rounds=5, round_steps=30),
    RankerParams(estimators=20, positions=2),
    n_candidates=40,
    threads=1,
)
MEASURED = ("seconds", "seconds_total", "peak_memory_bytes")


def at_random(times: str) -> pl.DataFrame:
    """Users with random items: at one time, on a few days, or at one time with repeats."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(N_USERS):
        items = rng.permutation(N_ITEMS)[:N_EVENTS].tolist()
        if times == "one time, with repeats":
            items += items[::3]
        days = (
            np.sort(rng.integers(0, 5, len(items)))
            if times == "days"
            else np.zeros(len(items), int)
        )
        ratings = [1.0] * N_EVENTS + [2.0] * (len(items) - N_EVENTS)
        rows += zip([user] * len(items), items, (days * DAY).tolist(), ratings, strict=True)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")


def with_taste() -> pl.DataFrame:
    """Users who go through a quarter of the items in steps, so that the next day is learnable."""
    rng = np.random.default_rng(6)
    rows = []
    for user in range(N_USERS):
        start = int(rng.integers(0, N_ITEMS))
        rows += [(user, (start + n) % N_ITEMS, n // 4 * DAY, 1.0) for n in range(N_EVENTS)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")


def report_of(frame: pl.DataFrame, path: Path, reporter, protocol="last-10pct") -> dict[str, Any]:
    """All that `shortlist evaluate` finds, but for the time that it took."""
    frame.write_parquet(path)
    report = offline_evaluation.run(data.load(str(path)).dataset, protocol, PARAMS, reporter)
    write_json(report, path.with_suffix(".json"))
    written = json.loads(path.with_suffix(".json").read_text())
    return {name: section for name, section in written.items() if name not in MEASURED}


def bytes_of(frame: pl.DataFrame, directory: Path) -> dict[str, bytes]:
    """All that the models and reports learn of a table, as it is kept on disk, by file."""
    directory.mkdir()
    frame.write_parquet(directory.with_suffix(".parquet"))
    dataset_file.save(directory, data.load(str(directory.with_suffix(".parquet"))).dataset)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def ndcg(report: dict[str, Any], method: str) -> float:
    return report["methods"][method]["ndcg@10"]["value"]


@pytest.mark.parametrize("times", ["one time", "days", "one time, with repeats"])
def test_random_items_are_not_predicted(times, tmp_path, reporter) -> None:
    """Sorted and shuffled rows are one data set to the last byte; nothing in it beats chance."""
    frame = at_random(times)
    by_item = frame.sort("user_id", "timestamp", "item_id", "rating")
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    assert bytes_of(by_item, tmp_path / "1") == bytes_of(shuffled, tmp_path / "2")
    report = report_of(by_item, tmp_path / "sorted.parquet", reporter)
    chance = (
        4.5436 * 2 / (N_ITEMS - N_EVENTS + 2) / 1.6309
    )  # two held out: discounts of ten ranks, times the share of hits
    for method in ("retriever", "two_stage"):
        assert ndcg(report, method) == pytest.approx(chance, abs=0.04)
    assert all(check["outcome"] == "held" for check in report["audit"])
    assert report["ties"]["tied_events"] > 0.9
    assert report["ties"]["drawn_holdouts"] == (0 if times == "days" else N_USERS)


def test_daily_dates_still_show_taste(tmp_path, reporter) -> None:
    """With daily dates and a real taste the retriever is far better than chance.

    Reversed and shuffled rows give one report.
    """
    frame = with_taste()
    reports = [
        report_of(order, tmp_path / f"{n}.parquet", reporter, "leave-one-out")
        for n, order in enumerate(
            (frame.reverse(), frame.sample(fraction=1.0, shuffle=True, seed=2))
        )
    ]
    assert reports[0] == reports[1]
    assert ndcg(reports[0], "retriever") > 2 * ndcg(reports[0], "popularity")
    assert reports[0]["ties"] == {"tied_events": 1.0, "drawn_holdouts": 0}
