"""Tests objects opened at first use, and bounded dicts.

The dicts keep their latest entries.
"""

from __future__ import annotations

import pytest

from shortlist.lambda_handler.latest import keep_latest
from shortlist.lambda_handler.lazy import lazy


def test_opened_once_at_first_use() -> None:
    """Nothing is opened before an attribute is read, and only once after it."""
    opened: list[str] = []

    def open_() -> str:
        opened.append("now")
        return "text"

    text = lazy(open_)
    assert opened == []
    assert (text.upper(), text.title()) == ("TEXT", "Text")
    assert opened == ["now"]


def test_failed_opening_is_repeated() -> None:
    """The error reaches the caller, and the next use opens again."""
    results = iter([OSError("away"), "text"])

    def open_() -> str:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    text = lazy(open_)
    with pytest.raises(OSError, match="away"):
        text.upper()
    assert text.upper() == "TEXT"


def test_latest_entries_are_kept() -> None:
    """The oldest entries go, and a dict with few of them stays as it is."""
    entries = {"a": 1, "b": 2, "c": 3}
    keep_latest(entries, 2)
    assert entries == {"b": 2, "c": 3}
    keep_latest(entries, 5)
    assert entries == {"b": 2, "c": 3}
    keep_latest(entries, 0)
    assert entries == {}
