"""Holds facts about the current request for logs and metrics."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import Scope

from shortlist.lambda_handler.answers import Answer

PREVIEW_HEADER = b"x-shortlist-preview"
"""Sent as 1 by who looks at an answer and shows it to no user, as the studio does.

Nobody's word has to be checked: who may ask for answers could skew their counts by asking more.
"""


@dataclass(slots=True)
class RequestContext:
    """Facts about one request.

    head: no body is sent; shown: items of its recommendation answer; at: unix seconds; caller: the
    name of the API key that it came with; preview: no user sees it, so it is left out of
    impressions and of the rows for skew; fallbacks: what made it fall back, each once.
    """

    request_id: str
    head: bool = False
    preview: bool = False
    user: str | None = None
    version: str | None = None
    source: str | None = None
    degraded: bool = False
    shown: int = 0
    at: float = 0.0
    error: Exception | None = None
    caller: str | None = None
    fallbacks: list[str] = field(default_factory=list)


_CONTEXT: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def begin(scope: Scope) -> RequestContext:
    """Starts a request's context.

    Its id is Lambda's, or a new one.
    """
    # Lambda's own id: with it the caller's answer is found in CloudWatch.
    request_id = getattr(scope.get("aws.context"), "aws_request_id", None) or uuid.uuid4().hex
    preview = any(name == PREVIEW_HEADER and value == b"1" for name, value in scope["headers"])
    context = RequestContext(request_id, scope.get("shortlist.head", False), preview)
    # Never reset: the outer error handlers read it after the request has left the inner stack.
    _CONTEXT.set(context)
    return context


def current() -> RequestContext:
    """The context of the current request, or a new one outside of requests."""
    context = _CONTEXT.get()
    return RequestContext(uuid.uuid4().hex) if context is None else context


def note_fallback(why: str) -> None:
    """Records what made the current request fall back; why: words without a user's id."""
    fallbacks = current().fallbacks
    if why not in fallbacks:
        fallbacks.append(why)


def note_answer(answer: Answer, user: str | None = None) -> RequestContext:
    """Records where the current request's answer came from."""
    context = current()
    context.version = answer.version
    context.source = answer.source
    context.degraded = answer.degraded
    context.user = user
    return context
