"""Command lines as nobody should type them: each ends with a documented status and words, never with a traceback."""

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
from click.testing import CliRunner

from shortlist.batch.cli import main
from tests.chaos import nasty
from tests.chaos.service import Service

STATUSES = (0, 1, 2, 75, 130)
ENDLESS = ("serve", "redis", "local", "demo", "invoke", "data fetch")
"""Commands that would serve or download if they were called well; here something is always wrong with the call."""

WRONG = (
    ["--no-such-option"],
    ["--port", "x"],
    ["--port"],
    ["extra", "arguments", "here"],
    ["--help"],
)
WORDS = (
    "--",
    "-",
    "-1",
    "0",
    "1",
    "99999",
    "x",
    "nan",
    "1e400",
    "/",
    "/dev/null",
    "/nonexistent/x",
    "s3://",
    "s3://no-bucket/x",
    "*",
)


class CommandFuzz:
    """Calls commands in this process, under the environment of a service."""

    def __init__(self, service: Service, directory: Path) -> None:
        self._commands = list(_leaves(main, ()))
        self._environ = service.environ
        self.counts: Counter[str] = Counter()
        directory.mkdir(parents=True, exist_ok=True)
        # A copy, since a command may be told to write there; and no table of interactions, so that
        # nothing is trained.
        items = shutil.copy(service.worlds.by_name["plain"].items, directory)
        self._tables = [str(items), str(directory), str(directory / "none.csv")]
        self._versions = [service.store.release().current]
        self._directory = directory

    def case(self, rng: random.Random) -> str:
        """Calls one command; gives what is wrong with how it ended."""
        argv = self._argv(rng)
        environ = dict(self._environ)
        for name in rng.sample(sorted(environ), rng.choice((0, 0, 0, 1))):
            environ[name] = nasty.text(rng).encode("utf-8", "replace").decode().replace("\x00", "")
        here, hook, handler = Path.cwd(), sys.excepthook, signal.getsignal(signal.SIGTERM)
        os.chdir(self._directory)  # where defaults would write
        try:
            result = CliRunner(env=environ).invoke(main, argv)
        finally:  # a command may do as it likes with a process that is its own
            os.chdir(here)
            sys.excepthook = hook
            signal.signal(signal.SIGTERM, handler)
        self.counts[f"commands: {result.exit_code}"] += 1
        told = f"{argv} under { ({n: v for n, v in environ.items() if self._environ[n] != v}) }"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return f"{''.join(traceback.format_exception(result.exception))[-1500:]} at {told}"
        if result.exit_code not in STATUSES:
            return f"status {result.exit_code} at {told}: {result.output[-500:]}"
        logs = "refresh" in argv  # to where a container's log goes
        if result.exit_code and not result.output.strip() and not logs:
            return f"status {result.exit_code} without a word at {told}"
        return ""

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
            value = nasty.text(rng).encode("utf-8", "replace").decode().replace("\x00", "")
        elif kind < 0.7 and isinstance(parameter.type, click.Choice):
            value = str(rng.choice(parameter.type.choices))
        return [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]


def _leaves(
    command: click.Command, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    return [
        leaf
        for name in sorted(command.commands)
        for leaf in _leaves(command.commands[name], (*path, name))
    ]
