"""Runs a Lambda handler where `awslambdaric` is missing.

It speaks the same Runtime API, one event at a time, and is started as a file, since a built package
does not hold it: so it imports the standard library only. What AWS runs is the real client.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREFIX = "/2018-06-01/runtime"
Handler = Callable[[Any, object], Any]


@dataclass(frozen=True)
class Context:
    """The part of Lambda's context object that handlers commonly read."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_ms: int

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out; never negative."""
        return max(0, self.deadline_ms - int(time.time() * 1000))


def main(handler_path: str, address: str) -> None:
    """Answers events until the service stops the process; address: host:port of the Runtime API."""
    api = http.client.HTTPConnection(address)
    try:
        handler = load_handler(handler_path)
    except Exception as error:  # noqa: BLE001 - Lambda reports whatever an import raises
        _post(api, f"{PREFIX}/init/error", describe(error))
        sys.exit(1)
    while True:
        answer_next(api, handler)


def load_handler(path: str) -> Handler:
    """The function that `package.module.function` names."""
    module, _, name = path.rpartition(".")
    handler: Handler = getattr(importlib.import_module(module), name)
    return handler


def answer_next(api: http.client.HTTPConnection, handler: Handler) -> None:
    """Waits for one event and posts what the handler makes of it."""
    api.request("GET", f"{PREFIX}/invocation/next")
    response = api.getresponse()
    event = json.loads(response.read())
    request_id = response.headers["Lambda-Runtime-Aws-Request-Id"]
    context = Context(
        request_id,
        response.headers["Lambda-Runtime-Invoked-Function-Arn"],
        int(response.headers["Lambda-Runtime-Deadline-Ms"]),
    )
    invocation = f"{PREFIX}/invocation/{request_id}"
    try:
        body = json.dumps(handler(event, context)).encode()
    except Exception as error:  # noqa: BLE001 - Lambda reports whatever a handler raises
        _post(api, f"{invocation}/error", describe(error))
    else:
        _post(api, f"{invocation}/response", body)


def describe(error: Exception) -> bytes:
    """An error as Lambda's JSON."""
    return json.dumps(
        {
            "errorMessage": str(error),
            "errorType": type(error).__name__,
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
    ).encode()


def _post(api: http.client.HTTPConnection, path: str, body: bytes) -> None:
    api.request("POST", path, body, {"Content-Type": "application/json"})
    api.getresponse().read()


if __name__ == "__main__":
    main(sys.argv[1], os.environ["AWS_LAMBDA_RUNTIME_API"])
