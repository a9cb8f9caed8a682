"""Runs the whole service during releases and a killed batch.

Everything is on one machine: S3 over HTTP, a cluster with TLS, the built package under the real
runtime client, the batch as a process of its own, and a client that never stops asking.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import boto3
import polars as pl
import pytest

from shortlist.infra.local.cluster import cluster, server
from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.records import ReleasePointer, unpack_list
from shortlist.recsys.store.redis import RedisStore, open_store

ROOT = Path(__file__).parents[2]
BUCKET = "service"
K = 5
REDIS = server()
PUBLISHING = (
    "assemble the bundle",
    "precompute the lists",
    "upload the bundle",
    "write the lists",
    "verify by reading back",
)
"""What the batch has just finished when it is killed."""

pytestmark = pytest.mark.skipif(
    REDIS is None, reason="no redis-server of version 7: install it for a cluster with TLS"
)


@dataclass
class Service:
    """Where everything is, and how the batch is run."""

    environ: dict[str, str]
    store: RedisStore
    attempts: int = 0

    def refresh(self, run: str, tables: str, kill_after: str | None = None) -> int:
        """Runs the batch, killed once it has logged `kill_after`; returns the exit status."""
        inputs = {
            f"SHORTLIST_{t.upper()}": f"s3://{BUCKET}/{tables}/{t}.parquet"
            for t in ("interactions", "items")
        }
        environ = os.environ | self.environ | inputs | {"SHORTLIST_RUN_ID": run}
        self.attempts += 1  # each on a machine of its own
        environ["SHORTLIST_WORK"] = f"{self.environ['SHORTLIST_WORK']}/{self.attempts}"
        command = [sys.executable, "-m", "shortlist.batch", "refresh"]
        lines = []
        with subprocess.Popen(
            command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                lines.append(line)
                if kill_after is not None and str(json.loads(line).get("message")).startswith(
                    kill_after
                ):
                    process.kill()
        assert process.returncode in (0, -9), "".join(lines[-5:])
        return process.returncode

    def release(self, *arguments: str) -> None:
        """Runs `shortlist release`."""
        command = [sys.executable, "-m", "shortlist.batch.cli", "release", *arguments]
        subprocess.run(
            command, cwd=ROOT, env=os.environ | self.environ, check=True, capture_output=True
        )

    def pointer(self) -> ReleasePointer:
        """What serves."""
        pointer = self.store.release()
        assert pointer is not None
        return pointer


@dataclass
class Client:
    """Asks for one user after another, without a pause, and keeps the answers."""

    ask: Callable[[str], dict]
    users: list[str]
    answers: list[dict] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self.ask(self.users[len(self.answers) % len(self.users)])
            with self._more:
                self.answers.append(answer)
                self._more.notify_all()

    def hears(self, number: int) -> list[dict]:
        """The next answers, so many of them."""
        with self._more:
            start = len(self.answers)
            assert self._more.wait_for(lambda: len(self.answers) >= start + number, timeout=60)
            return self.answers[start + 1 :]


@pytest.fixture(scope="module")
def service(tables, s3_environ, tmp_path_factory) -> Iterator[Service]:
    """S3 with the tables of two refreshes, and an empty cluster."""
    directory = tmp_path_factory.mktemp("service")
    with cluster(REDIS, directory) as url:
        environ = s3_environ | {
            "REDIS_URL": url,
            "SHORTLIST_ARTEFACTS": f"s3://{BUCKET}/releases",
            "SHORTLIST_EVENTS": f"s3://{BUCKET}/events",
            "SHORTLIST_CHECKPOINTS": f"s3://{BUCKET}/runs",
            "SHORTLIST_WORK": str(directory / "work"),
            "SHORTLIST_BUNDLE_DIR": str(directory),
            "SHORTLIST_NAMESPACE": "e2e",
            "SHORTLIST_RELEASE_CACHE_SECONDS": "0",
            "SHORTLIST_REDIS_TIMEOUT_MS": "5000",
            "SHORTLIST_GATE": "off",
            "SHORTLIST_THREADS": "1",
            "EMBEDDING_DIM": "8",
            "TOP_K_CANDIDATES": "40",
            "LGBM_N_ESTIMATORS": "5",
        }
        upload(environ, tables, directory)
        store = open_store(url, "e2e", 5000)
        yield Service(environ, store)
        store.close()


def upload(environ: dict[str, str], tables: Path, directory: Path) -> None:
    """Uploads the tables of two refreshes.

    The second has more events, and an item that shifts the rows.
    """
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    }
    names |= {"endpoint_url": "AWS_ENDPOINT_URL", "region_name": "AWS_DEFAULT_REGION"}
    client = boto3.client("s3", **{name: environ[variable] for name, variable in names.items()})
    client.create_bucket(Bucket=BUCKET)
    interactions, items = (
        pl.read_parquet(tables / f"{name}.parquet") for name in ("interactions", "items")
    )
    newest = (
        interactions.group_by("user_id", maintain_order=True)
        .last()
        .with_columns(
            pl.lit("0-new").alias("item_id"), (pl.col("timestamp") + 1).alias("timestamp")
        )
    )
    new_item = items.head(1).with_columns(
        pl.lit("0-new").alias("item_id"), pl.lit("New").alias("title")
    )
    nights = {
        "monday": (interactions, items),
        "tuesday": (
            pl.concat([interactions, newest.select(interactions.columns)]),
            pl.concat([new_item, items]),
        ),
    }
    for night, frames in nights.items():
        for name, frame in zip(("interactions", "items"), frames, strict=True):
            path = directory / f"{night}-{name}.parquet"
            frame.write_parquet(path)
            client.upload_file(str(path), BUCKET, f"{night}/{name}.parquet")
    client.close()


def asker(running: LambdaService) -> Callable[[str], dict]:
    """Asks the built handler for a user's list."""

    def ask(user: str) -> dict:
        invoked = running.invoke(http_event("POST", "/recommend", {"user_id": user, "k": K}))
        assert invoked.error is None, invoked.payload
        return {"status": invoked.payload["statusCode"], **json.loads(invoked.payload["body"])}

    return ask


def tell(running: LambdaService, user: str, item: str) -> None:
    """Sends an event of a user's to the built handler, which takes it."""
    event = {"event_id": "e1", "user_id": user, "item_id": item, "timestamp": int(time.time())}
    invoked = running.invoke(http_event("POST", "/v1/events", {"events": [event]}))
    assert (invoked.error, json.loads(invoked.payload["body"])["accepted"]) == (None, 1)


def is_whole(store: RedisStore, answer: dict) -> bool:
    """Whether an answer is of its own release alone: its list, or items that it has."""
    version, ids = answer["model_version"], [item["item_id"] for item in answer["recommendations"]]
    if answer["source"] == "batch":
        rows = unpack_list(store.lists(version, [answer["user_id"]])[0]).rows[:K]
        return ids == [item.id for item in store.items(version, rows)]
    return answer["source"] == "live" and all(
        row is not None for row in store.rows_of(version, ids)[0]
    )


def test_releases_change_without_a_failure(service, built, tables) -> None:
    """Refreshes, kills, canary, promote, rollback: no answer fails, degrades or mixes releases."""
    users = (
        pl.read_parquet(tables / "interactions.parquet")["user_id"]
        .unique(maintain_order=True)
        .cast(pl.String)
        .to_list()
    )
    assert service.refresh("monday", "monday") == 0
    monday = service.pointer().current
    with built.service(service.environ) as running, Client(asker(running), users) as client:
        ask = asker(running)
        assert {a["model_version"] for a in client.hears(20)} == {monday}

        taken = ask(users[0])["recommendations"][0]["item_id"]
        tell(running, users[0], taken)
        assert ask(users[0])["source"] == "live"

        for point in PUBLISHING:
            status = service.refresh("tuesday", "tuesday", kill_after=point)
            assert (status, service.pointer().current) == (-9, monday)
            client.hears(5)
        assert service.refresh("tuesday", "tuesday") == 0
        tuesday = service.pointer().current
        assert service.pointer() == ReleasePointer(tuesday, monday)
        assert {a["model_version"] for a in client.hears(20)} == {tuesday}

        answer = ask(
            users[0]
        )  # the refresh took the event from the stream, and the list was made knowing it
        assert (answer["source"], EventLog(service.store).length()) == ("batch", 0)
        assert taken not in [item["item_id"] for item in answer["recommendations"]]

        service.release("canary", monday, "--percent", "50")
        pointer = service.pointer()
        heard = client.hears(60)
        assert {a["model_version"] for a in heard} == {monday, tuesday}
        assert all(a["model_version"] == pointer.serving(a["user_id"]) for a in heard)

        service.release("rollback")
        assert {a["model_version"] for a in client.hears(20)} == {monday}
        service.release("promote", tuesday)
        assert {(a["model_version"], a["source"]) for a in client.hears(20)} == {(tuesday, "batch")}

    assert {(a["status"], a["degraded"], len(a["recommendations"])) for a in client.answers} == {
        (200, False, K)
    }
    assert [a for a in client.answers if not is_whole(service.store, a)] == []
