"""Tests the parameter search: no hold-out, resumption, usable config.

The search never reads the hold-out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from shortlist.batch import config
from shortlist.batch.cli import main
from shortlist.batch.tune import tune
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams
from shortlist.recsys.training.split import cuts

SMALL = FitParams(
    towers=TowerParams(dimension=8, hidden=16, rounds=2, round_steps=1),
    ranker=RankerParams(estimators=10),
    n_candidates=20,
    threads=1,
)


def test_the_hold_out_is_never_read(published, tmp_path, reporter) -> None:
    """With other items in the hold-out the same trials get the same scores."""
    events = published.dataset.events
    held = np.arange(len(events)) >= cuts(events, "last-10pct")[events.user]
    other = np.where(held, (events.item + 1) % events.n_items, events.item).astype(np.int32)
    changed = replace(published.dataset, events=replace(events, item=other))
    first = tune(published.dataset, "last-10pct", SMALL, 1e-6, tmp_path / "one", reporter)
    second = tune(changed, "last-10pct", SMALL, 1e-6, tmp_path / "two", reporter)
    assert first == second
    assert first.trials == {"towers": 1, "ranker": 1}
    assert 0 < first.scores["towers"][0] < 1


def test_a_later_call_goes_on(published, tmp_path, reporter) -> None:
    """Trials of an earlier call count, and the outcome is never worse than the defaults."""
    tune(published.dataset, "last-10pct", SMALL, 1e-6, tmp_path, reporter)
    again = tune(published.dataset, "last-10pct", SMALL, 1e-6, tmp_path, reporter)
    assert again.trials["towers"] == 2
    assert all(before <= after for before, after in again.scores.values())


def test_the_command_writes_a_usable_config(tables, tmp_path, monkeypatch) -> None:
    """`shortlist tune` prints both figures and leaves a file that `evaluate --config` reads."""
    monkeypatch.setenv("TOP_K_CANDIDATES", "20")
    start = tmp_path / "start.toml"
    config.write(
        start, {"dimension": 8, "hidden": 16, "rounds": 2, "round_steps": 1}, {"estimators": 10}, ""
    )
    out = tmp_path / "tuned.toml"
    interactions = ["--interactions", str(tables / "interactions.parquet")]
    options = [
        "--minutes",
        "0.00001",
        "--work",
        str(tmp_path),
        "--out",
        str(out),
        "--config",
        str(start),
    ]
    result = CliRunner().invoke(main, ["tune", *interactions, *options])
    assert result.exit_code == 0, result.output
    assert "towers: validation NDCG@10" in result.output
    tuned = config.with_config(FitParams(), out)
    assert (tuned.towers.round_steps, tuned.ranker.estimators) == (1, 10)
    result = CliRunner().invoke(
        main, ["evaluate", *interactions, "--config", str(tmp_path / "other.toml")]
    )
    assert isinstance(result.exception, SystemExit)
    assert "other.toml" in result.output


@pytest.mark.parametrize("minutes", ["0", "-1", "x"])
def test_no_time_is_refused(minutes) -> None:
    """A search needs a positive time."""
    result = CliRunner().invoke(main, ["tune", "--interactions", "x.parquet", "--minutes", minutes])
    assert result.exit_code == 2
    assert "--minutes" in result.output
