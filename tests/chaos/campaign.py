"""Plans a campaign, and runs its cases in worker processes.

Each case is drawn from a seed, so a finding can be repeated by its name. A worker that crashes or
hangs is a finding like any other.
"""

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
    """Runs the cases of one kind."""

    counts: Counter[str]

    def case(self, rng: random.Random) -> str:
        """Runs one case, and gives a description of its problem, or ""."""


MAX_FINDINGS = 3
"""Findings after which a task stops: more of the same would hide the others."""

PATIENCE_SECONDS = 900.0
"""Time for one task, after which its worker counts as hung."""


@dataclass
class Outcome:
    """The result of a task.

    cases: how many ran; counts: outcomes by name; findings: violations, each with the name by which
    it can be repeated.
    """

    kind: str
    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """`count` cases of one kind and seed, from number `start` on.

    Cases share a service, so a later one may depend on those before it.
    """

    kind: str
    seed: int
    start: int
    count: int

    def name(self, at: int) -> str:
        """The name that repeats case `at`, after those before it in the task.

        A scenario has a service of its own, and is repeated alone.
        """
        start = at if self.kind == "faults" else self.start
        return f"{self.kind}:{self.seed}:{start}:{at - start + 1}"

    @classmethod
    def named(cls, name: str) -> Task:
        """The task that ends with the named case."""
        kind, *numbers = name.split(":")
        seed, start, count = map(int, numbers)
        return cls(kind, seed, start, count)


def run(task: Task, backends: Backends) -> Outcome:
    """Runs a task's cases."""
    if task.kind == "faults":
        return _run_scenarios(task, backends)
    if task.kind == "bundles":
        return _run_bundles(task, backends)
    return _run_fuzzer(task, backends)


def _run_fuzzer(task: Task, backends: Backends) -> Outcome:
    outcome = Outcome(task.kind)
    with FUZZERS[task.kind](backends, f"{task.seed}-{task.start}") as fuzzer:
        for at in range(task.start, task.start + task.count):
            problem = fuzzer.case(random.Random(f"{task.kind} {task.seed} {at}"))
            outcome.cases += 1
            if problem:
                outcome.findings.append(f"{task.name(at)}  {problem}")
            if len(outcome.findings) >= MAX_FINDINGS:
                break
        outcome.counts += fuzzer.counts
    return outcome


def _run_scenarios(task: Task, backends: Backends) -> Outcome:
    outcome = Outcome(task.kind)
    for at in range(task.start, task.start + task.count):
        scenario = run_scenario(backends, f"{task.seed} {at}")
        outcome.cases += 1
        outcome.counts += scenario.counts
        if scenario.violations:
            trace = "\n    ".join(scenario.trace)
            outcome.findings.append(f"{task.name(at)}  {scenario.violations[0]}\n    {trace}")
    return outcome


def run_scenario(backends: Backends, seed: str, steps: int = STEPS) -> Scenario:
    """Runs a service of its own under faults."""
    # The seed's text decides what is drawn: with another word, old findings could not be repeated.
    rng = random.Random(f"life {seed}")
    options = {"in_s3": rng.random() < 0.5, "remembers": rng.random() < 0.5}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        name = f"chaos-{seed.replace(' ', '-')}"
        target = stack.enter_context(service(backends, home / "run", name, **options))
        scenario = Scenario(target, rng)
        stack.callback(scenario.end_fault)  # the next scenario shares these backends
        try:
            scenario.run(steps)
        except Exception:  # noqa: BLE001 - any exception here is a finding
            scenario.violations.append(traceback.format_exc())
    return scenario


def _run_bundles(task: Task, backends: Backends) -> Outcome:
    outcome = Outcome(task.kind)
    bundle = backends.worlds.by_name["plain"].work / "bundle"
    cases = bundle_mutations.campaign(bundle, task.seed + task.start, task.count)
    for at, (case, result) in enumerate(cases, task.start):
        is_sound = result in ("refused", "answered")
        outcome.cases += 1
        outcome.counts[f"bundles: {result if is_sound else 'wrong'}"] += 1
        if not is_sound:
            outcome.findings.append(f"{task.name(at)}  {case}: {result}")
    return outcome


@contextmanager
def published(backends: Backends, name: str) -> Iterator[Service]:
    """A service with a published release and one API process."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        made = stack.enter_context(
            service(backends, home / "run", f"fuzz-{name}", in_s3=False, remembers=False)
        )
        work = backends.worlds.by_name["plain"].work
        # Past the proxy, with a long timeout: a busy machine should not be a finding.
        url = f"unix://{backends.redis_path}"
        made.settings = replace(made.settings, redis_url=url, redis_timeout_ms=5000)
        made.environ["REDIS_URL"] = url
        silent = ProgressReporter(Console(file=io.StringIO()))
        publish.publish(work / "bundle", work / "lists", made.settings, silent)
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
"""Makes the fuzzer of each kind."""

SIZES = {
    "faults": 4,
    "api": 2000,
    "stored values": 400,
    "bundles": 100,
    "tables": 400,
    "settings": 10_000,
    "commands": 250,
}
"""Number of cases in a task, which share a service."""


def tasks(plan: dict[str, int], seed: int) -> list[Task]:
    """The tasks for a plan: number of cases by kind.

    The kinds are interleaved evenly, so that a campaign that is cut short has some of each.
    """
    placed: list[tuple[float, Task]] = []
    for kind, wanted in plan.items():
        starts = range(0, wanted, SIZES[kind])
        for number, start in enumerate(starts):
            task = Task(kind, seed, start, min(SIZES[kind], wanted - start))
            placed.append((number / len(starts), task))
    return [task for _, task in sorted(placed, key=lambda pair: pair[0])]


def campaign(
    todo: Sequence[Task], jobs: int, directory: Path, seconds: float, say: Callable[[str], None]
) -> list[Outcome]:
    """Runs tasks in `jobs` processes, and gives their outcomes.

    seconds: time after which no more tasks begin; say: receives progress and findings.
    """
    ends = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    waiting, outcomes = iter(todo), []
    workers = [Worker(context, directory / str(number)) for number in range(jobs)]
    busy = [worker for worker in workers if worker.take(next(waiting, None))]
    while busy:
        ready = wait([worker.pipe for worker in busy], timeout=5)
        done = [worker for worker in busy if worker.pipe in ready or worker.is_lost()]
        for worker in done:
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
    """A process that runs tasks on backends of its own; replaced when it dies."""

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
        """Sends the process a task; False where there is none."""
        self.task, self._since = task, time.monotonic()
        if task is not None:
            self.pipe.send(task)
        return task is not None

    def is_lost(self) -> bool:
        """Whether the process has died or hangs."""
        return not self._process.is_alive() or time.monotonic() - self._since > PATIENCE_SECONDS

    def outcome(self) -> Outcome:
        """The outcome of its task; a dead process is a finding, and replaced."""
        assert self.task is not None
        if self.pipe.poll():
            try:
                outcome: Outcome = self.pipe.recv()
            except (EOFError, ConnectionError):  # it died before it could answer
                pass
            else:
                return outcome
        self.kill()
        code = self._process.exitcode
        self.pipe.close()
        self._start()
        finding = f"{self.task}: the process died or hung ({code})"
        return Outcome(self.task.kind, findings=[finding])

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """Ends the process, after it has stopped its backends."""
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
            except BaseException:  # noqa: BLE001 - any exception here is a finding
                outcome = Outcome(task.kind, findings=[f"{task}: {traceback.format_exc()}"])
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
