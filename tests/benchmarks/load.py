"""Loads `shortlist serve` beyond what it can answer: `make bench-load`, after `make demo`.

A real server process over a real Valkey is asked by this process, on bare sockets: 80% cached
answers, 10% live ones, 10% events. Its capacity is what it answers to 32 callers who each wait for
their answer. Then requests come at 40, 70 or 130% of that, whether or not the ones before were
answered, as a crowd of callers sends them; five times in turns. Goodput is what is answered with
200 within the deadline; recovery is the longest time from the last request of a load to the first
of five in a row that are answered as fast as without load.
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
"""Of the load: below the server's own limit, so that requests are refused and not connections."""

QUICK_SECONDS = 0.05
"""An answer so fast is one without load."""

GIVE_UP_SECONDS = 10.0
"""After which a caller no longer waits; counted as lost."""


@dataclass
class Told:
    """Status (0: none came) and seconds of each request, from when it was due; and the server's seconds of CPU for them."""

    status: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0
    recovery: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        """One more."""
        self.status.append(status)
        self.seconds.append(seconds)

    def extend(self, other: Told, cpu: float) -> None:
        """Those of another time, and the longest recovery."""
        self.status += other.status
        self.seconds += other.seconds
        self.cpu += cpu
        self.recovery = max(self.recovery, other.recovery)

    def good(self, deadline: float) -> int:
        """How many were answered with 200 in time."""
        return sum(
            s == 200 and took <= deadline for s, took in zip(self.status, self.seconds, strict=True)
        )


class Caller(asyncio.Protocol):
    """A connection that sends one request at a time, and parses no more of an answer than where it ends."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = transport

    def send(self, request: bytes) -> asyncio.Future[int]:
        """Sends a request; gives its status in time."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Ends the request when its answer is whole."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            status, self._buffer = int(head[9:12]), b""
            self._settle(status)

    def connection_lost(self, _error: Exception | None) -> None:
        """A request without an answer has status 0."""
        self._settle(0)

    def is_open(self) -> bool:
        """Whether it can send."""
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Gives up."""
        self._transport.abort()  # type: ignore[attr-defined]

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


class Crowd:
    """Callers of a server, as many as are needed."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port, self._requests = port, requests
        self._free: list[Caller] = []
        self._open = 0

    async def ask(self, due: float, told: Told) -> None:
        """One request, over a connection that is free, or a new one."""
        caller = await self._caller()
        if caller is None:
            told.add(0, GIVE_UP_SECONDS)
            return
        try:
            status = await asyncio.wait_for(caller.send(next(self._requests)), GIVE_UP_SECONDS)
        except TimeoutError:
            status = 0
            caller.abort()
        told.add(status, time.perf_counter() - due)
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
        try:
            _, caller = await asyncio.get_running_loop().create_connection(
                Caller, "127.0.0.1", self._port
            )
        except OSError:
            self._open -= 1
            return None
        return caller


async def at_capacity(crowd: Crowd, seconds: float) -> Told:
    """What callers get who each wait for their answer before they ask again."""
    told, ends = Told(), time.perf_counter() + seconds

    async def calls() -> None:
        while (now := time.perf_counter()) < ends:
            await crowd.ask(now, told)

    await asyncio.gather(*(calls() for _ in range(CALLERS)))
    return told


async def at_rate(crowd: Crowd, rate: float, seconds: float) -> Told:
    """What callers get who come at a rate, at random moments."""
    told, tasks, rng = Told(), set(), random.Random(1)  # noqa: S311 - no secret
    due = time.perf_counter()
    ends = due + seconds
    while due < ends:
        ahead = due - time.perf_counter()
        if ahead > 0.001:
            await asyncio.sleep(ahead)
        tasks.add(asyncio.ensure_future(crowd.ask(due, told)))
        due += rng.expovariate(rate)
    ended = time.perf_counter()
    told.recovery = await recovery(crowd, ended)
    await asyncio.gather(*tasks)
    return told


async def recovery(crowd: Crowd, ended: float) -> float:
    """Seconds until five answers in a row are quick."""
    quick, since = 0, ended
    while quick < 5:
        told, started = Told(), time.perf_counter()
        await crowd.ask(started, told)
        if told.status[0] == 200 and told.seconds[0] < QUICK_SECONDS:
            quick += 1
        else:
            quick, since = 0, time.perf_counter()
    return since - ended


def mixed(users: tuple[str, ...], items: tuple[str, ...]) -> Iterator[bytes]:
    """Requests without end; users who send events are others than those who are answered from their lists."""
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
            }
            yield request("/v1/events", {"events": [event | {"timestamp": int(time.time())}]})


def request(path: str, body: object) -> bytes:
    """A POST."""
    told = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\n\r\n"
    return head.encode() + told


@contextmanager
def served(settings: Settings) -> Iterator[tuple[int, int]]:
    """The port and the process of a `shortlist serve`."""
    port = free_port()
    command = [sys.executable, "-m", "shortlist.batch.cli", "serve", "--port", str(port)]
    with subprocess.Popen(
        command, env=environ_of(settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            until_ready(port)
            yield port, server.pid
        finally:
            server.terminate()


async def measured(
    port: int, pid: int, seconds: float, deadline: float, requests: Iterator[bytes]
) -> Table:
    """A row for each load and one for the capacity beside it, in turns: a machine that others use is not the same for long."""
    table = Table(title=f"{seconds:g} s each, deadline {deadline:g} s")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    crowd, part = Crowd(port, requests), seconds / ROUNDS
    loads = []
    await at_capacity(crowd, part)  # warm
    for share in SHARES:
        most, told = Told(), Told()
        for _ in range(ROUNDS):
            before = cpu_seconds(pid)
            full = await at_capacity(crowd, part)
            between = cpu_seconds(pid)
            loaded = await at_rate(crowd, share * full.good(deadline) / part, part)
            most.extend(full, between - before)
            told.extend(loaded, cpu_seconds(pid) - between)
        add(table, "capacity", most, seconds, deadline, None)
        add(table, f"{share:.0%}", told, seconds, deadline, most)
        loads.append(figures(share, told, most, deadline))
    write_json({"setup": SETUP, "loads": loads}, REPORTS / "load.json")
    return table


def figures(share: float, told: Told, most: Told, deadline: float) -> dict[str, float]:
    """What docs/reports keeps of one load."""
    status, took = np.array(told.status), np.array(told.seconds)
    return {
        "load": share,
        "goodput": round(told.good(deadline) / most.good(deadline), 3),
        "p99_ms": round(float(np.percentile(took[status == 200], 99)) * 1000),
        "lost": int((status == 0).sum()),
        "recovery_seconds": round(told.recovery, 2),
    }


def cpu_seconds(pid: int) -> float:
    """Of a process so far; on a busy machine a fairer measure than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def add(
    table: Table, load: str, told: Told, seconds: float, deadline: float, most: Told | None
) -> None:
    """One row; most: what was answered at capacity in the same time."""
    status, took = np.array(told.status), np.array(told.seconds)
    good, refused = told.good(deadline), status == 503
    counts = [f"{len(status) / seconds:.0f}", f"{good / seconds:.0f}"]
    counts += [
        "" if most is None else f"{good / most.good(deadline):.0%}",
        str(refused.sum()),
        str((status == 0).sum()),
    ]
    counts += [f"{good / told.cpu:.0f}"]
    counts += [f"{value * 1000:.1f}" for value in np.percentile(took[status == 200], (50, 99))]
    counts += [f"{np.percentile(took[refused], 99) * 1000:.1f}" if refused.any() else ""]
    table.add_row(load, *counts, "" if most is None else f"{told.recovery:.2f}")


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
