"""Keeps the memory of large arrays between the steps of a training.

glibc gives large blocks back to the kernel as soon as they are free. A step asks for the same ones
again, and the kernel clears each page before it hands it out: of long histories that is a large
part of a step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

_KEPT = 2**30
"""Blocks of up to so many bytes are kept; C's int holds twice of it, less one."""

_USUAL = 32 * 2**20
"""The most that glibc comes to keep by itself, and that versions before 2.35 can be asked to."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps what the main thread frees for what it allocates next, and gives it back at the end.

    Not to be nested. From then on glibc keeps the most that it comes to keep by itself. Does
    nothing where the C library is another one.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    if not _keep(library, _KEPT):
        _keep(library, _USUAL)
    try:
        yield
    finally:
        _keep(library, _USUAL)
        library.malloc_trim(0)


def _keep(library: ctypes.CDLL, size: int) -> bool:
    """Keeps free blocks up to a size, and twice of it at the end of the heap; False if refused."""
    # The second call alone would end glibc's own adapting, and leave the first limit at 128 KiB.
    return bool(
        library.mallopt(_MMAP_THRESHOLD, size) and library.mallopt(_TRIM_THRESHOLD, 2 * size - 1)
    )
