"""Whole nights of the batch in processes of their own, which may be killed anywhere, or run out of disk.

A process is forked from one that has imported everything and started nothing, so that a night costs
what it computes. It runs the container's own entry; only training is a copy (see `worlds`).
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
"""The stages that are copied."""

BROKEN = 70
"""Exit status of a night that ended in a traceback."""

TIMED_OUT = -signal.SIGKILL

SANE = (0, 1, 2, 75, TIMED_OUT)
"""Exit statuses by which a night may end; a killed one has the last."""

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
"""What a process does to its disk, as audit events; what it sends is an effect as well."""


@dataclass(frozen=True)
class BatchRun:
    """One process: the environment of its batch, and how it is harmed.

    trained: work directory of the world; kill_at: the effect in the middle of which the process is
    killed, 0 for none; file_limit: bytes that a file may have, 0 for any; log: where it writes to.
    drain_only: moves events into files, and nothing more.
    """

    environ: dict[str, str]
    trained: Path
    log: Path
    kill_at: int = 0
    file_limit: int = 0
    drain_only: bool = False


def start(night: BatchRun) -> ForkServerProcess:
    """Starts a night; `ended` waits for it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_main, args=(night,))
    process.start()
    return process


def ended(process: ForkServerProcess, seconds: float) -> int:
    """The exit status; a process that lasts longer is killed."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert code is not None
    return code


def _main(night: BatchRun) -> None:
    log = os.open(night.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(night.environ)
    try:
        _use_trained(night.trained)
        if night.file_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (night.file_limit, resource.RLIM_INFINITY))
        if night.kill_at:
            _arm(night.kill_at)
        code = _drain(night.environ) if night.drain_only else _refresh(night.environ)
    except BaseException:  # noqa: BLE001 - whatever it is, it should not have come this far
        traceback.print_exc()
        code = BROKEN
    sys.stderr.flush()
    os._exit(code)


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
        shutil.copytree(
            trained, run.work, dirs_exist_ok=True, ignore=_not_trained, copy_function=_copy_new
        )

    for name in TRAINED:
        job.STAGES[name] = copied


def _not_trained(directory: str, names: list[str]) -> set[str]:
    del directory
    return set(names) & {"done", "lists", "bundle"}


def _copy_new(source: str, target: str) -> None:
    """What the night's own stages wrote stays."""
    if not Path(target).exists():
        draft = Path(f"{target}.copying")
        shutil.copyfile(source, draft)
        draft.replace(target)


def _arm(kill_at: int) -> None:
    """Has the process killed in the middle of its effect of that number."""
    left = kill_at
    whole = socket.socket.sendall

    def sendall(self: socket.socket, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            whole(self, memoryview(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(self, data)

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
