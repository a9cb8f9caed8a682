"""Tests the whole command line: version, entry points, and help.

It also checks what the help must not load.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from shortlist.batch.cli import main

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_packages() -> None:
    """`shortlist --version` prints what pip installed."""
    expected = f"shortlist, version {version('shortlist-recommender')}\n"
    assert CliRunner().invoke(main, ["--version"]).output == expected


@pytest.mark.parametrize(
    ("module", "command"),
    [("shortlist.batch.cli", "batch"), ("shortlist.batch", "train-embeddings")],
)
def test_modules_run_as_programs(module, command) -> None:
    """The whole command line, and the batch's commands alone."""
    program = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"python -m {module}" in done.stdout.splitlines()[0]
    assert f"\n  {command} " in done.stdout


def test_the_help_loads_nothing_heavy() -> None:
    """Commands import inside themselves, so that `--help` does not wait for torch."""
    script = "import sys, shortlist.batch.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"torch", "numpy", "polars", "boto3", "redis"} & set(done.stdout.split()) == set()
