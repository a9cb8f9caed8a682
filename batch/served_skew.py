"""Whether the features of live answers look like those of the training: the counts in Redis beside the bundle's histograms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from batch.publish import BATCH_TIMEOUT_MS
from recsys import skew
from recsys.artefacts import open_artefacts
from recsys.counts import CountLog
from recsys.errors import CorruptArtefact, InvalidInput
from recsys.events import Int64
from recsys.settings import Settings
from recsys.skew import Histograms, Skew
from recsys.store import open_store


@dataclass(frozen=True, slots=True)
class Served:
    """A release, and how what it served compares with what it was trained on."""

    version: str
    skew: Skew


def served_skew(settings: Settings, version: str | None = None) -> Served:
    """Compares the sampled live answers of a release, the serving one by default, with its training.

    Raises:
        InvalidInput: there is no such release, or nothing was sampled yet.
        CorruptArtefact: the bundle or the counts are not what was written.
    """
    store = open_store(settings.redis_url, settings.namespace, BATCH_TIMEOUT_MS)
    try:
        pointer = store.release()
        wanted = version or (None if pointer is None else pointer.current)
        if wanted is None:
            raise InvalidInput("no release has been published: run `shortlist batch run` first")
        counts = CountLog(store).read(store.keys.skew(wanted))
    finally:
        store.close()
    trained = _trained(settings, wanted)
    return Served(wanted, skew.judge(trained, tallies(trained, counts)))


def _trained(settings: Settings, version: str) -> Histograms:
    with tempfile.TemporaryDirectory() as directory:
        tables = skew.load(open_artefacts(settings.artefacts).fetch(version, Path(directory))) or {}
    if "features" not in tables:
        raise InvalidInput(f"{version} holds no histograms of its features: publish a release of {skew.MIN_ROWS} users or more")
    return tables["features"]


def tallies(trained: Histograms, counts: Mapping[str, int]) -> dict[str, Int64]:
    """int64[cells] by feature, of counts by `feature:cell`.

    Raises:
        CorruptArtefact: a count is of no cell of the training.
    """
    found = {name: np.zeros(len(known.counts), np.int64) for name, known in trained.features.items()}
    for field, number in counts.items():
        name, _, cell = field.rpartition(":")
        if name not in found or not cell.isdecimal() or int(cell) >= len(found[name]):
            raise CorruptArtefact(f"the counts of live answers have {field!r}, which is no cell of the training: delete the hash")
        found[name][int(cell)] = number
    return found


def table(served: Served) -> Table:
    """Every feature, the most different first."""
    found = served.skew
    title = f"live answers of {served.version} beside its training: {found.n_serving} sampled rows, {found.n_train} of training"
    out = Table("feature", "KL, nats", "PSI", "KS", "p", "", title=title)
    for name in sorted(found.feature_kl, key=lambda f: -found.feature_kl[f]):
        figures = (found.feature_kl[name], found.psi[name], found.ks[name], found.p_value[name])
        out.add_row(name, *(f"{figure:.4f}" for figure in figures), "skew" if name in found.flagged_features else "")
    return out
