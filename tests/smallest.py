"""The smallest models, for tests of what the batch does around them.

The towers stop after about a hundred steps, and the ranker learns from two positions of a user, so
that a run takes half of the time. In the small world both stages still beat popularity, as the gate
demands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shortlist.batch import config
from shortlist.recsys.settings import Settings
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

TOWERS: dict[str, Any] = {"hidden": 32, "rounds": 3, "round_steps": 30}
RANKER: dict[str, Any] = {"positions": 2}


PARAMS = FitParams(
    towers=TowerParams(dimension=8, **TOWERS),
    ranker=RankerParams(estimators=10, **RANKER),
    n_candidates=40,
    threads=1,
)
"""Where no settings say how large the models are."""


def smallest(settings: Settings) -> FitParams:
    """The parameters of a job under these settings."""
    params = config.fit_params(settings)
    return replace(
        params,
        towers=replace(params.towers, **TOWERS),
        ranker=replace(params.ranker, **RANKER),
    )


def smallest_config(directory: Path) -> Path:
    """Writes the same as a file for `--config` and SHORTLIST_CONFIG; gives its path."""
    path = directory / "smallest.toml"
    config.write(path, TOWERS, RANKER, "the smallest models")
    return path
