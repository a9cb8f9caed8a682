"""Times the handler on the demo's release, each figure beside its floor in the same run: `make bench`, after `make demo`.

Cached answers are set against one raw GET of the same value; live answers against the index search
and the ranker alone. Cold starts and memory are those of fresh processes, throughput that of one
uvicorn process asked by this one. Larger releases are those of made-up worlds, which are trained
first, unless they are there: `make bench-large`, or `python tests/benchmarks/serving.py DIRECTORY
USERS ITEMS EVENTS_PER_USER`.
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
from shortlist.recsys.models import bundle
from shortlist.recsys.models.features import features
from shortlist.recsys.models.index import search
from shortlist.recsys.models.interactions import states_at
from shortlist.recsys.models.pipeline import retrieve
from shortlist.recsys.models.towers import user_vectors
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import open_store

DEMO = Path(".demo")
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
"""A fresh process: seconds to its first answer by the clock and by the CPU, and its MiB after all of them."""
USERS_PRECOMPUTED = 512


class Context:
    """What Mangum asks of a Lambda context."""

    aws_request_id = "benchmark"


def timed(call: Callable[[int], object], calls: int = CALLS) -> np.ndarray:
    """Milliseconds of each call, after a tenth as many that are not counted."""
    for i in range(calls // 10):
        call(i)
    out = np.empty(calls)
    for i in range(calls):
        started = time.perf_counter()
        call(i)
        out[i] = (time.perf_counter() - started) * 1000
    return out


def raw_get(path: str, key: str) -> Callable[[int], object]:
    """A GET over a bare socket: the floor of any answer from Redis."""
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
    """Runs the batch on a made-up world, up to the lists; its towers train for ROUNDS only, which no time depends on."""
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
    table = Table(
        title=f"{CALLS} calls each, one thread, k=20, {dataset.events.n_users} users, {dataset.events.n_items} items"
    )
    for column in ("what", "p50 ms", "p99 ms", "p99.9 ms", "p50 / floor"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with redis_url({}) as url, tempfile.TemporaryDirectory() as directory:
        own = {
            "artefacts": f"{directory}/artefacts",
            "bundle_dir": Path(directory),
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


def cached(
    table: Table, settings: Settings, version: str, users: tuple[str, ...], path: str
) -> None:
    """Cached answers: the app behind Mangum, above the store alone, above a raw GET."""
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


def live(table: Table, settings: Settings, loaded: bundle.Bundle, dataset: object) -> None:
    """Live answers, above the index search and the ranker alone."""
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
    add(
        table,
        f"index search and {model.ranker.n_trees} trees on {model.n_candidates} rows",
        base,
        base,
    )  # type: ignore[union-attr]
    shapes = {
        "live answer, whole handler": {},
        "the same with diversity": {"diversity": 0.5},
        "the same with explain": {"explain": True},
    }
    for what, more in shapes.items():
        asked = [
            http_event("POST", "/recommend", {"user_id": u, "use_cache": False, **more})
            for u in ids
        ]
        add(
            table,
            what,
            timed(lambda i, asked=asked: handler(asked[i % len(asked)], Context()), CALLS // 4),
            base,
        )  # type: ignore[misc]


def rate(table: Table, loaded: bundle.Bundle, dataset: object) -> None:
    """Users a second of precompute, on one core."""
    import io

    started = time.perf_counter()
    users = range(min(USERS_PRECOMPUTED, dataset.events.n_users))  # type: ignore[attr-defined]
    for start in range(0, len(users), precompute.CHUNK):
        part = users[start : start + precompute.CHUNK]
        precompute._write_users(io.BytesIO(), loaded, dataset, part, 100)
    table.add_row(
        f"precompute: {len(users) / (time.perf_counter() - started):.0f} users a second on one core",
        "",
        "",
        "",
        "",
    )


def add(table: Table, what: str, times: np.ndarray, floor: np.ndarray) -> None:
    """One row."""
    shown = [f"{value:.3f}" for value in np.percentile(times, (50, 99, 99.9))]
    table.add_row(what, *shown, f"{np.median(times) / np.median(floor):.1f}")


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment under which another process serves the same release."""
    told = {"REDIS_URL": settings.redis_url, "SHORTLIST_ARTEFACTS": settings.artefacts}
    return (
        os.environ
        | told
        | {"SHORTLIST_BUNDLE_DIR": str(settings.bundle_dir), "PYTHONPATH": str(Path.cwd())}
    )


def processes(table: Table, settings: Settings, users: tuple[str, ...]) -> None:
    """What a fresh process takes to its first answer, and to hold once it is warm."""
    for what, more in (("cached", {}), ("live", {"use_cache": False})):
        events = [
            http_event("POST", "/recommend", {"user_id": users[i % len(users)], **more})
            for i in range(WARM_CALLS)
        ]
        told = {
            "input": json.dumps(events).encode(),
            "env": environ_of(settings),
            "capture_output": True,
        }
        done = subprocess.run([sys.executable, "-c", COLD], check=True, **told)  # type: ignore[call-overload]
        seconds, cpu, mib = json.loads(done.stderr.splitlines()[-1])
        table.add_row(
            f"cold start to the first {what} answer: {seconds:.2f} s, {cpu:.2f} s of CPU",
            "",
            "",
            "",
            "",
        )
        table.add_row(
            f"a process that has served {WARM_CALLS} {what} answers: {mib:.0f} MiB", "", "", "", ""
        )


def throughput(table: Table, settings: Settings, users: tuple[str, ...]) -> None:
    """Cached answers over loopback HTTP from one uvicorn process, at several numbers of connections."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "shortlist.lambda_handler.handler:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    server = subprocess.Popen(command, env=environ_of(settings), stdout=subprocess.DEVNULL)
    try:
        until_ready(port)
        for connections in CONCURRENCY:
            times, seconds = asked(port, users, connections)
            per_second = f"HTTP, {connections} connections: {len(times) / seconds:.0f} cached answers a second"
            table.add_row(
                per_second, *(f"{v:.3f}" for v in np.percentile(times, (50, 99, 99.9))), ""
            )
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    """A port that nobody has."""
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


def asked(port: int, users: tuple[str, ...], connections: int) -> tuple[np.ndarray, float]:
    """Milliseconds of each of CALLS answers, and the seconds of all, by so many threads with a connection each."""
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
