"""Servers that tests talk to over real sockets: the API's own in a thread, or as a process, and a Redis that is slow."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortlist.lambda_handler.executors import Seats
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.server import CONNECTIONS, Server, configured, listening

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30.0
"""After so long a test fails rather than hangs."""


@contextlib.contextmanager
def in_thread(app: Any, metrics: Metrics, seats: Seats, most: int = CONNECTIONS) -> Iterator[int]:
    """The port of an app under the API's own server."""
    listener = listening("127.0.0.1", 0)
    server = Server(configured(app, metrics, seats, most))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def as_process(environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A `shortlist serve`, once it listens, and its port; killed at the end if it still runs."""
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", "0"]
    told = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environ
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=told, **pipes) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "Uvicorn running" in line)
            reader = threading.Thread(target=process.stderr.read)  # so that the pipe never fills
            reader.start()
            yield process, int(line.split(" (")[0].rpartition(":")[2])
        finally:
            process.kill()
            reader.join()


class SlowRedis:
    """A proxy before a Valkey on a Unix socket: each reply waits for `delay` seconds, or comes byte by byte."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.delay = 0.0
        self.drips = False
        self._mended = threading.Event()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        """Is as quick as what lies behind, over new connections."""
        self.delay, self.drips = 0.0, False
        self._mended.set()
        self._drop()
        self._mended = threading.Event()

    def close(self) -> None:
        """Ends."""
        self._mended.set()
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                redis = socket.socket(socket.AF_UNIX)
                redis.connect(self._path)
                self._open += [caller, redis]
                for source, target, is_reply in ((caller, redis, False), (redis, caller, True)):
                    threading.Thread(
                        target=self._pump, args=(source, target, is_reply), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_reply: bool) -> None:  # noqa: FBT001 - a thread's
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                for part in self._parts(data) if is_reply else [data]:
                    target.sendall(part)

    def _parts(self, data: bytes) -> Iterator[bytes]:
        mended = self._mended
        if not self.drips:
            mended.wait(self.delay)
            yield data
            return
        for byte in data:
            mended.wait(0.2)  # less than a socket's timeout, which begins again with each byte
            yield bytes([byte])
