"""The parameters of the models, by settings and by TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import InvalidSettings
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.settings import Settings
from shortlist.recsys.training.parameters import FitParams, RankerParams, TowerParams

Params = TypeVar("Params", TowerParams, RankerParams)


def fit_params(settings: Settings) -> FitParams:
    """The models' parameters under these settings."""
    return FitParams(
        towers=TowerParams(dimension=settings.embedding_dim, loss=settings.loss),
        ranker=RankerParams(estimators=settings.lgbm_n_estimators),
        n_candidates=settings.top_k_candidates,
        n_lists=settings.faiss_n_lists,
        n_probe=settings.faiss_n_probe,
        exploration_share=settings.exploration_share,
        repeats=Repeats(settings.repeats),
        threads=settings.threads,
    )


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
    schemas = TypeAdapter(type(params)).json_schema()["properties"]
    unknown = next((name for name in section if name not in schemas), None)
    if unknown is not None:
        raise InvalidSettings(
            f"config {where} has {unknown!r}: must be one of {', '.join(schemas)}"
        )
    try:
        return replace(params, **section)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidSettings(
            f"config {where} has {name} = {first['input']!r}: must be {_rule(schemas[name])}; "
            "correct it"
        ) from error


def _rule(schema: Mapping[str, Any]) -> str:
    """The bounds of a parameter in words, from its JSON schema."""
    if "enum" in schema:
        return " or ".join(schema["enum"])
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    if "maximum" in schema:
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    if "exclusiveMinimum" in schema:
        return f"{kind} greater than {schema['exclusiveMinimum']}"
    return f"{kind} of at least {schema['minimum']}"
