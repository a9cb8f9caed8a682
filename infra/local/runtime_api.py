"""Plays the Lambda service for a handler on this machine.

It serves the Runtime API over loopback HTTP. As in Lambda there is one environment at a time: a
process of the real runtime client, `awslambdaric`, polls for the next event and posts its answer. A
handler that fails, exits or takes too long has the outcome that Lambda gives it. The protocol is
documented under "Using the Lambda runtime API for custom runtimes" in the AWS Lambda developer
guide.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

PREFIX = "/2018-06-01/runtime/"
STDERR = 2
"""The file descriptor of standard error."""

INIT_SECONDS = 10.0
"""Lambda's limit for the first poll."""

FUNCTION = "shortlist"
ARN = f"arn:aws:lambda:us-east-1:123456789012:function:{FUNCTION}"


@dataclass(frozen=True, slots=True)
class Invoked:
    """An invocation's outcome. error: None, or what Lambda puts into X-Amz-Function-Error."""

    payload: Any
    error: str | None
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    kind: str  # "response", "error", "init" or "exit"
    body: bytes


class LambdaService:
    """Runs a handler under the real runtime client; a context manager."""

    def __init__(
        self,
        handler: str,
        root: str,
        environ: Mapping[str, str],
        timeout: float = 30.0,
        python: Sequence[str] = (sys.executable,),
        log: int = STDERR,
    ) -> None:
        """Prepares a service; the handler starts with the first event.

        handler: `package.module.function`, below `root`. environ: the function's variables.
        timeout: seconds. python: the interpreter's command, for one that sees no installed
        packages. log: the file descriptor for what the function writes, which Lambda sends to
        CloudWatch.
        """
        self._handler, self._root, self._environ, self._timeout = handler, root, environ, timeout
        self._python, self._log = tuple(python), log
        self._events: queue.Queue[tuple[str, bytes, int]] = queue.Queue()
        self._outcomes: queue.Queue[tuple[str, _Outcome]] = queue.Queue()
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._polled = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_class(self))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._server.shutdown()
        self._server.server_close()

    def invoke(self, event: Mapping[str, Any]) -> Invoked:
        """Sends one event and waits for its answer; starts an environment where there is none."""
        with self._one_at_a_time:
            if self._process is None or self._process.poll() is not None:
                self._start()
            started = time.perf_counter()
            request = str(uuid.uuid4())
            deadline_ms = int((time.time() + self._timeout) * 1000)
            self._events.put((request, json.dumps(event).encode(), deadline_ms))
            outcome = self._outcome(request)
            return self._invoked(request, outcome, (time.perf_counter() - started) * 1000)

    def _outcome(self, request: str) -> _Outcome | None:
        deadline = time.monotonic() + self._timeout
        if not self._polled.is_set():
            deadline += INIT_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                answered, outcome = self._outcomes.get(timeout=left)
            except queue.Empty:
                return None
            if answered in (request, ""):
                return outcome
        return None

    def _invoked(self, request: str, outcome: _Outcome | None, milliseconds: float) -> Invoked:
        if outcome is None:
            self._stop()
            text = f"RequestId: {request} Error: Task timed out after {self._timeout:.2f} seconds"
            error = {"errorType": "Sandbox.Timedout", "errorMessage": text}
            return Invoked(error, "Unhandled", milliseconds)
        if outcome.kind == "response":
            return Invoked(json.loads(outcome.body) if outcome.body else None, None, milliseconds)
        if outcome.kind != "error":
            self._stop()
        return Invoked(json.loads(outcome.body), "Unhandled", milliseconds)

    def _start(self) -> None:
        self._polled.clear()
        self._events, self._outcomes = queue.Queue(), queue.Queue()
        inherited = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR")
            if name in os.environ
        }
        environ = inherited | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "AWS_REGION": "us-east-1",
            "AWS_LAMBDA_FUNCTION_NAME": FUNCTION,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{FUNCTION}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "LAMBDA_TASK_ROOT": self._root,
            "_HANDLER": self._handler,
            "PYTHONPATH": self._root,
            "LD_LIBRARY_PATH": f"{self._root}:{self._root}/lib",
            "TZ": ":UTC",
        }
        command = [*self._python, *runtime_client(), self._handler]
        environ |= self._environ
        # A group of its own: Ctrl-C is for this process, which then stops the function.
        self._process = subprocess.Popen(  # noqa: S603 - our own
            command,
            cwd=self._root,
            env=environ,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
        )
        threading.Thread(
            target=self._watch, args=(self._process, self._outcomes), daemon=True
        ).start()

    def _watch(
        self, process: subprocess.Popen[bytes], outcomes: queue.Queue[tuple[str, _Outcome]]
    ) -> None:
        code = process.wait()
        message = f"Runtime exited with exit status {code}"
        error = {"errorType": "Runtime.ExitError", "errorMessage": message}
        outcomes.put(("", _Outcome("exit", json.dumps(error).encode())))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def next_event(self) -> tuple[str, bytes, int]:
        """Waits for the next event: request id, body, deadline in unix milliseconds."""
        self._polled.set()
        return self._events.get()

    def answered(self, request: str, kind: str, body: bytes) -> None:
        """Takes the client's answer to a request; the empty request is the initialisation."""
        self._outcomes.put((request, _Outcome(kind, body)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as its base
        """Prints a traceback, unless the runtime client was stopped while it polled."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def runtime_client() -> list[str]:
    """The interpreter's arguments that start the real client, or ours where it is missing."""
    if importlib.util.find_spec("awslambdaric") is not None:
        return ["-m", "awslambdaric"]
    # -P: this folder's modules must not hide installed ones.
    return ["-P", str(Path(__file__).with_name("runtime_client.py"))]


def _handler_class(service: LambdaService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Without these two, delayed acknowledgements cost 40 ms a hop.
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, *args: object) -> None:
            """Says nothing: the handler's own log is enough."""

        def do_GET(self) -> None:
            request, body, deadline = service.next_event()
            headers = {
                "Lambda-Runtime-Aws-Request-Id": request,
                "Lambda-Runtime-Deadline-Ms": str(deadline),
                "Lambda-Runtime-Invoked-Function-Arn": ARN,
            }
            self._reply(200, body, headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            match self.path.removeprefix(PREFIX).split("/"):
                case ["invocation", request, ("response" | "error") as kind]:
                    service.answered(request, kind, body)
                case ["init", "error"]:
                    service.answered("", "init", body)
            self._reply(202, b'{"status":"OK"}', {})

        def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            try:
                self.send_response(status)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(body)),
                    **headers,
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()
            except OSError:
                self.close_connection = True  # the runtime client was stopped while it polled

    return Handler


def http_event(method: str, path: str, body: object = None, query: str = "") -> dict[str, Any]:
    """An API Gateway HTTP API event of payload version 2.0; body is sent as JSON.

    path: as the request line has it. API Gateway decodes it once, and then cuts it at a question
    mark.
    """
    path = unquote(path).partition("?")[0]
    http = {
        "method": method,
        "path": path,
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "shortlist",
    }
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": "application/json", "host": "localhost"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": "localhost",
            "domainPrefix": "local",
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": int(time.time() * 1000),
            "http": http,
        },
        "isBase64Encoded": False,
    }
    if body is not None:
        event["body"] = json.dumps(body)
    return event
