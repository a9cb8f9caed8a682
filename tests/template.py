"""The template's access strings, on the keys of any namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as their long ones."""


def _long_form(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", _long_form)
TEMPLATE = yaml.load((ROOT / "template.yaml").read_text(), Loader)  # noqa: S506 - a SafeLoader
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]


def access(user: str, namespace: str, *, admin: bool = False) -> list[str]:
    """The rules of a cache user, on keys of `namespace`; of the API with an admin key where `admin`."""
    told = RESOURCES[user]["Properties"]["AccessString"]["Fn::Sub"]
    if isinstance(told, list):
        told, (condition, given, otherwise) = told[0], told[1]["Pointer"]["Fn::If"]
        assert condition == "HasAdmin"
        told = told.replace("${Pointer}", (given if admin else otherwise)["Fn::Sub"])
    told = told.replace("shortlist-${Stage}", namespace)
    return re.findall(r"\([^)]*\)|\S+", told)
