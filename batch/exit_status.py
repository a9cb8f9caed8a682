"""Maps failures to an exit status and a sentence.

0: done. 1: refused, or something is broken: look at it. 2: a setting, a table or a path breaks a
rule: correct it. 75: a part did not answer, another batch is at work, or the disk is full: try
again, and it resumes. 130: stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from shortlist.recsys.errors import InvalidInput, ShortlistError, Unavailable

DONE, FAILED, INVALID, AGAIN, STOPPED = 0, 1, 2, 75, 130
"""Exit statuses; 75 is sysexits' EX_TEMPFAIL, 130 a shell's word for SIGINT."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a file larger than the process or the file system may have."""

_FULL_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (28|122|27)\b"
    r"|\d+ requested and \d+ written"
)
"""How polars, DuckDB, FAISS and numpy report it, whose errors carry no number."""

_MISPLACED = frozenset(
    {
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Faults of a path's name or permissions, rather than of its disk."""

_MAX_PLACE_LENGTH = 200
"""Characters of a path that a message shows."""


def outcome(error: BaseException) -> tuple[int, str] | None:
    """The exit status and the sentence for an error.

    None for a bug, whose traceback is wanted.
    """
    if is_disk_full(error):
        remedy = "free some of it, or give more, and start again; it resumes"
        return AGAIN, f"the disk is full ({_place(error)}): {remedy}"
    if isinstance(error, ShortlistError):
        return _status(error), str(error)
    return None


def misplaced(error: BaseException) -> str | None:
    """The sentence for a path that cannot be used.

    None for any other error.
    """
    if not isinstance(error, OSError) or error.errno not in _MISPLACED or error.filename is None:
        return None
    place = str(error.filename if error.filename2 is None else error.filename2)
    shown = place if len(place) <= _MAX_PLACE_LENGTH else f"{place[:_MAX_PLACE_LENGTH]}…"
    return f"{shown!r} cannot be used ({error.strerror}): name a place that can be read and written"


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk caused an error."""
    return any(_says_full(link) for link in _chain(error))


def _status(error: ShortlistError) -> int:
    if isinstance(error, InvalidInput):
        return INVALID
    return AGAIN if isinstance(error, Unavailable) else FAILED


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return isinstance(error, Exception) and bool(_FULL_IN_WORDS.search(str(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, each once."""
    seen: set[int] = set()  # a chain of causes may be circular
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _place(error: BaseException) -> str:
    """The file, or else the library's own words."""
    for link in _chain(error):
        if isinstance(link, OSError) and link.filename is not None:
            return str(link)
    full = next(link for link in _chain(error) if _says_full(link))
    return " ".join(str(full).split())[:200]
