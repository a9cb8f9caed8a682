"""Checks that the tests named in the threat model exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = sorted(
    set(
        re.findall(
            r"`([a-z]+/test_\w+\.py)(?:::(\w+))?`", (ROOT / "docs" / "security.md").read_text()
        )
    )
)


def test_there_are_many() -> None:
    """The pattern above finds the rows."""
    assert len(NAMED) > 40


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    """By its file, and by its function where one is named."""
    text = (ROOT / "tests" / file).read_text()
    assert not name or f"def {name}(" in text
