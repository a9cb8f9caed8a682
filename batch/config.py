"""Reads and writes parameters of the models as TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.training.fit import FitParams
from shortlist.recsys.training.lambdamart import RankerParams
from shortlist.recsys.training.two_tower import TowerParams

Params = TypeVar("Params", TowerParams, RankerParams)

SHARES = (
    "dropout",
    "history_dropout",
    "content_only",
    "attribute_dropout",
    "feature_share",
    "row_share",
    "averaging",
)
"""Parameters that lie between 0 and 1."""

MAY_BE_ZERO = (*SHARES, "weight_decay", "l2")
"""Parameters for which 0 is a value; the others must be greater."""


def with_config(params: FitParams, path: Path) -> FitParams:
    """Changes `params` by a config file.

    Raises:
        InvalidSettings: the file cannot be read, or has a section, a name or a value that breaks a
            rule.
    """
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(
            f"config {path}: {error}; give a TOML file, such as `shortlist tune` writes"
        ) from error
    unknown = sorted(set(sections) - {"towers", "ranker"})
    if unknown:
        raise InvalidSettings(
            f"config {path} has {unknown[0]!r}: only the sections towers and ranker are known; "
            "remove it"
        )
    towers = _changed(params.towers, sections.get("towers", {}), f"{path} [towers]")
    ranker = _changed(params.ranker, sections.get("ranker", {}), f"{path} [ranker]")
    return replace(params, towers=towers, ranker=ranker)


def changes(before: FitParams, after: FitParams) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters in which `after` differs from `before`."""

    def differing(
        old: TowerParams | RankerParams, new: TowerParams | RankerParams
    ) -> dict[str, Any]:
        known = asdict(old)
        return {name: value for name, value in asdict(new).items() if value != known[name]}

    return differing(before.towers, after.towers), differing(before.ranker, after.ranker)


def write(path: Path, towers: Mapping[str, Any], ranker: Mapping[str, Any], comment: str) -> None:
    """Writes a config file atomically."""
    lines = [*(f"# {line}" for line in comment.splitlines())]
    for name, section in (("towers", towers), ("ranker", ranker)):
        if section:
            lines += [
                "",
                f"[{name}]",
                *(f"{key} = {json.dumps(value)}" for key, value in sorted(section.items())),
            ]
    write_atomically(path, "\n".join(lines) + "\n")


def _changed(params: Params, section: object, where: str) -> Params:
    if not isinstance(section, dict):
        raise InvalidSettings(
            f"config {where} is {section!r}: must be a section of names and values"
        )
    known = asdict(params)
    for name, value in section.items():
        if name not in known:
            raise InvalidSettings(f"config {where} has {name!r}: must be one of {', '.join(known)}")
        _check(name, value, known[name], where)
    # TOML's 1 for a float parameter becomes 1.0.
    return replace(params, **{name: type(known[name])(value) for name, value in section.items()})


def _check(name: str, value: object, default: object, where: str) -> None:
    rule = _rule(name, default)
    if isinstance(default, str):
        broken = value not in ("sampled_softmax", "bpr")
    elif isinstance(value, bool) or not isinstance(
        value, int if isinstance(default, int) else (int, float)
    ):
        broken = True
    else:
        broken = (
            not value >= 0
            or (value == 0 and name not in MAY_BE_ZERO)
            or (value > 1 and name in SHARES)
        )
    if broken:
        raise InvalidSettings(f"config {where} has {name} = {value!r}: must be {rule}; correct it")


def _rule(name: str, default: object) -> str:
    if isinstance(default, str):
        return "sampled_softmax or bpr"
    kind = "a whole number" if isinstance(default, int) else "a number"
    if name in SHARES:
        return f"{kind} from 0 to 1"
    return f"{kind} of at least 0" if name in MAY_BE_ZERO else f"{kind} greater than 0"
