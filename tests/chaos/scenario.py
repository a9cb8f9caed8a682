"""Runs a service through random steps and faults.

Every answer is checked against the ledger. To add a step, write a method of `Scenario` and enter it
in `STEPS_BY_NAME` with its weight. Faults are in `faults`, checks in `invariants`.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any
from urllib.parse import quote

import polars as pl

from shortlist.recsys.errors import ShortlistError
from tests.aws_events import EVENT_BUILDERS, http_api
from tests.chaos import batch_runs, invariants
from tests.chaos.caller import Caller, Overdue, Reply, with_headers
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger, SentEvent
from tests.chaos.service import ADMIN_KEY, REQUEST_SECONDS, SERVER, Service

STEPS = 24
PROCESSES = 2
LAMBDA_SECONDS = 3.0
"""Time limit of a Lambda invocation."""

BATCH_SECONDS = 120.0
"""Time after which a batch run without a fault counts as hung."""

RECOVERY_SECONDS = 10.0
"""Time within which every process must recover without a restart, once a fault is over."""

TRIES = 5
"""Attempts at one answer without faults: a busy machine may refuse one now and then."""

CACHE_SECONDS = 6
"""A little more than the five seconds for which processes cache the pointer and blocked items."""

FIRST_TIME = 1_600_000_000
"""Unix time before all events of a scenario, and after those of the table."""

MAX_EFFECTS = 225
"""About as many effects (see `batch_runs`) has a whole batch run; it is killed at one of them."""

DRAIN_EFFECTS = 7
"""The same for a drain alone."""

MEANWHILE, MEANWHILE_SECONDS = 40, 0.05
"""Number of users' requests while a batch runs, and the pause between two."""

ADMIN = {"x-shortlist-admin-key": ADMIN_KEY, "content-type": "application/json"}


@dataclass
class Scenario:
    """A service with its ledger, and the history of its run.

    trace: a line for each step; violations: broken invariants; counts: totals for the report;
    fault: name of the current fault; sent: number of events so far.
    """

    service: Service
    rng: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    trace: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    fault: str | None = None
    has_release: bool = False
    sent: int = 0

    def run(self, steps: int = STEPS) -> None:
        """Runs random steps; stops at the first violation."""
        for number in range(PROCESSES):
            self.service.start_process(number)
        self.trace.append("the first batch run")
        self._batch_run(killed=False)
        for _ in range(steps):
            if self.violations:
                return
            self._step()
        self._finish()

    def _step(self) -> None:
        weights = [weight for weight, _ in STEPS_BY_NAME.values()]
        (name,) = self.rng.choices(list(STEPS_BY_NAME), weights)
        fault = f" [{self.fault}]" if self.fault else ""
        self.trace.append(f"{len(self.trace):3} {name}{fault}")
        _, step = STEPS_BY_NAME[name]
        step(self)

    def _note(self, text: str) -> None:
        self.trace[-1] += f"; {text}"

    def _violation(self, text: str) -> None:
        self.violations.append(text)

    def _call(
        self, method: str, target: str, body: object = None, number: int | None = None
    ) -> Reply | None:
        """Sends a request, and checks the answer; None without an answer.

        number: index of the process; drawn where it is None.
        """
        number = self.rng.randrange(PROCESSES) if number is None else number
        process = self.service.processes[number]
        headers = ADMIN
        self.counts["requests"] += 1
        try:
            if number == SERVER:
                raw = b"" if body is None else json.dumps(body).encode()
                reply = process.request_http(method, target, raw, headers, REQUEST_SECONDS)
            else:
                build = self.rng.choice(list(EVENT_BUILDERS.values()))
                event = with_headers(build(method, target, body), headers)
                reply = process.invoke_lambda(event, LAMBDA_SECONDS)
        except Overdue as error:
            self._violation(f"{method} {target}: {error}")
            self.service.harmless()
            return None
        self.counts["refusals"] += reply.status in invariants.REFUSALS
        problem = invariants.reply_problem(reply) or invariants.refusal_problem(reply)
        if problem:
            self._violation(f"{method} {target} {body}: {problem}: {reply}")
        return reply

    def _recommended(self, user: str, number: int | None = None) -> Reply | None:
        """Requests recommendations for a user with random options, and checks the answer."""
        body = self._recommend_body(user)
        seen = self.ledger.seen(user)
        reply = self._call("POST", "/recommend", body, number)
        if reply is None or reply.status != 200:
            return reply
        hidden = {*body["exclude"], *body.get("history", ())}
        self._check_list(reply, reply.body["recommendations"], hidden, seen)
        problem = invariants.source_problem(self.ledger, user, reply.body)
        if problem:
            self._violation(f"{body}: {problem}: {reply.raw.decode()}")
        self.counts[f"answers: {reply.body['source']}"] += 1
        self.counts["degraded answers"] += reply.body["degraded"]
        return reply

    def _recommend_body(self, user: str) -> dict[str, Any]:
        items = self.service.worlds.items
        k = self.rng.choice([1, 5, 10, 40])
        excluded = self.rng.sample(items, self.rng.choice([0, 0, 3]))
        body: dict[str, Any] = {"user_id": user, "k": k, "exclude": excluded}
        if self.rng.random() < 0.3:
            body |= {"diversity": 0.4, "explain": self.rng.random() < 0.5}
        if self.rng.random() < 0.2:
            body["history"] = self.rng.sample(items, 3)
        if self.rng.random() < 0.1:
            body["use_cache"] = False
        return body

    def _check_list(
        self, reply: Reply, items: Sequence[dict[str, Any]], hidden: set[str], seen: set[str]
    ) -> None:
        """Checks a list of items.

        hidden: items that no answer may have; seen: items that only a degraded one may have.
        """
        problem = invariants.list_problem(self.service, reply.body["model_version"], items)
        shown = {item["item_id"] for item in items}
        degraded = reply.body["degraded"]
        forbidden = hidden if degraded else hidden | self.ledger.blocked
        if shown & forbidden:
            problem = f"shows excluded or blocked items: {shown & forbidden}"
        if shown & seen and not degraded:
            problem = f"shows items that the user has seen: {shown & seen}"
        if problem:
            self._violation(f"{problem}: {reply.raw.decode()}")

    def ask(self) -> None:
        """Some users get recommendations."""
        for user in self._users(3):
            reply = self._recommended(user)
            self._note(f"{user} -> {_summary(reply)}")

    def ask_for_lists(self) -> None:
        """Requests popular, trending, similar and ranked items."""
        item = self.rng.choice(self.service.worlds.items)
        for target in ("/v1/popular?k=20", "/v1/trending?k=10", f"/v1/items/{item}/similar?k=10"):
            reply = self._call("GET", target)
            if reply is not None and reply.status == 200:
                self._check_list(reply, reply.body["items"], set(), set())
        self._call("GET", f"/v1/items/{item}")
        self._call("GET", "/health/ready")
        (user,) = self._users(1)
        items = self.rng.sample(self.service.worlds.items, 5)
        reply = self._call("POST", "/v1/rank", {"user_id": user, "items": items})
        if reply is not None and reply.status == 200:
            self._check_list(reply, reply.body["items"], set(), set())

    def send(self) -> None:
        """Sends events in any order, some of them twice."""
        events = self._events(self.rng.choice([1, 2, 6]))
        if self.rng.random() < 0.3 and self.ledger.owed:
            known = list(self.ledger.owed.values())
            events += self.rng.sample(known, min(2, len(known)))
        if self.rng.random() < 0.3:
            events += self.rng.sample(events, 1)
        self.rng.shuffle(events)
        self._send(events)

    def _send(self, events: list[SentEvent], number: int | None = None) -> bool:
        """Sends events; True where the service has confirmed them."""
        body = {"events": [event.body() for event in events]}
        reply = self._call("POST", "/v1/events", body, number)
        if reply is None or reply.status != 200:
            self.ledger.failed(events)
            self._note(f"{len(events)} -> {_summary(reply)}")
            return False
        self._check_accepted(events, reply.body)
        return True

    def _check_accepted(self, events: list[SentEvent], answer: dict[str, Any]) -> None:
        """Checks the answer to sent events, and enters them in the ledger."""
        accepted, duplicates = answer["accepted"], answer["duplicates"]
        rejected = {each["index"]: each["code"] for each in answer["rejected"]}
        may_be_deleted = self.ledger.deleted | self.ledger.unsure_deleted
        for at, code in rejected.items():
            if code != "deleted_user" or events[at].user not in may_be_deleted:
                self._violation(f"a sound event was refused: {events[at]}: {answer}")
        if accepted + duplicates + len(rejected) != len(events):
            self._violation(f"{len(events)} events, and the answer {answer}")
        self.ledger.accepted(event for at, event in enumerate(events) if at not in rejected)
        self.counts["events accepted"] += accepted
        self._note(f"{[e.key for e in events]} -> {accepted} and {duplicates} duplicates")

    def crowd(self) -> None:
        """Sends events of the same users to both processes at once."""
        first, second = self._users(2)
        senders = (first, first, second, second)
        batches = [[self._event(user) for user in senders] for _ in range(PROCESSES)]
        batches[1] += batches[0][:1]
        requests = []
        for events in batches:
            body = {"events": [event.body() for event in events]}
            requests.append(http_api("POST", "/v1/events", body))
        with ThreadPoolExecutor(PROCESSES) as pool:
            list(pool.map(_quietly, self.service.processes, requests))
        # The answers do not matter: all events are sent again.
        for number, events in enumerate(batches):
            self.ledger.failed(events)
            self._send(events, number)

    def delete(self) -> None:
        """Deletes a user."""
        self._delete(self._undeleted())

    def _undeleted(self) -> str:
        """A user who has not been deleted."""
        users = [user for user in self._everybody() if user not in self.ledger.deleted]
        return self.rng.choice(users or ["nobody"])

    def _delete(self, user: str) -> bool:
        self.ledger.was_deleted(user, surely=False)
        reply = self._call("DELETE", f"/v1/users/{quote(user)}")
        self._note(f"{user} -> {_summary(reply)}")
        if reply is None or reply.status != 200:
            return False
        self.ledger.was_deleted(user, surely=True)
        return True

    def delete_meanwhile(self) -> None:
        """Deletes a user while an event and answers of theirs are in progress."""
        user = self._undeleted()
        event = self._event(user)
        self.ledger.was_deleted(user, surely=False)
        calls = [
            http_api("POST", "/recommend", {"user_id": user, "use_cache": False}),
            http_api("POST", "/v1/events", {"events": [event.body()]}),
            http_api("POST", "/recommend", {"user_id": user, "diversity": 0.2}),
        ]
        answering, deleting = self.rng.sample(self.service.processes, 2)
        with ThreadPoolExecutor(2) as pool:
            answers = pool.submit(lambda: [_quietly(answering, each) for each in calls])
            deleted = pool.submit(_quietly, deleting, http_api("DELETE", f"/v1/users/{user}"))
            answers.result()
        reply = deleted.result()
        self.ledger.accepted([event])
        self._note(f"{user} -> {_summary(reply)}")
        if reply is not None and reply.status == 200:
            self.ledger.was_deleted(user, surely=True)
            if self.fault is None:
                self.violations += invariants.key_problems(self.service, user)

    def block(self) -> None:
        """Blocks an item, or unblocks one."""
        if self.ledger.blocked and self.rng.random() < 0.5:
            self._set_blocked(self.rng.choice(sorted(self.ledger.blocked)), wanted=False)
        else:
            self._set_blocked(self.rng.choice(self.service.worlds.items), wanted=True)

    def _set_blocked(self, item: str, *, wanted: bool) -> bool:
        reply = self._call("POST", f"/v1/items/{item}/{'block' if wanted else 'unblock'}")
        self._note(f"{item}: {wanted} -> {_summary(reply)}")
        self.ledger.blocked.discard(item)
        done = reply is not None and reply.status == 200
        if done:
            self.ledger.unsure_blocked.discard(item)
        else:
            self.ledger.unsure_blocked.add(item)
        if done and wanted:
            self.ledger.blocked.add(item)
        self.service.clocks.ticks_ahead += CACHE_SECONDS
        return done

    def grow(self) -> None:
        """Adds rows to the next batch's table, also some of events that the API has."""
        events = [self._event(user) for user in self._users(3) if user.startswith("user-")]
        owed = list(self.ledger.owed.values())
        events += self.rng.sample(owed, min(len(owed), 3))
        if events:
            table = self.service.table
            rows = [(event.user, event.item, event.time) for event in events]
            schema = {name: table.schema[name] for name in ("user_id", "item_id", "timestamp")}
            added = pl.DataFrame(rows, schema=schema, orient="row")
            self.service.table = pl.concat([table, added], how="diagonal")

    def shrink(self) -> None:
        """Removes old rows or an item from the next batch's table."""
        table = self.service.table
        if self.rng.random() < 0.5:
            position = pl.int_range(pl.len()).over("user_id")
            n_oldest = pl.len().over("user_id") // 6
            self.service.table = table.sort("user_id", "timestamp").filter(position >= n_oldest)
        else:
            item = self.rng.choice(self.service.worlds.items)
            self.service.table = table.filter(pl.col("item_id") != item)

    def batch_run(self) -> None:
        """Runs the batch."""
        self._batch_run(killed=False)

    def killed_batch_run(self) -> None:
        """Runs the batch, and kills it at a random effect."""
        self._batch_run(killed=True)

    def full_disk(self) -> None:
        """Runs the batch with a limit on the size of its files."""
        self._batch_run(killed=False, file_limit=self.rng.choice([1, 200, 2000, 8000]))

    def _batch_run(self, *, killed: bool, file_limit: int = 0, quiet: bool = False) -> bool:
        world = self.service.worlds.by_name[self.rng.choice(list(self.service.worlds.by_name))]
        kill_at = self.rng.randrange(1, MAX_EFFECTS) if killed else 0
        self.ledger.learns_from(self.service.table)
        hindered = self.fault is not None or killed or bool(file_limit)
        if not hindered:  # by the next real run the lease of a killed one would have expired
            self.service.store.redis.delete(self.service.store.keys.lease())
        made = self.service.batch_run(world, kill_at=kill_at, file_limit=file_limit)
        return self._ended([made], hindered=hindered, quiet=quiet)

    def two_batch_runs(self) -> None:
        """Runs two batches at once."""
        worlds = list(self.service.worlds.by_name.values())
        self.ledger.learns_from(self.service.table)
        self._ended([self.service.batch_run(world) for world in worlds], hindered=True)

    def drain(self) -> None:
        """Drains events by one process or two at once, which may be killed."""
        world = self.service.worlds.by_name["plain"]
        made = []
        for _ in range(self.rng.choice([1, 2])):
            effect = self.rng.randrange(1, DRAIN_EFFECTS + 1)
            kill_at = self.rng.choice([0, effect, effect, effect])
            made.append(self.service.batch_run(world, kill_at=kill_at, drain_only=True))
        self._ended(made, hindered=True)

    def _ended(
        self, made: Sequence[batch_runs.BatchRun], *, hindered: bool, quiet: bool = False
    ) -> bool:
        """Waits for batch runs, and checks how they ended; True where all succeeded.

        hindered: they may fail; quiet: nothing else happens meanwhile.
        """
        patience = FAULTS[self.fault].patience if self.fault else BATCH_SECONDS
        started = [batch_runs.start(each) for each in made]
        try:
            if len(started) == 1 and not hindered and not quiet:
                self._meanwhile(started[0])
        finally:
            codes = [batch_runs.ended(process, patience) for process in started]
        self.counts["nights"] += len(codes)
        self.counts["kills"] += codes.count(batch_runs.TIMED_OUT)
        self._note(f"{codes}")
        for each, code in zip(made, codes, strict=True):
            self._check_exit(each, code, hindered=hindered)
        done = all(code == 0 for code in codes)
        if done and not any(each.drain_only for each in made):
            self.has_release = True
            if self.fault is None:
                self.violations += invariants.record_problems(self.service, self.ledger)
        self._check_release()
        return done

    def _check_exit(self, made: batch_runs.BatchRun, code: int, *, hindered: bool) -> None:
        log = made.log.read_text()[-2000:] if made.log.exists() else "no log"
        if code not in batch_runs.SANE or "Traceback" in log:
            self._violation(f"the batch ended with {code}: {log}")
        if code != 0 and not hindered:
            self._violation(f"nothing hindered the batch, and it ended with {code}: {log}")

    def _check_release(self) -> None:
        known = [user for user in self.service.worlds.users if self.ledger.is_known(user)]
        must = self.has_release
        self.violations += invariants.release_problems(self.service, must=must, users=known)

    def _meanwhile(self, process: ForkServerProcess) -> None:
        """Users send events and get answers while a batch runs."""
        for _ in range(MEANWHILE):
            self._send(self._events(1))
            self._recommended(self._users(1)[0])
            process.join(MEANWHILE_SECONDS)
            if not process.is_alive():
                return

    def change_release(self) -> None:
        """Rolls back, promotes a release, or starts or ends a canary."""
        try:
            self._note(self._operate())
        except ShortlistError as error:
            self._note(type(error).__name__)
        self.service.clocks.ticks_ahead += CACHE_SECONDS
        self._check_release()

    def _operate(self) -> str:
        from shortlist.batch import release_admin

        pointer = self.service.store.release()
        action = self.rng.choice(["rollback", "promote", "canary", "no canary"])
        if action == "rollback":
            return f"rollback -> {_summary(self._call('POST', '/v1/releases/rollback'))}"
        if pointer is None:
            return "no release"
        version = self.rng.choice(pointer.versions)
        if action == "promote":
            reply = self._call("POST", f"/v1/releases/{version}/promote")
            return f"promote {version} -> {_summary(reply)}"
        if self.fault is not None:
            return "not under a fault"
        percent = 0.0 if action == "no canary" else 50.0
        candidate = pointer.previous or version
        return f"{action} -> {release_admin.canary(self.service.settings, candidate, percent)}"

    def jump(self) -> None:
        """Sets the wall clock by up to three days."""
        self.service.clocks.wall_ahead = self.rng.uniform(-3, 3) * 86_400
        self.service.clocks.ticks_ahead += self.rng.uniform(0, 20)

    def restart(self) -> None:
        """Replaces a process of the API."""
        self.service.start_process(self.rng.randrange(PROCESSES))

    def start_fault(self) -> None:
        """Begins a fault, after ending the current one."""
        self.end_fault()
        self.fault = self.rng.choice(list(FAULTS))
        self.counts[f"fault: {self.fault}"] += 1
        self._note(self.fault)
        FAULTS[self.fault].begin(self.service)
        self.ledger.redis_evicts(evicts=FAULTS[self.fault].redis_evicts)
        if FAULTS[self.fault].redis_forgets:
            self.ledger.redis_forgot()
            self.has_release = False

    def recover(self) -> None:
        """Ends the fault, and checks that every process recovers without a restart."""
        if self.fault is not None:
            forgets = FAULTS[self.fault].redis_forgets
            self.end_fault()
            if forgets or not self.has_release:
                self.ledger.table_items = None
                self._batch_run(killed=False)
            self._check_recovery()

    def end_fault(self) -> None:
        """Ends the current fault."""
        if self.fault is not None:
            FAULTS[self.fault].end(self.service)
            self.ledger.redis_evicts(evicts=False)
            self.fault = None
        self.service.clocks.ticks_ahead += 30  # far longer than a circuit stays open

    def _check_recovery(self) -> None:
        """Checks that every process recovers within RECOVERY_SECONDS."""
        user = next((u for u in self.service.worlds.users if self.ledger.is_known(u)), None)
        for number in range(PROCESSES):
            ends = time.monotonic() + RECOVERY_SECONDS
            problem = self._failed_call(user, number)
            while problem and time.monotonic() < ends and not self.violations:
                self.service.clocks.ticks_ahead += 1
                time.sleep(0.05)
                problem = self._failed_call(user, number)
            if problem:
                text = f"process {number} has not recovered after {RECOVERY_SECONDS} s: {problem}"
                self._violation(text)

    def _failed_call(self, user: str | None, number: int) -> str:
        """The first of a few calls that fails, or ""."""
        calls: list[tuple[str, str, Any]] = [("GET", "/health", None)]
        if user:
            body = {"user_id": user, "k": 3}
            calls.append(("POST", "/recommend", body))
            calls.append(("POST", "/recommend", body | {"use_cache": False}))
        for method, target, body in calls:
            reply = self._call(method, target, body, number)
            if reply is None or reply.status != 200 or reply.body.get("degraded"):
                return f"{method} {target} {body} -> {reply}"
        return ""

    def _finish(self) -> None:
        """Ends all faults, sends failed requests again, and checks all promises.

        A last batch run comes before the checks.
        """
        self.trace.append("the end")
        self.end_fault()
        self.service.clocks.wall_ahead = 0.0
        if not self.has_release:
            self.ledger.table_items = None
            self._batch_run(killed=False)
        self._check_recovery()
        for user in sorted(self.ledger.unsure_deleted):
            if not self._delete(user):
                self._violation(f"{user} cannot be deleted, although no fault is left")
        for item in sorted(self.ledger.unsure_blocked):
            self._set_blocked(item, wanted=False)
        again = [*self.ledger.unsure.values(), *self.ledger.perhaps.values()]
        if again and not self._send(again):
            self._violation("events cannot be sent, although no fault is left")
        if self.violations:
            return
        if self._batch_run(killed=False, quiet=True):
            self._check_promises()

    def _check_promises(self) -> None:
        self.service.clocks.ticks_ahead += CACHE_SECONDS
        self.ledger.table_items = None  # from now on all answers come from the last table
        self.ledger.learns_from(self.service.table)
        self.violations += invariants.event_problems(self.service, self.ledger)
        self.violations += invariants.deletion_problems(self.service, self.ledger)
        self.violations += invariants.log_problems(self.service.log)
        self._check_everybody_served()

    def _answered(self, user: str) -> Reply | None:
        """An answer, after a few tries."""
        for _ in range(TRIES):
            reply = self._recommended(user)
            if reply is None:
                break
            # A busy machine may be late now and then, and says so, but not every time.
            late = reply.status in invariants.REFUSALS or reply.body.get("degraded")
            if not late:
                break
        return reply

    def _check_everybody_served(self) -> None:
        known = set(self.service.table["user_id"]) - self.ledger.deleted
        for user in self._everybody():
            reply = self._answered(user)
            answer = reply.body if reply is not None and reply.status == 200 else {}
            # Options such as diversity or a history need a live answer instead of the list.
            if user in known and answer.get("source") not in ("batch", "live", "session"):
                self._violation(f"{user} is not served from the list after a refresh: {reply}")
            if answer.get("degraded"):
                self._violation(f"{user}: degraded, although no fault is left: {reply}")

    def _everybody(self) -> list[str]:
        return [*self.service.worlds.users, *(f"new-{number:03}" for number in range(5))]

    def _users(self, count: int) -> list[str]:
        return self.rng.sample(self._everybody(), count)

    def _events(self, count: int) -> list[SentEvent]:
        return [self._event(user) for user in self._users(count)]

    def _event(self, user: str) -> SentEvent:
        """A new event, at a time that no other event has."""
        self.sent += 1
        # A multiple modulo a prime: no time occurs twice, and times are not in order.
        when = FIRST_TIME + (self.sent * 7_919) % 1_000_003
        item = self.rng.choice(self.service.worlds.items)
        return SentEvent(user, f"event-{self.sent}", item, when)


def _summary(reply: Reply | None) -> str:
    """An answer in a few words."""
    if reply is None:
        return "never"
    body = reply.body
    if reply.status != 200 or not isinstance(body, dict):
        return str(reply.status)
    fields = ("source", "degraded", "model_version")
    return " ".join(str(body[name]) for name in fields if name in body) or "200"


def _quietly(process: Caller, event: dict[str, Any]) -> Reply | None:
    """Invokes a process with an event; None without an answer in time."""
    with suppress(Overdue):
        return process.invoke_lambda(event, LAMBDA_SECONDS)
    return None


STEPS_BY_NAME: dict[str, tuple[float, Callable[[Scenario], None]]] = {
    "ask": (6, Scenario.ask),
    "ask for lists": (2, Scenario.ask_for_lists),
    "send": (7, Scenario.send),
    "crowd": (1.5, Scenario.crowd),
    "delete": (1, Scenario.delete),
    "delete meanwhile": (0.7, Scenario.delete_meanwhile),
    "block": (1, Scenario.block),
    "grow": (0.7, Scenario.grow),
    "shrink": (0.7, Scenario.shrink),
    "batch run": (0.8, Scenario.batch_run),
    "killed batch run": (1.2, Scenario.killed_batch_run),
    "full disk": (0.4, Scenario.full_disk),
    "two batch runs": (0.4, Scenario.two_batch_runs),
    "drain": (2, Scenario.drain),
    "change release": (1, Scenario.change_release),
    "jump": (1, Scenario.jump),
    "restart": (0.7, Scenario.restart),
    "start fault": (4, Scenario.start_fault),
    "end fault": (2, Scenario.recover),
}
"""Weight and method of each step. Their order is part of what a seed draws."""
