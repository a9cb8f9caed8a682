"""Tests what `shortlist doctor` finds, each fault with its remedy."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import NoCredentialsError
from click.testing import CliRunner

from shortlist.batch import doctor
from shortlist.batch.cli import main
from shortlist.batch.doctor import BAD, OK, WARNING, Finding, examine
from shortlist.recsys.store.records import ReleasePointer
from shortlist.recsys.store.redis import RedisStore, open_store
from shortlist.recsys.store.release_files import build_manifest

CHECKS = [
    "python",
    "packages",
    "machine",
    "settings",
    "redis",
    "clock",
    "artefacts",
    "release",
    "bundle",
    "port",
    "disk",
    "aws",
]
DAY = 86_400


@pytest.fixture
def environ(valkey_url: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """An empty namespace, and artefacts with one release of eight days."""
    release = tmp_path / "artefacts" / "v1"
    release.mkdir(parents=True)
    build_manifest(release, version="v1", created_at=int(time.time()) - 8 * DAY, as_of=1)
    return {
        "REDIS_URL": valkey_url,
        "SHORTLIST_NAMESPACE": namespace,
        "SHORTLIST_ARTEFACTS": str(tmp_path / "artefacts"),
    }


@pytest.fixture
def store(environ: dict[str, str]) -> Iterator[RedisStore]:
    """The store of these variables."""
    store = open_store(environ["REDIS_URL"], environ["SHORTLIST_NAMESPACE"], 1000)
    yield store
    store.close()


def found(environ: dict[str, str], tmp_path: Path, port: int = 0) -> dict[str, Finding]:
    """The findings by check."""
    findings = examine(environ, port, tmp_path / "work")
    assert all(finding.remedy for finding in findings if finding.state != OK)
    return {finding.check: finding for finding in findings}


def test_a_release_that_serves(environ: dict[str, str], store: RedisStore, tmp_path: Path) -> None:
    """Every check is there; a bundle of eight days is old, and its release is not whole."""
    store.set_release(ReleasePointer("v1"))
    findings = found(environ, tmp_path)
    assert list(findings) == CHECKS
    assert findings["redis"].state == OK
    assert "noeviction" in findings["redis"].found
    assert (findings["clock"].state, "of Redis" in findings["clock"].found) == (OK, True)
    assert findings["artefacts"].found == f"1 release in {environ['SHORTLIST_ARTEFACTS']}"
    assert (findings["release"].state, "not whole" in findings["release"].found) == (BAD, True)
    assert (findings["bundle"].state, findings["bundle"].found[:8]) == (WARNING, "8.0 days")
    assert findings["aws"].found.startswith("not used")


def test_nothing_is_there(tmp_path: Path) -> None:
    """Neither Redis nor artefacts: each is named with its remedy, and nothing else is guessed."""
    environ = {"REDIS_URL": "redis://:secret@127.0.0.1:1", "SHORTLIST_ARTEFACTS": "/no/such"}
    findings = found(environ, tmp_path)
    assert list(findings) == [check for check in CHECKS if check != "bundle"]
    assert (findings["redis"].state, findings["artefacts"].state) == (BAD, BAD)
    assert "`shortlist redis`" in findings["redis"].remedy
    assert "`shortlist batch run`" in findings["artefacts"].remedy
    assert findings["release"].state == WARNING
    assert "secret" not in repr(findings)


def test_a_missing_bundle(environ: dict[str, str], store: RedisStore, tmp_path: Path) -> None:
    """The serving release is not among the artefacts: missing, and not corrupt."""
    store.set_release(ReleasePointer("v2"))
    bundle = found(environ, tmp_path)["bundle"]
    assert (bundle.state, "release v2 is not in" in bundle.found) == (BAD, True)


def test_wrong_variables(environ: dict[str, str], tmp_path: Path) -> None:
    """A wrong value is bad, and ends the checks that need it; a wrong name is a warning."""
    settings = found(environ | {"SHORTLIST_GATE_MARGN": "1"}, tmp_path)["settings"]
    assert (settings.state, "SHORTLIST_GATE_MARGIN" in settings.found) == (WARNING, True)
    findings = found(environ | {"EMBEDDING_DIM": "many"}, tmp_path)
    assert (findings["settings"].state, "redis" in findings) == (BAD, False)


def test_a_redis_that_evicts(environ: dict[str, str], store: RedisStore, tmp_path: Path) -> None:
    """It would evict the serving release."""
    store.redis.config_set("maxmemory-policy", "allkeys-lru")
    store.redis.config_set("maxmemory", 1 << 30)
    try:
        redis = found(environ, tmp_path)["redis"]
    finally:
        store.redis.config_set("maxmemory", 0)
        store.redis.config_set("maxmemory-policy", "noeviction")
    assert (redis.state, "allkeys-lru" in redis.found) == (BAD, True)
    assert "noeviction" in redis.remedy


def test_scarce_resources(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taken port and little memory or disk are warnings, and no disk at all is bad."""
    monkeypatch.setattr(doctor, "free_memory", lambda: 1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        findings = found(environ, tmp_path, port)
    assert (findings["port"].state, str(port) in findings["port"].found) == (WARNING, True)
    assert findings["machine"].state == WARNING
    monkeypatch.setattr(doctor, "LEAST_DISK", 1 << 62)
    assert found(environ, tmp_path)["disk"].state == BAD


def test_cores_of_the_machine(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as training takes; without its packages, or on macOS, all that there are."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert found(environ, tmp_path)["machine"].found.startswith("1 cores")
    monkeypatch.setitem(sys.modules, "loky", None)
    assert found(environ, tmp_path)["machine"].found.startswith("7 cores")


def test_packages_below_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named with the extra to install; another system's and other extras' are not."""
    stated = [
        "msgpack>=1.1",
        "polars>=9999.1; extra == 'batch'",
        "no-such-package>=1; extra == 'local'",
        "no-such-cloud>=1; extra == 'scale'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda _: stated)
    packages = doctor._packages()
    assert packages.state == BAD
    assert packages.found == "missing or too old: no-such-package>=1, polars>=9999.1"
    assert packages.remedy == "pip install 'shortlist-recommender[batch,local]'"


def test_who_aws_takes_us_for() -> None:
    """The identity is shown; without one, signing in is the remedy."""

    def nobody() -> str:
        raise NoCredentialsError

    assert doctor._asked(lambda: "arn:aws:iam::1:role/x") == Finding(
        "aws", OK, "arn:aws:iam::1:role/x"
    )
    refused = doctor._asked(nobody)
    assert (refused.state, "credentials" in refused.found) == (BAD, True)
    assert "AWS_PROFILE" in refused.remedy


def test_the_command(environ: dict[str, str], tmp_path: Path) -> None:
    """A line or an object a finding; the status is 1 where something is bad."""
    options = ["--port", "0", "--work", str(tmp_path / "work")]
    well = CliRunner(env=environ).invoke(main, ["doctor", *options, "--json"])
    assert well.exit_code == 0
    assert [each["check"] for each in json.loads(well.stdout)] == [
        check for check in CHECKS if check != "bundle"
    ]
    ill = CliRunner(env=environ | {"SHORTLIST_ARTEFACTS": "/no/such"}).invoke(
        main, ["doctor", *options]
    )
    assert ill.exit_code == 1
    (line,) = (line for line in ill.stdout.splitlines() if line.startswith("bad"))
    assert "artefacts" in line
    assert "\x1b" not in ill.stdout
