"""Starts the API in a thread or as a process.

`in_thread(app, ...)` serves an app under the API's own server and gives its port;
`as_process(environ)` runs `shortlist serve` and gives the process and its port.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shortlist.lambda_handler.executors import Seats
from shortlist.lambda_handler.listening import listening
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.server import CONNECTIONS, Server, configured

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30.0
"""Timeout after which a test fails rather than hangs."""


SMALL = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "40",
    "LGBM_N_ESTIMATORS": "10",
    "SHORTLIST_LIST_LENGTH": "20",
    "SHORTLIST_THREADS": "1",
    "SHORTLIST_GATE": "off",
}
"""Settings under which the batch takes seconds; what is tried is the commands, not the models."""


@contextlib.contextmanager
def in_thread(app: Any, metrics: Metrics, seats: Seats, most: int = CONNECTIONS) -> Iterator[int]:
    """Serves an app under the API's own server, and gives its port.

    most: connections that the server keeps open at once.
    """
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
def as_process(
    environ: dict[str, str], command: Sequence[str] = ("serve",)
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs `shortlist serve`, and gives the process and its port once it listens.

    command: another one that serves.

    The process is killed at the end if it still runs.
    """
    words = [sys.executable, "-m", "shortlist.batch.cli", *command, "--port", "0"]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environ
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, env=variables, **pipes) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "Uvicorn running" in line)
            reader = threading.Thread(target=process.stderr.read)  # so that the pipe never fills
            reader.start()
            yield process, int(line.split(" (")[0].rpartition(":")[2])
        finally:
            process.kill()
            reader.join()
