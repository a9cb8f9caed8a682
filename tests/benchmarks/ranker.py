"""Compares two rules for the ranker's number of trees.

Run: `python tests/benchmarks/ranker.py [PROTOCOL]`, after `make evaluate`.

The rules are early stopping by cross-validation, which trains the ranker, and on a single split of
the users, each over six seeds on MovieLens 100K. Everything is inside the past of the protocol's
split: the hold-out decides nothing here. The figures are in docs/quality.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm
import numpy as np
from rich.table import Table

from shortlist.batch.progress import ProgressReporter
from shortlist.recsys import data
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training import lambdamart
from shortlist.recsys.training.fit import (
    assemble,
    item_table_of,
    past_before_labels,
    ranker_training_groups,
    ranker_validation_groups,
    train_towers,
    validated_ranker,
)
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.ranking_groups import RankingGroups
from shortlist.recsys.training.split import before, cuts

MOVIELENS = Path(__file__).parents[2] / ".demo" / "data"
SEEDS = range(6)

SPLIT_SHARE = 0.15
"""Share of the users that a single split holds out."""


def trees_of_one_split(groups: RankingGroups, params: FitParams) -> int:
    """The number of trees by a single split of the users.

    This was the rule before cross-validation, with rows and features sampled for each tree.
    """
    drawn = replace(params.ranker, feature_share=0.6, row_share=0.8)
    rng = np.random.default_rng(params.seed + 1)
    users = np.unique(groups.users)
    held = np.isin(groups.users, rng.permutation(users)[: int(len(users) * SPLIT_SHARE)])
    train = lightgbm.Dataset(**lambdamart._dataset(groups.take(~held), params.threads))
    valid = lightgbm.Dataset(
        **lambdamart._dataset(groups.take(held), params.threads), reference=train
    )
    stopping = lightgbm.early_stopping(drawn.patience, first_metric_only=True, verbose=False)
    options = lambdamart._options(
        drawn, groups, len(groups.rows), params.threads, int(rng.integers(2**31))
    )
    booster = lightgbm.train(
        options, train, drawn.estimators, valid_sets=[valid], callbacks=[stopping]
    )
    return int(booster.best_iteration)


def training_data(
    protocol: HoldoutProtocol, params: FitParams, reporter: ProgressReporter
) -> tuple[RankingGroups, RankingGroups]:
    """RankingGroups that train and validate the ranker, inside the past of the split."""
    paths = [str(MOVIELENS / f"{name}.parquet") for name in ("interactions", "items", "users")]
    dataset = data.load(*paths).dataset
    past = before(dataset.events, cuts(dataset.events, protocol))
    with reporter.stage("towers before the labels") as progress:
        inner = past_before_labels(past, protocol, params)
        towers = train_towers(dataset, inner, params, progress).towers
    model = assemble(towers, item_table_of(dataset, inner), params)
    groups = ranker_training_groups(model, dataset, past, protocol, params)
    return groups, ranker_validation_groups(model, dataset, past, protocol, params)


def main(protocol: HoldoutProtocol) -> None:
    """Prints a table of the numbers of trees."""
    reporter, params = ProgressReporter(), FitParams()
    groups, validation = training_data(protocol, params, reporter)
    rules: dict[str, Callable[[FitParams], int]] = {
        "cross-validation": lambda seeded: validated_ranker(groups, validation, seeded).trees,
        "one split": lambda seeded: trees_of_one_split(groups, seeded),
    }
    table = Table(title=f"number of trees, {protocol}, {len(SEEDS)} seeds")
    for column in ("rule", "trees", "mean", "std / mean", "s per training"):
        table.add_column(column)
    for name, rule in rules.items():
        started = time.perf_counter()
        trees = [rule(replace(params, seed=params.seed + 100 * seed)) for seed in SEEDS]
        add(table, name, trees, (time.perf_counter() - started) / len(SEEDS))
    reporter.console.print(table)


def add(table: Table, rule: str, trees: list[int], seconds: float) -> None:
    """Adds the row of a rule. seconds: of one training."""
    listed = " ".join(map(str, sorted(trees)))
    mean, spread = np.mean(trees), np.std(trees) / np.mean(trees)
    table.add_row(rule, listed, f"{mean:.0f}", f"{spread:.0%}", f"{seconds:.1f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "last-10pct")  # type: ignore[arg-type]
