"""Fixtures that several suites share: a real Valkey, and a small release that the real batch published to it."""

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

from shortlist.batch import dataset_file, publish
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

# The same examples everywhere, and no verdict on how fast the machine is.
hypothesis_settings.register_profile(
    "shortlist", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("shortlist")


@dataclass(frozen=True)
class Published:
    """A release: where it is, and what it was made from."""

    settings: Settings
    environ: dict[str, str]
    dataset: Dataset
    work: Path
    version: str


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A real Valkey server."""
    with redis_url({}) as url:
        yield url


@pytest.fixture(scope="session")
def s3_environ() -> Iterator[dict[str, str]]:
    """The variables by which boto3 finds an S3 over real HTTP, on loopback."""
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
    """An empty bucket, where boto3 looks."""
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    yield name
    client.close()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own."""
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def reporter() -> ProgressReporter:
    """A narrator that nobody hears."""
    return ProgressReporter(Console(file=io.StringIO()))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of a small synthetic world."""
    directory = tmp_path_factory.mktemp("tables")
    made = world(WorldSize(n_users=150, n_items=120, events_per_user=30.0, seed=7))
    made.interactions.write_parquet(directory / "interactions.parquet")
    made.items.write_parquet(directory / "items.parquet")
    made.users.write_parquet(directory / "users.parquet")
    return directory


@pytest.fixture(scope="session")
def published(tables: Path, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The release that the whole batch made of `tables`."""
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
    run_job(
        Job(*paths, directory / "work", settings, ProgressReporter(Console(file=io.StringIO())))
    )
    dataset = dataset_file.load(directory / "work")
    return Published(
        settings,
        environ,
        dataset,
        directory / "work",
        open_artefacts(settings.artefacts).versions()[-1],
    )


@pytest.fixture
def release(published, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Makes the bundle and lists of a version, from those of the published release, or of another work directory."""

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
def own(
    published: Published, namespace: str, reporter: ProgressReporter
) -> Iterator[tuple[Settings, RedisStore]]:
    """The published release in a namespace of the test's own, which the test may change as it likes."""
    settings = replace(published.settings, namespace=namespace)
    publish.publish(published.work / "bundle", published.work / "lists", settings, reporter)
    store = open_store(settings.redis_url, namespace, 500)
    yield settings, store
    store.close()
