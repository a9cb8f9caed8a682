"""Finds Prometheus's programs and reads our alert rules.

`tool("promtool")` gives a program's path or skips the test; `alert_queries()` gives the PromQL
expression of each alert in infra/monitoring/alerts.yml.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

MONITORING = Path(__file__).parents[1] / "infra" / "monitoring"


def tool(name: str) -> str:
    """The path of a Prometheus program.

    Skips the test where Debian's `prometheus` package is not installed.
    """
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return path


def alert_queries() -> dict[str, str]:
    """The PromQL expression of each alert."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
