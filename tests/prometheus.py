"""Our alert rules, and Prometheus's own programs, for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

MONITORING = Path(__file__).parents[1] / "infra" / "monitoring"


def tool(name: str) -> str:
    """Where a program of Debian's `prometheus` package lies; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


def alert_queries() -> dict[str, str]:
    """The expression of each alert."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
