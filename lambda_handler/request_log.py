"""One line of JSON for each request: what was asked, by its route's template, how it ended, where the answer came from.

An error of ours comes with its traceback, in the same line. Users' ids stay out unless they were
asked for.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from shortlist.lambda_handler.envelope import route_of
from shortlist.lambda_handler.request_context import RequestContext

Say = Callable[[str], None]
"""Writes a line."""

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_TOLD = "_shortlist_told"
_SERVERS = ("mangum.http", "uvicorn.error")
"""Loggers that tell every exception which leaves the app once more."""


def say(line: str) -> None:
    """To standard output, which is CloudWatch's log in Lambda."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class RequestLog:
    """Says one line when a request's answer is given."""

    def __init__(self, say: Say, *, users: bool) -> None:
        """users: whether the lines name the users who asked."""
        self._say, self._users = say, users

    def line(self, note: RequestContext, scope: Scope, status: int, seconds: float) -> None:
        """Says the request's line."""
        told: dict[str, Any] = {
            "level": "info" if note.error is None else "error",
            "request_id": note.request_id,
            "route": route_of(scope),
            "status": status,
            "release": note.version,
            "source": note.source,
            "ms": round(seconds * 1000, 3),
            "degraded": note.degraded,
        }
        if note.caller is not None:
            told["caller"] = note.caller
        if self._users:
            told["user"] = note.user or scope.get("path_params", {}).get("user_id")
        if note.error is not None:
            told["error"] = type(note.error).__name__
            told["traceback"] = "".join(traceback.format_exception(note.error))
            setattr(note.error, _TOLD, True)
        self._say(_ENCODE(told))


class _Once(logging.Filter):
    """Lets an exception pass that no request's line has told."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for one that was."""
        return record.exc_info is None or not getattr(record.exc_info[1], _TOLD, False)


def warn_once() -> None:
    """Keeps the servers under the app from telling an error again, in many lines."""
    for name in _SERVERS:
        logging.getLogger(name).addFilter(_Once())
