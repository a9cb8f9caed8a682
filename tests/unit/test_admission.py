"""Tests admission of requests: refusals by 413, 408 and 503.

Large bodies get 413, late ones 408, and requests without a free seat 503.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from shortlist.lambda_handler import admission
from shortlist.lambda_handler.admission import BODY_BYTES, Admission
from shortlist.lambda_handler.executors import Seats
from shortlist.lambda_handler.metrics import Metrics
from tests.exposition import parse
from tests.loops import run_in_own_loop


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    message = await receive()
    assert not message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(message["body"])).encode()})


def answer_of(
    chunks: Sequence[bytes],
    *,
    seats: Seats | None = None,
    path: str = "/",
    root_path: str = "",
    length: int | None = None,
    ends: bool = True,
) -> tuple[int, dict[bytes, bytes], bytes, int, Metrics]:
    """Status, headers and body of the answer, how many chunks were read for it, and the metrics."""
    metrics, sent, read = Metrics(), [], 0
    headers = [] if length is None else [(b"content-length", str(length).encode())]

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read == len(chunks):
            await asyncio.Event().wait()
        read += 1
        return {
            "type": "http.request",
            "body": chunks[read - 1],
            "more_body": not ends or read < len(chunks),
        }

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = Admission(echo, metrics, seats or Seats(), body_seconds=0.05)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": root_path,
        "headers": headers,
    }
    run_in_own_loop(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body, read, metrics


def refused(metrics: Metrics) -> dict[str, float]:
    """Refused requests by reason."""
    _, samples = parse(metrics.text())
    counts = {
        dict(labels)["reason"]: number
        for (name, labels), number in samples.items()
        if name == "shortlist_refused_total"
    }
    return {reason: number for reason, number in counts.items() if number}


@pytest.mark.parametrize("chunks", [[b"x" * BODY_BYTES], [b"x" * (BODY_BYTES - 1), b"x"], [b""]])
def test_body_within_the_limit(chunks) -> None:
    """A body within the limit reaches the app whole, whatever pieces it came in."""
    status, _, body, _, metrics = answer_of(chunks)
    assert (status, int(body), refused(metrics)) == (200, sum(map(len, chunks)), {})


@pytest.mark.parametrize(
    ("chunks", "length", "read"),
    [
        ([b"x"], BODY_BYTES + 1, 0),  # by what it states, before anything is read
        ([b"x" * (BODY_BYTES + 1)], None, 1),
        ([b"x" * 300_000] * 100, None, 4),  # of a stream without a length no more than needed
    ],
)
def test_body_beyond_the_limit(chunks, length, read) -> None:
    """It is a 413 with the limit and the remedy, no more of it is read, and the connection ends."""
    status, headers, body, was_read, metrics = answer_of(chunks, length=length)
    assert (status, was_read, refused(metrics)) == (413, read, {"large_body": 1})
    error = json.loads(body)["error"]
    assert (error["code"], error["message"]) == (
        "body_too_large",
        "body: it may have 1 MiB at most: send it in parts",
    )
    assert headers[b"connection"] == b"close"


def test_late_body() -> None:
    """A body that does not arrive in time is a 408, and its connection ends."""
    status, headers, body, _, metrics = answer_of([b"{"], ends=False)
    assert (status, headers[b"connection"], refused(metrics)) == (408, b"close", {"slow_body": 1})
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_no_free_seat() -> None:
    """Without a free seat a request is a 503 with Retry-After, and is not read."""
    seats = Seats(2, 2)
    status, headers, body, read, metrics = answer_of([b"{}"], seats=seats)
    assert (status, headers[b"retry-after"], read, seats.taken) == (503, b"1", 0, 2)
    assert json.loads(body)["error"]["code"] == "overloaded"
    assert refused(metrics) == {"busy": 1}


@pytest.mark.parametrize(
    "path",
    ["/health", "/v1/health", "/health/ready", "/v1/health/ready", "/metrics", "/v1/metrics"],
)
def test_operators_are_let_in_always(path) -> None:
    """Health and metrics are answered without a free seat as well."""
    assert answer_of([b""], seats=Seats(0), path=path)[0] == 200
    assert answer_of([b""], seats=Seats(0), path=f"/rec{path}", root_path="/rec")[0] == 200
    assert answer_of([b""], seats=Seats(0), path=f"/rec{path}")[0] == 503


def test_a_seat_is_given_back() -> None:
    """The seat is free again after the answer."""
    seats = Seats(1)
    assert answer_of([b"{}"], seats=seats)[0] == 200
    assert seats.taken == 0


def test_all_bodies_are_bounded_together(monkeypatch) -> None:
    """Beyond the bound on all arriving bodies they are refused, and their bytes are released."""
    monkeypatch.setattr(admission, "HELD_BYTES", 1000)
    status, _, _, _, metrics = answer_of([b"x" * 600, b"x" * 600])
    assert (status, refused(metrics)) == (503, {"memory": 1})
