"""Writes one line of JSON for each request.

A line has the route's template, the outcome and the source of the answer, and why an answer is
degraded. An unexpected error adds its traceback to the same line. Users' ids are left out unless a
setting asks for them.
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
_LOGGED = "_shortlist_logged"
"""Attribute of an exception whose traceback is in the log."""

_SERVERS = ("mangum.http", "uvicorn.error")
"""Loggers that write every exception which leaves the app a second time."""


def say(line: str) -> None:
    """Writes a line to standard output, which Lambda sends to CloudWatch."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class RequestLog:
    """Writes a line when a request's answer is complete."""

    def __init__(self, say: Say, *, users: bool) -> None:
        """users: whether lines have the users' ids."""
        self._say, self._users = say, users

    def line(self, context: RequestContext, scope: Scope, status: int, seconds: float) -> None:
        """Writes the request's line."""
        fields: dict[str, Any] = {
            "level": "info" if context.error is None else "error",
            "request_id": context.request_id,
            "route": route_of(scope),
            "status": status,
            "release": context.version,
            "source": context.source,
            "ms": round(seconds * 1000, 3),
            "degraded": context.degraded,
        }
        if context.degraded and context.fallbacks:
            fields["why"] = "; ".join(context.fallbacks)
        if context.caller is not None:
            fields["caller"] = context.caller
        if self._users:
            fields["user"] = context.user or scope.get("path_params", {}).get("user_id")
        if context.error is not None:
            fields["error"] = type(context.error).__name__
            fields["traceback"] = "".join(traceback.format_exception(context.error))
            setattr(context.error, _LOGGED, True)
        self._say(_ENCODE(fields))


class _NotLogged(logging.Filter):
    """Drops records of exceptions that a request's line has already."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns False to drop the record."""
        return record.exc_info is None or not getattr(record.exc_info[1], _LOGGED, False)


def warn_once() -> None:
    """Keeps the servers' loggers from writing a logged exception again."""
    for name in _SERVERS:
        logging.getLogger(name).addFilter(_NotLogged())
