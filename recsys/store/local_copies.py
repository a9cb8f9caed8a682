"""Keeps at most two local copies of releases.

Several processes may share the directory. Each holds its lock while it compares, removes or brings
a copy. A copy appears and disappears by one rename, so no half of it is seen, and a killed download
leaves nothing behind. A reader has the files open, and a removal does not touch those.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from shortlist.recsys.errors import LoadFailed, NoRoom

KEPT = 2
"""The serving release, and its canary or the one that a rollback would bring back."""

DRAFT = ".draft-"
"""Prefix of a directory that is being written or removed."""

SPARE = 4 << 20
"""Bytes that must be free on top of a release: directories, and the file of the release pointer."""

MARK = "manifest.json"
"""The file that a directory with a whole copy holds."""


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Makes the directory and holds its lock.

    The end of the process, however it comes, lets go of it.

    Raises:
        LoadFailed: the directory cannot be made or locked.
    """
    import fcntl

    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The directory itself is locked: a lock file would need room on a full disk.
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _refused(directory, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise _refused(directory, error) from error
    finally:
        os.close(handle)


def _refused(directory: Path, error: OSError) -> LoadFailed:
    return LoadFailed(
        f"{directory} cannot be used for copies of releases ({error}): mend the disk or its "
        "permissions, or set SHORTLIST_BUNDLE_DIR to another directory on a local disk"
    )


def draft(directory: Path) -> Path:
    """A new directory for a copy in progress."""
    return Path(tempfile.mkdtemp(prefix=DRAFT, dir=directory))


def sweep(directory: Path) -> None:
    """Removes the drafts of killed processes.

    The caller holds the lock, and has no draft yet.
    """
    for abandoned in directory.glob(f"{DRAFT}*"):
        shutil.rmtree(abandoned, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a copy, or whatever lies in its place.

    It is renamed first, so that no half of it is seen.
    """
    # A link is removed as a link, and the directory that it leads to stays.
    if not path.is_symlink() and path.is_dir():
        hidden = draft(path.parent)
        path.rename(hidden / path.name)
        shutil.rmtree(hidden, ignore_errors=True)
    elif path.is_symlink() or path.exists():
        path.unlink()


def note_use(directory: Path, versions: Sequence[str]) -> None:
    """Marks copies as used, the last most recently.

    Others are removed before them.
    """
    for version in versions:
        # It is gone, or the disk takes no writes: a matter of order only.
        with contextlib.suppress(OSError):
            os.utime(directory / version)


def make_room(directory: Path, version: str, needed: int) -> None:
    """Makes room for a copy of `version`.

    Least recently used copies go first. needed: its bytes. A file that a process has mapped keeps
    its room until that process lets go of it.

    Raises:
        NoRoom: there would not be enough even without the other copies, or their room is not free
            yet.
    """
    remove(directory / version)
    others = sorted(_copies(directory), key=lambda path: path.stat().st_mtime)
    wanted = needed + SPARE
    most = _free(directory) + sum(_size(other) for other in others)
    if wanted > most:
        raise _no_room(directory, version, wanted)
    while others and (len(others) >= KEPT or _free(directory) < wanted):
        remove(others.pop(0))
    if _free(directory) < wanted:
        raise _no_room(directory, version, wanted)


def _no_room(directory: Path, version: str, wanted: int) -> NoRoom:
    return NoRoom(
        f"{directory} has {_free(directory) / 2**20:.1f} MiB free, and the bundle of {version} "
        f"needs {wanted / 2**20:.1f}: free the disk or enlarge it, or lower "
        "SHORTLIST_BUNDLE_MAX_MB so that a release of this size is not published"
    )


def _copies(directory: Path) -> list[Path]:
    directories = (path.parent for path in directory.glob(f"*/{MARK}"))
    return [path for path in directories if not path.name.startswith(".")]


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.is_file())


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free
