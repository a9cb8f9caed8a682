"""Provides a Valkey, an S3 and a small published release.

`published` is a release that the whole batch made of `tables` (session scope: do not change it).
`own` is the same release in a namespace of the test's own, to change at will; `release` copies its
files as another version. `namespace`, `bucket` and `reporter` are fresh for each test.
"""

from __future__ import annotations

import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from moto.server import ThreadedMotoServer
from rich.console import Console
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from shortlist.batch import dataset_file
from shortlist.batch.job import Job
from shortlist.batch.job import run as run_job
from shortlist.batch.progress import ProgressReporter
from shortlist.infra.local.valkey import redis_url
from shortlist.recsys.data.synthetic import WorldSize, world
from shortlist.recsys.models.catalogue import Dataset
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.artefacts import open_artefacts
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_files import build_manifest
from tests.dumps import Dumped, dumped, put_back
from tests.smallest import smallest

# Derandomized: the same examples on every machine. No deadline: CI machines differ in speed.
hypothesis_settings.register_profile(
    "shortlist", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("shortlist")


class SharedWorldScheduling(LoadFileScheduling):
    """Gives each worker whole files, and one worker all files of the browser.

    They share a world, which takes most of a minute to make.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, _, _ = nodeid.partition("/test_")
        return folder if folder == "tests/browser" else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedWorldScheduling:
    """Who runs which tests, under `--numprocesses`."""
    return SharedWorldScheduling(config, log)


@dataclass(frozen=True)
class Published:
    """A published release, and what it was made from.

    environ: variables under which a process serves it; dataset: its training data; work: the
    batch's work directory, with `bundle` and `lists`; keys: what the publication left in Redis.
    """

    settings: Settings
    environ: dict[str, str]
    dataset: Dataset
    work: Path
    version: str
    keys: Dumped


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a real Valkey server."""
    with redis_url({}) as url:
        yield url


@pytest.fixture(scope="session")
def s3_environ() -> Iterator[dict[str, str]]:
    """Variables that point boto3 at a moto S3 server on loopback."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def bucket(s3_environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an empty bucket that boto3 reaches."""
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    yield name
    client.close()


@pytest.fixture
def namespace() -> str:
    """A Redis namespace for this test alone."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def reporter() -> ProgressReporter:
    """A reporter that prints nowhere."""
    return ProgressReporter(Console(file=io.StringIO()))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the tables of a small synthetic world."""
    directory = tmp_path_factory.mktemp("tables")
    made = world(WorldSize(n_users=150, n_items=120, events_per_user=30.0, seed=7))
    made.interactions.write_parquet(directory / "interactions.parquet")
    made.items.write_parquet(directory / "items.parquet")
    made.users.write_parquet(directory / "users.parquet")
    return directory


@pytest.fixture(scope="session")
def published(tables: Path, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The release that the whole batch makes of `tables`."""
    directory = tmp_path_factory.mktemp("release")
    environ = {
        "REDIS_URL": valkey_url,
        "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
        "SHORTLIST_NAMESPACE": "published",
        "SHORTLIST_BUNDLE_DIR": str(directory),
        "SHORTLIST_RELEASE_CACHE_SECONDS": "0",
        "EMBEDDING_DIM": "16",
        "TOP_K_CANDIDATES": "60",
        "LGBM_N_ESTIMATORS": "40",
        "SHORTLIST_THREADS": "1",
    }
    settings = Settings.from_env(environ)
    paths = [str(tables / f"{name}.parquet") for name in ("interactions", "items", "users")]
    work = directory / "work"
    silent = ProgressReporter(Console(file=io.StringIO()))
    run_job(Job(*paths, work, settings, silent, config=smallest(settings)))
    version = open_artefacts(settings.artefacts).versions()[-1]
    keys = dumped(valkey_url, settings.namespace)
    return Published(settings, environ, dataset_file.load(work), work, version, keys)


@pytest.fixture
def release(published, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Copies a release's files as another version.

    Gives a function of the version, and optionally of a work directory, to its bundle and lists.
    """

    def made(version: str, work: Path = published.work) -> tuple[Path, Path]:
        bundle, lists = tmp_path / version / "bundle", tmp_path / version / "lists"
        shutil.copytree(work / "bundle", bundle)
        fields = json.loads((bundle / "manifest.json").read_text()) | {"version": version}
        fields.pop("files")
        build_manifest(bundle, **fields)
        lists.mkdir()
        for shard in (work / "lists").glob("*.msgpack"):
            shutil.copy(shard, lists / f"{version}-{shard.name.rpartition('-')[2]}")
        return bundle, lists

    return made


@pytest.fixture
def own(published: Published, namespace: str) -> Iterator[tuple[Settings, RedisStore]]:
    """The published release in a namespace that the test may change."""
    settings = replace(published.settings, namespace=namespace)
    put_back(settings.redis_url, namespace, published.keys)
    store = open_store(settings.redis_url, namespace, 500)
    yield settings, store
    store.close()
