"""Writes a file whole or not at all.

A reader finds the old file or the new one, also after a crash. The content is written to a hidden
file in the same directory, made durable, and renamed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

DRAFT_SUFFIX = ".draft"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a draft, which replaces `path` unless the block raises.

    The directory of `path` is made where it is missing. A draft of a killed process stays as a
    hidden file whose name ends in DRAFT_SUFFIX.

    Raises:
        OSError: the disk refused, or `path` is a directory.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same directory, since a rename is atomic within one file system only.
    # Not named after the file: a long name would have no room for more.
    draft = path.with_name(f".{uuid4().hex}{DRAFT_SUFFIX}")
    try:
        yield draft
        _sync(draft)
        draft.replace(path)
        _sync(path.parent)  # the new name, too, must survive a loss of power
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes text as UTF-8, or bytes; see `replacing`."""
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_drafts(directory: Path) -> None:
    """Removes the drafts of killed processes, which is safe only where no other process writes."""
    for draft in directory.glob(f".*{DRAFT_SUFFIX}"):
        draft.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
