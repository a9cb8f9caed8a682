"""Times the Lambda handler on the demo's release.

`make bench` runs it, after `make demo`. Each figure comes with its ratio to a floor measured in the
same run: cached answers to one raw GET of the same value, live answers to the index search and the
ranker alone. Cold starts and memory are measured in fresh processes, throughput on one uvicorn
process. Larger releases are trained on synthetic worlds first, unless they exist: `make
bench-large`, or `python tests/benchmarks/serving.py DIRECTORY USERS ITEMS EVENTS_PER_USER`.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from mangum import Mangum
from rich.console import Console
from rich.table import Table

from shortlist.batch import dataset_file, precompute, publish
from shortlist.batch.job import STAGES, Job, fit_params, run_stage
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.runtime_api import http_event
from shortlist.infra.local.valkey import redis_url
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.models import bundle
from shortlist.recsys.models.features import features
from shortlist.recsys.models.index import search
from shortlist.recsys.models.interactions import states_at
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, retrieve
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

DEMO = Path(".demo")
REPORTS = Path("docs/reports")
NAMES = {DEMO: "MovieLens 100K", DEMO / "1m": "A synthetic world of MovieLens 1M's size"}
ROUNDS = 2
CALLS = 2000
WARM_CALLS = 400
CONCURRENCY = (1, 8, 32)

COLD = """
import json, pathlib, re, sys, time
started = time.perf_counter()
from shortlist.lambda_handler.handler import handler
class Context:
    aws_request_id = "benchmark"
    get_remaining_time_in_millis = staticmethod(lambda: 60_000)
events = json.load(sys.stdin)
assert handler(events[0], Context())["statusCode"] == 200
first = time.perf_counter() - started, time.process_time()
for event in events[1:]:
    handler(event, Context())
peak = re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(json.dumps([*first, int(peak[1]) / 1024]), file=sys.stderr)
"""
"""Program of a fresh process, which measures its first answer.

It prints the seconds to that answer, by the clock and of CPU, and its peak MiB after all answers.
"""

USERS_PRECOMPUTED = 512


class SpeedTable(Table):
    """The printed table; `report` holds the same figures for docs/reports."""

    def __init__(self, setup: str) -> None:
        super().__init__(title=setup)
        self.report: dict[str, Any] = {
            "setup": setup,
            "latencies": [],
            "cold_start_seconds": {},
            "memory_mib": {},
            "http": [],
        }


def percentiles(times: np.ndarray) -> dict[str, float]:
    """Milliseconds at the three reported percentiles."""
    values = np.percentile(times, (50, 99, 99.9)).round(3).tolist()
    return dict(zip(("p50_ms", "p99_ms", "p99_9_ms"), values, strict=True))


class Context:
    """A Lambda context, as Mangum needs it."""

    aws_request_id = "benchmark"


def timed(call: Callable[[int], object], calls: int = CALLS) -> np.ndarray:
    """Milliseconds of each call, after a warm-up of a tenth as many."""
    for i in range(calls // 10):
        call(i)
    out = np.empty(calls)
    for i in range(calls):
        started = time.perf_counter()
        call(i)
        out[i] = (time.perf_counter() - started) * 1000
    return out


def raw_get(path: str, key: str) -> Callable[[int], object]:
    """Gives a GET over a bare socket, the floor of any answer from Redis."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    command = f"*2\r\n$3\r\nGET\r\n${len(key.encode())}\r\n{key}\r\n".encode()

    def call(_: int) -> bytes:
        connection.sendall(command)
        reply = connection.recv(65536)
        header, _, body = reply.partition(b"\r\n")
        while len(body) < int(header[1:]) + 2:
            body += connection.recv(65536)
        return body

    return call


def train(directory: Path, size: WorldSize) -> None:
    """Runs the batch on a synthetic world, up to the lists.

    The towers train for ROUNDS only: their quality does not change the times.
    """
    made = world(size)
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.parquet" for name in ("interactions", "items", "users")]
    for path, frame in zip(paths, (made.interactions, made.items, made.users), strict=True):
        frame.write_parquet(path)
    with redis_url({}) as url:
        settings = replace(Settings.from_env({}), redis_url=url, gate=False)
        params = fit_params(settings)
        config = replace(params, towers=replace(params.towers, rounds=ROUNDS))
        job = Job(*map(str, paths), directory / "work", settings, ProgressReporter(), config=config)
        for stage in STAGES:
            if stage != "publish":
                run_stage(job, stage)


def main() -> None:
    """Prints the table."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO
    work = directory / "work"
    if not (work / "done" / "precompute").exists():
        if len(sys.argv) < 5:
            raise SystemExit(f"there is no release in {directory}: run `make demo` first")
        users, items, events = map(int, sys.argv[2:5])
        train(directory, WorldSize(n_users=users, n_items=items, events_per_user=float(events)))
    dataset = dataset_file.load(work)
    size = f"{dataset.events.n_users} users, {dataset.events.n_items} items"
    name = NAMES.get(directory, directory.name)
    table = SpeedTable(f"{name}: {size}, k=20, {CALLS} calls each, one thread")
    for column in ("what", "p50 ms", "p99 ms", "p99.9 ms", "p50 / floor"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with redis_url({}) as url, tempfile.TemporaryDirectory() as scratch:
        own = {
            "artefacts": f"{scratch}/artefacts",
            "bundle_dir": Path(scratch),
            "release_cache_seconds": 3600.0,
        }
        settings = replace(Settings.from_env({}), redis_url=url, **own)  # type: ignore[arg-type]
        version = publish.publish(work / "bundle", work / "lists", settings, ProgressReporter())
        loaded = bundle.load(work / "bundle")
        cached(table, settings, version, dataset.user_ids, url.removeprefix("unix://"))
        live(table, settings, loaded, dataset)
        rate(table, loaded, dataset)
        processes(table, settings, dataset.user_ids)
        throughput(table, settings, dataset.user_ids)
    Console(width=110).print(table)
    file = "speed.json" if directory == DEMO else f"speed-{directory.name}.json"
    write_json(table.report, REPORTS / file)


def cached(
    table: SpeedTable, settings: Settings, version: str, users: tuple[str, ...], path: str
) -> None:
    """Adds cached answers: through Mangum, from the store alone, and by a raw GET."""
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    handler = Mangum(create_app(settings, store, LivePath(settings)), lifespan="off")
    events = [http_event("POST", "/recommend", {"user_id": u}) for u in users]
    floor = timed(raw_get(path, store.keys.list(version, users[0])))
    add(table, "raw socket GET of a list", floor, floor)
    add(
        table,
        "store: list and event count, one round trip",
        timed(lambda i: store.read_user(version, users[i % len(users)])),
        floor,
    )
    add(
        table,
        "cached answer, whole handler",
        timed(lambda i: handler(events[i % len(events)], Context())),
        floor,
    )
    gets = [http_event("GET", f"/v1/users/{u}/recommendations") for u in users]
    add(
        table,
        "the same by GET, with its ETag",
        timed(lambda i: handler(gets[i % len(gets)], Context())),
        floor,
    )


def live(table: SpeedTable, settings: Settings, loaded: bundle.Bundle, dataset: object) -> None:
    """Adds live answers, and the index search with the ranker alone."""
    events, ids = dataset.events, dataset.user_ids  # type: ignore[attr-defined]
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes)  # type: ignore[attr-defined]
    model = loaded.model
    rows = []
    for user in range(64):
        one = states.slice(user, user + 1)
        rows.append(
            (user_vectors(model.towers, one)[0], features(one, retrieve(model, one), model.table))
        )

    def floor(i: int) -> None:
        vector, matrix = rows[i % len(rows)]
        search(model.index, vector, model.n_candidates)
        model.ranker.predict(matrix)  # type: ignore[union-attr]

    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    handler = Mangum(create_app(settings, store, LivePath(settings)), lifespan="off")
    base = timed(floor, CALLS // 4)
    trees = model.ranker.n_trees  # type: ignore[union-attr]
    add(table, f"index search and {trees} trees on {model.n_candidates} rows", base, base)
    variants = {
        "live answer, whole handler": {},
        "the same with diversity": {"diversity": 0.5},
        "the same with explain": {"explain": True},
    }
    for what, more in variants.items():
        options = {"use_cache": False, **more}
        requests = [http_event("POST", "/recommend", {"user_id": u, **options}) for u in ids]
        handled = timed(lambda i, r=requests: handler(r[i % len(r)], Context()), CALLS // 4)  # type: ignore[misc]
        add(table, what, handled, base)


def rate(table: SpeedTable, loaded: bundle.Bundle, dataset: object) -> None:
    """Adds the users per second of precompute on one core."""
    import io

    started = time.perf_counter()
    users = range(min(USERS_PRECOMPUTED, dataset.events.n_users))  # type: ignore[attr-defined]
    for start in range(0, len(users), USERS_AT_ONCE):
        part = users[start : start + USERS_AT_ONCE]
        precompute._write_users(io.BytesIO(), loaded, dataset, part, 100)
    per_second = len(users) / (time.perf_counter() - started)
    table.report["precompute_users_per_second"] = round(per_second)
    table.add_row(f"precompute: {per_second:.0f} users a second on one core")


def add(table: SpeedTable, what: str, times: np.ndarray, floor: np.ndarray) -> None:
    """Adds a row."""
    latency = percentiles(times)
    ratio = round(float(np.median(times) / np.median(floor)), 1)
    table.add_row(what, *(f"{value:.3f}" for value in latency.values()), f"{ratio:.1f}")
    table.report["latencies"].append({"what": what, **latency, "floor_ratio": ratio})


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment of another process that serves the same release."""
    return os.environ | {
        "REDIS_URL": settings.redis_url,
        "SHORTLIST_ARTEFACTS": settings.artefacts,
        "SHORTLIST_BUNDLE_DIR": str(settings.bundle_dir),
        "PYTHONPATH": str(Path.cwd()),
    }


def processes(table: SpeedTable, settings: Settings, users: tuple[str, ...]) -> None:
    """Adds cold starts, and the memory of a warm process."""
    for what, more in (("cached", {}), ("live", {"use_cache": False})):
        events = [
            http_event("POST", "/recommend", {"user_id": users[i % len(users)], **more})
            for i in range(WARM_CALLS)
        ]
        options = {
            "input": json.dumps(events).encode(),
            "env": environ_of(settings),
            "capture_output": True,
        }
        command = [sys.executable, "-c", COLD]
        done = subprocess.run(command, check=True, **options)  # type: ignore[call-overload]
        seconds, cpu, mib = json.loads(done.stderr.splitlines()[-1])
        table.report["cold_start_seconds"][what] = round(seconds, 2)
        table.report["memory_mib"][what] = round(mib)
        cold = f"{seconds:.2f} s, {cpu:.2f} s of CPU"
        table.add_row(f"cold start to the first {what} answer: {cold}")
        table.add_row(f"a process that has served {WARM_CALLS} {what} answers: {mib:.0f} MiB")


def throughput(table: SpeedTable, settings: Settings, users: tuple[str, ...]) -> None:
    """Adds cached answers over loopback HTTP from one uvicorn process."""
    port = free_port()
    app = "shortlist.lambda_handler.handler:app"
    options = ["--port", str(port), "--log-level", "error"]
    command = [sys.executable, "-m", "uvicorn", app, *options]
    server = subprocess.Popen(command, env=environ_of(settings), stdout=subprocess.DEVNULL)
    try:
        until_ready(port)
        for connections in CONCURRENCY:
            times, seconds = http_times(port, users, connections)
            latency, per_second = percentiles(times), round(len(times) / seconds)
            rate = f"{per_second} cached answers a second"
            shown = [f"{value:.3f}" for value in latency.values()]
            table.add_row(f"HTTP, {connections} connections: {rate}", *shown, "")
            row = {"connections": connections, "answers_per_second": per_second}
            table.report["http"].append(row | latency)
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until_ready(port: int) -> None:
    """Waits for the server to listen."""
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.05)


def http_times(port: int, users: tuple[str, ...], connections: int) -> tuple[np.ndarray, float]:
    """Milliseconds of each of CALLS answers, and the seconds of all.

    Each connection has a thread of its own.
    """
    each = CALLS // connections
    out = np.empty((connections, each))

    def work(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for i in range(-each // 10, each):
            body = json.dumps({"user_id": users[(number * each + i) % len(users)]})
            started = time.perf_counter()
            connection.request("POST", "/recommend", body, {"content-type": "application/json"})
            connection.getresponse().read()
            if i >= 0:
                out[number, i] = (time.perf_counter() - started) * 1000

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out.ravel(), time.perf_counter() - started


if __name__ == "__main__":
    main()
