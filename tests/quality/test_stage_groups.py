"""Tests that the ranker's groups are the same by any number of processes."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from shortlist.batch.by_model import results_by_model
from shortlist.batch.progress import silent_reporter
from shortlist.batch.stage_groups import groups_by
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.training.fit import Fold, assemble, past_of, ranker_training_groups
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.training.ranking_groups import GROUPS_AT_ONCE


@pytest.mark.parametrize("repeats", [Repeats.NEVER, Repeats.ALLOW])
def test_several_processes_make_the_same(published, repeats) -> None:
    """Bit for bit, in the windows' order, with the negatives that are drawn."""
    params = FitParams(n_candidates=60, threads=1, repeats=repeats)
    params = replace(params, ranker=replace(params.ranker, negatives=10))
    fold, dataset = published.work / "fold-0", published.dataset
    model = assemble(bundle.load_towers(fold), bundle.load_table(fold), params)
    past = past_of(dataset, "last-10pct", params, Fold.BEFORE_HOLDOUT)
    given = model, dataset, past, "last-10pct", params
    here = ranker_training_groups(*given)
    made = ranker_training_groups(*given, groups_by(2, silent_reporter()))
    assert len(here.sizes) > 2 * GROUPS_AT_ONCE
    for field in fields(here):
        np.testing.assert_array_equal(getattr(made, field.name), getattr(here, field.name))


def blas_threads(_model: object) -> set[int]:
    """The threads of each BLAS, while a task runs."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_process_has_one_thread(published) -> None:
    """A long product has other bits by more threads, and other processes have one."""
    fold = published.work / "fold-0"
    model = assemble(bundle.load_towers(fold), bundle.load_table(fold), FitParams(threads=1))
    with threadpool_limits(2, "blas"):
        before = blas_threads(model)
        made = results_by_model(blas_threads, model, [()], 1, 1, pytest.fail)
        assert (before, list(made), blas_threads(model)) == ({2}, [(0, {1})], {2})
