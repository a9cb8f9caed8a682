"""Tests that the towers of two folds, trained at once, are those that are trained in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from shortlist.batch import stage_towers
from shortlist.batch.progress import silent_reporter
from shortlist.batch.stage_towers import towers_of_folds
from shortlist.recsys.training.fit import Fold
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

PARAMS = FitParams(
    TowerParams(dimension=16, hidden=32, round_steps=10, rounds=2), RankerParams(), threads=2
)
IN_TURN = ["train towers, fold 0", "train towers, fold 1", "train towers, fold 2"]
AT_ONCE = ["train towers, fold 0", "train towers, folds 1 and 2"]


def trained(published, params: FitParams, workers: int):
    """The towers of each fold, and the names of the stages."""
    reporter = silent_reporter()
    folds = towers_of_folds(published.work, "last-10pct", params, reporter, workers)
    return dict(folds), list(reporter.stages.seconds)


@pytest.mark.parametrize("threads", [2, 4])
def test_folds_at_once_are_those_in_turn(
    published, threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with the record of their training."""
    monkeypatch.setattr(stage_towers, "MIN_EVENTS_AT_ONCE", 0)
    params = replace(PARAMS, threads=threads)
    here, names = trained(published, params, workers=1)
    assert names == IN_TURN
    at_once, names = trained(published, params, workers=0)
    assert names == AT_ONCE
    assert list(here) == list(at_once) == list(Fold)
    for fold, (towers, *record) in here.items():
        other, *others_record = at_once[fold]
        assert repr(record) == repr(others_record)  # its figures without validation are NaN
        for name, array in asdict(towers).items():
            np.testing.assert_array_equal(array, getattr(other, name))


def test_where_a_second_process_is_no_gain(published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is little to train, or one thread for it, folds are trained in turn."""
    assert trained(published, PARAMS, workers=2)[1] == IN_TURN
    monkeypatch.setattr(stage_towers, "MIN_EVENTS_AT_ONCE", 0)
    assert trained(published, replace(PARAMS, threads=1), workers=2)[1] == IN_TURN


def test_a_fold_whose_process_is_killed(published, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained in this one, and what this one has trained meanwhile is kept."""
    monkeypatch.setattr(stage_towers, "MIN_EVENTS_AT_ONCE", 0)
    expected, _ = trained(published, PARAMS, workers=1)
    monkeypatch.setattr(stage_towers, "_trained_by_files", killed)
    found, names = trained(published, PARAMS, workers=0)
    assert names == [*AT_ONCE, "train towers, fold 2"]
    for fold, (towers, *_) in expected.items():
        np.testing.assert_array_equal(found[fold].towers.items, towers.items)


def killed(*_: object) -> None:
    """What the kernel does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


ALONE = """
import os, signal, sys
from pathlib import Path
from shortlist.batch.stage_towers import _trained_by_files
from shortlist.batch.workers import in_parallel
from shortlist.recsys.training.fit import Fold
from shortlist.recsys.training.parameters import FitParams, TowerParams
towers = TowerParams(dimension=16, hidden=32, round_steps=1, rounds=10**6, max_positions=10**12)
params = FitParams(towers, threads=2)
task = Path(sys.argv[1]), "last-10pct", params, Fold.EVERYTHING, 10**6, os.getpid()

def orphaned(*task):
    os.kill(task[-1], signal.SIGKILL)
    return _trained_by_files(*task)

with in_parallel(orphaned, *task):
    signal.pause()
"""
"""A script that is killed while another process trains a fold for it, for hours."""


def test_no_process_trains_for_nobody(published) -> None:
    """The parent is killed; its end closes the pipe that both have."""
    script = [sys.executable, "-c", ALONE, str(published.work)]
    killed = subprocess.run(script, stdout=subprocess.PIPE, timeout=120, check=False)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, b"")
