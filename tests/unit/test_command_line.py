"""Tests the whole command line: version, entry points, and help.

It also checks what the help must not load.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from shortlist.batch.cli import main
from shortlist.batch.demo import what_next
from shortlist.batch.installation import lambda_environ
from shortlist.recsys.settings import Settings

ROOT = Path(__file__).parents[2]

TABLES = ("evaluate", "data check", "release list", "release show", "release shadow", "skew")
FIGURES = ("online-report", "cost", "doctor")


def commands(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, *path, name)


ALL = list(commands(main))


def called(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line of a shell calls, and its options."""
    words = shlex.split(line.removesuffix("\\").partition(" | ")[0].removesuffix("&"))
    words = [word for word in words if not word.isupper() and "=" not in word.partition("/")[0]]
    command: click.Command = main
    assert words.pop(0) == "shortlist"
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    return command, [word for word in words if word.startswith("--")]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_help_is_whole(path: tuple[str, ...], command: click.Command) -> None:
    """It fits, says what every option is for, and ends with an example that can be called."""
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="shortlist")
    assert (done.exit_code, done.stderr) == (0, "")
    before, _, example = done.stdout.partition("\n  Example:\n")
    assert "..." not in before.partition("Commands:")[2]
    lines = [line.strip() for line in example.splitlines() if line.strip()]
    assert lines
    for line in lines:
        if line.startswith("shortlist"):
            below, options = called(line)
            known = {option for param in below.params for option in param.opts}
            known |= {option for param in below.params for option in param.secondary_opts}
            assert set(options) <= known, line
    if not isinstance(command, click.Group):
        assert command.get_short_help_str(200)[-1] == "."


def test_tables_are_json_on_request() -> None:
    """Every command that prints a table has `--json`, and no other."""
    named = {" ".join(path) for path, each in ALL if any("--json" in p.opts for p in each.params)}
    assert named == {*TABLES, *FIGURES}


def test_json_goes_out_or_to_a_file(tmp_path: Path) -> None:
    """Alone it replaces the table; with a file both are given."""
    cost = ["cost", "--users", "9", "--items", "9", "--requests-per-month", "9", "--json"]
    printed = CliRunner().invoke(main, cost).stdout
    file = tmp_path / "cost.json"
    written = CliRunner().invoke(main, [*cost, str(file)])
    assert (written.exit_code, "component" in written.stdout) == (0, True)
    assert printed == file.read_text()
    assert printed.startswith('{\n  "region": "us-east-1",')


def test_a_lambda_finds_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is another one, so that places are given in full."""
    monkeypatch.chdir(tmp_path)
    Path("keys").write_text(f"app:read:{'k' * 32}\n")
    environ = {"SHORTLIST_API_KEYS": "keys", "SHORTLIST_BUNDLE_DIR": "copies", "OTHER": "x"}
    changed = lambda_environ(environ, Settings.from_env(environ))
    assert changed["SHORTLIST_ARTEFACTS"] == str(tmp_path / "artefacts")
    assert changed["SHORTLIST_API_KEYS"] == str(tmp_path / "keys")
    assert (changed["SHORTLIST_BUNDLE_DIR"], changed["OTHER"]) == (str(tmp_path / "copies"), "x")
    cloud = {"SHORTLIST_ARTEFACTS": "s3://bucket/releases"}
    assert (
        lambda_environ(cloud, Settings.from_env(cloud))["SHORTLIST_ARTEFACTS"]
        == "s3://bucket/releases"
    )


def test_the_demo_says_what_is_next() -> None:
    """Its commands can be called; places that are set are not set again."""
    lines = [line.partition("#")[0].strip() for line in what_next(Path(".demo"), {}).splitlines()]
    assert lines[:4] == [
        "",
        "what to do next",
        "shortlist redis --directory .demo/valkey &",
        "SHORTLIST_ARTEFACTS=.demo/artefacts shortlist studio",
    ]
    environ = {"REDIS_URL": "redis://redis", "SHORTLIST_ARTEFACTS": "s3://bucket"}
    steps = what_next(Path(".demo"), environ).splitlines()
    assert [line.split("#")[0].strip() for line in steps[2:4]] == [
        "shortlist studio",
        "shortlist serve",
    ]


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


def test_a_wrong_api_is_refused_before_the_models_load() -> None:
    """The address is checked first, so that the answer takes no seconds."""
    script = (
        "import sys; from click.testing import CliRunner; from shortlist.batch.cli import main; "
        "CliRunner().invoke(main, ['studio', '--port', '0', '--api', 'host']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "shortlist.batch.studio.forward" in modules
    assert {"torch", "polars", "redis"} & modules == set()
