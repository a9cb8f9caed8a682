"""Tests that the version is stated once.

It is in pyproject.toml, and is read from the package's metadata.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shortlist.recsys import version
from shortlist.recsys.version import UNKNOWN, installed_version

ROOT = Path(__file__).resolve().parents[2]


def test_installed_version() -> None:
    """The metadata says what pyproject.toml states."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (version.DISTRIBUTION, installed_version()) == (project["name"], project["version"])


def test_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that was copied without its metadata says that its version is unknown."""
    monkeypatch.setattr(version, "DISTRIBUTION", "shortlist-of-nobody")
    assert installed_version() == UNKNOWN


def test_metadata_in_a_package(tmp_path: Path) -> None:
    """A Lambda package with a METADATA file next to the code says its version."""
    metadata = tmp_path / "shortlist_recommender-9.8.7.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: shortlist-recommender\nVersion: 9.8.7\n")
    code = "from shortlist.recsys.version import installed_version; print(installed_version())"
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {code}"
    result = subprocess.run(
        [sys.executable, "-c", path], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "9.8.7"
