"""The batch's image and the repository agree: what it copies is there, and what it starts is a command."""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import click

from batch.cli import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "infra" / "batch" / "Dockerfile").read_text().replace("\\\n", "")
STEPS = [line.partition(" ")[::2] for line in TEXT.splitlines() if line and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def told(instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    return [argument for name, argument in STEPS if name == instruction]


def copied() -> list[str]:
    """What is copied from the repository, by name."""
    return [name for line in told("COPY") if not line.startswith("--from") for name in line.split()[:-1]]


def test_what_is_copied_is_there() -> None:
    """No source is missing, or kept out of the build by .dockerignore."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert [name for name in copied() for pattern in ignored if fnmatch(name, pattern)] == []


def test_all_that_the_installation_reads_is_copied() -> None:
    """Each package of the project, its readme, its licence, and the constraints, which name one torch."""
    packages = [pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    project = PROJECT["project"]
    needed = {*packages, project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt"}
    assert set(copied()) == needed
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert len([line for line in constraints if line.startswith("torch==")]) == 1


def test_what_is_started_is_a_command() -> None:
    """The entry point is the project's own, and its default arguments lead to a command."""
    [program] = json.loads(told("ENTRYPOINT")[0])
    assert PROJECT["project"]["scripts"][program] == "batch.cli:main"
    command: click.Command = main
    for word in json.loads(told("CMD")[0]):
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert not isinstance(command, click.Group)


def test_it_runs_as_a_user_who_may_write_where_it_works() -> None:
    """Not root; the work directory is that user's; one Python makes the environment and runs it."""
    assert told("USER") == ["shortlist"]
    work = told("WORKDIR")[0]
    assert (f"SHORTLIST_WORK={work}" in told("ENV")[0].split(), f"chown shortlist {work}" in told("RUN")[-1]) == (True, True)
    assert len({line.split()[0] for line in told("FROM")}) == 1


def test_the_platforms_agree() -> None:
    """The image is built for the processor that the task asks for."""
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert "--platform linux/amd64 -f infra/batch/Dockerfile" in guide
    assert "CpuArchitecture: X86_64" in (ROOT / "template.yaml").read_text()
