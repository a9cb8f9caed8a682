"""Tests publications that are killed at any point.

Readers see one whole release, and a second run completes.

Two worlds are published in turn. The catalogue of the one has an item more, which shifts the rows
of all others, so that an answer from parts of both would show.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.server import ThreadedMotoServer

from shortlist.batch import dataset_file, release_admin
from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.publish import publish
from shortlist.lambda_handler.answers import Answer, RecommendationQuery
from shortlist.lambda_handler.live import LivePath
from shortlist.lambda_handler.live_cache import LiveCache
from shortlist.lambda_handler.metrics import Metrics
from shortlist.lambda_handler.recommender import Recommender
from shortlist.lambda_handler.serving_release import ServingRelease
from shortlist.recsys.models.bundle import load_ranker_text
from shortlist.recsys.models.ranker import NO_RANKER
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.redis import open_store
from tests.smallest import smallest

HERE = Path(__file__).parent
KILLS = 8
"""Points between the first message and the last, one drawn from each part of the publication."""

N_USERS = 100
"""Each publication compares the list of every user with its live answer; fewer train no ranker."""


@pytest.fixture
def s3(monkeypatch) -> Iterator[None]:
    """An S3 over HTTP, with the bucket `kills`, for this process and those that it starts."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="kills")
    client.close()
    yield
    server.stop()


@pytest.fixture
def worlds(published, tables, tmp_path, reporter) -> dict[str, Path]:
    """The work directories of two batches; `shifted` has one item more, the first."""
    few = pl.col("user_id").is_in(pl.col("user_id").unique(maintain_order=True).head(N_USERS))
    events = pl.read_parquet(tables / "interactions.parquet").filter(few)
    events.write_parquet(tmp_path / "interactions.parquet")
    plain = pl.read_parquet(tables / "items.parquet")
    first = plain.head(1).with_columns(
        pl.lit("0-new").alias("item_id"), pl.lit("New").alias("title")
    )
    made = {}
    for name, items in {"plain": plain, "shifted": pl.concat([first, plain])}.items():
        items.write_parquet(tmp_path / f"{name}.parquet")
        changes = {
            "SHORTLIST_NAMESPACE": f"{tmp_path.name}-{name}",
            "SHORTLIST_ARTEFACTS": str(tmp_path / f"artefacts-{name}"),
            "SHORTLIST_GATE": "off",
        }
        settings = Settings.from_env(published.environ | changes | {"LGBM_N_ESTIMATORS": "5"})
        paths = (str(tmp_path / "interactions.parquet"), str(tmp_path / f"{name}.parquet"), None)
        made[name] = tmp_path / f"work-{name}"
        run_job(Job(*paths, made[name], settings, reporter, config=smallest(settings)))
        assert load_ranker_text(made[name] / "bundle") != NO_RANKER
    return made


@dataclass(frozen=True)
class Site:
    """A service: its settings, the environment of its batch, its users, and who answers them."""

    settings: Settings
    environ: dict[str, str]
    users: tuple[str, ...]
    recommender: Recommender

    def answers(self) -> tuple[set[str], dict[str, tuple[object, ...]]]:
        """The releases that answer the users, and each answer's source, items and scores."""
        answered = {
            user: self.recommender.recommend(RecommendationQuery(user, 10)) for user in self.users
        }
        return {answer.version for answer in answered.values()}, {
            user: _shown(answer) for user, answer in answered.items()
        }

    def marked(self) -> list[str]:
        """The releases that `shortlist release list` calls serving."""
        return [
            release.version
            for release in release_admin.listing(self.settings)
            if release.role == "serving"
        ]

    def publish(
        self, bundle: Path, lists: Path, kill_at: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Publishes in a process of its own, which is killed at a message; 0: at none."""
        command = [
            sys.executable,
            str(HERE / "killed_publish.py"),
            str(bundle),
            str(lists),
            str(kill_at),
        ]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False
        )


def _shown(answer: Answer) -> tuple[object, ...]:
    return answer.source, answer.degraded, answer.ranked


@pytest.fixture
def site(published, worlds, namespace, tmp_path, s3) -> Iterator[Site]:
    """A service without a release yet."""
    settings = replace(
        published.settings,
        namespace=namespace,
        artefacts="s3://kills/releases",
        bundle_dir=tmp_path,
    )
    environ = os.environ | published.environ
    environ |= {"SHORTLIST_NAMESPACE": namespace, "SHORTLIST_ARTEFACTS": settings.artefacts}
    environ |= {"PYTHONPATH": str(HERE.parents[1]), "TMPDIR": str(tmp_path)}
    store, metrics = open_store(settings.redis_url, namespace, 5000), Metrics()
    live = LivePath(settings)
    serving = ServingRelease(settings, store, live, metrics, time.time)
    recommender = Recommender(serving, store, live, LiveCache(store, 60), metrics)
    users = dataset_file.load(worlds["plain"]).user_ids
    yield Site(settings, environ, users, recommender)
    store.close()


def points(flip: int, total: int) -> list[int]:
    """The first message, the flip, the last, and a random one of KILLS equal parts before it."""
    rng = random.Random(total)  # noqa: S311 - not a secret
    bounds = [2 + part * (flip - 2) // KILLS for part in range(KILLS + 1)]
    return [1, *(rng.randrange(low, high) for low, high in itertools.pairwise(bounds)), flip, total]


def test_readers_never_notice_a_killed_publication(
    site, release, worlds, reporter, tmp_path
) -> None:
    """A kill before the flip leaves the old answers, one after it the new ones.

    The second run serves the new release.
    """
    artefacts = open_artefacts(site.settings.artefacts)
    answers, totals = {}, {}
    for world, work in worlds.items():
        counted = site.publish(*release(f"{world}-00", work))
        assert counted.returncode == 0, counted.stderr
        total, flip = map(int, counted.stdout.split())
        answers[world], totals[world] = site.answers()[1], (flip, total)
    assert answers["plain"] != answers["shifted"]

    old, serving = "shifted", "shifted-00"
    for turn, world in zip(range(KILLS + 3), itertools.cycle(worlds), strict=False):
        version = f"{world}-{turn + 1:02d}"
        made = release(version, worlds[world])
        kill_at = points(*totals[world])[turn]
        assert site.publish(*made, kill_at=kill_at).returncode == -signal.SIGKILL
        if kill_at > totals[world][0]:  # what follows the flip is no reader's business
            old, serving = world, version
        assert (site.answers(), site.marked()) == (({serving}, answers[old]), [serving])
        for seen in set(artefacts.versions()) & {version}:
            artefacts.fetch(seen, tmp_path / "seen")
        if turn % 3 == 0:  # what `release prune` removes is no loss to the second run
            artefacts.sweep(time.time() + 60)
        publish(*made, site.settings, reporter)
        assert (site.answers(), site.marked()) == (({version}, answers[world]), [version])
        release_admin.prune(site.settings, 1, time.time())
        old, serving = world, version
    assert artefacts.sweep(time.time() + 60) == 0
