"""Compares features of sampled live answers with the training's."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.models.interactions import Int64
from shortlist.recsys.monitoring import skew, strata
from shortlist.recsys.monitoring.skew import Histograms, Skew
from shortlist.recsys.monitoring.strata import Stratum
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.counts import CountLog


@dataclass(frozen=True, slots=True)
class Served:
    """A release's live answers next to its training.

    skew: among users of histories of the same length; lengths: KL(live ‖ training) of the strata in
    nats, which is a matter of who sends requests; below_training_range: sampled rows of users with
    fewer events than any of the training, which are compared with nothing.
    """

    version: str
    skew: Skew
    lengths: float
    below_training_range: int


def served_skew(settings: Settings, version: str | None = None) -> Served:
    """Compares sampled live answers with the training.

    version: the serving one by default.

    Raises:
        InvalidInput: there is no such release, or nothing was sampled yet.
        ReleaseNotFound, CorruptArtefact: the bundle is not there, or not what was written.
        UnreadableRecord: the counts cannot be read.
    """
    with batch_store(settings) as store:
        pointer = store.release()
        if version is None and pointer is not None:
            version = pointer.current
        if version is None:
            raise InvalidInput("no release has been published: run `shortlist batch run` first")
        counts = CountLog(store).read(store.keys.skew(version))
    trained = [stratum.trained for stratum in _strata(settings, version)]
    below = counts.pop(strata.BELOW_TRAINING, 0)
    live = tallies(trained, counts)
    if below and not counts:
        raise InvalidInput(
            f"all {below} sampled rows are of users with fewer events than any of the training: "
            "wait for others"
        )
    compared = skew.judge_strata(list(zip(trained, live, strict=True)))
    return Served(version, compared, _length_divergence(trained, live, below), below)


def _strata(settings: Settings, version: str) -> list[Stratum]:
    with tempfile.TemporaryDirectory() as directory:
        bundle = open_artefacts(settings.artefacts).fetch(version, Path(directory))
        loaded = strata.load(bundle)
    if not loaded:
        raise InvalidInput(
            f"{version} holds no histograms of its features: "
            f"publish a release of {skew.MIN_ROWS} users or more"
        )
    return loaded


def tallies(trained: Sequence[Histograms], counts: Mapping[str, int]) -> list[dict[str, Int64]]:
    """int64[cells] by feature, for each stratum.

    counts: by `stratum:feature:cell`.

    Raises:
        UnreadableRecord: a count is of no cell of the training.
    """
    tables = [
        {name: np.zeros(len(known.counts), np.int64) for name, known in stratum.features.items()}
        for stratum in trained
    ]
    for field, number in counts.items():
        stratum, name, cell = (*field.split(":", 2), "", "")[:3]
        cells = np.empty(0, np.int64)
        if stratum.isdecimal() and int(stratum) < len(tables):
            cells = tables[int(stratum)].get(name, cells)
        if not cell.isdecimal() or int(cell) >= len(cells):
            raise UnreadableRecord(
                f"the counts of live answers have {field!r}, which is no cell of the training: "
                "delete the hash"
            )
        cells[int(cell)] = number
    return tables


def _length_divergence(
    trained: Sequence[Histograms], live: Sequence[Mapping[str, Int64]], below: int
) -> float:
    """KL(live ‖ training) of the strata.

    below: rows of one stratum more, which the training lacks.
    """
    # Each feature counts each row once; where counts were lost, the largest sum is nearest.
    live_rows = [max(int(counts.sum()) for counts in tables.values()) for tables in live]
    trained_rows = [stratum.rows for stratum in trained]
    return skew.divergence(np.array([*live_rows, below]), np.array([*trained_rows, 0]))


def figures(served: Served) -> dict[str, Any]:
    """The comparison for a program.

    {"release", "sampled_rows", "training_rows", "flagged": names, "features": {name: {"kl", "psi",
    "ks", "p_value"}, …}, "history_lengths_kl", "below_training_range"}.
    """
    compared = served.skew
    return {
        "release": served.version,
        "sampled_rows": compared.n_serving,
        "training_rows": compared.n_train,
        "flagged": list(compared.flagged_features),
        "features": {
            name: {
                "kl": kl,
                "psi": compared.psi[name],
                "ks": compared.ks[name],
                "p_value": compared.p_value[name],
            }
            for name, kl in compared.feature_kl.items()
        },
        "history_lengths_kl": served.lengths,
        "below_training_range": served.below_training_range,
    }


def table(served: Served) -> Table:
    """Every feature, the most different first."""
    compared = served.skew
    title = (
        f"live answers of {served.version} next to its training: "
        f"{compared.n_serving} sampled rows, {compared.n_train} of training"
    )
    table = Table("feature", "KL, nats", "PSI", "KS", "p", "", title=title)
    for name in sorted(compared.feature_kl, key=lambda f: -compared.feature_kl[f]):
        columns = compared.feature_kl, compared.psi, compared.ks, compared.p_value
        figures = [f"{column[name]:.4f}" for column in columns]
        table.add_row(name, *figures, "skew" if name in compared.flagged_features else "")
    return table


def history_lengths_note(served: Served) -> str:
    """A sentence on the lengths of sampled histories.

    They call for no action.
    """
    note = (
        "who asks: the lengths of histories differ from the training's by "
        f"{served.lengths:.4f} nats, and are allowed for"
    )
    if served.below_training_range:
        left_out = served.below_training_range
        note += f"; {left_out} rows of shorter histories than any there are left out"
    return note
