"""Tests the hash of features and towers.

It is the same everywhere, and another after any change of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.recsys.models import features as features_module
from shortlist.recsys.models import fingerprint, towers
from shortlist.recsys.models.features import FEATURES, NeighbourSum
from shortlist.recsys.models.fingerprint import GRID, feature_hash, reference_values

HASH = feature_hash()

KERNELS = {
    "another BLAS": {"OPENBLAS_CORETYPE": "Prescott"},
    "no vector units": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"},
}
"""Other processors, as far as this one can play them: sums in other orders, other functions."""

CONSTANTS = {
    "history length": ("from shortlist.recsys.store import histories as m; m.HISTORY_LENGTH = 50"),
    "relation order": (
        "from shortlist.recsys.models import neighbours as m; from enum import IntEnum; "
        "m.Relation = IntEnum('Relation', 'NEXT_3 NEXT_1 NEXT_10 NEAR REGRESSION', start=0)"
    ),
    "proposing half-life": (
        "from shortlist.recsys.models import neighbours as m; m.PROPOSING_HALF_LIFE = 11.0"
    ),
    "towers' half-lives": (
        "from shortlist.recsys.models import towers as m; m.HALF_LIVES = (0, 1, 3, 10, 80, 1e9)"
    ),
    "decay": (
        "from shortlist.recsys.models import decay as m; m.decayed = lambda a, h: 0.4 ** (a / h)"
    ),
    "nothing": "",
}


def hash_elsewhere(first: str = "", environ: dict[str, str] | None = None) -> str:
    """The hash in a process of its own that runs `first` before it imports the features."""
    code = f"{first}\nfrom shortlist.recsys.models.fingerprint import feature_hash as h; print(h())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        env=os.environ | (environ or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def uncached() -> Iterator[None]:
    """The hash is computed again, before and after."""
    feature_hash.cache_clear()
    yield
    feature_hash.cache_clear()


@pytest.mark.parametrize("kernels", KERNELS)
def test_other_processors_same_hash(kernels) -> None:
    """Sums in another order and functions of another library give the same hash."""
    assert hash_elsewhere(environ=KERNELS[kernels]) == HASH


def test_no_value_near_rounding_border() -> None:
    """100 times as far as processors differ, so that rounding is the same on all of them."""
    cells = reference_values().astype(np.float64) / GRID
    distance = np.abs(cells - np.floor(cells) - 0.5) * GRID
    assert distance.min() > 1e-4


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_change_the_hash(name) -> None:
    """Each constant that shapes a feature or what the towers see."""
    assert (hash_elsewhere(CONSTANTS[name]) == HASH) == (name == "nothing")


@pytest.mark.parametrize("name", FEATURES)
def test_defaults_change_the_hash(name, monkeypatch) -> None:
    """Another value for an unknown one makes another feature."""
    feature = FEATURES[name]._replace(default=FEATURES[name].default + 1e-3)
    monkeypatch.setattr(features_module, "FEATURES", FEATURES | {name: feature})
    assert feature_hash() != HASH


@pytest.mark.parametrize("column", range(len(FEATURES)), ids=list(FEATURES))
def test_formulas_change_the_hash(column, monkeypatch) -> None:
    """A formula that gives a twentieth more of any feature shows in the fixed input."""
    rows_of = fingerprint.features

    def changed(*inputs: Any) -> np.ndarray:
        rows = rows_of(*inputs)
        rows[:, column] *= np.float32(1.05)
        return rows

    monkeypatch.setattr(fingerprint, "features", changed)
    assert feature_hash() != HASH


def test_shared_formulas_change_the_hash(monkeypatch) -> None:
    """Nothing declared differs: the mean over the history forgets its weights."""
    weighted = features_module.weighted_mean
    monkeypatch.setattr(
        features_module, "weighted_mean", lambda values, w: weighted(values, np.ones_like(w))
    )
    assert feature_hash() != HASH


def test_half_lives_change_the_hash(monkeypatch) -> None:
    """Of every neighbour sum, even by a thousandth, which no rounded value would show."""
    for name, feature in FEATURES.items():
        column = feature.column
        if not isinstance(column, NeighbourSum):
            continue
        slower = replace(column, half_life=column.half_life * 1.001)
        changed = FEATURES | {name: feature._replace(column=slower)}
        monkeypatch.setattr(features_module, "FEATURES", changed)
        feature_hash.cache_clear()
        assert feature_hash() != HASH


def test_order_and_names_change_the_hash(monkeypatch) -> None:
    """The ranker knows its columns by their order alone."""
    hashes = {HASH}
    renamed = {f"{name}_2" if name == "year" else name: each for name, each in FEATURES.items()}
    for changed in (
        dict(reversed(FEATURES.items())),
        renamed,
        FEATURES | {"new": FEATURES["year"]},
    ):
        monkeypatch.setattr(features_module, "FEATURES", changed)
        feature_hash.cache_clear()
        hashes.add(feature_hash())
    assert len(hashes) == 4


def test_towers_change_the_hash(monkeypatch) -> None:
    """Another activation makes other user vectors of the same weights."""
    monkeypatch.setattr(towers, "gelu", lambda x: np.maximum(x, np.float32(0)))
    assert feature_hash() != HASH


def test_hash_is_computed_once(monkeypatch) -> None:
    """A bundle's manifest and its ranker are both checked, at the cost of one."""
    assert feature_hash() == HASH
    monkeypatch.setattr(fingerprint, "reference_values", None)
    assert feature_hash() == HASH
