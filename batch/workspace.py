"""Guards the work directory and the namespace's lease."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shortlist.batch.batch_store import batch_store
from shortlist.recsys.errors import InvalidInput, LeaseHeld
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.lease import Lease, Leases, held

LOCK = ".lock"
LEASE_TIMEOUT_MS = 5000
"""How long a renewal waits for Redis: less than the time between two of them."""


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Locks the work directory against other processes.

    The lock goes with its process, however that ends.

    Raises:
        LeaseHeld: another process works there.
        OSError: the directory cannot be made or written.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as file:
        try:
            # The kernel's lock: no stale file keeps out the run after one that was killed.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another process works in {str(work)!r}: wait for it, or give another --work"
            raise LeaseHeld(message) from error
        yield


@contextmanager
def usable(work: Path) -> Iterator[None]:
    """Turns errors about the work directory into a sentence.

    Raises:
        InvalidInput: the directory, or something in it, cannot be made, read or written.
    """
    try:
        yield
    except OSError as error:
        if not _lies_in(error, work):
            raise
        message = (
            f"the work directory {str(work)!r} cannot be used ({error}): mend it, or give another"
        )
        raise InvalidInput(message) from error


def _lies_in(error: OSError, work: Path) -> bool:
    """Whether the error is about the work directory, something in it, or a directory above it."""
    if not isinstance(error.filename, str | bytes | Path):
        return False
    path, root = Path(os.fsdecode(error.filename)).absolute(), work.absolute()
    return path == root or root in path.parents or path in root.parents


@contextmanager
def leased(settings: Settings, run: str) -> Iterator[Lease]:
    """Holds the lease of the namespace.

    Raises:
        LeaseHeld: another run holds it.
        StoreUnavailable: Redis does not answer.
    """
    with batch_store(settings, LEASE_TIMEOUT_MS) as store, held(Leases(store), run) as lease:
        yield lease


def local_run(directory: Path) -> str:
    """The id of a run that a person starts.

    The same for the same directory, where a second start goes on with the first one's work.
    """
    return f"{socket.gethostname()}:{directory.resolve()}"
