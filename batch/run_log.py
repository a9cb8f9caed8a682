"""Writes the container's log as JSON lines.

Each line is an object with the run and the stage. The run's own events, what libraries log and what
Python warns of go through one handler of the standard logging, so that every line of a container
can be read by a program.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from shortlist.batch.repeating import repeating

HEARTBEAT_SECONDS = 60.0

_LOGGER = logging.getLogger("shortlist.batch")
_EVENT, _FIELDS = "event", "fields"
"""Attributes of the records of the run's own events; libraries' records lack them."""


class RunLog:
    """Logs the events of one run; `run` and `stage` stand in every line."""

    def __init__(self, run: str, out: TextIO) -> None:
        self.run = run
        self.stage: str | None = None
        self._handler = logging.StreamHandler(out)
        self._handler.setFormatter(_JsonFormatter(self))
        # For libraries: what they tell below this may be private.
        self._handler.setLevel(logging.WARNING)

    def __call__(self, event: str, **fields: object) -> None:
        """Writes a line."""
        extra = {_EVENT: event, _FIELDS: fields}
        name = _LOGGER.name
        record = _LOGGER.makeRecord(name, logging.INFO, "", 0, "", (), None, extra=extra)
        # Past the loggers' levels: an event is never filtered, whatever a library configures.
        self._handler.handle(record)

    @contextmanager
    def of_process(self) -> Iterator[None]:
        """Logs what Python warns of, and what libraries log from WARNING on."""
        root = logging.getLogger()
        root.addHandler(self._handler)
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            root.removeHandler(self._handler)

    @contextmanager
    def heartbeat(self, every: float = HEARTBEAT_SECONDS) -> Iterator[None]:
        """Logs that the process lives while the body runs.

        Silence then means a fault.
        """
        started = time.monotonic()

        def beat() -> None:
            self("heartbeat", seconds=round(time.monotonic() - started))

        with repeating(beat, every):
            yield

    def catch_uncaught(self) -> None:
        """Logs exceptions that nobody catches.

        Replaces the process's hook for them.
        """

        def hook(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            text = logging.Formatter().formatException((kind, error, trace))
            self("broken", error=kind.__name__, message=str(error), trace=text)

        sys.excepthook = hook


class _JsonFormatter(logging.Formatter):
    """One JSON object: time, run, stage, event, and the event's own fields."""

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self._log = log

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, _EVENT, None)
        if event is None:
            own = {"event": "log", **self._library_fields(record)}
        else:
            own = {"event": event, **getattr(record, _FIELDS)}
        line = {
            "time": round(record.created, 3),
            "run": self._log.run,
            "stage": self._log.stage,
            **own,
        }
        return json.dumps(line, default=str)

    def _library_fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields: dict[str, object] = {
            "logger": record.name,
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return fields
