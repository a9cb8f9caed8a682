"""Runs the batch in a process that can be killed.

It can be killed at any write or send, or run out of disk. The process is forked from one that has
imported everything and started nothing, so a run costs only its own work. It enters through the
container's `main`; only training is replaced by a copy (see `worlds`).
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

TRAINED = ("train-embeddings", "build-index", "train-ranker", "evaluate")
"""Stages whose results are copied from the trained world."""

BROKEN = 70
"""Exit status of a run that ended in a traceback: none of the batch's own."""

TIMED_OUT = -signal.SIGKILL

SANE = (0, 1, 2, 75, TIMED_OUT)
"""Exit statuses that a run may have; a killed one has the last."""

PRELOADED = [
    "tests.chaos.batch_runs",
    "shortlist.batch.job",
    "shortlist.batch.container",
    "shortlist.batch.drain",
    "shortlist.batch.parity",
    "moto",
    "shortlist.recsys.models.bundle",
]

EFFECTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Audit events of writes to the disk. These count as effects, as does each send on a socket."""


@dataclass(frozen=True)
class BatchRun:
    """One run of the batch.

    environ: its settings.
    trained: work directory of the world that training is copied from.
    log: file for its output.
    kill_at: number of the effect in the middle of which the process is killed; 0 for none.
    file_limit: largest size of a file in bytes, as on a full disk; 0 for any.
    drain_only: only moves events into files.
    """

    environ: dict[str, str]
    trained: Path
    log: Path
    kill_at: int = 0
    file_limit: int = 0
    drain_only: bool = False


def start(run: BatchRun) -> ForkServerProcess:
    """Starts a run; `ended` waits for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_main, args=(run,))
    process.start()
    return process


def ended(process: ForkServerProcess, seconds: float) -> int:
    """Waits for a run and gives its exit status; kills it after `seconds`."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _main(run: BatchRun) -> None:
    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(run.environ)
    try:
        _use_trained(run.trained)
        if run.file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (run.file_limit, resource.RLIM_INFINITY))
        if run.kill_at:
            _arm(run.kill_at)
        code = _drain(run.environ) if run.drain_only else _refresh(run.environ)
    except BaseException:  # noqa: BLE001 - the entry should have caught every exception
        traceback.print_exc()
        code = BROKEN
    sys.stderr.flush()
    os._exit(code)  # without the exit handlers of the process it was forked from


def _refresh(environ: dict[str, str]) -> int:
    from shortlist.batch.container import main

    return main(environ)


def _drain(environ: dict[str, str]) -> int:
    import click

    from shortlist.batch.cli import main

    try:
        main(["events", "drain", "--out", environ["SHORTLIST_EVENTS"]], standalone_mode=False)
    except SystemExit as error:
        return int(error.code or 0)
    except click.ClickException as error:
        return error.exit_code
    return 0


def _use_trained(trained: Path) -> None:
    from shortlist.batch import job

    def copied(run: Any) -> None:
        options: dict[str, Any] = {"ignore": _not_trained, "copy_function": _copy_new}
        shutil.copytree(trained, run.work, dirs_exist_ok=True, **options)

    for name in TRAINED:
        job.STAGES[name] = copied


def _not_trained(directory: str, names: list[str]) -> set[str]:
    del directory
    return set(names) & {"done", "lists", "bundle"}


def _copy_new(source: str, target: str) -> None:
    """Copies a file, unless a stage of this run has written it."""
    if not Path(target).exists():
        draft = Path(f"{target}.copying")  # renamed when complete: the process may be killed
        shutil.copyfile(source, draft)
        draft.replace(target)


def _arm(kill_at: int) -> None:
    """Kills this process in the middle of its effect number `kill_at`."""
    left = kill_at
    send_all = socket.socket.sendall

    def sendall(self: socket.socket, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            send_all(self, memoryview(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        send_all(self, data)

    def effect(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in EFFECTS or (event == "open" and not _writes(arguments)):
            return
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    socket.socket.sendall = sendall  # type: ignore[method-assign]
    sys.addaudithook(effect)


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
