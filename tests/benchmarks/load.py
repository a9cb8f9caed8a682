"""Measures `shortlist serve` under overload: `make bench-load`, after `make demo`.

By hand: `python tests/benchmarks/load.py [SECONDS [DIRECTORY]]`.

A real server process over a real Valkey gets requests from this process on bare sockets: 80% cached
answers, 10% live ones, 10% events. Its capacity is the rate at 32 callers who each wait for their
answer (closed loop). Then requests arrive at 40, 70 and 130% of that, whether or not earlier ones
were answered (open loop). Capacity and load alternate five times, so that both see the same
machine, and goodput is given as a ratio to the capacity of the same run.

goodput: answers with 200 within the deadline, over those at capacity.
recovery: longest time from the last request of a load to the first of five quick answers in a row.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from serving import DEMO, REPORTS, environ_of, free_port, until_ready

from shortlist.batch import dataset_file, publish
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.settings import Settings

SETUP = "`shortlist serve` beyond its capacity: 80% cached answers, 10% live ones, 10% events"

CALLERS = 32
SHARES = (0.4, 0.7, 1.3)
ROUNDS = 5
COLUMNS = (
    *("load", "sent/s", "200/s", "goodput", "refused", "lost", "200/CPU s"),
    *("p50 ms", "p99 ms", "p99 refused", "recovery s"),
)
MOST_CONNECTIONS = 800
"""Most connections of the load, below the server's limit: it refuses requests, not connections."""

QUICK_SECONDS = 0.05
"""Time of a quick answer: no slower than without load."""

GIVE_UP_SECONDS = 10.0
"""Time after which a caller gives up; the request counts as lost."""


@dataclass
class Results:
    """Results of a load.

    status: of each request, 0 where no answer came; seconds: from when the request was due; cpu:
    seconds of the server's CPU; recovery: seconds until it answered quickly again.
    """

    status: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0
    recovery: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Adds one request."""
        self.status.append(status)
        self.seconds.append(seconds)

    def extend(self, other: Results, cpu: float) -> None:
        """Adds the results of another round; recovery is the longest of all."""
        self.status += other.status
        self.seconds += other.seconds
        self.cpu += cpu
        self.recovery = max(self.recovery, other.recovery)

    def good(self, deadline: float) -> int:
        """Number of requests answered with 200 in time."""
        pairs = zip(self.status, self.seconds, strict=True)
        return sum(status == 200 and seconds <= deadline for status, seconds in pairs)


class Caller(asyncio.Protocol):
    """A connection that sends one request at a time.

    Of an answer it parses the status and the length alone: the load generator shares the machine
    with the server, and must cost little.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport

    def send(self, request: bytes) -> asyncio.Future[int]:
        """Sends a request, and gives the future of its status."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Ends the request when its answer is complete."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            status, self._buffer = int(head[9:12]), b""
            self._settle(status)

    def connection_lost(self, _error: Exception | None) -> None:
        """Ends a request without an answer with status 0."""
        self._settle(0)

    def is_open(self) -> bool:
        """Whether it can send a request."""
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()  # type: ignore[attr-defined]

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


class Crowd:
    """Callers of a server, as many as the load needs."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[Caller] = []
        self._open = 0

    async def send(self, due: float, results: Results) -> None:
        """Sends one request over a free or new connection, and adds its result."""
        caller = await self._caller()
        if caller is None:
            results.add(0, GIVE_UP_SECONDS)
            return
        try:
            status = await asyncio.wait_for(caller.send(next(self._requests)), GIVE_UP_SECONDS)
        except TimeoutError:
            status = 0
            caller.abort()
        results.add(status, time.perf_counter() - due)
        if status and caller.is_open():
            self._free.append(caller)
        else:
            self._open -= 1

    async def _caller(self) -> Caller | None:
        while self._free:
            caller = self._free.pop()
            if caller.is_open():
                return caller
            self._open -= 1
        if self._open >= MOST_CONNECTIONS:
            return None
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            _, caller = await loop.create_connection(Caller, "127.0.0.1", self._port)
        except OSError:
            self._open -= 1
            return None
        return caller


async def at_capacity(crowd: Crowd, seconds: float) -> Results:
    """Closed loop: CALLERS who each wait for their answer before the next request."""
    results, ends = Results(), time.perf_counter() + seconds

    async def calls() -> None:
        while (now := time.perf_counter()) < ends:
            await crowd.send(now, results)

    await asyncio.gather(*(calls() for _ in range(CALLERS)))
    return results


async def at_rate(crowd: Crowd, rate: float, seconds: float) -> Results:
    """Open loop: requests at random moments, `rate` a second on average."""
    results, tasks, rng = Results(), set(), random.Random(1)  # noqa: S311 - no secret
    due = time.perf_counter()
    ends = due + seconds
    while due < ends:
        ahead = due - time.perf_counter()
        if ahead > 0.001:  # a shorter sleep would be late anyway
            await asyncio.sleep(ahead)
        tasks.add(asyncio.ensure_future(crowd.send(due, results)))
        due += rng.expovariate(rate)
    results.recovery = await recovery(crowd, time.perf_counter())
    await asyncio.gather(*tasks)
    return results


async def recovery(crowd: Crowd, ended: float) -> float:
    """Seconds from `ended` to the first of five quick answers in a row."""
    quick, since = 0, ended
    while quick < 5:
        results = Results()
        await crowd.send(time.perf_counter(), results)
        if results.status[0] == 200 and results.seconds[0] < QUICK_SECONDS:
            quick += 1
        else:
            quick, since = 0, time.perf_counter()
    return since - ended


def mixed(users: tuple[str, ...], items: tuple[str, ...]) -> Iterator[bytes]:
    """Requests without end.

    Events are of other users than those with cached answers, whose lists would be outdated by them.
    """
    rng, number = random.Random(2), 0  # noqa: S311 - no secret
    while True:
        number += 1
        kind = rng.random()
        if kind < 0.8:
            yield request("/recommend", {"user_id": rng.choice(users)})
        elif kind < 0.9:
            yield request("/recommend", {"user_id": rng.choice(users), "use_cache": False})
        else:
            event = {
                "event_id": f"e{number}",
                "user_id": f"clicker-{number % 1000}",
                "item_id": rng.choice(items),
                "timestamp": int(time.time()),
            }
            yield request("/v1/events", {"events": [event]})


def request(path: str, body: object) -> bytes:
    """The bytes of a POST request."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextmanager
def served(settings: Settings) -> Iterator[tuple[int, int]]:
    """Runs `shortlist serve`, and gives its port and process id."""
    port = free_port()
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", str(port)]
    nowhere = subprocess.DEVNULL
    environ = environ_of(settings)
    with subprocess.Popen(command, env=environ, stdout=nowhere, stderr=nowhere) as server:
        try:
            until_ready(port)
            yield port, server.pid
        finally:
            server.terminate()


async def measured(
    port: int, pid: int, seconds: float, deadline: float, requests: Iterator[bytes]
) -> Table:
    """The table: for each load a row, and one for the capacity in the same minutes.

    They alternate, since a shared machine does not stay equally fast.
    """
    table = Table(title=f"{seconds:g} s each, deadline {deadline:g} s")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    crowd, part = Crowd(port, requests), seconds / ROUNDS
    await at_capacity(crowd, part)  # warm up
    loads = []
    for share in SHARES:
        capacity, load = Results(), Results()
        for _ in range(ROUNDS):
            before = cpu_seconds(pid)
            full = await at_capacity(crowd, part)
            between = cpu_seconds(pid)
            loaded = await at_rate(crowd, share * full.good(deadline) / part, part)
            capacity.extend(full, between - before)
            load.extend(loaded, cpu_seconds(pid) - between)
        add(table, "capacity", capacity, seconds, deadline, None)
        add(table, f"{share:.0%}", load, seconds, deadline, capacity)
        loads.append(figures(share, load, capacity, deadline))
    write_json({"setup": SETUP, "loads": loads}, REPORTS / "load.json")
    return table


def figures(share: float, load: Results, capacity: Results, deadline: float) -> dict[str, float]:
    """What docs/reports keeps of one load."""
    status, took = np.array(load.status), np.array(load.seconds)
    return {
        "load": share,
        "goodput": round(load.good(deadline) / capacity.good(deadline), 3),
        "p99_ms": round(float(np.percentile(took[status == 200], 99)) * 1000),
        "lost": int((status == 0).sum()),
        "recovery_seconds": round(load.recovery, 2),
    }


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU of a process so far: on a busy machine fairer than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def add(
    table: Table,
    load: str,
    results: Results,
    seconds: float,
    deadline: float,
    capacity: Results | None,
) -> None:
    """Adds a row. capacity: results at capacity in the same minutes; None in their own row."""
    status, took = np.array(results.status), np.array(results.seconds)
    good, refused, lost = results.good(deadline), status == 503, status == 0
    p50, p99 = np.percentile(took[status == 200], (50, 99))
    table.add_row(
        load,
        f"{len(status) / seconds:.0f}",
        f"{good / seconds:.0f}",
        "" if capacity is None else f"{good / capacity.good(deadline):.0%}",
        str(refused.sum()),
        str(lost.sum()),
        f"{good / results.cpu:.0f}",
        f"{p50 * 1000:.1f}",
        f"{p99 * 1000:.1f}",
        f"{np.percentile(took[refused], 99) * 1000:.1f}" if refused.any() else "",
        "" if capacity is None else f"{results.recovery:.2f}",
    )


def main() -> None:
    """Prints the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    directory = Path(sys.argv[2]) if len(sys.argv) > 2 else DEMO
    work = directory / "work"
    dataset = dataset_file.load(work)
    with redis_url({}) as url, tempfile.TemporaryDirectory() as scratch:
        own = {"artefacts": f"{scratch}/artefacts", "bundle_dir": Path(scratch)}
        settings = replace(Settings.from_env({}), redis_url=url, **own)  # type: ignore[arg-type]
        publish.publish(work / "bundle", work / "lists", settings, ProgressReporter())
        requests = mixed(dataset.user_ids, dataset.catalogue.ids)
        with served(settings) as (port, pid):
            deadline = settings.request_timeout_ms / 1000
            Console(width=130).print(asyncio.run(measured(port, pid, seconds, deadline, requests)))


if __name__ == "__main__":
    main()
