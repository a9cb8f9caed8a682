"""Tests that memory is kept while it should be, and no longer."""

from __future__ import annotations

import ctypes
import mmap
import resource
from pathlib import Path

import numpy as np
import pytest

from shortlist.recsys.training import heap
from shortlist.recsys.training.heap import kept_memory

SIZE = 48 * 2**20
"""Bytes of a block: more than glibc keeps by itself."""

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc"
)


def faults() -> int:
    """Pages that the kernel hands out for one block, which is written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(SIZE, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_a_second_block_is_the_first() -> None:
    """Only the first one is handed out by the kernel, which has it back at the end."""
    with kept_memory():
        first, second = faults(), faults()
        inside = resident()
    assert second < first / 4
    assert inside - resident() > SIZE / 2


def test_an_error_gives_it_back() -> None:
    """What was kept is given back when training fails."""
    inside: list[int] = []

    def fail() -> None:
        with kept_memory():
            faults()
            inside.append(resident())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside[0] - resident() > SIZE / 2


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of macOS, which has no such parameters."""
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: object())
    with kept_memory():
        faults()
