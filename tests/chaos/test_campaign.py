"""Runs a small campaign, and tests each check.

The campaign finds nothing, and each check detects a violation.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shortlist.lambda_handler.answers import Filters
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import EventRecord, ReleasePointer
from tests.chaos import caller, campaign, invariants
from tests.chaos import scenario as scenario_module
from tests.chaos.caller import Reply
from tests.chaos.campaign import Task, run_scenario, tasks
from tests.chaos.ledger import Ledger, SentEvent
from tests.chaos.scenario import Scenario
from tests.chaos.service import Backends, Service, backends

RUNS = 3
CASES = {"api": 600, "stored values": 50, "tables": 60, "settings": 500, "commands": 60}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """The backends, with trained worlds."""
    with backends(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.fixture
def service(shared, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service with a release."""
    with campaign.published(shared, request.node.name.replace("[", "-").rstrip("]")) as made:
        yield made


@pytest.mark.parametrize("seed", range(RUNS))
def test_scenario_keeps_promises(shared, seed: int) -> None:
    """A service under random faults keeps every promise."""
    scenario = run_scenario(shared, f"tests {seed}", steps=12)
    assert scenario.violations == [], "\n".join(scenario.trace)
    assert scenario.counts["requests"] > 20


@pytest.mark.parametrize("kind", CASES)
def test_fuzzer_has_no_findings(shared, kind: str) -> None:
    """No generated request, value, table, environment or command does harm."""
    outcome = campaign.run(Task(kind, 1, 0, CASES[kind]), shared)
    assert (outcome.findings, outcome.cases) == ([], CASES[kind])


def test_lost_event_is_detected(service) -> None:
    """A lost event is missed in the files, the record and the training."""
    ledger = Ledger()
    ledger.accepted([SentEvent("user-001", "e", "item-001", 1_650_000_000)])
    problems = invariants.event_problems(service, ledger)
    assert problems[0].partition(":")[0] == "events that were accepted are in no file"
    assert any("0 times" in text and "training" in text for text in problems)
    assert any("the record of user-001" in text for text in problems)


def test_unknown_event_is_detected(service) -> None:
    """An event that no caller sent is noticed in stream and files."""
    EventLog(service.store).append([EventRecord("e", "user-001", "item-001", 1_650_000_000)])
    assert invariants.event_problems(service, Ledger()) == ["events still wait in the stream"]
    from shortlist.batch.drain import drain
    from shortlist.recsys.store.event_files import open_event_files

    drain(EventLog(service.store), open_event_files(str(service.events)))
    assert invariants.event_problems(service, Ledger()) == [
        "events in the files that nobody was promised: [('user-001', 'e')]"
    ]


def test_trace_of_deleted_user_is_detected(service) -> None:
    """A deleted user is noticed in keys, values and the next training."""
    ledger = Ledger(deleted={"user-001"})
    problems = " ".join(invariants.deletion_problems(service, ledger))
    assert "user:{user-001}" in problems
    assert "next training" in problems
    AdminStore(service.store).delete_user("user-001", 0)
    assert invariants.deletion_problems(service, ledger) == []
    service.store.redis.sadd(service.store.keys.blocked(), "a note on user-001")
    assert len(invariants.deletion_problems(service, ledger)) == 1


def test_user_in_log_is_detected() -> None:
    """User ids are noticed in logs and refusals; item ids are allowed."""
    lines = ['{"path": "/v1/users/user-001"}', "item-001", "new-003"]
    assert len(invariants.log_problems(lines)) == 2
    refusal = Reply(503, {}, b"user-001 cannot be read", 0.1)
    assert invariants.refusal_problem(refusal) == "a refusal names a user"
    assert invariants.refusal_problem(Reply(200, {}, b"user-001", 0.1)) == ""


def remove_list(service: Service) -> None:
    """Removes a list."""
    service.store.redis.delete(service.store.keys.list(service.store.release().current, "user-002"))


def remove_rows(service: Service) -> None:
    """Removes half of the catalogue."""
    service.store.redis.delete(service.store.keys.rows(service.store.release().current))


def remove_artefacts(service: Service) -> None:
    """Removes the bundle."""
    open_artefacts(service.settings.artefacts).remove(service.store.release().current)


def remove_pointer(service: Service) -> None:
    """Removes the release pointer."""
    service.store.redis.delete(service.store.keys.release())


def point_elsewhere(service: Service) -> None:
    """Points to a release that was never published."""
    service.store.set_release(ReleasePointer("never"))


@pytest.mark.parametrize(
    "damage", [remove_list, remove_rows, remove_artefacts, remove_pointer, point_elsewhere]
)
def test_incomplete_release_is_detected(service, damage: Callable[[Service], None]) -> None:
    """A release is incomplete, whichever part is missing."""
    users = ["user-001", "user-002"]
    assert invariants.release_problems(service, must=True, users=users) == []
    damage(service)
    assert len(invariants.release_problems(service, must=True, users=users)) >= 1


@pytest.fixture
def scenario(service) -> Scenario:
    """A scenario whose ledger knows the table."""
    made = Scenario(service, random.Random(1))
    made.trace.append("a step")
    made.service.start_process(1)
    made.ledger.learns_from(service.table)
    return made


def show_everything(patch: pytest.MonkeyPatch) -> None:
    """Makes filters admit every item."""
    patch.setattr(Filters, "admit", lambda _filters, _item: True)


def forget_the_title(patch: pytest.MonkeyPatch) -> None:
    """Shows items with the titles of another release."""
    records = ServingRelease.records
    patch.setattr(
        ServingRelease,
        "records",
        lambda self, version, rows: [
            i and replace(i, title="other") for i in records(self, version, rows)
        ],
    )


@pytest.mark.parametrize("bug", [show_everything, forget_the_title])
def test_bug_in_answer_is_detected(
    scenario, monkeypatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """A scenario's own requests detect a bug in the filters or the titles."""
    scenario.block()
    for _ in range(5):
        scenario.ask()
        scenario.ask_for_lists()
    assert scenario.violations == []
    bug(monkeypatch)
    for _ in range(20):
        scenario.ask()
        scenario.ask_for_lists()
    assert scenario.violations


def test_hanging_request_is_detected(scenario, monkeypatch) -> None:
    """A request that never ends is given up as a violation."""
    released = threading.Event()
    monkeypatch.setattr(caller, "SLACK_SECONDS", 0.0)
    monkeypatch.setattr(scenario_module, "LAMBDA_SECONDS", 0.1)
    monkeypatch.setattr(scenario_module, "REQUEST_SECONDS", 0.1)
    pointer = ServingRelease.pointer

    def waiting(self: ServingRelease) -> ReleasePointer:
        released.wait(10.0)
        return pointer(self)

    monkeypatch.setattr(ServingRelease, "pointer", waiting)
    scenario.ask()
    released.set()
    assert "no answer after" in scenario.violations[0]


def test_plan_interleaves_kinds() -> None:
    """A plan begins with every kind, and has each case once."""
    plan = {"api": 5000, "tables": 900, "faults": 9}
    made = tasks(plan, 1)
    assert {task.kind for task in made[:3]} == set(plan)
    for kind, count in plan.items():
        at = sorted((task.start, task.count) for task in made if task.kind == kind)
        assert sum(size for _, size in at) == count
        assert [start for start, _ in at] == [
            sum(size for _, size in at[:n]) for n in range(len(at))
        ]


def test_name_repeats_case() -> None:
    """A name repeats a case with those before it; a scenario alone."""
    assert Task.named(Task("api", 3, 2000, 100).name(2005)) == Task("api", 3, 2000, 6)
    assert Task.named(Task("faults", 3, 4, 4).name(6)) == Task("faults", 3, 6, 1)


def test_dead_worker_is_a_finding(tmp_path: Path) -> None:
    """A worker that dies is a finding, and another one takes its place."""
    worker = campaign.Worker(multiprocessing.get_context("spawn"), tmp_path)
    try:
        assert worker.take(Task("api", 1, 0, 10))
        worker.kill()
        assert worker.is_lost()
        outcome = worker.outcome()
        assert outcome.cases == 0
        assert outcome.findings == [
            "Task(kind='api', seed=1, start=0, count=10): the process died or hung (-9)"
        ]
        assert not worker.is_lost()
    finally:
        worker.stop()
