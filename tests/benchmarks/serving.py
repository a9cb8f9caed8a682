"""Times the Lambda handler on the demo's release.

`make bench` runs it, after `make demo`. Each figure comes with its ratio to a floor measured in the
same run, in turn with it. A cached answer's floor is the store's own read and a FastAPI and Mangum
answer of the same bytes that looks nothing up; that of a live answer is `recommend` alone. Each
stands beside what could be done instead. Cold starts and memory are measured in fresh processes,
throughput on one uvicorn process. Larger releases are trained on synthetic worlds first, unless
they exist: `make bench-large`, or `python tests/benchmarks/serving.py DIRECTORY USERS ITEMS
EVENTS_PER_USER`.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import boto3
import numpy as np
from alternatives import (
    Context,
    answers_nothing,
    booster_of,
    deployments,
    faiss_alone,
    naive,
    raw_get,
)
from moto.server import ThreadedMotoServer
from rich.console import Console
from speed_table import CALLS, Call, SpeedTable, percentiles, timed

from shortlist.batch import dataset_file, precompute, publish
from shortlist.batch.config import fit_params
from shortlist.batch.job import STAGES, Job, run_stage
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.runtime_api import http_event
from shortlist.infra.local.valkey import redis_url
from shortlist.lambda_handler.app import create_app
from shortlist.lambda_handler.entry import Adapter
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.evaluation.report import write_json
from shortlist.recsys.models import bundle
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.models.features import features
from shortlist.recsys.models.interactions import states_at
from shortlist.recsys.models.pipeline import USERS_AT_ONCE, recommend, retrieve
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.redis import RedisStore, open_store

Event = dict[str, Any]
Handler = Callable[[Event, object], dict[str, Any]]
"""The Lambda handler: (event, context) -> answer."""

DEMO = Path(".demo")
REPORTS = Path("docs/reports")
NAMES = {DEMO: "MovieLens 100K", DEMO / "1m": "A synthetic world of MovieLens 1M's size"}
READ = "store: list and event count, one round trip"
NOTHING = "FastAPI and Mangum: the same bytes, nothing looked up"
RECOMMEND = "`recommend` alone"
SIGNED = "a cluster with TLS and IAM"
DEPLOYED = f", S3 and {SIGNED}"
ROUNDS = 2
WARM_CALLS = 400
CONCURRENCY = (1, 8, 32)
RECOMMENDED = 20
"""Items of an answer, whose SHAP values an explanation takes."""

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


def train(directory: Path, size: WorldSize) -> None:
    """Runs the batch on a synthetic world, up to the lists.

    The towers train for ROUNDS only: their quality does not change the times.
    """
    made = world(size)
    directory.mkdir(parents=True, exist_ok=True)
    interactions, items, users = (
        str(directory / f"{name}.parquet") for name in ("interactions", "items", "users")
    )
    made.interactions.write_parquet(interactions)
    made.items.write_parquet(items)
    made.users.write_parquet(users)
    with redis_url({}) as url:
        settings = replace(Settings.from_env({}), redis_url=url, gate=False)
        params = fit_params(settings)
        config = replace(params, towers=replace(params.towers, rounds=ROUNDS))
        work, reporter = directory / "work", ProgressReporter()
        job = Job(interactions, items, users, work, settings, reporter, config=config)
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
    with published(work) as (settings, version):
        loaded = bundle.load(work / "bundle")
        cached(table, settings, version, dataset.user_ids)
        store_reads(table, settings, version, dataset.user_ids)
        live(table, settings, loaded, dataset, work)
        rate(table, loaded, dataset)
        processes(table, environ_of(settings), dataset.user_ids)
        throughput(table, settings, dataset.user_ids)
    with deployed(work) as environ:
        if environ:
            processes(table, environ, dataset.user_ids, DEPLOYED)
    Console(width=130).print(table)
    file = "speed.json" if directory == DEMO else f"speed-{directory.name}.json"
    write_json(table.report, REPORTS / file)
    table.write_rows(directory / "bench.json")


@contextmanager
def published(work: Path) -> Iterator[tuple[Settings, str]]:
    """Publishes the release of a work directory to a Redis of its own.

    Gives the settings of what serves it, and its version.
    """
    with redis_url({}) as url, tempfile.TemporaryDirectory() as scratch:
        own = {
            "artefacts": f"{scratch}/artefacts",
            "bundle_dir": Path(scratch),
            "release_cache_seconds": 3600.0,
        }
        settings = replace(Settings.from_env({}), redis_url=url, **own)  # type: ignore[arg-type]
        yield (
            settings,
            publish.publish(work / "bundle", work / "lists", settings, ProgressReporter()),
        )


@contextmanager
def deployed(work: Path) -> Iterator[dict[str, str]]:
    """Publishes the release to a cluster with TLS and IAM, and to S3 by moto.

    Gives the environment of what serves it; an empty one where there is no cluster.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(deployments(scratch)).get(SIGNED)
        if url is None:
            yield {}
            return
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
        storage = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        storage.start()
        stack.callback(storage.stop)
        endpoint = f"http://127.0.0.1:{storage.get_host_and_port()[1]}"
        stack.enter_context(patch.dict(os.environ, AWS_ENDPOINT_URL=endpoint))
        boto3.client("s3").create_bucket(Bucket="releases")
        settings = replace(
            Settings.from_env({}),
            redis_url=url,
            redis_timeout_ms=5000,
            artefacts="s3://releases/shortlist",
            bundle_dir=scratch / "bundles",
        )
        publish.publish(work / "bundle", work / "lists", settings, ProgressReporter())
        shutil.rmtree(settings.bundle_dir, ignore_errors=True)  # a function starts without a copy
        yield environ_of(settings)


def served(settings: Settings) -> tuple[RedisStore, Handler]:
    """The store of a release, and the Lambda handler over it."""
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    adapter: Any = Adapter(create_app(settings, store, LivePath(settings)))
    return store, adapter  # which takes a context of less than Lambda's


def answer(handler: Handler, events: Sequence[Event], i: int) -> dict[str, Any]:
    """The i-th answer of the handler, to the events in turns."""
    return handler(events[i % len(events)], Context())


def read_of(store: RedisStore, version: str, users: Sequence[str], i: int) -> object:
    """The i-th read of the store, of the users in turns."""
    return store.read_user(version, users[i % len(users)])


def cached(table: SpeedTable, settings: Settings, version: str, users: tuple[str, ...]) -> None:
    """Adds cached answers, between their floors and their parts."""
    store, handler = served(settings)
    events = [http_event("POST", "/recommend", {"user_id": u}) for u in users]
    gets = [http_event("GET", f"/v1/users/{u}/recommendations") for u in users]
    body = handler(events[0], Context())["body"].encode()
    key = store.keys.list(version, users[0])
    calls: dict[str, Call] = {
        "raw socket GET of a list": raw_get(settings.redis_url.removeprefix("unix://"), key),
        "redis-py: GET of a list": lambda _: store.redis.get(key),
        READ: partial(read_of, store, version, users),
        NOTHING: answers_nothing(body, events),
        "cached answer, whole handler": partial(answer, handler, events),
        "the same by GET, with its ETag": partial(answer, handler, gets),
    }
    timings = timed(calls)
    floor = timings[READ].median + timings[NOTHING].median
    for what, timing in timings.items():
        table.add(what, timing, floor)


def store_reads(table: SpeedTable, settings: Settings, version: str, users: Sequence[str]) -> None:
    """Adds the store's read of a user by kind of deployment; the floor is the one node's."""
    source = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    lists = dict(zip(users, source.lists(version, users), strict=True))
    with tempfile.TemporaryDirectory() as scratch, deployments(Path(scratch)) as urls:
        stores = {name: open_store(url, settings.namespace, 5000) for name, url in urls.items()}
        calls: dict[str, Call] = {}
        for name, store in stores.items():
            store.write_lists(version, ((u, packed) for u, packed in lists.items() if packed))
            calls[f"store over TCP: {name}"] = partial(read_of, store, version, users)
        timings = timed(calls)
        for what, timing in timings.items():
            table.add(what, timing, next(iter(timings.values())).median)
        for store in stores.values():
            store.close()


def live(
    table: SpeedTable, settings: Settings, loaded: bundle.Bundle, dataset: Dataset, work: Path
) -> None:
    """Adds live answers, their parts, and what could be done instead."""
    events, ids = dataset.events, dataset.user_ids
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes)
    model = loaded.model
    each = [states.slice(user, user + 1) for user in range(64)]
    rows = [features(one, retrieve(model, one), model.table) for one in each]
    booster = booster_of(work / "bundle")
    ranker = model.ranker
    if ranker is None:
        raise SystemExit("this release has no ranker: train a world with more events")
    _, handler = served(settings)
    trees = f"{ranker.n_trees} trees on {model.n_candidates} rows"
    parts = f"SHAP values of {ranker.n_trees} trees, {RECOMMENDED} rows"
    calls: dict[str, Call] = {
        "FAISS: search of the index": faiss_alone(loaded, each),
        trees: lambda i: ranker.predict(rows[i % len(rows)]),
        f"LightGBM's `predict`: {trees}": lambda i: booster.predict(rows[i % len(rows)]),
        parts: lambda i: ranker.contributions(rows[i % len(rows)][:RECOMMENDED]),
        f"LightGBM's: {parts}": lambda i: booster.predict(
            rows[i % len(rows)][:RECOMMENDED], pred_contrib=True
        ),
        RECOMMEND: lambda i: recommend(model, each[i % len(each)], RECOMMENDED),
    }
    variants: dict[str, dict[str, object]] = {
        "live answer, whole handler": {},
        "the same with diversity": {"diversity": 0.5},
        "the same with explain": {"explain": True},
    }
    for what, more in variants.items():
        requests = [
            http_event("POST", "/recommend", {"user_id": u, "use_cache": False, **more})
            for u in ids
        ]
        calls[what] = partial(answer, handler, requests)
    calls["naive: a data frame of features for each request"] = naive(loaded, booster, each)
    timings = timed(calls, CALLS // 4)
    for what, timing in timings.items():
        table.add(what, timing, timings[RECOMMEND].median)


def rate(table: SpeedTable, loaded: bundle.Bundle, dataset: Dataset) -> None:
    """Adds the users per second of precompute on one core."""
    started = time.perf_counter()
    users = range(min(USERS_PRECOMPUTED, dataset.events.n_users))
    write_lists(loaded, dataset, users)
    per_second = len(users) / (time.perf_counter() - started)
    table.report["precompute_users_per_second"] = round(per_second)
    table.add_row(f"precompute: {per_second:.0f} users a second on one core")


def write_lists(loaded: bundle.Bundle, dataset: Dataset, users: range) -> None:
    """Precomputes the lists of these users."""
    offsets = dataset.events.offsets()
    for start in range(0, len(users), USERS_AT_ONCE):
        part = users[start : start + USERS_AT_ONCE]
        precompute._write_users(io.BytesIO(), loaded, dataset, offsets, part, 100)


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment of another process that serves the same release."""
    return os.environ | {
        "REDIS_URL": settings.redis_url,
        "SHORTLIST_ARTEFACTS": settings.artefacts,
        "SHORTLIST_BUNDLE_DIR": str(settings.bundle_dir),
        "PYTHONPATH": str(Path.cwd()),
    }


def processes(
    table: SpeedTable, environ: dict[str, str], users: tuple[str, ...], suffix: str = ""
) -> None:
    """Adds cold starts in an environment, and the memory of a warm process."""
    for kind, more in (("cached", {}), ("live", {"use_cache": False})):
        what = f"{kind} answer{suffix}"
        events = [
            http_event("POST", "/recommend", {"user_id": users[i % len(users)], **more})
            for i in range(WARM_CALLS)
        ]
        options = {
            "input": json.dumps(events).encode(),
            "env": environ,
            "capture_output": True,
        }
        command = [sys.executable, "-c", COLD]
        done = subprocess.run(command, check=True, **options)  # type: ignore[call-overload]
        seconds, cpu, mib = json.loads(done.stderr.splitlines()[-1])
        table.report["cold_start_seconds"][what] = round(seconds, 2)
        table.report["memory_mib"][what] = round(mib)
        cold = f"{seconds:.2f} s, {cpu:.2f} s of CPU"
        table.add_row(f"cold start to the first {what}: {cold}; {mib:.0f} MiB after {WARM_CALLS}")


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
            table.add_row(f"HTTP, {connections} connections: {rate}", *shown)
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
