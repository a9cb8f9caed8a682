"""The batch as a container runs it: told by the environment, telling by JSON lines, and leaving by an exit status.

0: the release serves. 1: it was refused, or something is broken: look at it. 2: a setting or a
table breaks a rule: mend it.
75: a part did not answer, another batch is at work, the disk is full, or the container was told to
stop: start it again with the same run id, and it resumes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from shortlist.batch.checkpoints import Checkpoints
from shortlist.batch.exit_status import AGAIN, DONE, is_disk_full, outcome
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.workspace import alone_in, leased, usable
from shortlist.recsys.errors import InvalidSettings, LeaseHeld, Unavailable
from shortlist.recsys.settings import Settings

if TYPE_CHECKING:
    from shortlist.batch.job import Job
    from shortlist.recsys.store.lease import Lease

HEARTBEAT_SECONDS = 60.0


class Interrupted(BaseException):
    """The container was told to stop; not an error that any stage may catch."""


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What the environment tells a container beyond `Settings`."""

    interactions: str
    items: str | None
    users: str | None
    work: Path
    run: str
    events: str | None
    checkpoints: str | None
    config: Path | None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ContainerOptions:
        """`SHORTLIST_INTERACTIONS`, `_ITEMS`, `_USERS`, `_WORK`, `_RUN_ID`, `_EVENTS`, `_CHECKPOINTS` and `_CONFIG`.

        Raises:
            InvalidSettings: the interactions are not named.
        """
        if not environ.get("SHORTLIST_INTERACTIONS"):
            raise InvalidSettings(
                "SHORTLIST_INTERACTIONS is unset: give a path, a glob or an s3:// address"
            )
        config = environ.get("SHORTLIST_CONFIG")
        return cls(
            environ["SHORTLIST_INTERACTIONS"],
            environ.get("SHORTLIST_ITEMS"),
            environ.get("SHORTLIST_USERS"),
            Path(environ.get("SHORTLIST_WORK", ".shortlist/work")),
            environ.get("SHORTLIST_RUN_ID", uuid.uuid4().hex[:12]),
            environ.get("SHORTLIST_EVENTS"),
            environ.get("SHORTLIST_CHECKPOINTS"),
            None if config is None else Path(config),
        )


class Log:
    """Writes one JSON object a line, each with the run and the stage."""

    def __init__(self, run: str, out: TextIO) -> None:
        self._run, self._out = run, out
        self._lock = threading.Lock()
        self.stage: str | None = None

    def __call__(self, event: str, **fields: object) -> None:
        """Writes a line."""
        told = {
            "time": round(time.time(), 3),
            "run": self._run,
            "stage": self.stage,
            "event": event,
            **fields,
        }
        with self._lock:
            print(json.dumps(told, default=str), file=self._out, flush=True)


class LoggingReporter(ProgressReporter):
    """Tells what a narrator tells, in lines of a log; tables that are meant for eyes are left out."""

    def __init__(self, log: Log) -> None:
        super().__init__(Console(file=io.StringIO()))
        self._log = log

    def say(self, text: str) -> None:
        """Logs a line."""
        self._log("note", message=" ".join(text.split()))


def main(environ: Mapping[str, str], out: TextIO = sys.stderr) -> int:
    """Runs the whole job; gives the exit status. Replaces the process's handling of SIGTERM and of what nobody caught."""
    log = Log(environ.get("SHORTLIST_RUN_ID", "none"), out)
    sys.excepthook = _logs_uncaught(log)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        told = ContainerOptions.from_env(environ)
        log = Log(told.run, out)
        with heartbeat(log):
            _run(told, Settings.from_env(environ), log)
    except Interrupted:
        log("interrupted", message="told to stop: start again with the same run id, and it resumes")
        return AGAIN
    except Exception as error:
        ended = outcome(error)
        if ended is None:  # a bug, for the hook
            raise
        log("failed", error=type(error).__name__, message=ended[1])
        return ended[0]
    log("published")
    return DONE


def _run(told: ContainerOptions, settings: Settings, log: Log) -> None:
    from shortlist.batch.config import with_config
    from shortlist.batch.job import STAGES, Job, fit_params, is_done

    saved = None if told.checkpoints is None else Checkpoints(told.checkpoints, told.run)
    params = None if told.config is None else with_config(fit_params(settings), told.config)
    reporter = LoggingReporter(log)
    with usable(told.work), alone_in(told.work), leased(settings, told.run) as lease:
        job = Job(
            told.interactions,
            told.items,
            told.users,
            told.work,
            settings,
            reporter,
            config=params,
            events=told.events,
            lease=lease,
        )
        if saved is not None:
            log("restored", files=saved.restore(told.work))
        if told.events is not None and not is_done(
            job, next(iter(STAGES))
        ):  # a run that goes on keeps its events
            log.stage = "drain"
            _drain(told.events, settings, log)
        try:
            _stages(
                job, lease, log, (lambda: 0) if saved is None else (lambda: saved.save(told.work))
            )
        except BaseException as error:
            if saved is not None and _worth_saving(error):  # the parts of the stage that are whole
                log("saved", files=saved.save(told.work))
            raise


def _worth_saving(error: BaseException) -> bool:
    """Whether another attempt goes on from here; one that has lost its lease leaves the copies to the new holder."""
    if isinstance(error, LeaseHeld):
        return False
    return isinstance(error, Interrupted | Unavailable) or is_disk_full(error)


def _drain(events: str, settings: Settings, log: Log) -> None:
    from shortlist.batch.batch_store import batch_store
    from shortlist.batch.drain import drain
    from shortlist.recsys.store.event_files import open_event_files
    from shortlist.recsys.store.event_log import EventLog

    with batch_store(settings) as store:
        drained = drain(EventLog(store), open_event_files(events))
    log("finished", **(asdict(drained) | {"files": len(drained.files), "place": events}))


def _stages(job: Job, lease: Lease, log: Log, save: Callable[[], int]) -> None:
    from shortlist.batch.job import STAGES, is_done, run_stage

    for name in STAGES:
        log.stage = name
        if is_done(job, name):
            log("skipped", message="done already")
            continue
        started = time.monotonic()
        lease.check()
        log("started")
        run_stage(job, name)
        lease.check()
        log("finished", seconds=round(time.monotonic() - started, 1), files=save())
    log.stage = None


@contextmanager
def heartbeat(log: Log, every: float = HEARTBEAT_SECONDS) -> Iterator[None]:
    """Logs that the process lives while the body runs, so that silence means a fault."""
    ended = threading.Event()

    def beat() -> None:
        started = time.monotonic()
        while not ended.wait(every):
            log("heartbeat", seconds=round(time.monotonic() - started))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows saves and leaves
    raise Interrupted


def _logs_uncaught(
    log: Log,
) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log(
            "broken",
            error=kind.__name__,
            message=str(error),
            trace="".join(traceback.format_exception(kind, error, trace)),
        )

    return hook


if __name__ == "__main__":
    sys.exit(main(os.environ))
