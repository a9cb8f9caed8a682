"""Damaged bundles are refused or answer soundly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.chaos.bundle_mutations import _Worker, campaign, mutate

CASES = 120


@pytest.mark.parametrize("seed", [1])
def test_damaged_bundles_are_refused_or_answer(published, seed: int) -> None:
    """Every damaged bundle is refused or answers soundly, and both occur."""
    results = list(campaign(published.work / "bundle", seed, CASES))
    wrong = [(case, result) for case, result in results if result not in ("refused", "answered")]
    assert wrong == []
    assert {result for _, result in results} == {"refused", "answered"}


def test_intact_bundle_answers(published, tmp_path: Path) -> None:
    """A worker answers from an intact bundle, and refuses a missing one."""
    directory = tmp_path / published.version
    worker = _Worker(directory)
    try:
        shutil.copytree(published.work / "bundle", directory)
        assert worker.outcome() == "answered"
        shutil.rmtree(directory)
        assert worker.outcome() == "refused"
    finally:
        worker.stop()


def test_dead_worker_is_reported(tmp_path: Path) -> None:
    """A process that dies is an outcome of its own."""
    worker = _Worker(tmp_path / "v1")
    try:
        worker._process.kill()
        assert worker.outcome() == "died with -9"
    finally:
        worker.stop()


def test_seed_repeats_damage(published, tmp_path: Path) -> None:
    """A seed always does the same damage, so that findings can be repeated."""
    made = []
    for name in ("one", "two"):
        directory = Path(shutil.copytree(published.work / "bundle", tmp_path / name))
        case = mutate(directory, "7-3")
        made.append((case, {path.name: path.read_bytes() for path in directory.iterdir()}))
    assert made[0] == made[1]
