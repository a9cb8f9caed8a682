"""The config file: parameters of towers and ranker that `shortlist tune` found, or that a person wrote, as TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
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
    """`params` with what the file says of its sections `towers` and `ranker`.

    Raises:
        InvalidSettings: the file cannot be read, or has a section, a name or a value that breaks a
            rule.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(
            f"config {path}: {error}; give a TOML file, such as `shortlist tune` writes"
        ) from error
    unknown = sorted(set(told) - {"towers", "ranker"})
    if unknown:
        raise InvalidSettings(
            f"config {path} has {unknown[0]!r}: only the sections towers and ranker are known; remove it"
        )
    towers = _changed(params.towers, told.get("towers", {}), f"{path} [towers]")
    ranker = _changed(params.ranker, told.get("ranker", {}), f"{path} [ranker]")
    return replace(params, towers=towers, ranker=ranker)


def changes(before: FitParams, after: FitParams) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs in the towers, and in the ranker: what a config file has to say to make `after` of `before`."""

    def differing(
        old: TowerParams | RankerParams, new: TowerParams | RankerParams
    ) -> dict[str, Any]:
        known = asdict(old)
        return {name: value for name, value in asdict(new).items() if value != known[name]}

    return differing(before.towers, after.towers), differing(before.ranker, after.ranker)


def write(path: Path, towers: Mapping[str, Any], ranker: Mapping[str, Any], comment: str) -> None:
    """Writes a config file whole, or leaves the old one."""
    lines = [*(f"# {line}" for line in comment.splitlines())]
    for name, section in (("towers", towers), ("ranker", ranker)):
        if section:
            lines += [
                "",
                f"[{name}]",
                *(f"{key} = {json.dumps(value)}" for key, value in sorted(section.items())),
            ]
    write_atomically(path, "\n".join(lines) + "\n")


def _changed(params: Params, told: object, where: str) -> Params:
    if not isinstance(told, dict):
        raise InvalidSettings(f"config {where} is {told!r}: must be a section of names and values")
    known = asdict(params)
    for name, value in told.items():
        if name not in known:
            raise InvalidSettings(
                f"config {where} has {name!r}: must be one of {', '.join(f.name for f in fields(params))}"
            )
        _check(name, value, known[name], where)
    return replace(params, **{name: type(known[name])(value) for name, value in told.items()})


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
