"""Tests that memory is kept while it should be, and no longer."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from shortlist.recsys.training import heap
from shortlist.recsys.training.heap import kept_memory

MIB = 2**20

# In a process of its own, whose heap no other test has left in any state. Its blocks are too small
# for huge pages, and together larger than what glibc keeps at the end of the heap by itself.
MEASURED = """
import json, mmap, pathlib, resource, sys
import numpy as np
from shortlist.recsys.training.heap import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(3 * 2**20, np.uint8) for _ in range(16)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

found = {"usual": [faults(), faults()]}
try:
    with kept_memory():
        found["kept"] = [faults(), faults(), faults()]
        found["inside"] = resident()
        raise ZeroDivisionError
except ZeroDivisionError:
    found["after"] = resident()
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc"
)
def test_memory_is_kept_and_given_back() -> None:
    """The kernel hands out what is asked for again once, and has it back after an error too."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert max(found["kept"][1:]) < min(found["usual"]) / 4, found
    assert found["inside"] - found["after"] > 24 * MIB, found


class Library:
    """A C library whose mallopt takes no more than `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: list[tuple[int, int]] = []
        self.trimmed = 0

    def mallopt(self, parameter: int, value: int) -> int:
        """As glibc's: 1 where it is done."""
        self.asked.append((parameter, value))
        return int(parameter != heap._MMAP_THRESHOLD or value <= self.most)

    def malloc_trim(self, _pad: int) -> int:
        """Counts."""
        self.trimmed += 1
        return 1


def test_an_older_glibc_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit without the other would hand back every block: both are set, or none is."""
    library = Library(32 * MIB)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: library)
    usual = [(heap._MMAP_THRESHOLD, 32 * MIB), (heap._TRIM_THRESHOLD, 64 * MIB - 1)]
    with kept_memory():
        assert library.asked == [(heap._MMAP_THRESHOLD, 1024 * MIB), *usual]
    assert (library.asked[3:], library.trimmed) == (usual, 1)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of macOS, which has no such parameters."""
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: object())
    with kept_memory():
        pass
