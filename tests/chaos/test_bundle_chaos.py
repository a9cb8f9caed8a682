"""A small campaign of damaged bundles: each is refused, or answers soundly; no process dies of one."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.bundle_mutations import _Worker, campaign, mutate

CASES = 120


@pytest.mark.parametrize("seed", [1])
def test_damaged_bundles(published, seed: int) -> None:
    """Sums that agree do not help: nothing but refusals and sound answers, and some of either."""
    outcomes = [
        (case, outcome) for case, outcome in campaign(published.work / "bundle", seed, CASES)
    ]
    wrong = [
        (case, outcome) for case, outcome in outcomes if outcome not in ("refused", "answered")
    ]
    assert wrong == []
    assert set(Counter(outcome for _, outcome in outcomes)) == {"refused", "answered"}


def test_a_whole_bundle_answers(published, tmp_path: Path) -> None:
    """The campaign's worker serves what nobody damaged, and tells what it does not know."""
    directory = tmp_path / published.version
    worker = _Worker(directory)
    try:
        shutil.copytree(published.work / "bundle", directory)
        assert worker.outcome() == "answered"
        shutil.rmtree(directory)
        assert worker.outcome() == "refused"
    finally:
        worker.stop()


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    """An abort is an outcome of its own."""
    worker = _Worker(tmp_path / "v1")
    try:
        worker._process.kill()
        assert worker.outcome() == "died with -9"
    finally:
        worker.stop()


def test_a_seed_gives_the_same_damage(published, tmp_path: Path) -> None:
    """So that a finding can be made again."""
    made = []
    for name in ("one", "two"):
        directory = Path(shutil.copytree(published.work / "bundle", tmp_path / name))
        case = mutate(directory, "7-3")
        made.append((case, {path.name: path.read_bytes() for path in directory.iterdir()}))
    assert made[0] == made[1]
