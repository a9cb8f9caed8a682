"""Checks that the locks match this code.

Any file that they do not list is refused.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from shortlist.infra.tools.lock import BATCH, DEVELOPMENT, SERVING, TORCH, Hashes, normal
from shortlist.infra.tools.package import Refused, install, requirements
from tests.distributions import closure
from tests.fake_wheel import fake_wheel

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path: Path) -> Hashes:
    """A lock's pins and their hashes."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    prefix = "--hash=sha256:"
    return {
        pin: {option.removeprefix(prefix) for option in options if option.startswith(prefix)}
        for pin, *options in lines
    }


def names(hashes: Hashes) -> set[str]:
    """The names of the pins."""
    return {pin.partition("==")[0] for pin in hashes}


def test_lambda_lock_is_what_serving_needs() -> None:
    """Neither more nor less; of LightGBM's dependencies none."""
    plain, bare = requirements()
    assert names(read(SERVING)) == closure(plain) | {"lightgbm"}
    assert [requirement.partition(">")[0] for requirement in bare] == ["lightgbm"]


def test_image_lock_is_complete() -> None:
    """With torch aside, and with what builds the project."""
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"], *extras["serving"], *extras["batch"]]
    needed = [requirement for requirement in needed if not requirement.startswith(PROJECT["name"])]
    locked = names(read(BATCH))
    assert locked >= closure([n for n in needed if not n.startswith("torch")]) | {
        "hatchling",
        "setuptools",
        "sympy",
        "networkx",
    }
    assert locked & names(read(TORCH)) == set()
    assert "torch" in names(read(TORCH))


def test_development_lock_is_complete() -> None:
    """All that the `dev` extra brings here but torch, and what torch needs of everybody."""
    optional = PROJECT["optional-dependencies"]
    extras = [
        text
        for extra in ("serving", "batch", "tune", "local", "docs", "dev")
        for text in optional[extra]
    ]
    needed = [text for text in extras if not text.startswith(PROJECT["name"])]
    locked = names(read(DEVELOPMENT))
    assert closure([*PROJECT["dependencies"], *needed]) - locked == {"torch"}
    assert names(read(BATCH)) - locked == set()


@pytest.mark.parametrize("path", [SERVING, BATCH, TORCH, DEVELOPMENT], ids=lambda path: path.stem)
def test_locks_repeat_the_constraints(path) -> None:
    """One version of each package everywhere, and a hash for each file."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        pins[normal(name)] = version
    locked = read(path)
    assert {
        name: version
        for name, _, version in (pin.partition("==") for pin in locked)
        if pins.get(name, version) != version
    } == {}
    assert [
        pin
        for pin, hashes in locked.items()
        if not hashes or not all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
    ] == []
    assert path is TORCH or names(locked) <= set(pins)


def test_each_target_has_its_file() -> None:
    """The Lambda's lock has a compiled package for two machines and three Pythons."""
    locked = read(SERVING)
    assert {
        len(hashes)
        for pin, hashes in locked.items()
        if pin.startswith(("msgpack==", "numpy==", "pydantic-core=="))
    } == {6}


def wheel(directory: Path, body: str) -> str:
    """A wheel of the package `tiny`, and its sha256."""
    path = fake_wheel(directory, "tiny", {"tiny.py": body})
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """The one directory in which pip looks."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def test_another_file_is_refused(index, tmp_path, capfd) -> None:
    """The same name and version, other contents: nothing is installed."""
    digest = wheel(index, "good = True\n")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    [installed] = install(tmp_path / "first", "arm64", "3.13", lock)
    assert (installed.name, installed.version, installed.sha256, installed.license) == (
        "tiny",
        "1.0",
        digest,
        "MIT",
    )
    wheel(index, "good = False\n")
    with pytest.raises(Refused, match=r"lock\.txt"):
        install(tmp_path / "second", "arm64", "3.13", lock)
    assert "HASH" in capfd.readouterr().err.upper()
    assert not (tmp_path / "second").exists()


def test_package_without_hash_is_refused(index, tmp_path) -> None:
    """No line may be forgotten."""
    wheel(index, "good = True\n")
    (tmp_path / "lock.txt").write_text("tiny==1.0\n")
    with pytest.raises(Refused):
        install(tmp_path / "out", "arm64", "3.13", tmp_path / "lock.txt")
