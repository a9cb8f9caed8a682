"""One run: a service lives through steps and faults drawn from a seed, and every answer is held against the ledger."""

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
from tests.chaos.caller import Overdue, Reply, with_headers
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger, SentEvent
from tests.chaos.service import ADMIN_KEY, REQUEST_SECONDS, SERVER, Service

STEPS = 24
PROCESSES = 2
LAMBDA_SECONDS = 3.0
"""Time that Lambda gives a request."""

BATCH_SECONDS = 120.0
"""After which a night that no fault hinders counts as hung."""

HEALING_SECONDS = 10.0
"""Within which everything must be right again, without a restart, once the faults are over."""

TRIES = 5
"""Requests for one answer when all is well."""

FIRST_TIME = 1_600_000_000
"""Unix second after which all events here lie; the table's lie before."""

MAX_EFFECTS = 225
"""Effects of a whole night, about; a kill falls on one of them."""

DRAIN_EFFECTS = 7
"""Effects of a drain alone."""

MEANWHILE, MEANWHILE_SECONDS = 40, 0.05
"""How often users do something while a batch runs, and how long they rest in between."""

ADMIN = {"x-shortlist-admin-key": ADMIN_KEY, "content-type": "application/json"}


@dataclass
class Scenario:
    """A service, its ledger, and what has happened so far."""

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
        """Lives; stops at the first violation."""
        for number in range(PROCESSES):
            self.service.start_process(number)
        self.trace.append("the first night")
        self._batch_run(killed=False)
        for _ in range(steps):
            if self.violations:
                return
            self._step()
        self._finish()

    def _step(self) -> None:
        name = self.rng.choices(
            list(STEPS_BY_NAME), [weight for weight, _ in STEPS_BY_NAME.values()]
        )[0]
        self.trace.append(
            f"{len(self.trace):3} {name}" + (f" [{self.fault}]" if self.fault else "")
        )
        STEPS_BY_NAME[name][1](self)

    def _note(self, text: str) -> None:
        self.trace[-1] += f"; {text}"

    def _violation(self, text: str) -> None:
        self.violations.append(text)

    # Requests

    def _call(
        self, method: str, target: str, body: object = None, number: int | None = None
    ) -> Reply | None:
        """A request to one of the processes, checked for what every answer must be; None where it never came."""
        number = self.rng.randrange(PROCESSES) if number is None else number
        process = self.service.processes[number]
        headers = ADMIN
        self.counts["requests"] += 1
        try:
            if number == SERVER:
                raw = b"" if body is None else json.dumps(body).encode()
                reply = process.request_http(method, target, raw, headers, REQUEST_SECONDS)
            else:
                event = self.rng.choice(list(EVENT_BUILDERS.values()))(method, target, body)
                reply = process.invoke_lambda(with_headers(event, headers), LAMBDA_SECONDS)
        except Overdue as error:
            self._violation(f"{method} {target}: {error}")
            self.service.harmless()
            return None
        self.counts["refusals"] += reply.status in invariants.REFUSALS
        wrong = invariants.reply_problem(reply) or invariants.refusal_problem(reply)
        if wrong:
            self._violation(f"{method} {target} {body}: {wrong}: {reply}")
        return reply

    def _recommended(self, user: str, number: int | None = None) -> Reply | None:
        """An answer for a user, checked."""
        k = self.rng.choice([1, 5, 10, 40])
        excluded = self.rng.sample(self.service.worlds.items, self.rng.choice([0, 0, 3]))
        body: dict[str, Any] = {"user_id": user, "k": k, "exclude": excluded}
        if self.rng.random() < 0.3:
            body |= {"diversity": 0.4, "explain": self.rng.random() < 0.5}
        if self.rng.random() < 0.2:
            body["history"] = self.rng.sample(self.service.worlds.items, 3)
        if self.rng.random() < 0.1:
            body["use_cache"] = False
        before = self.ledger.seen(user)
        reply = self._call("POST", "/recommend", body, number)
        if reply is None or reply.status != 200:
            return reply
        hidden = {*excluded, *body.get("history", ())}
        self._check_list(reply, reply.body["recommendations"], hidden, before)
        wrong = invariants.source_problem(self.ledger, user, reply.body)
        if wrong:
            self._violation(f"{body}: {wrong}: {reply.raw.decode()}")
        self.counts[f"answers: {reply.body['source']}"] += 1
        self.counts["degraded answers"] += reply.body["degraded"]
        return reply

    def _check_list(
        self, reply: Reply, items: Sequence[dict[str, Any]], hidden: set[str], seen: set[str]
    ) -> None:
        told = reply.body
        wrong = invariants.list_problem(self.service, told["model_version"], items)
        shown = {item["item_id"] for item in items}
        if shown & (hidden | (self.ledger.blocked if not told["degraded"] else set())):
            wrong = f"shows what is excluded or blocked: {shown & (hidden | self.ledger.blocked)}"
        if shown & seen and not told["degraded"]:
            wrong = f"shows what the user had: {shown & seen}"
        if wrong:
            self._violation(f"{wrong}: {reply.raw.decode()}")

    # Steps

    def ask(self) -> None:
        """Some users ask."""
        for user in self._users(3):
            reply = self._recommended(user)
            self._note(f"{user} -> {_summary(reply)}")

    def ask_for_lists(self) -> None:
        """The lists that are the same for everybody, and one about an item."""
        item = self.rng.choice(self.service.worlds.items)
        for target in ("/v1/popular?k=20", "/v1/trending?k=10", f"/v1/items/{item}/similar?k=10"):
            reply = self._call("GET", target)
            if reply is not None and reply.status == 200:
                self._check_list(reply, reply.body["items"], set(), set())
        self._call("GET", f"/v1/items/{item}")
        self._call("GET", "/health/ready")
        reply = self._call(
            "POST",
            "/v1/rank",
            {"user_id": self._users(1)[0], "items": self.rng.sample(self.service.worlds.items, 5)},
        )
        if reply is not None and reply.status == 200:
            self._check_list(reply, reply.body["items"], set(), set())

    def send(self) -> None:
        """Events, some of them twice, in any order."""
        events = self._events(self.rng.choice([1, 2, 6]))
        if self.rng.random() < 0.3 and self.ledger.owed:
            events += self.rng.sample(
                list(self.ledger.owed.values()), min(2, len(self.ledger.owed))
            )
        if self.rng.random() < 0.3:
            events += self.rng.sample(events, 1)
        self.rng.shuffle(events)
        self._send(events)

    def _send(self, events: list[SentEvent], number: int | None = None) -> bool:
        """Sends events, and gives whether the service has said that it has them."""
        reply = self._call(
            "POST", "/v1/events", {"events": [event.body() for event in events]}, number
        )
        if reply is None or reply.status != 200:
            self.ledger.failed(events)
            self._note(f"{len(events)} -> {_summary(reply)}")
            return False
        told = reply.body
        rejected = {at["index"]: at["code"] for at in told["rejected"]}
        for at, code in rejected.items():
            if (
                code != "deleted_user"
                or events[at].user not in self.ledger.deleted | self.ledger.unsure_deleted
            ):
                self._violation(f"a sound event was refused: {events[at]}: {told}")
        if told["accepted"] + told["duplicates"] + len(rejected) != len(events):
            self._violation(f"{len(events)} events, and the answer {told}")
        self.ledger.accepted(event for at, event in enumerate(events) if at not in rejected)
        self.counts["events accepted"] += told["accepted"]
        self._note(
            f"{[e.key for e in events]} -> {told['accepted']} and {told['duplicates']} duplicates"
        )
        return True

    def crowd(self) -> None:
        """Both processes at once: events of the same users, and answers for them."""
        users = self._users(2)
        batches = [
            [self._event(user) for user in users for _ in range(2)] for _ in range(PROCESSES)
        ]
        batches[1] += batches[0][:1]
        requests = [
            http_api("POST", "/v1/events", {"events": [e.body() for e in events]})
            for events in batches
        ]
        with ThreadPoolExecutor(PROCESSES) as pool:
            pairs = list(zip(self.service.processes, requests, strict=True))
            list(
                pool.map(
                    lambda pair: _quietly(pair[0].invoke_lambda, pair[1], LAMBDA_SECONDS), pairs
                )
            )
        for number, events in enumerate(
            batches
        ):  # what each was told does not matter: all of it is sent again
            self.ledger.failed(events)
            self._send(events, number)

    def delete(self) -> None:
        """A user leaves for good."""
        user = self.rng.choice(
            [u for u in self._everybody() if u not in self.ledger.deleted] or ["nobody"]
        )
        self._delete(user)

    def _delete(self, user: str) -> bool:
        self.ledger.was_deleted(user, surely=False)
        reply = self._call("DELETE", f"/v1/users/{quote(user)}")
        self._note(f"{user} -> {_summary(reply)}")
        if reply is None or reply.status != 200:
            return False
        self.ledger.was_deleted(user, surely=True)
        return True

    def delete_meanwhile(self) -> None:
        """A user leaves while they are answered, and while an event of theirs is on its way."""
        user = self.rng.choice(
            [u for u in self._everybody() if u not in self.ledger.deleted] or ["nobody"]
        )
        event = self._event(user)
        self.ledger.was_deleted(user, surely=False)
        calls = [
            http_api("POST", "/recommend", {"user_id": user, "use_cache": False}),
            http_api("POST", "/v1/events", {"events": [event.body()]}),
            http_api("POST", "/recommend", {"user_id": user, "diversity": 0.2}),
        ]
        answering, deleting = self.rng.sample(self.service.processes, 2)
        with ThreadPoolExecutor(2) as pool:
            answers = pool.submit(
                lambda: [_quietly(answering.invoke_lambda, each, LAMBDA_SECONDS) for each in calls]
            )
            deleted = pool.submit(
                _quietly,
                deleting.invoke_lambda,
                http_api("DELETE", f"/v1/users/{user}"),
                LAMBDA_SECONDS,
            )
            answers.result()
        reply = deleted.result()
        self.ledger.accepted([event])
        self._note(f"{user} -> {_summary(reply)}")
        if reply is not None and reply.status == 200:
            self.ledger.was_deleted(user, surely=True)
            if self.fault is None:
                self._violations(invariants.key_problems(self.service, user))

    def block(self) -> None:
        """An item may not be shown any more, or may be again."""
        if self.ledger.blocked and self.rng.random() < 0.5:
            self._set_blocked(self.rng.choice(sorted(self.ledger.blocked)), wanted=False)
        else:
            self._set_blocked(self.rng.choice(self.service.worlds.items), wanted=True)

    def _set_blocked(self, item: str, *, wanted: bool) -> bool:
        reply = self._call("POST", f"/v1/items/{item}/{'block' if wanted else 'unblock'}")
        self._note(f"{item}: {wanted} -> {_summary(reply)}")
        self.ledger.blocked.discard(item)
        done = reply is not None and reply.status == 200
        (self.ledger.unsure_blocked.discard if done else self.ledger.unsure_blocked.add)(item)
        if done and wanted:
            self.ledger.blocked.add(item)
        self.service.clocks.ticks_ahead += 6  # until every process has read it
        return done

    def grow(self) -> None:
        """The table of the next night has more rows, some of them events that the API took as well."""
        events = [self._event(user) for user in self._users(3) if user.startswith("user-")]
        kept = list(self.ledger.owed.values())
        events += self.rng.sample(kept, min(len(kept), 3))
        rows = [{"user_id": e.user, "item_id": e.item, "timestamp": e.time} for e in events]
        if rows:
            schema = {
                name: self.service.table.schema[name]
                for name in ("user_id", "item_id", "timestamp")
            }
            self.service.table = pl.concat(
                [self.service.table, pl.DataFrame(rows, schema=schema)], how="diagonal"
            )

    def shrink(self) -> None:
        """The table loses old rows, or an item."""
        table = self.service.table
        if self.rng.random() < 0.5:
            place = pl.int_range(pl.len()).over("user_id")
            self.service.table = table.sort("user_id", "timestamp").filter(
                place >= pl.len().over("user_id") // 6
            )
        else:
            item = self.rng.choice(self.service.worlds.items)
            self.service.table = table.filter(pl.col("item_id") != item)

    def batch_run(self) -> None:
        """A refresh."""
        self._batch_run(killed=False)

    def killed_batch_run(self) -> None:
        """A refresh that is killed somewhere."""
        self._batch_run(killed=True)

    def full_disk(self) -> None:
        """A refresh whose files may not grow beyond some size."""
        self._batch_run(killed=False, file_limit=self.rng.choice([1, 200, 2000, 8000]))

    def _batch_run(self, *, killed: bool, file_limit: int = 0, quiet: bool = False) -> bool:
        world = self.service.worlds.by_name[self.rng.choice(list(self.service.worlds.by_name))]
        kill_at = self.rng.randrange(1, MAX_EFFECTS) if killed else 0
        self.ledger.learns_from(self.service.table)
        hindered = self.fault is not None or killed or bool(file_limit)
        if not hindered:
            self.service.store.redis.delete(
                self.service.store.keys.lease()
            )  # a killed batch's has lapsed, a minute later
        made = self.service.batch_run(world, kill_at=kill_at, file_limit=file_limit)
        return self._ended([made], hindered=hindered, quiet=quiet)

    def two_batch_runs(self) -> None:
        """Two refreshes at once."""
        worlds = list(self.service.worlds.by_name.values())
        self.ledger.learns_from(self.service.table)
        self._ended([self.service.batch_run(world) for world in worlds], hindered=True)

    def drain(self) -> None:
        """Events go into files, by a process that may be killed, or by two at once."""
        world = self.service.worlds.by_name["plain"]
        kills = [
            self.rng.choice([0, *([self.rng.randrange(1, DRAIN_EFFECTS + 1)] * 3)])
            for _ in range(self.rng.choice([1, 2]))
        ]
        self._ended(
            [self.service.batch_run(world, kill_at=at, drain_only=True) for at in kills],
            hindered=True,
        )

    def _ended(
        self, made: Sequence[batch_runs.BatchRun], *, hindered: bool, quiet: bool = False
    ) -> bool:
        """Waits for processes of the batch; gives whether all did their work."""
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
            log = each.log.read_text()[-2000:] if each.log.exists() else "no log"
            if code not in batch_runs.SANE or "Traceback" in log:
                self._violation(f"the batch ended with {code}: {log}")
            if code != 0 and not hindered:
                self._violation(f"nothing hindered the batch, and it ended with {code}: {log}")
        done = all(code == 0 for code in codes)
        if done and not any(each.drain_only for each in made):
            self.has_release = True
            self._violations(
                invariants.record_problems(self.service, self.ledger) if self.fault is None else []
            )
        self._violations(
            invariants.release_problems(self.service, must=self.has_release, users=self._known())
        )
        return done

    def _meanwhile(self, process: ForkServerProcess) -> None:
        """What users do while a batch runs: before its drain, after it, and while it publishes."""
        for _ in range(MEANWHILE):
            self._send(self._events(1))
            self._recommended(self._users(1)[0])
            process.join(MEANWHILE_SECONDS)
            if not process.is_alive():
                return

    def change_release(self) -> None:
        """An operator rolls back, promotes a release, or starts or ends a canary."""
        try:
            self._note(self._operate())
        except ShortlistError as error:
            self._note(type(error).__name__)
        self.service.clocks.ticks_ahead += 6
        self._violations(
            invariants.release_problems(self.service, must=self.has_release, users=self._known())
        )

    def _operate(self) -> str:
        from shortlist.batch import release_admin

        pointer = self.service.store.release()
        what = self.rng.choice(["rollback", "promote", "canary", "no canary"])
        if what == "rollback":
            return f"rollback -> {_summary(self._call('POST', '/v1/releases/rollback'))}"
        if pointer is None:
            return "no release"
        version = self.rng.choice(pointer.versions)
        if what == "promote":
            return f"promote {version} -> {_summary(self._call('POST', f'/v1/releases/{version}/promote'))}"
        if self.fault is not None:
            return "not now"
        changed = release_admin.canary(
            self.service.settings, pointer.previous or version, 0.0 if what == "no canary" else 50.0
        )
        return f"{what} -> {changed}"

    def jump(self) -> None:
        """The clock of the wall is set, by up to three days; the other one goes on."""
        self.service.clocks.wall_ahead = self.rng.uniform(-3, 3) * 86_400
        self.service.clocks.ticks_ahead += self.rng.uniform(0, 20)

    def restart(self) -> None:
        """A process of the API ends, and another one starts in its place."""
        self.service.start_process(self.rng.randrange(PROCESSES))

    def start_fault(self) -> None:
        """A fault begins; the one before it ends."""
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
        """The fault ends, and everything is right again without a restart."""
        if self.fault is not None:
            forgets = FAULTS[self.fault].redis_forgets
            self.end_fault()
            if forgets or not self.has_release:
                self.ledger.table_items = None
                self._batch_run(killed=False)
            self._check_recovery()

    def end_fault(self) -> None:
        """Whatever lasts is over."""
        if self.fault is not None:
            FAULTS[self.fault].recover(self.service)
            self.ledger.redis_evicts(evicts=False)
            self.fault = None
        self.service.clocks.ticks_ahead += 30

    def _check_recovery(self) -> None:
        """Every process answers well again, within a bound."""
        user = next((u for u in self.service.worlds.users if self.ledger.is_known(u)), None)
        for number in range(PROCESSES):
            ends = time.monotonic() + HEALING_SECONDS
            while (
                (wrong := self._ill(user, number))
                and time.monotonic() < ends
                and not self.violations
            ):
                self.service.clocks.ticks_ahead += 1
                time.sleep(0.05)
            if wrong:
                self._violation(
                    f"process {number} has not healed after {HEALING_SECONDS} s: {wrong}"
                )

    def _ill(self, user: str | None, number: int) -> str:
        bodies = (
            [{"user_id": user, "k": 3}, {"user_id": user, "k": 3, "use_cache": False}]
            if user
            else []
        )
        calls = [("GET", "/health", None), *(("POST", "/recommend", body) for body in bodies)]
        for method, target, body in calls:
            reply = self._call(method, target, body, number)
            if reply is None or reply.status != 200 or reply.body.get("degraded"):
                return f"{method} {target} {body} -> {reply}"
        return ""

    # The end

    def _finish(self) -> None:
        """Everything is mended, what failed is sent again, a last night runs: then all promises are held against the ledger."""
        self.trace.append("the end")
        self.end_fault()
        self.service.clocks.wall_ahead = 0.0
        if not self.has_release:
            self.ledger.table_items = None
            self._batch_run(killed=False)
        self._check_recovery()
        for user in sorted(self.ledger.unsure_deleted):
            if not self._delete(user):
                self._violation(f"{user} cannot be deleted, although everything is mended")
        for item in sorted(self.ledger.unsure_blocked):
            self._set_blocked(item, wanted=False)
        again = [*self.ledger.unsure.values(), *self.ledger.perhaps.values()]
        if again and not self._send(again):
            self._violation("events cannot be sent, although everything is mended")
        if self.violations:
            return
        if self._batch_run(killed=False, quiet=True):
            self.service.clocks.ticks_ahead += 6  # until every process has read the pointer
            self.ledger.table_items = None  # from now on all know that night's table
            self.ledger.learns_from(self.service.table)
            self._violations(invariants.event_problems(self.service, self.ledger))
            self._violations(invariants.deletion_problems(self.service, self.ledger))
            self._violations(invariants.log_problems(self.service.log))
            self._check_everybody_served()

    def _answered(self, user: str) -> Reply | None:
        """An answer; a busy machine may be late now and then, and that is refused, but not again and again."""
        for _ in range(TRIES):
            reply = self._recommended(user)
            if reply is None or reply.status not in invariants.REFUSALS:
                break
        return reply

    def _check_everybody_served(self) -> None:
        for user in self._everybody():
            reply = self._answered(user)
            known = user in set(self.service.table["user_id"]) and user not in self.ledger.deleted
            shaped = (
                reply is not None
                and reply.status == 200
                and reply.body["source"] in ("live", "session")
            )
            if (
                known
                and not shaped
                and (reply is None or reply.status != 200 or reply.body["source"] != "batch")
            ):
                self._violation(f"{user} is not served from the list after a refresh: {reply}")
            if reply is not None and reply.status == 200 and reply.body["degraded"]:
                self._violation(f"{user}: degraded, although everything is mended: {reply}")

    # What steps draw

    def _everybody(self) -> list[str]:
        return [*self.service.worlds.users, *(f"new-{number:03}" for number in range(5))]

    def _known(self) -> list[str]:
        return [user for user in self.service.worlds.users if self.ledger.is_known(user)]

    def _users(self, count: int) -> list[str]:
        return self.rng.sample(self._everybody(), count)

    def _events(self, count: int) -> list[SentEvent]:
        return [self._event(user) for user in self._users(count)]

    def _event(self, user: str) -> SentEvent:
        """An event at a time of its own, not in the order in which events are sent."""
        self.sent += 1
        when = FIRST_TIME + (self.sent * 7_919) % 1_000_003
        return SentEvent(
            user, f"event-{self.sent}", self.rng.choice(self.service.worlds.items), when
        )

    def _violations(self, found: Sequence[str]) -> None:
        self.violations += found


def _summary(reply: Reply | None) -> str:
    """An answer in a few words."""
    if reply is None:
        return "never"
    body = reply.body
    if reply.status != 200 or not isinstance(body, dict):
        return str(reply.status)
    return (
        " ".join(
            str(body.get(name)) for name in ("source", "degraded", "model_version") if name in body
        )
        or "200"
    )


def _quietly(call: Callable[..., Reply], *arguments: Any) -> Reply | None:
    with suppress(Overdue):
        return call(*arguments)
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
    "night": (0.8, Scenario.batch_run),
    "killed night": (1.2, Scenario.killed_batch_run),
    "full disk": (0.4, Scenario.full_disk),
    "two nights": (0.4, Scenario.two_batch_runs),
    "drain": (2, Scenario.drain),
    "change release": (1, Scenario.change_release),
    "jump": (1, Scenario.jump),
    "restart": (0.7, Scenario.restart),
    "break": (4, Scenario.start_fault),
    "mend": (2, Scenario.recover),
}
"""What may happen next, and how often."""
