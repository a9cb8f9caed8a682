"""Tests unusable paths on the command line.

Each ends in one sentence and status 2.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from shortlist.batch.cli import main
from shortlist.batch.exit_status import misplaced


@pytest.mark.parametrize("place", ["a-directory", "a-file/below", "x" * 300, "/"])
def test_a_place_that_cannot_be_written(own, published, tmp_path: Path, place: str) -> None:
    """A directory, what would lie below a file, a name that is too long."""
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-file").write_text("")
    environ = published.environ | {"SHORTLIST_NAMESPACE": own[0].namespace}
    result = CliRunner(env=environ).invoke(main, ["online-report", "--json", str(tmp_path / place)])
    assert result.exit_code == 2
    assert "cannot be used" in result.output
    assert "name a place that can be read and written" in result.output
    assert len(result.output.splitlines()[-1]) < 500


@pytest.mark.parametrize("command", ["show", "promote"])
def test_a_version_too_long_for_files(published, command: str) -> None:
    """Is longer than any name."""
    result = CliRunner(env=published.environ).invoke(main, ["release", command, "v" * 5000])
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)


def test_other_errors_keep_their_traceback() -> None:
    """A bug of ours, and an error that names no place."""
    assert misplaced(KeyError("x")) is None
    assert misplaced(OSError(5, "Input/output error", "x")) is None
    assert misplaced(PermissionError(13, "Permission denied")) is None
    assert misplaced(OSError(16, "Device or resource busy", "draft", None, "/")) == (
        "'/' cannot be used (Device or resource busy): name a place that can be read and written"
    )
