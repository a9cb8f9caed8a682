"""Checks the batch's Dockerfile against the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

from shortlist.batch.cli import main

ROOT = Path(__file__).parents[2]
RAW = (ROOT / "infra" / "batch" / "Dockerfile").read_text()
TEXT = RAW.replace("\\\n", "")
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
STEPS = [
    line.partition(" ")[::2] for line in TEXT.splitlines() if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def arguments_of(instruction: str) -> list[str]:
    """The arguments of each such instruction."""
    return [argument for name, argument in STEPS if name == instruction]


def copied() -> list[str]:
    """What is copied from the repository, by name."""
    return [
        name
        for line in arguments_of("COPY")
        if not line.startswith("--from")
        for name in line.split()[:-1]
    ]


def test_what_is_copied_is_there() -> None:
    """No source is missing, or kept out of the build by .dockerignore."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    assert [name for name in copied() for pattern in ignored if fnmatch(name, pattern)] == []


def test_installation_inputs_are_copied() -> None:
    """Each package of the project, its readme, its licence, and the locks."""
    linked = Path(ROOT / "src" / "shortlist").iterdir()
    packages = [path.name for path in linked if path.is_symlink()]
    project = PROJECT["project"]
    needed = {
        "src",
        *packages,
        project["readme"],
        *project["license-files"],
        "pyproject.toml",
        "infra/locked",
    }
    assert set(copied()) == needed


def test_what_is_started_is_a_command() -> None:
    """The entry point is the project's own, and its default arguments lead to a command."""
    [program] = json.loads(arguments_of("ENTRYPOINT")[0])
    assert PROJECT["project"]["scripts"][program] == "shortlist.__main__:main"
    command: click.Command = main
    for word in json.loads(arguments_of("CMD")[0]):
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert not isinstance(command, click.Group)


def test_user_may_write_its_workdir() -> None:
    """Not root; the work directory is that user's; one Python makes the environment and runs it."""
    assert arguments_of("USER") == ["shortlist"]
    work = arguments_of("WORKDIR")[0]
    assert (
        f"SHORTLIST_WORK={work}" in arguments_of("ENV")[0].split(),
        f"chown shortlist {work}" in arguments_of("RUN")[-1],
    ) == (True, True)
    assert [line.split()[0] for line in arguments_of("FROM")] == ["${BASE}"] * 2


def test_base_is_pinned() -> None:
    """A digest is whole; the guide's command writes one."""
    [base] = [
        argument.removeprefix("BASE=")
        for argument in arguments_of("ARG")
        if argument.startswith("BASE=")
    ]
    assert re.fullmatch(r"python:3\.13-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    command = re.search(r"sed -i \"(s\|\^ARG BASE=.*?)\" infra/batch/Dockerfile", GUIDE)
    assert command is not None
    digest = f"python:3.13-slim-bookworm@sha256:{'0' * 64}"
    script = command[1].replace("$BASE", digest)
    done = subprocess.run(["sed", script], input=RAW, capture_output=True, text=True, check=True)  # noqa: S607
    assert f"\nARG BASE={digest}\n" in done.stdout


@pytest.mark.parametrize(
    ("index", "digest", "expected"),
    [
        ("https://an.index/cpu", "", "torch==VERSION\n"),
        ("https://an.index/cpu", "sha256:ab", "torch==VERSION --hash=sha256:ab\n"),
        ("", "", "LOCK"),
    ],
)
def test_torch_is_bound_by_its_hash(tmp_path, index, digest, expected) -> None:
    """PyPI's by the lock, PyTorch's by the build argument. The step runs here, without pip."""
    lock = (ROOT / "infra" / "locked" / "torch.txt").read_text()
    version = re.search(r"^torch==(\S+)", lock, re.MULTILINE)
    assert version is not None
    step = next(line for line in arguments_of("RUN") if "torch.txt" in line)
    part = step[step.index("if [") : step.index("; fi") + 4].replace("/src", str(tmp_path))
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "torch.txt").write_text(lock)
    environ = {"TORCH_INDEX": index, "TORCH_HASH": digest, "PATH": os.environ["PATH"]}
    subprocess.run(["/bin/sh", "-c", part], env=environ, check=True)
    wanted = lock if expected == "LOCK" else expected.replace("VERSION", version[1])
    assert (tmp_path / "torch.txt").read_text() == wanted


def test_other_packages_are_bound_by_hashes() -> None:
    """Pip may neither take another file, nor build one, nor fetch what builds the project."""
    commands = " && ".join(arguments_of("RUN")).split(" && ")
    installs = [command.strip() for command in commands if "pip install" in command]
    assert len(installs) == 3
    assert all(
        option in installs[1]
        for option in ("--require-hashes", "--only-binary=:all:", "/src/locked/batch.txt")
    )
    assert all(
        option in installs[2] for option in ("--no-index", "--no-build-isolation", "--no-deps")
    )


def test_the_platforms_agree() -> None:
    """The image is built for the processor that the task asks for."""
    guide = (ROOT / "docs" / "deploy.md").read_text()
    assert "--platform linux/amd64 -f infra/batch/Dockerfile" in guide
    assert "CpuArchitecture: X86_64" in (ROOT / "template.yaml").read_text()
