"""Runs and cases by their seeds, in worker processes, whose crash is a finding like any other, until a time is over."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from shortlist.batch import publish
from shortlist.batch.progress import ProgressReporter
from tests.chaos import bundle_mutations
from tests.chaos.fuzz_api import ApiFuzz
from tests.chaos.fuzz_commands import CommandFuzz
from tests.chaos.fuzz_settings import SettingsFuzz
from tests.chaos.fuzz_store import StoreFuzz
from tests.chaos.fuzz_tables import TableFuzz
from tests.chaos.scenario import STEPS, Scenario
from tests.chaos.service import Backends, Service, backends, service


class Fuzzer(Protocol):
    """What does the cases of one kind."""

    counts: Counter[str]

    def case(self, rng: random.Random) -> str:
        """Does one thing, drawn from the generator; gives what is wrong with the outcome, or nothing."""


MAX_FINDINGS = 3
"""Of one task; more of the same would only hide the others."""

PATIENCE_SECONDS = 900.0
"""After which a worker that has not finished a task counts as hung."""


@dataclass
class Outcome:
    """What a task gave. cases: how many; findings: what must not be, each with how to see it again."""

    kind: str
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """The cases from `start` on, `count` of them, of one kind and seed; what comes later may depend on what came before."""

    kind: str
    seed: int
    start: int
    count: int

    def name(self, at: int) -> str:
        """By which a case is called again, after those before it; a run of a service stands by itself."""
        start = at if self.kind == "faults" else self.start
        return f"{self.kind}:{self.seed}:{start}:{at - start + 1}"

    @classmethod
    def named(cls, name: str) -> Task:
        """The task that ends with the case of this name."""
        kind, *numbers = name.split(":")
        seed, start, count = map(int, numbers)
        return cls(kind, seed, start, count)


def run(task: Task, backends: Backends) -> Outcome:
    """Runs a task's cases."""
    outcome = Outcome(task.kind)
    with ExitStack() as stack:
        if task.kind == "faults":
            return _run_scenarios(task, backends, outcome)
        if task.kind == "bundles":
            return _run_bundles(task, backends, outcome)
        fuzzer = stack.enter_context(FUZZERS[task.kind](backends, f"{task.seed}-{task.start}"))
        for at in range(task.start, task.start + task.count):
            wrong = fuzzer.case(random.Random(f"{task.kind} {task.seed} {at}"))
            outcome.cases += 1
            if wrong:
                outcome.findings.append(f"{task.name(at)}  {wrong}")
                if len(outcome.findings) >= MAX_FINDINGS:
                    break
        outcome.counts += fuzzer.counts
    return outcome


def _run_scenarios(task: Task, backends: Backends, outcome: Outcome) -> Outcome:
    for at in range(task.start, task.start + task.count):
        scenario = run_scenario(backends, f"{task.seed} {at}")
        outcome.cases += 1
        outcome.counts += scenario.counts
        outcome.findings += [
            f"{task.name(at)}  {wrong}\n    " + "\n    ".join(scenario.trace)
            for wrong in scenario.violations[:1]
        ]
    return outcome


def run_scenario(backends: Backends, seed: str, steps: int = STEPS) -> Scenario:
    """One run of a service under faults."""
    rng = random.Random(f"life {seed}")
    options = {"in_s3": rng.random() < 0.5, "remembers": rng.random() < 0.5}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        name = f"chaos-{seed.replace(' ', '-')}"
        scenario = Scenario(
            stack.enter_context(service(backends, home / "run", name, **options)), rng
        )
        stack.callback(
            scenario.end_fault
        )  # whatever happened, the next run begins with sound servers
        try:
            scenario.run(steps)
        except Exception:  # noqa: BLE001 - the attack itself may have a bug, or has let one out
            scenario.violations.append(traceback.format_exc())
    return scenario


def _run_bundles(task: Task, backends: Backends, outcome: Outcome) -> Outcome:
    bundle = backends.worlds.by_name["plain"].work / "bundle"
    for number, (case, told) in enumerate(
        bundle_mutations.campaign(bundle, task.seed + task.start, task.count)
    ):
        outcome.cases += 1
        outcome.counts[f"bundles: {told if told in ('refused', 'answered') else 'wrong'}"] += 1
        if told not in ("refused", "answered"):
            outcome.findings.append(f"{task.name(task.start + number)}  {case}: {told}")
    return outcome


@contextmanager
def published(backends: Backends, name: str) -> Iterator[Service]:
    """A service with the first world's release, and one process of the API."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        made = stack.enter_context(
            service(backends, home / "run", f"fuzz-{name}", in_s3=False, remembers=False)
        )
        work = backends.worlds.by_name["plain"].work
        # Cases are many, and a busy machine is not what they look for.
        made.settings = replace(
            made.settings, redis_url=f"unix://{backends.redis_path}", redis_timeout_ms=5000
        )
        made.environ["REDIS_URL"] = made.settings.redis_url
        publish.publish(
            work / "bundle",
            work / "lists",
            made.settings,
            ProgressReporter(Console(file=io.StringIO())),
        )
        made.start_process(0)
        yield made


@contextmanager
def _api(backends: Backends, name: str) -> Iterator[Fuzzer]:
    with published(backends, f"api-{name}") as made:
        yield ApiFuzz(made, made.processes[0])


@contextmanager
def _store(backends: Backends, name: str) -> Iterator[Fuzzer]:
    with published(backends, f"store-{name}") as made:
        yield StoreFuzz(made)


@contextmanager
def _commands(backends: Backends, name: str) -> Iterator[Fuzzer]:
    with published(backends, f"commands-{name}") as made:
        yield CommandFuzz(made, made.directory / "here")


@contextmanager
def _tables(backends: Backends, name: str) -> Iterator[Fuzzer]:
    del backends, name
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        yield TableFuzz(Path(directory))


@contextmanager
def _settings(backends: Backends, name: str) -> Iterator[Fuzzer]:
    del backends, name
    yield SettingsFuzz()


FUZZERS = {
    "api": _api,
    "stored values": _store,
    "tables": _tables,
    "settings": _settings,
    "commands": _commands,
}
"""Makes what does the cases of a kind."""

SIZES = {
    "faults": 4,
    "api": 2000,
    "stored values": 400,
    "bundles": 100,
    "tables": 400,
    "settings": 10_000,
    "commands": 250,
}
"""Cases of one task, which share a service."""


def tasks(plan: dict[str, int], seed: int) -> list[Task]:
    """The tasks for so many cases of each kind, in turns, so that a campaign that is cut short has some of each."""
    rows = []
    for kind, wanted in plan.items():
        size = SIZES[kind]
        rows.append([Task(kind, seed, at, min(size, wanted - at)) for at in range(0, wanted, size)])
    longest = max(map(len, rows), default=0)
    spread = [(at * longest / len(row), task) for row in rows for at, task in enumerate(row)]
    return [task for _, task in sorted(spread, key=lambda pair: pair[0])]


def campaign(
    todo: Sequence[Task], jobs: int, directory: Path, seconds: float, say: Callable[[str], None]
) -> list[Outcome]:
    """Runs the tasks in `jobs` processes, until `seconds` are over; gives what came of those that were begun."""
    ends = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    waiting, outcomes = iter(todo), []
    workers = [Worker(context, directory / str(number)) for number in range(jobs)]
    busy = [worker for worker in workers if worker.take(next(waiting, None))]
    while busy:
        ready = wait([worker.pipe for worker in busy], timeout=5)
        for worker in list(busy):
            if worker.pipe in ready or worker.is_lost():
                outcome = worker.outcome()
                outcomes.append(outcome)
                say(f"{worker.task}: {len(outcome.findings)} findings")
                for finding in outcome.findings:
                    say(finding)
                task = next(waiting, None) if time.monotonic() < ends else None
                if not worker.take(task):
                    busy.remove(worker)
    for worker in workers:
        worker.stop()
    return outcomes


class Worker:
    """A process with servers of its own, that does one task after the other; another one takes its place when it dies."""

    def __init__(self, context: Any, directory: Path) -> None:
        self._context, self._directory = context, directory
        self.task: Task | None = None
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(theirs, self._directory))
        self._process.start()
        theirs.close()

    def take(self, task: Task | None) -> bool:
        """Gives it a task."""
        self.task, self._since = task, time.monotonic()
        if task is not None:
            self.pipe.send(task)
        return task is not None

    def is_lost(self) -> bool:
        """Whether it has died, or hangs."""
        return not self._process.is_alive() or time.monotonic() - self._since > PATIENCE_SECONDS

    def outcome(self) -> Outcome:
        """What came of its task; a dead worker is a finding, and replaced."""
        assert self.task is not None
        if self.pipe.poll():
            try:
                told: Outcome = self.pipe.recv()
            except (EOFError, ConnectionError):
                pass
            else:
                return told
        self.kill()
        code = self._process.exitcode
        self.pipe.close()
        self._start()
        return Outcome(
            self.task.kind, 0, Counter(), [f"{self.task}: the process died or hung ({code})"]
        )

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Lets it end its servers, and ends it."""
        self.pipe.send(None)
        self._process.join(60)
        self.kill()
        self.pipe.close()


def _work(pipe: Connection, directory: Path) -> None:
    warnings.simplefilter("error")
    directory.mkdir(parents=True, exist_ok=True)
    os.environ |= {"RUST_BACKTRACE": "0", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    log = (directory / "log").open("a")
    sys.stdout = sys.stderr = log
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    task = pipe.recv()
    if task is None:
        return
    with backends(directory) as shared:
        while task is not None:
            try:
                outcome = run(task, shared)
            except BaseException:  # noqa: BLE001 - the attack itself may have a bug, or has let one out
                outcome = Outcome(task.kind, 0, Counter(), [f"{task}: {traceback.format_exc()}"])
            pipe.send(outcome)
            task = pipe.recv()


def total(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """The outcomes by kind."""
    out: dict[str, Outcome] = {}
    for kind, group in itertools.groupby(
        sorted(outcomes, key=lambda each: each.kind), key=lambda each: each.kind
    ):
        out[kind] = Outcome(kind)
        for each in group:
            out[kind].cases += each.cases
            out[kind].counts += each.counts
            out[kind].findings += each.findings
    return out
