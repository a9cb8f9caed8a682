"""Provides the built package and an isolated interpreter.

The interpreter sees only the package and the runtime client.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from shortlist.infra.local.runtime_api import LambdaService
from shortlist.infra.tools.package import build
from tests.distributions import link_distributions

HANDLER = "shortlist.lambda_handler.handler.handler"
RUNTIME_CLIENT = ("awslambdaric", "simplejson", "snapshot-restore-py")


@dataclass(frozen=True)
class Built:
    """A package for this machine, besides what Lambda's own image brings."""

    root: Path
    runtime: Path
    size_mib: float

    @property
    def python(self) -> tuple[str, ...]:
        """The interpreter without site-packages."""
        return (sys.executable, "-S")

    def environ(self, given: dict[str, str]) -> dict[str, str]:
        """The function's variables: nothing of this process's but what runs programs at all."""
        kept = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR")
            if name in os.environ
        }
        return (
            kept
            | given
            | {
                "PYTHONPATH": f"{self.root}{os.pathsep}{self.runtime}",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        )

    def service(self, given: dict[str, str]) -> LambdaService:
        """The built handler under the real runtime client."""
        return LambdaService(HANDLER, str(self.root), self.environ(given), python=self.python)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The package, built as for deployment, but for this machine and interpreter."""
    directory = tmp_path_factory.mktemp("built")
    machine = "arm64" if platform.machine() == "aarch64" else "x86_64"
    size = build(
        directory / "package", machine, f"{sys.version_info.major}.{sys.version_info.minor}"
    )
    return Built(
        directory / "package", link_distributions(directory / "runtime", RUNTIME_CLIENT), size
    )
