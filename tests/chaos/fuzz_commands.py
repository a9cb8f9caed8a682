"""Fuzzes the command line.

Each call must end with a documented exit status; a failure needs a message, and a traceback is a
finding.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

import click
from click.testing import CliRunner, Result

from shortlist.batch.cli import main
from tests.chaos import nasty
from tests.chaos.service import Service

STATUSES = (0, 1, 2, 75, 130)
ENDLESS = ("serve", "studio", "redis", "local", "demo", "invoke", "data fetch")
"""Commands that would serve forever or download: they are always called wrongly."""

# A table is easier to read than one value per line.
# fmt: off
WRONG = (
    ["--no-such-option"], ["--port", "x"], ["--port"], ["extra", "arguments", "here"],
    ["--help"],
)
WORDS = (
    "--", "-", "-1", "0", "1", "99999", "x", "nan", "1e400", "/", "/dev/null", "/nonexistent/x",
    "s3://", "s3://no-bucket/x", "*",
)
# fmt: on


class CommandFuzz:
    """Calls commands in this process, under the environment of a service."""

    def __init__(self, service: Service, directory: Path) -> None:
        self._commands = list(_leaves(main, ()))
        self._environ = service.environ
        self.counts: Counter[str] = Counter()
        directory.mkdir(parents=True, exist_ok=True)
        # A copy, since a command may be asked to write there. No table of interactions: a training
        # would take too long.
        items = shutil.copy(service.worlds.by_name["plain"].items, directory)
        self._tables = [str(items), str(directory), str(directory / "none.csv")]
        self._versions = [service.store.release().current]
        self._directory = directory

    def case(self, rng: random.Random) -> str:
        """Calls one command, and gives the problem with how it ended, or ""."""
        argv = self._argv(rng)
        changed = {}
        for name in rng.sample(sorted(self._environ), rng.choice((0, 0, 0, 1))):
            changed[name] = _argument(rng)
        result = self._invoke(argv, self._environ | changed)
        self.counts[f"commands: {result.exit_code}"] += 1
        call = f"{argv} under {changed}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return f"{''.join(traceback.format_exception(result.exception))[-1500:]} at {call}"
        if result.exit_code not in STATUSES:
            return f"status {result.exit_code} at {call}: {result.output[-500:]}"
        logs = "refresh" in argv  # which logs to the container's own stream
        if result.exit_code and not result.output.strip() and not logs:
            return f"status {result.exit_code} without a word at {call}"
        return ""

    def _invoke(self, argv: list[str], environ: dict[str, str]) -> Result:
        """Calls a command, and restores what it may change in this process."""
        here, hook, handler = Path.cwd(), sys.excepthook, signal.getsignal(signal.SIGTERM)
        os.chdir(self._directory)  # where defaults would write
        try:
            return CliRunner(env=environ).invoke(main, argv)
        finally:
            os.chdir(here)
            sys.excepthook = hook
            signal.signal(signal.SIGTERM, handler)

    def _argv(self, rng: random.Random) -> list[str]:
        path, command = rng.choice(self._commands)
        argv = list(path)
        for parameter in command.params:
            if rng.random() < (0.9 if parameter.required else 0.3):
                argv += self._parameter(parameter, rng)
        if " ".join(path) in ENDLESS:
            argv += rng.choice(WRONG)
        elif rng.random() < 0.2:
            argv.insert(rng.randrange(len(argv) + 1), rng.choice(WORDS))
        return argv

    def _parameter(self, parameter: click.Parameter, rng: random.Random) -> list[str]:
        if isinstance(parameter, click.Option) and parameter.is_flag:
            return [parameter.opts[0]]
        kind = rng.random()
        value = rng.choice(WORDS)
        if kind < 0.3:
            value = rng.choice(self._tables + self._versions)
        elif kind < 0.5:
            value = _argument(rng)
        elif kind < 0.7 and isinstance(parameter.type, click.Choice):
            value = str(rng.choice(parameter.type.choices))
        return [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]


def _argument(rng: random.Random) -> str:
    """A hostile text that can be an argument: valid UTF-8 without NUL."""
    return nasty.text(rng).encode("utf-8", "replace").decode().replace("\x00", "")


def _leaves(
    command: click.Command, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not a group, with its path."""
    if not isinstance(command, click.Group):
        return [(path, command)]
    leaves = []
    for name in sorted(command.commands):
        leaves += _leaves(command.commands[name], (*path, name))
    return leaves
