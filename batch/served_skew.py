"""Whether the features of live answers look like those of the training: the counts in Redis beside the bundle's histograms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from shortlist.batch.publish import BATCH_TIMEOUT_MS
from shortlist.recsys.errors import CorruptArtefact, InvalidInput
from shortlist.recsys.models.interactions import Int64
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.monitoring.skew import Histograms, Skew
from shortlist.recsys.monitoring.strata import Stratum
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.redis import open_store


@dataclass(frozen=True, slots=True)
class Served:
    """A release, and how what it served compares with what it was trained on.

    skew: among users of histories of the same length; lengths: KL(live ‖ training) of the strata in
    nats, which tells who asks;
    aside: sampled rows of users with fewer events than any of the training, which nothing is
    compared with.
    """

    version: str
    skew: Skew
    lengths: float
    aside: int


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
    trained = [stratum.trained for stratum in _strata(settings, wanted)]
    aside, found = counts.pop(strata.BELOW_TRAINING, 0), tallies(trained, counts)
    if aside and not counts:
        raise InvalidInput(
            f"all {aside} sampled rows are of users with fewer events than any of the training: wait for others"
        )
    return Served(
        wanted,
        skew.judge_strata(list(zip(trained, found, strict=True))),
        _lengths(trained, found, aside),
        aside,
    )


def _strata(settings: Settings, version: str) -> list[Stratum]:
    with tempfile.TemporaryDirectory() as directory:
        found = strata.load(open_artefacts(settings.artefacts).fetch(version, Path(directory)))
    if not found:
        raise InvalidInput(
            f"{version} holds no histograms of its features: publish a release of {skew.MIN_ROWS} users or more"
        )
    return found


def tallies(trained: Sequence[Histograms], counts: Mapping[str, int]) -> list[dict[str, Int64]]:
    """int64[cells] by feature for each stratum, of counts by `stratum:feature:cell`.

    Raises:
        CorruptArtefact: a count is of no cell of the training.
    """
    found = [
        {name: np.zeros(len(known.counts), np.int64) for name, known in one.features.items()}
        for one in trained
    ]
    for field, number in counts.items():
        at, name, cell = (*field.split(":", 2), "", "")[:3]
        cells = found[int(at)].get(name, ()) if at.isdecimal() and int(at) < len(found) else ()
        if not cell.isdecimal() or int(cell) >= len(cells):
            raise CorruptArtefact(
                f"the counts of live answers have {field!r}, which is no cell of the training: delete the hash"
            )
        found[int(at)][name][int(cell)] = number
    return found


def _lengths(
    trained: Sequence[Histograms], found: Sequence[Mapping[str, Int64]], aside: int
) -> float:
    """KL(live ‖ training) of the strata, with those aside."""
    live = [max(int(counts.sum()) for counts in one.values()) for one in found]
    return skew.divergence(np.array([*live, aside]), np.array([*(one.rows for one in trained), 0]))


def table(served: Served) -> Table:
    """Every feature, the most different first."""
    found = served.skew
    title = f"live answers of {served.version} beside its training: {found.n_serving} sampled rows, {found.n_train} of training"
    out = Table("feature", "KL, nats", "PSI", "KS", "p", "", title=title)
    for name in sorted(found.feature_kl, key=lambda f: -found.feature_kl[f]):
        figures = (found.feature_kl[name], found.psi[name], found.ks[name], found.p_value[name])
        out.add_row(
            name,
            *(f"{figure:.4f}" for figure in figures),
            "skew" if name in found.flagged_features else "",
        )
    return out


def who_asks(served: Served) -> str:
    """A sentence on the histories of those who were sampled, which is nothing to mend."""
    told = f"who asks: the lengths of histories differ from the training's by {served.lengths:.4f} nats, and are allowed for"
    return (
        f"{told}; {served.aside} rows of shorter histories than any there are left out"
        if served.aside
        else told
    )
