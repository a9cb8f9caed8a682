"""Tests full disks and unusable work directories.

A run ends with an exit status and one sentence, and leaves no stage half done. The disks are real:
small file systems in memory, which only root may mount. A limit on the size of files stands in for
them elsewhere.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import duckdb
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console

from shortlist.batch import cli, container
from shortlist.batch.checkpoints import Checkpoints
from shortlist.batch.exit_status import AGAIN, INVALID, is_disk_full, outcome
from shortlist.batch.job import STAGES, Job, is_done, run_stage
from shortlist.batch.progress import ProgressReporter
from shortlist.recsys.errors import InvalidInput, StoreUnavailable
from shortlist.recsys.models import bundle
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.event_files import open_event_files
from tests.smallest import smallest, smallest_config

ROOT = Path(__file__).parents[2]
MiB = 1 << 20


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mounts file systems of so many bytes, read-only ones too."""
    mounted: list[Path] = []

    def mount(size: int, *, name: str = "disk", options: str = "") -> Path:
        directory = tmp_path / name
        directory.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(directory)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("only root may mount a file system")
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)  # noqa: S607


def grow(directory: Path) -> None:
    """Gives a mounted file system all the room that a run needs."""
    subprocess.run(["mount", "-o", f"remount,size={64 * MiB}", str(directory)], check=True)  # noqa: S607


@pytest.fixture
def environ(tables, valkey_url, namespace, tmp_path) -> dict[str, str]:
    """What tells a container to run a small world's batch."""
    return {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
        "SHORTLIST_INTERACTIONS": str(tables / "interactions.parquet"),
        "SHORTLIST_ITEMS": str(tables / "items.parquet"),
        "SHORTLIST_RUN_ID": f"run-{namespace}",
        "SHORTLIST_GATE": "off",
        "SHORTLIST_THREADS": "1",
        "EMBEDDING_DIM": "8",
        "TOP_K_CANDIDATES": "30",
        "LGBM_N_ESTIMATORS": "5",
        "SHORTLIST_CONFIG": str(smallest_config(tmp_path)),
    }


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Puts back what a container replaces in the process."""
    hook, handler = sys.excepthook, signal.getsignal(signal.SIGTERM)
    yield
    sys.excepthook = hook
    signal.signal(signal.SIGTERM, handler)


def job_of(environ: dict[str, str], work: Path, reporter) -> Job:
    """The job that a container with this environment runs."""
    paths = environ["SHORTLIST_INTERACTIONS"], environ["SHORTLIST_ITEMS"], None
    settings = Settings.from_env(environ)
    return Job(*paths, work, settings, reporter, config=smallest(settings))


def refreshed(environ: dict[str, str], work: Path) -> tuple[int, dict[str, str]]:
    """The exit status of a container, and the last line of its log."""
    out = io.StringIO()
    status = container.main(environ | {"SHORTLIST_WORK": str(work)}, out)
    return status, json.loads(out.getvalue().splitlines()[-1])


@pytest.fixture(scope="module")
def finished(tables, valkey_url, tmp_path_factory) -> dict[str, int]:
    """How many bytes a run's work directory has after each stage."""
    directory = tmp_path_factory.mktemp("finished")
    environ = {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": f"finished-{os.getpid()}",
        "SHORTLIST_ARTEFACTS": str(directory / "artefacts"),
        "SHORTLIST_INTERACTIONS": str(tables / "interactions.parquet"),
        "SHORTLIST_ITEMS": str(tables / "items.parquet"),
        "SHORTLIST_GATE": "off",
        "SHORTLIST_THREADS": "1",
        "EMBEDDING_DIM": "8",
        "TOP_K_CANDIDATES": "30",
        "LGBM_N_ESTIMATORS": "5",
    }
    silent = ProgressReporter(Console(file=io.StringIO()))
    job = job_of(environ, directory / "work", silent)
    sizes = {}
    for stage in STAGES:
        run_stage(job, stage)
        sizes[stage] = used(directory / "work")
    return sizes


def used(directory: Path) -> int:
    """What the files take, in whole pages."""
    return sum(
        -(-path.stat().st_size // 4096) * 4096 for path in directory.rglob("*") if path.is_file()
    )


@pytest.mark.usefixtures("keep_signals")
@pytest.mark.parametrize("stage", ["features", "precompute"])
def test_full_disk_in_the_container(environ, disk, finished, reporter, stage) -> None:
    """At any stage it ends in 75 and a sentence, without a stamp of the stage.

    With room, the same directory goes on to the end.
    """
    before = [
        finished[name] for name in STAGES if list(STAGES).index(name) < list(STAGES).index(stage)
    ]
    start = before[-1] if before else 0
    work = disk(start + (finished[stage] - start) // 2)
    status, last = refreshed(environ, work)
    assert (status, last["event"], last["stage"]) == (AGAIN, "failed", stage)
    assert "the disk is full" in last["message"]
    assert not is_done(job_of(environ, work, reporter), stage)
    grow(work)
    assert refreshed(environ, work)[0] == 0


@pytest.mark.parametrize("command", ["run", "features"])
def test_full_disk_on_the_command_line(environ, disk, monkeypatch, command) -> None:
    """A sentence that says what to do."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    arguments = ["--interactions", environ["SHORTLIST_INTERACTIONS"], "--work", str(disk(16_384))]
    done = CliRunner().invoke(cli.main, ["batch", command, *arguments])
    assert (done.exit_code, "the disk is full" in done.output, "start again" in done.output) == (
        AGAIN,
        True,
        True,
    )


def test_a_file_size_limit(environ, tmp_path) -> None:
    """As a full disk does, where nobody may mount one."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-m", "shortlist.batch", "refresh"]
    given = os.environ | environ | {"SHORTLIST_WORK": str(tmp_path / "work")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limited,
    )
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, "the disk is full" in last["message"]) == (AGAIN, True)


def test_a_full_artefact_directory(environ, disk, monkeypatch, published) -> None:
    """The bundle does not fit where releases are kept; nothing is published."""
    artefacts = disk(MiB // 64, name="artefacts")
    settings = replace(Settings.from_env(environ), artefacts=str(artefacts))
    from shortlist.batch.publish import publish

    with pytest.raises(Exception, match="cannot be written") as raised:
        publish(
            published.work / "bundle",
            published.work / "lists",
            settings,
            container.ProgressReporter(),
        )
    assert outcome(raised.value)[0] == AGAIN
    assert list(artefacts.rglob("manifest.json")) == []


def test_full_disk_under_a_drain(environ, disk, monkeypatch) -> None:
    """The events stay in the stream."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    directory = disk(4096)
    (directory / "taken").write_bytes(b"1" * 4096)
    files = open_event_files(str(directory))
    with pytest.raises(InvalidInput) as raised, files.draining():
        files.write("events-1-1.parquet", b"2" * 10_000)
    assert outcome(raised.value)[0] == AGAIN
    assert files.names() == []


@pytest.mark.usefixtures("keep_signals")
def test_a_checkpoint_that_does_not_fit(environ, disk, tmp_path, bucket, s3_environ) -> None:
    """The copies in S3 are larger than the disk: 75, and no stage counts as finished.

    Were the stamps there before their files, the next attempt would go on with half of them.
    """
    given = environ | s3_environ | {"SHORTLIST_CHECKPOINTS": f"s3://{bucket}/runs"}
    assert refreshed(given, tmp_path / "whole")[0] == 0
    small = disk(used(tmp_path / "whole") // 2)
    status, last = refreshed(given, small)
    assert (status, "the disk is full" in last["message"]) == (AGAIN, True)
    assert not (small / "done").exists()
    grow(small)
    assert refreshed(given, small)[0] == 0


def test_an_interrupted_restoration_is_completed(bucket, tmp_path, monkeypatch) -> None:
    """The stamps come last, so that a directory with stamps has their files."""
    source = tmp_path / "source"
    for name in ("a", "done/stage", "z/file"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    Checkpoints(f"s3://{bucket}/runs", "run").save(source)
    arrived = []

    def download(_bucket: str, key: str, path: str) -> None:
        arrived.append(key.rpartition("/run/")[2])
        if len(arrived) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        Path(path).write_text("")

    cut_short = Checkpoints(f"s3://{bucket}/runs", "run")
    monkeypatch.setattr(cut_short._client, "download_file", download)
    with pytest.raises(OSError, match="No space left"):
        cut_short.restore(tmp_path / "work")
    assert arrived == ["a", "z/file", "done/stage"]
    shutil.rmtree(tmp_path / "work" / "done")
    assert Checkpoints(f"s3://{bucket}/runs", "run").restore(tmp_path / "work") == 3
    boto3.client("s3").close()


def test_an_index_that_does_not_fit(disk, published) -> None:
    """The last block of a file is where a full disk is easily overlooked."""
    loaded = bundle.load(published.work / "bundle")
    whole = (published.work / "bundle" / "index.faiss").stat().st_size
    directory = disk(-(-whole // 4096) * 4096)
    (directory / "taken").write_bytes(b"1" * 4096)
    with pytest.raises(OSError, match="No space left"):
        bundle.save(
            directory, loaded.model, "tree", loaded.catalogue, loaded.vocabulary, {"version": "v"}
        )


@pytest.mark.usefixtures("keep_signals")
@pytest.mark.parametrize("kind", ["a file", "read-only", "a directory above it is a file"])
def test_an_unusable_work_directory(environ, disk, tmp_path, kind, monkeypatch) -> None:
    """In the container and on the command line: what it is, and what to do."""
    (tmp_path / "file").write_text("")
    places = {
        "a file": lambda: tmp_path / "file",
        "a directory above it is a file": lambda: tmp_path / "file" / "work",
    }
    work = places.get(kind, lambda: disk(MiB, options=",ro"))()
    status, last = refreshed(environ, work)
    assert (status, f"the work directory {str(work)!r} cannot be used" in last["message"]) == (
        INVALID,
        True,
    )
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    arguments = ["--interactions", environ["SHORTLIST_INTERACTIONS"], "--work", str(work)]
    done = CliRunner().invoke(cli.main, ["batch", "run", *arguments])
    assert (done.exit_code, "cannot be used" in done.output) == (INVALID, True)


def full_by(write: Callable[[Path], object], directory: Path) -> BaseException:
    """What a library raises when the disk is full."""
    with pytest.raises(Exception, match=r".") as raised:
        write(directory / "file")
    return raised.value


def test_every_library_that_writes_is_understood(disk) -> None:
    """Each has its own way to say that the disk is full."""
    numbers = np.random.default_rng(0).random(100_000)
    copy = "COPY (SELECT random() FROM range(100000)) TO '{}'"
    writes: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(numbers.tobytes()),
        lambda path: np.save(path, numbers),
        lambda path: np.savez(path, numbers=numbers),
        lambda path: pl.DataFrame({"n": numbers}).write_parquet(path),
        lambda path: pl.DataFrame({"n": numbers}).write_csv(path),
        lambda path: duckdb.connect().execute(copy.format(path)),
    ]
    for number, write in enumerate(writes):
        assert is_disk_full(full_by(write, disk(65_536, name=str(number))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        OSError(errno.EIO, "Input/output error"),
        StoreUnavailable("no answer"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_no_full_disk(error) -> None:
    """Another error keeps its own sentence, or its traceback."""
    assert not is_disk_full(error)
