"""Tests that the towers of two folds, trained at once, are those that are trained in turn."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from shortlist.batch import stage_towers
from shortlist.batch.progress import silent_reporter
from shortlist.batch.stage_towers import towers_of_folds
from shortlist.recsys.training.fit import Fold
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

PARAMS = FitParams(
    TowerParams(dimension=16, hidden=32, round_steps=30, rounds=2), RankerParams(), threads=2
)
IN_TURN = ["train towers, fold 0", "train towers, fold 1", "train towers, fold 2"]
AT_ONCE = ["train towers, fold 0", "train towers, folds 1 and 2"]


def trained(published, params: FitParams, workers: int):
    """The towers of each fold, and the names of the stages."""
    reporter = silent_reporter()
    folds = towers_of_folds(published.work, "last-10pct", params, reporter, workers)
    return dict(folds), list(reporter.stages.seconds)


def test_folds_at_once_are_those_in_turn(published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, with the record of their training."""
    monkeypatch.setattr(stage_towers, "MIN_EVENTS_AT_ONCE", 0)
    here, names = trained(published, PARAMS, workers=1)
    assert names == IN_TURN
    at_once, names = trained(published, PARAMS, workers=2)
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
