"""Keeps the latest entries of a dict."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def keep_latest(entries: dict[K, V], n: int) -> None:
    """Removes the oldest entries until `n` are left.

    A dict keeps the order of insertion.
    """
    for key in list(entries)[: max(0, len(entries) - n)]:
        entries.pop(key, None)  # another thread may have removed it meanwhile
