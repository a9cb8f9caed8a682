"""Reads template.yaml, and the Redis access rules in it.

`TEMPLATE` and `RESOURCES` are the parsed SAM template; `access(user, namespace)` gives the ACL
rules of a cache user for the keys of any namespace, so that a test can apply them to a Valkey.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms (`!Ref x`) as their long ones (`{"Ref": "x"}`)."""


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
    """The ACL rules of a cache user on the keys of `namespace`.

    admin: the API user's rules where an admin key is set.
    """
    rules = RESOURCES[user]["Properties"]["AccessString"]["Fn::Sub"]
    if isinstance(rules, list):
        rules, variables = rules
        condition, with_admin, without = variables["Pointer"]["Fn::If"]
        assert condition == "HasAdmin"
        pointer = with_admin if admin else without
        rules = rules.replace("${Pointer}", pointer["Fn::Sub"])
    rules = rules.replace("shortlist-${Stage}", namespace)
    # A selector in brackets is one rule, whatever spaces it has.
    return re.findall(r"\([^)]*\)|\S+", rules)
