"""Runs the batch in a container: JSON logs, exit codes.

0: the release serves. 1: it was refused, or something is broken: look at it. 2: a setting or a
table breaks a rule: correct it. 75: a part did not answer, another batch is at work, the disk is
full, or the container was told to stop: start it again with the same run id, and it resumes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from shortlist.batch import stages
from shortlist.batch.checkpoints import Checkpoints
from shortlist.batch.exit_status import AGAIN, DONE, is_disk_full, outcome
from shortlist.batch.progress import ProgressReporter
from shortlist.batch.run_log import RunLog
from shortlist.batch.workspace import alone_in, leased, usable
from shortlist.recsys.errors import InvalidSettings, LeaseHeld, Unavailable
from shortlist.recsys.settings import Settings, misspelt

if TYPE_CHECKING:
    from shortlist.batch.job import Job
    from shortlist.recsys.store.lease import Lease
    from shortlist.recsys.training.parameters import FitParams


class Interrupted(BaseException):
    """The container was told to stop; not an error that any stage may catch."""


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """What the environment says to a container beyond `Settings`."""

    interactions: str | None
    items: str | None
    users: str | None
    data: str | None
    work: Path
    run: str
    events: str | None
    checkpoints: str | None
    config: Path | None
    rules: str | None

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ContainerOptions:
        """Reads the container's variables.

        They are `SHORTLIST_INTERACTIONS`, `_ITEMS`, `_USERS`, or `_DATA` for the three; `_WORK`,
        `_RUN_ID`, `_EVENTS`, `_CHECKPOINTS`, `_CONFIG` and `_RULES`.

        Raises:
            InvalidSettings: neither the interactions nor a mapping file are named, or both are.
        """
        names = ("SHORTLIST_INTERACTIONS", "SHORTLIST_ITEMS", "SHORTLIST_USERS")
        given = [name for name in names if environ.get(name)]
        if environ.get("SHORTLIST_DATA") and given:
            raise InvalidSettings(
                f"SHORTLIST_DATA names all tables, and {given[0]} one of them: unset one of the two"
            )
        if not environ.get("SHORTLIST_DATA") and "SHORTLIST_INTERACTIONS" not in given:
            raise InvalidSettings(
                "SHORTLIST_INTERACTIONS is unset: give a path, a glob or an s3:// address, "
                "or SHORTLIST_DATA a mapping file"
            )
        config = environ.get("SHORTLIST_CONFIG")
        return cls(
            environ.get("SHORTLIST_INTERACTIONS"),
            environ.get("SHORTLIST_ITEMS"),
            environ.get("SHORTLIST_USERS"),
            environ.get("SHORTLIST_DATA") or None,
            Path(environ.get("SHORTLIST_WORK", ".shortlist/work")),
            # A random id is a run of its own, which no other attempt resumes.
            environ.get("SHORTLIST_RUN_ID", uuid.uuid4().hex[:12]),
            environ.get("SHORTLIST_EVENTS"),
            environ.get("SHORTLIST_CHECKPOINTS"),
            None if config is None else Path(config),
            environ.get("SHORTLIST_RULES") or None,
        )


class LoggingReporter(ProgressReporter):
    """Logs what a reporter prints, but for the tables, which are for people."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(Console(quiet=True))
        self._log = log

    def say(self, text: str) -> None:
        """Logs a line."""
        self._log("note", message=" ".join(text.split()))


def main(environ: Mapping[str, str], out: TextIO = sys.stderr) -> int:
    """Runs the whole job; gives the exit status.

    Replaces the process's handling of SIGTERM and of exceptions that nobody caught.
    """
    log = RunLog(environ.get("SHORTLIST_RUN_ID", "none"), out)
    log.catch_uncaught()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with log.of_process():
            options = ContainerOptions.from_env(environ)
            log.run = options.run
            for sentence in misspelt(environ):
                log("note", message=sentence)
            with log.heartbeat():
                _run(options, Settings.from_env(environ), log)
    except Interrupted:
        log("interrupted", message="told to stop: start again with the same run id, and it resumes")
        return AGAIN
    except Exception as error:
        failure = outcome(error)
        if failure is None:  # a bug, for the hook
            raise
        status, sentence = failure
        log("failed", error=type(error).__name__, message=sentence)
        return status
    log("published")
    return DONE


def _run(options: ContainerOptions, settings: Settings, log: RunLog) -> None:
    from shortlist.batch.job import is_done

    checkpoints = None
    if options.checkpoints is not None:
        checkpoints = Checkpoints(options.checkpoints, options.run)
    config, work = _config(options, settings), options.work
    with usable(work), alone_in(work), leased(settings, options.run) as lease:
        job = _job(options, settings, config, LoggingReporter(log), lease)
        if checkpoints is not None:
            log("restored", files=checkpoints.restore(work))
        # A run that goes on keeps its events: its finished stages learnt from these alone.
        if options.events is not None and not is_done(job, stages.NAMES[0]):
            _drain(options.events, settings, log)
        try:
            _run_stages(job, lease, log, checkpoints)
        except BaseException as error:
            if checkpoints is not None and _worth_saving(error):
                log("saved", files=checkpoints.save(work))
            raise


def _config(options: ContainerOptions, settings: Settings) -> FitParams | None:
    from shortlist.batch.config import fit_params, with_config

    if options.config is None:
        return None
    return with_config(fit_params(settings), options.config)


def _job(
    options: ContainerOptions,
    settings: Settings,
    config: FitParams | None,
    reporter: ProgressReporter,
    lease: Lease,
) -> Job:
    from shortlist.batch.job import Job
    from shortlist.batch.rules_file import read_rules
    from shortlist.batch.tables import Tables, of_mapping

    tables = Tables(str(options.interactions), options.items, options.users)
    if options.data is not None:
        tables = of_mapping(options.data)
    return Job(
        tables.interactions,
        tables.items,
        tables.users,
        options.work,
        settings,
        reporter,
        config=config,
        rules=read_rules(options.rules),
        events=options.events,
        event_rules=tables.event_rules,
        lease=lease,
    )


def _drain(events: str, settings: Settings, log: RunLog) -> None:
    from shortlist.batch.batch_store import batch_store
    from shortlist.batch.drain import drain
    from shortlist.recsys.store.event_files import open_event_files
    from shortlist.recsys.store.event_log import EventLog

    log.stage = "drain"
    with batch_store(settings) as store:
        drained = drain(EventLog(store), open_event_files(events))
    log("finished", **(asdict(drained) | {"files": len(drained.files), "place": events}))


def _run_stages(job: Job, lease: Lease, log: RunLog, checkpoints: Checkpoints | None) -> None:
    from shortlist.batch.job import is_done, run_stage

    for name in stages.NAMES:
        log.stage = name
        if is_done(job, name):
            log("skipped", message="done already")
            continue
        started = time.monotonic()
        lease.check()
        log("started")
        run_stage(job, name)
        lease.check()  # else the copies of another run would be overwritten
        n_files = 0 if checkpoints is None else checkpoints.save(job.work)
        log("finished", seconds=round(time.monotonic() - started, 1), files=n_files)
    log.stage = None


def _worth_saving(error: BaseException) -> bool:
    """Whether another attempt can go on from here."""
    if isinstance(error, LeaseHeld):  # the copies belong to the new holder
        return False
    return isinstance(error, Interrupted | Unavailable) or is_disk_full(error)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    # A second SIGTERM must not break off the saving that the first one leads to.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main(os.environ))
