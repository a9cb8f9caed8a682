"""Times the handler on the demo's release, each figure beside its floor in the same run: `make bench`, after `make demo`.

Cached answers are set against one raw GET of the same value; live answers against the index search and the ranker alone.
"""

from __future__ import annotations

import os
import socket
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

from batch import dataset_file, precompute, publish
from batch.console import Narrator
from infra.local.runtime_api import http_event
from infra.local.valkey import redis_url
from lambda_handler.app import create_app
from lambda_handler.live import BundleLive
from recsys import bundle
from recsys.events import states_at
from recsys.features import features
from recsys.index import search
from recsys.pipeline import retrieve
from recsys.settings import Settings
from recsys.store import open_store
from recsys.towers import user_vectors

DEMO = Path(".demo")
CALLS = 2000
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
        return connection.recv(65536)

    return call


def main() -> None:
    """Prints the table."""
    work = DEMO / "work"
    if not (work / "lists").exists():
        raise SystemExit("there is no demo release: run `make demo` first")
    dataset = dataset_file.load(work)
    table = Table(title=f"{CALLS} calls each, one thread, k=20, {dataset.events.n_users} users, {dataset.events.n_items} items")
    for column in ("what", "p50 ms", "p99 ms", "p50 / floor"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with redis_url({}) as url:
        settings = replace(Settings.from_env({}), redis_url=url, artefacts=str(DEMO / "artefacts"), release_cache_seconds=3600.0)
        version = publish.publish(work / "bundle", work / "lists", settings, Narrator())
        loaded = bundle.load(work / "bundle")
        cached(table, settings, version, dataset.user_ids, url.removeprefix("unix://"))
        live(table, settings, loaded, dataset)
        rate(table, loaded, dataset)
    Console(width=100).print(table)


def cached(table: Table, settings: Settings, version: str, users: tuple[str, ...], path: str) -> None:
    """Cached answers: the app behind Mangum, above the store alone, above a raw GET."""
    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    handler = Mangum(create_app(settings, store, BundleLive(settings)), lifespan="off")
    events = [http_event("POST", "/recommend", {"user_id": u}) for u in users]
    floor = timed(raw_get(path, store.keys.list(version, users[0])))
    add(table, "raw socket GET of a list", floor, floor)
    add(
        table,
        "store: list and event count, one round trip",
        timed(lambda i: store.read_user(version, users[i % len(users)])),
        floor,
    )
    add(table, "cached answer, whole handler", timed(lambda i: handler(events[i % len(events)], Context())), floor)


def live(table: Table, settings: Settings, loaded: bundle.Bundle, dataset: object) -> None:
    """Live answers, above the index search and the ranker alone."""
    events, ids = dataset.events, dataset.user_ids  # type: ignore[attr-defined]
    offsets = events.offsets()
    states = states_at(events, offsets[:-1], offsets[1:], dataset.attributes)  # type: ignore[attr-defined]
    model = loaded.model
    rows = []
    for user in range(64):
        one = states.slice(user, user + 1)
        rows.append((user_vectors(model.towers, one)[0], features(one, retrieve(model, one), model.table)))

    def floor(i: int) -> None:
        vector, matrix = rows[i % len(rows)]
        search(model.index, vector, model.n_candidates)
        model.ranker.predict(matrix)  # type: ignore[union-attr]

    store = open_store(settings.redis_url, settings.namespace, settings.redis_timeout_ms)
    handler = Mangum(create_app(settings, store, BundleLive(settings)), lifespan="off")
    asked = [http_event("POST", "/recommend", {"user_id": u, "use_cache": False}) for u in ids]
    base = timed(floor, CALLS // 4)
    add(table, f"index search and {model.ranker.n_trees} trees on {model.n_candidates} rows", base, base)  # type: ignore[union-attr]
    add(table, "live answer, whole handler", timed(lambda i: handler(asked[i % len(asked)], Context()), CALLS // 4), base)


def rate(table: Table, loaded: bundle.Bundle, dataset: object) -> None:
    """Users a second of precompute, on one core."""
    import io

    started = time.perf_counter()
    users = range(min(USERS_PRECOMPUTED, dataset.events.n_users))  # type: ignore[attr-defined]
    for start in range(0, len(users), precompute.CHUNK):
        part = users[start : start + precompute.CHUNK]
        precompute._write_users(io.BytesIO(), loaded, dataset, part, 100)
    table.add_row(f"precompute: {len(users) / (time.perf_counter() - started):.0f} users a second on one core", "", "", "")


def add(table: Table, what: str, times: np.ndarray, floor: np.ndarray) -> None:
    """One row."""
    p50, p99 = np.percentile(times, (50, 99))
    table.add_row(what, f"{p50:.3f}", f"{p99:.3f}", f"{p50 / np.median(floor):.1f}")


if __name__ == "__main__":
    main()
