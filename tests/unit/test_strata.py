"""Tests strata: training rows grouped by history length.

Live rows are compared with those of their stratum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shortlist.infra.tools import skew_study
from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.monitoring import skew, strata


def of_lengths(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """A table of a feature and the lengths."""
    return {"a": np.arange(len(lengths)) % 7, strata.COLUMN: lengths}


def test_strata_have_similar_sizes() -> None:
    """Eight of 1600 different lengths; the column that they are of is not among their features."""
    made = strata.split(of_lengths(np.arange(1600.0)))
    assert [(one.low, one.high) for one in made] == [(200.0 * s, 200.0 * s + 199) for s in range(8)]
    assert [(one.trained.rows, list(one.trained.features)) for one in made] == [(200, ["a"])] * 8


def test_equal_lengths_stay_together() -> None:
    """Whatever the number of rows, none has fewer than LEAST_ROWS where there are so many."""
    made = strata.split(of_lengths(np.repeat([1.0, 2.0, 3.0, 9.0], [150, 90, 20, 40])))
    assert [(one.low, one.high, one.trained.rows) for one in made] == [(1, 1, 150), (2, 9, 150)]
    assert [one.trained.rows for one in strata.split(of_lengths(np.arange(150.0)))] == [150]
    assert strata.split(of_lengths(np.arange(skew.MIN_ROWS - 1.0))) == []


def test_rows_find_their_stratum() -> None:
    """Bounds belong to a stratum; longer than all is the last, shorter than all is none."""
    made = strata.split(of_lengths(np.repeat([2.0, 5.0, 6.0], 100)))
    assert strata.place(made, np.array([1, 2, 3, 5, 5.5, 6, 99])).tolist() == [-1, 0, 1, 1, 2, 2, 2]


def test_strata_outlive_a_bundle(tmp_path: Path) -> None:
    """They are read as written; a bundle may lack the file, and another file is an error."""
    made = strata.split(of_lengths(np.arange(400.0)))
    assert strata.load(tmp_path) == []
    strata.save(tmp_path, made)
    assert strata.load(tmp_path) == made
    for content in (b"\xc1", b"\x91\x01", b"\x91\x93\x01\x02\xa1x", b"\x01"):
        (tmp_path / strata.FILE).write_bytes(content)
        with pytest.raises(CorruptArtefact, match="publish the release again"):
            strata.load(tmp_path)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_who_asks_is_no_skew(factor: float) -> None:
    """Other histories' lengths are flagged over all rows, not by strata; a spoilt feature is."""
    rng = np.random.default_rng(7)
    flagged = skew_study.askers(rng, factor, 0.0, 10)
    assert (flagged["alone"], flagged["strata"]) == (10, 0)
    assert skew_study.askers(rng, factor, 0.5, 5)["strata"] == 5


def test_one_stratum_is_the_plain_comparison() -> None:
    """And where nothing was served in a stratum, it says nothing."""
    rng = np.random.default_rng(8)
    made = skew.histograms({"a": rng.normal(size=400)})
    served = skew.tally(made, {"a": rng.normal(0.5, 1, 100)})
    none = {"a": np.zeros_like(served["a"])}
    alone, twice = skew.judge(made, served), skew.judge_strata([(made, none), (made, served)])
    assert (alone.feature_kl, alone.p_value, alone.ks) == (
        twice.feature_kl,
        twice.p_value,
        twice.ks,
    )
    assert (twice.n_train, twice.n_serving) == (800, 100)


def test_evidence_of_strata_adds_up() -> None:
    """Two strata that each say little, in opposite directions, say more together than one."""
    x, y = np.array([30, 20, 10]), np.array([20, 22, 20])
    one = skew.homogeneity(x, y)
    assert skew.homogeneity_within([(x, y)]) == one
    assert skew.homogeneity_within([(x, y), (y, x)]) < one
    assert skew.homogeneity_within([]) == 1.0


def test_strata_raise_no_alarm_by_themselves() -> None:
    """Users of the training served again: p-values below 5% are no more frequent than that."""
    rng = np.random.default_rng(9)
    results = [
        skew_study.within(skew_study.of_users(rng, 2000, 1.0), skew_study.of_users(rng, 1000, 1.0))
        for _ in range(30)
    ]
    assert sum(one.skew_detected for one in results) == 0
    assert np.mean([p < 0.05 for one in results for p in one.p_value.values()]) < 0.08
