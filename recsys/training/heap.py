"""Keeps the memory of large arrays between the steps of a training.

glibc gives large blocks back to the kernel as soon as they are free. A step asks for the same ones
again, and the kernel clears each page before it hands it out: at MovieLens 1M's size that took a
fifth of a step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

_KEPT = 2**30
"""Blocks of up to so many bytes are kept; C's int holds it."""

_USUAL = 32 * 2**20
"""The most that glibc comes to keep by itself."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps what is freed for what is allocated next, and gives it back at the end.

    Does nothing where the C library is another one than glibc.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    _keep(library, _KEPT)
    try:
        yield
    finally:
        _keep(library, _USUAL)
        library.malloc_trim(0)


def _keep(library: ctypes.CDLL, size: int) -> None:
    """Keeps free blocks up to a size, and as much again at the end of the heap, as glibc does."""
    library.mallopt(_MMAP_THRESHOLD, size)
    library.mallopt(_TRIM_THRESHOLD, 2 * size - 1)
