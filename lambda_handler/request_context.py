"""What is noted of the request at hand while it is answered: for its line in the log, and for counting what was shown."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import Scope

from shortlist.lambda_handler.answers import Answer


@dataclass(slots=True)
class RequestContext:
    """Of one request. shown: items of its recommendation answer; at: unix seconds; head: whether no body is sent.

    caller: the name of the API key by which the request came.
    """

    request_id: str
    head: bool = False
    user: str | None = None
    version: str | None = None
    source: str | None = None
    degraded: bool = False
    shown: int = 0
    at: float = 0.0
    error: Exception | None = None
    caller: str | None = None


_NOTE: ContextVar[RequestContext | None] = ContextVar("note", default=None)


def begin(scope: Scope) -> RequestContext:
    """The note of the request that begins, under the id that Lambda gave it, or one of its own."""
    request_id = getattr(scope.get("aws.context"), "aws_request_id", None) or uuid.uuid4().hex
    note = RequestContext(request_id, head=scope.get("shortlist.head", False))
    _NOTE.set(
        note
    )  # and never reset: error handlers outside ask for it, and each request has a context of its own
    return note


def current() -> RequestContext:
    """The note of the request at hand."""
    note = _NOTE.get()
    return RequestContext(uuid.uuid4().hex) if note is None else note


def answered(answer: Answer, user: str | None = None) -> RequestContext:
    """Notes where the answer to the request at hand came from."""
    note = current()
    note.version, note.source, note.degraded, note.user = (
        answer.version,
        answer.source,
        answer.degraded,
        user,
    )
    return note
