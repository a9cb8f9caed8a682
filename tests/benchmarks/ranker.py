"""How steady the number of trees is: over six seeds, by cross-validation as trained, and by one split of the users.

Run after `make evaluate`, which fetches MovieLens 100K: `python tests/benchmarks/ranker.py
[protocol]`. Everything is inside the past of the protocol's split: the hold-out decides nothing
here. The figures are in docs/quality.md.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm
import numpy as np

from shortlist.batch.progress import ProgressReporter
from shortlist.recsys import data
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training import lambdamart
from shortlist.recsys.training.fit import (
    FitParams,
    assemble,
    item_table_of,
    past_before_labels,
    ranker_training_groups,
    ranker_validation_groups,
    train_towers,
    validated_ranker,
)
from shortlist.recsys.training.lambdamart import RankingGroups
from shortlist.recsys.training.split import before, cuts

MOVIELENS = Path(__file__).parents[2] / ".demo" / "data"
SEEDS = range(6)

SPLIT_SHARE = 0.15
"""Share of the users that a single split holds out."""


def trees_of_one_split(groups: RankingGroups, params: FitParams) -> int:
    """Where early stopping on some of the users ends, with rows and features drawn for each tree, as it once was."""
    drawn = replace(params.ranker, feature_share=0.6, row_share=0.8)
    rng = np.random.default_rng(params.seed + 1)
    users = np.unique(groups.users)
    held = np.isin(groups.users, rng.permutation(users)[: int(len(users) * SPLIT_SHARE)])
    train = lightgbm.Dataset(**lambdamart._dataset(groups, ~held))
    valid = lightgbm.Dataset(**lambdamart._dataset(groups, held), reference=train)
    stopping = lightgbm.early_stopping(drawn.patience, first_metric_only=True, verbose=False)
    options = lambdamart._options(drawn, len(groups.rows), params.threads, int(rng.integers(2**31)))
    booster = lightgbm.train(
        options, train, drawn.estimators, valid_sets=[valid], callbacks=[stopping]
    )
    return int(booster.best_iteration)


def described(name: str, trees: list[int], seconds: float) -> str:
    """The numbers, their range and their spread."""
    spread = np.std(trees) / np.mean(trees)
    listed = " ".join(map(str, sorted(trees)))
    return f"{name}: {listed}; standard deviation {spread:.0%} of the mean {np.mean(trees):.0f}; {seconds:.1f} s a training"


def main(protocol: HoldoutProtocol) -> None:
    """Prints the numbers of trees."""
    reporter, params = ProgressReporter(), FitParams()
    dataset = data.load(
        *(str(MOVIELENS / f"{name}.parquet") for name in ("interactions", "items", "users"))
    ).dataset
    past = before(dataset.events, cuts(dataset.events, protocol))
    with reporter.stage("towers before the labels") as progress:
        inner = past_before_labels(past, protocol, params)
        towers = train_towers(dataset, inner, params, progress).towers
    model = assemble(towers, item_table_of(dataset, inner), params)
    groups = ranker_training_groups(model, dataset, past, protocol, params)
    judged = ranker_validation_groups(model, dataset, past, protocol, params)
    rules = {
        "cross-validated": lambda seeded: validated_ranker(groups, judged, seeded).trees,
        "one split": lambda seeded: trees_of_one_split(groups, seeded),
    }
    for name, rule in rules.items():
        started = time.perf_counter()
        trees = [rule(replace(params, seed=params.seed + 100 * seed)) for seed in SEEDS]
        reporter.say(
            described(f"{protocol}, {name}", trees, (time.perf_counter() - started) / len(SEEDS))
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "last-10pct")  # type: ignore[arg-type]
