"""Splits training histograms by the length of a user's history.

Users who get live answers are not those who were trained on, and most features follow from the
length of the history; live rows are therefore compared with training rows of the same length. By
the chain rule of the divergence (Cover and Thomas, Elements of Information Theory, 2.5), the
divergence of everything together is that of the lengths, which shows who asks, and that of the
features among users of the same length, which shows whether they are computed as in training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact
from shortlist.recsys.models.features import FEATURES
from shortlist.recsys.models.interactions import Int64
from shortlist.recsys.monitoring import skew
from shortlist.recsys.monitoring.skew import Histograms
from shortlist.recsys.store.release_files import Release

COLUMN = "history_length"
"""The feature that the strata split; within them it is not compared."""

MAX_STRATA = 8
MIN_ROWS_PER_STRATUM = 100
"""Training rows of a stratum, unless there are fewer in all."""

BELOW_TRAINING = "aside"
"""The stored name of the count of rows below the least of the training."""

FILE = "strata.msgpack"
"""In a bundle."""

MAX_BYTES = 16 << 20
"""The largest file that is read; a real one has some 10 kB."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """The training rows whose COLUMN is above the stratum before, and at most `high`.

    low: the least COLUMN in training; trained: histograms of the other features.
    """

    low: float
    high: float
    trained: Histograms


def split(table: Mapping[str, NDArray[Any]]) -> list[Stratum]:
    """Up to MAX_STRATA strata of about the same number of rows, by rising COLUMN.

    A table of fewer than skew.MIN_ROWS rows has none.
    """
    values = np.asarray(table[COLUMN])
    if len(values) < skew.MIN_ROWS:
        return []
    highs = _highs(values)
    stratum_of = np.searchsorted(highs, values)
    rest = {name: column for name, column in table.items() if name != COLUMN}
    strata = []
    for number, high in enumerate(highs.tolist()):
        inside = stratum_of == number
        trained = skew.histograms({name: column[inside] for name, column in rest.items()})
        strata.append(Stratum(float(values[inside].min()), high, trained))
    return strata


def _highs(values: NDArray[Any]) -> NDArray[np.float64]:
    """float64[strata]: the largest value of each stratum.

    Equal values stay together, and the last few join those before.
    """
    different, counts = np.unique(values, return_counts=True)
    least = max(MIN_ROWS_PER_STRATUM, len(values) // MAX_STRATA)
    rows, highs = 0, []
    for value, count in zip(different.tolist(), counts.tolist(), strict=True):
        rows += count
        if rows >= least:
            highs.append(value)
            rows = 0
    return np.array([*highs[:-1], different[-1]], np.float64)


def place(strata: Sequence[Stratum], values: NDArray[Any]) -> Int64:
    """int64[rows]: each row's stratum by its COLUMN.

    It is -1 below the least of the training, and the last stratum for all above.
    """
    highs = np.array([stratum.high for stratum in strata[:-1]], np.float64)
    return np.where(values < strata[0].low, -1, np.searchsorted(highs, values)).astype(np.int64)


def save(directory: Path, strata: Sequence[Stratum]) -> None:
    """Writes them into a bundle's directory, before its manifest is made."""
    packed = [[stratum.low, stratum.high, skew.pack(stratum.trained)] for stratum in strata]
    (directory / FILE).write_bytes(msgpack.packb(packed))


def load(directory: Path) -> list[Stratum]:
    """A bundle's strata; none in a bundle that has none.

    Raises:
        CorruptArtefact: the file is not what `save` wrote.
    """
    path = directory / FILE
    return _unpacked(path.read_bytes(), path) if path.exists() else []


def read(release: Release) -> list[Stratum]:
    """As `load`, of a verified release: only a file that its manifest names counts."""
    if FILE not in release.files:
        return []
    path = release.directory / FILE
    strata = _unpacked(release.read(FILE, MAX_BYTES), path)
    compared = FEATURES.keys() - {COLUMN}
    if any(stratum.trained.features.keys() != compared for stratum in strata):
        raise CorruptArtefact(f"{path} is of other features: publish the release again")
    return strata


def _unpacked(body: bytes, path: Path) -> list[Stratum]:
    try:
        strata = [
            Stratum(float(low), float(high), skew.unpack(packed))
            for low, high, packed in msgpack.unpackb(body)
        ]
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        raise CorruptArtefact(
            f"{path} cannot be read ({error}): publish the release again"
        ) from error
    bounds = [bound for stratum in strata for bound in (stratum.low, stratum.high)]
    ascends = all(map(math.isfinite, bounds)) and sorted(bounds) == bounds
    if len(strata) > MAX_STRATA or not ascends:
        raise CorruptArtefact(
            f"{path} has strata {bounds}, which do not follow each other: publish the release again"
        )
    return strata
