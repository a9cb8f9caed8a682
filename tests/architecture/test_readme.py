"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import click

from shortlist.batch.cli import main
from shortlist.infra.tools.readme import quality, with_tables
from shortlist.recsys import settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands(group: click.Group, path: str) -> list[str]:
    """Every command of the command line, in full."""
    out = []
    for name, command in group.commands.items():
        out += (
            commands(command, f"{path} {name}")
            if isinstance(command, click.Group)
            else [f"{path} {name}"]
        )
    return out


def test_the_generated_tables_are_those_of_the_reports() -> None:
    """No figure in the tables is typed by hand."""
    assert with_tables(README, quality(ROOT / "docs" / "reports")) == README


def test_every_setting_is_documented() -> None:
    """Each variable that the settings read stands in the README."""
    read = set(re.findall(r'read\.\w+\("(\w+)"', Path(settings.__file__).read_text()))
    assert {name for name in read if f"`{name}`" not in README} == set()


def test_every_command_is_documented() -> None:
    """Each command's last word stands in the README."""
    assert {c for c in commands(main, "shortlist") if c.rpartition(" ")[2] not in README} == set()


def test_every_make_recipe_of_the_readme_exists() -> None:
    """What the README tells a newcomer to type can be typed."""
    recipes = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", README)) <= recipes
