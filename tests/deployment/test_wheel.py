"""Tests the installed wheel: its files, and that it runs.

It also checks what the wheel leaves alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from shortlist.__main__ import EXTRAS
from shortlist.infra.tools.lock import normal
from tests.distributions import closure, link_distributions
from tests.fake_wheel import fake_wheel

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STRANGERS = {"recsys": "recsys/__init__.py", "lambda_handler": "lambda_handler/__init__.py"}
"""Distributions of the index's that own names which our folders have in the repository."""

START_SECONDS = 30


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel in it, and no other package of its own."""

    root: Path

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.root / "lib" / python / "site-packages"

    def show(self, *directories: Path) -> None:
        """Makes the packages of other directories importable, after its own."""
        lines = "\n".join(str(directory) for directory in directories)
        (self.packages / "shown.pth").write_text(lines)

    def command(self, *arguments: object) -> list[str]:
        """The installed command."""
        return [str(self.root / "bin" / "shortlist"), *map(str, arguments)]

    def run(self, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
        """Runs the installed command where nothing of the repository can be seen."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=_bare_environ() | environ,
            capture_output=True,
            text=True,
            check=False,
        )


def _bare_environ() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def build(source: Path, out: Path, target: str) -> Path:
    """The wheel or the sdist that the build backend makes of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [artefact] = out.iterdir()
    return artefact


def members(wheel: Path) -> dict[str, bytes]:
    """The contents of a wheel, by path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git tracks here, in a fresh copy."""
    copy, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, copy / name
        if source.exists():  # git lists a deleted file until that is committed
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, target)
    return build(copy, out, "wheel")


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, or a link as a link."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    else:
        target.write_bytes(source.read_bytes())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An empty environment into which a stranger, the wheel and another stranger were installed."""
    directory = tmp_path_factory.mktemp("environment")
    root = directory / "venv"
    venv.create(root, with_pip=False, symlinks=True)
    first, last = (
        fake_wheel(directory, name, {path: f"OWNER = {name!r}\n"})
        for name, path in STRANGERS.items()
    )
    command = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python")]
    command += ["--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    for path in (first, wheel, last):
        subprocess.run([*command, str(path)], check=True)
    return Environment(root)


@pytest.fixture
def base(environment: Environment, tmp_path: Path) -> Environment:
    """The environment with what an installation without extras brings."""
    names = closure(PROJECT["dependencies"])
    environment.show(link_distributions(tmp_path / "base", names))
    return environment


@pytest.fixture
def whole(environment: Environment) -> Environment:
    """The environment with every library that this one has."""
    directories = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    environment.show(*directories)
    return environment


def test_one_package_and_its_data(wheel: Path) -> None:
    """One top-level name; every folder of the repository; what its commands read; its types."""
    names = set(members(wheel))
    tops = {name.split("/")[0] for name in names}
    assert tops == {"shortlist", f"shortlist_recommender-{PROJECT['version']}.dist-info"}
    tracked = {
        f"shortlist/{path.relative_to(ROOT).as_posix()}"
        for folder in ("recsys", "batch", "lambda_handler", "infra/local")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "cluster.py"
    }
    assert tracked - names == set()
    assert names >= {
        "shortlist/py.typed",
        "shortlist/recsys/evaluation/page.html",
        "shortlist/batch/studio/static/index.html",
        "shortlist/batch/studio/api_docs/index.html",
        "shortlist/infra/refresh.asl.json",
        "shortlist/infra/batch/Dockerfile",
        "shortlist/infra/monitoring/alerts.yml",
        "shortlist/infra/monitoring/grafana/dashboards/shortlist.json",
    }


def test_no_developer_tools(wheel: Path) -> None:
    """Neither tools, nor their locks, nor tests with their events and their cluster."""
    names = set(members(wheel))
    unwanted = re.compile(
        r"infra/(tools|locked|events)/|cluster\.py|/tests?/|test_|__pycache__|\.pyc$"
    )
    assert {name for name in names if unwanted.search(name)} == set()


def test_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """Through the source distribution the same files come out."""
    (tmp_path / "sdist").mkdir()
    sdist = build(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [source] = (tmp_path / "unpacked").iterdir()
    again = build(source, tmp_path / "wheel", "wheel")
    assert members(again) == members(wheel)


def test_nothing_is_overwritten(environment: Environment) -> None:
    """Each file of the three distributions has the hash that its own record states."""
    owners: dict[Path, str] = {}
    for distribution in importlib.metadata.distributions(path=[str(environment.packages)]):
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            assert owners.setdefault(path, distribution.name) == distribution.name
            if file.hash is not None:
                digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
                expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
                assert file.hash.value == expected, path
    assert {normal(name) for name in owners.values()} == {
        PROJECT["name"],
        *map(normal, STRANGERS),
    }


def test_base_tells_its_version(base: Environment) -> None:
    """Without any extra."""
    done = base.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-1] == PROJECT["version"]


def test_base_names_the_missing_extra(base: Environment) -> None:
    """One sentence, no traceback."""
    done = base.run("demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"shortlist: \w+ is not installed: pip install 'shortlist-recommender\[\w+\]'\n",
        done.stderr,
    )


def test_extras_name_their_modules() -> None:
    """What the command line says of a missing module is what pyproject.toml states."""
    optional = PROJECT["optional-dependencies"]
    provided = importlib.metadata.packages_distributions()
    for extra, modules in EXTRAS.items():
        named = {normal(Requirement(text).name) for text in optional[extra]}
        brought = {normal(name) for module in modules for name in provided.get(module, [module])}
        assert named - {PROJECT["name"], "awslambdaric"} == brought, extra


def test_installed_version(whole: Environment) -> None:
    """That of the metadata."""
    done = whole.run("--version")
    assert (done.returncode, done.stdout.split()[-1]) == (0, PROJECT["version"])


def test_first_stages_run(whole: Environment, valkey_url: str, tmp_path: Path) -> None:
    """The demo's way from a data set to trained towers and their index."""
    size = ("--n-users", 60, "--n-items", 50, "--events-per-user", 12)
    fetched = whole.run("data", "fetch", "synthetic", "--out", tmp_path / "data", *size)
    assert fetched.returncode == 0, fetched.stderr
    tables = [
        part
        for name in ("interactions", "items", "users")
        for part in (f"--{name}", tmp_path / "data" / f"{name}.parquet")
    ]
    small = {"EMBEDDING_DIM": "8", "TOP_K_CANDIDATES": "20", "SHORTLIST_THREADS": "1"}
    small |= {"REDIS_URL": valkey_url, "SHORTLIST_NAMESPACE": "wheel"}
    for stage in ("features", "train-embeddings", "build-index"):
        done = whole.run("batch", stage, *tables, "--work", tmp_path / "work", **small)
        assert done.returncode == 0, done.stderr


def test_invoke_answers(whole: Environment, published) -> None:
    """The handler of the installed package, from a release."""
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    done = whole.run("invoke", "--user", user, "--k", 3, **published.environ)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["source"], len(answer["recommendations"])) == ("batch", 3)


@pytest.fixture
def address(whole: Environment, published) -> Iterator[str]:
    """Where the installed `shortlist serve` listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = whole.command("serve", "--port", port)
    environ = _bare_environ() | published.environ
    with subprocess.Popen(command, cwd=whole.root, env=environ) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def test_serve_answers(address: str, published) -> None:
    """The installed API, over HTTP."""
    deadline = time.monotonic() + START_SECONDS
    body = json.dumps({"user_id": published.dataset.user_ids[0], "k": 3}).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{address}/recommend", body, {"content-type": "application/json"}
    )
    while True:
        with contextlib.suppress(urllib.error.URLError):
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - loopback
                assert (response.status, len(json.load(response)["recommendations"])) == (200, 3)
            return
        assert time.monotonic() < deadline, "`shortlist serve` did not start"
        time.sleep(0.1)
