"""Writes the locks: installable packages with their hashes.

`make lock` asks pip, for each machine and Python that is built for, what it would install under
constraints.txt. Only metadata is downloaded. Run it whenever constraints.txt or pyproject.toml
changes. Whatever installs from a lock passes `--require-hashes`, so that pip refuses any file whose
hash is not written here, whatever the index says.

torch has a file of its own, with the CUDA libraries that PyPI's build needs. PyTorch's index of CPU
builds has other files under the same version. They need none of those libraries, and the image
takes their hash as a build argument.

The developers' set is for several systems at once, which pip cannot resolve in one run: uv does.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortlist.infra.tools.package import MACHINES, ROOT, platforms, requirements

LOCKED = ROOT / "infra" / "locked"
SERVING, BATCH, TORCH = LOCKED / "serving.txt", LOCKED / "batch.txt", LOCKED / "torch.txt"
DEVELOPMENT = LOCKED / "dev.txt"
PYTHONS = ("3.11", "3.12", "3.13")
"""Of the Lambda's package, which `make local` builds for the Python at hand."""

SYSTEMS = "sys_platform == 'darwin' or sys_platform == 'linux'"

IMAGE = ("x86_64", "3.13")
"""Machine and Python of the batch's image."""

BUILD = "hatchling"
"""Builds the project in the image; left out here, pip would fetch one that nothing pins."""

HEAD = "# Written by `python -m shortlist.infra.tools.lock`: {}.\n"

Hashes = dict[str, set[str]]
"""`name==version` -> the sha256 of each file that may be installed under it."""


class Refused(Exception):
    """A lock cannot be written."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is installed, where; bare: without dependencies."""

    machine: str
    python: str
    needed: tuple[str, ...]
    bare: tuple[str, ...] = ()


def main() -> None:
    """Writes the locks."""
    plain, bare = requirements()
    serving = [
        Target(machine, python, tuple(plain), tuple(bare))
        for machine in MACHINES
        for python in PYTHONS
    ]
    _write(SERVING, "the Lambda's package", locked(serving))
    pinned = set(_pins())
    batch = locked([Target(*IMAGE, (*_batch(), BUILD))])
    # CUDA's libraries, which PyTorch's own builds do without, are pinned nowhere else.
    of_torch = {pin for pin in batch if pin.startswith("torch==") or pin not in pinned}
    _write(
        BATCH,
        "the batch's image, without torch",
        {pin: h for pin, h in batch.items() if pin not in of_torch},
    )
    _write(TORCH, "torch as PyPI has it", {pin: h for pin, h in batch.items() if pin in of_torch})
    DEVELOPMENT.write_text(HEAD.format("development, without torch") + development_lock(BATCH))


def locked(targets: Iterable[Target]) -> Hashes:
    """The files that pip takes for any of the targets.

    Raises:
        Refused: the targets need different packages, which one list for all cannot say.
    """
    hashes: Hashes = {}
    names: set[str] | None = None
    for target in targets:
        files = dict(_files(target))
        if names is not None and names != set(files):
            raise Refused(
                f"{target.machine} with Python {target.python} differs in "
                f"{sorted(names ^ set(files))}"
            )
        names = set(files)
        for pin, digest in files.items():
            hashes.setdefault(pin, set()).add(digest)
    return hashes


def development_lock(batch: Path) -> str:
    """The packages of the `dev` extra with all their files, for Linux and macOS; without torch.

    batch: the batch's lock, which names the libraries that torch needs of everybody.

    Raises:
        Refused: uv is missing, or failed.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise Refused("uv is not on PATH: run `make lock`, which installs it into .cache/uv")
    with tempfile.TemporaryDirectory() as directory:
        without_torch, with_needs = Path(directory) / "override", Path(directory) / "needs.in"
        without_torch.write_text("torch ; sys_platform == 'never'\n")
        pins = (line.split()[0] for line in batch.read_text().splitlines() if "==" in line)
        with_needs.write_text("\n".join(pin for pin in pins if pin[0] != "#") + "\n")
        command = [uv, "pip", "compile", str(ROOT / "pyproject.toml"), str(with_needs)]
        command += ["--quiet", "--no-sources", "--extra", "dev", "--universal"]
        command += ["--python-version", PYTHONS[0], "--generate-hashes", "--no-header"]
        command += ["--no-annotate", "--no-emit-package", "torch"]
        command += ["--constraint", str(ROOT / "constraints.txt"), "--override", str(without_torch)]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own arguments
    if done.returncode:
        raise Refused("uv cannot resolve the development set: its message is above")
    # uv repeats pyproject.toml's list of systems on every line; what is for both needs no marker.
    return done.stdout.replace(f" ; {SYSTEMS} ", " ").replace(f" and ({SYSTEMS}) ", " ")


def _files(target: Target) -> Iterator[tuple[str, str]]:
    for needed, options in ((target.needed, ()), (target.bare, ("--no-deps",))):
        for entry in _report(target, needed, options) if needed else ():
            name, version = entry["metadata"]["name"], entry["metadata"]["version"]
            yield (
                f"{normal(name)}=={version}",
                entry["download_info"]["archive_info"]["hashes"]["sha256"],
            )


def _report(
    target: Target, needed: tuple[str, ...], options: tuple[str, ...]
) -> list[dict[str, Any]]:
    """What pip would install."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--disable-pip-version-check", "--ignore-installed", "--only-binary=:all:"]
        command += ["--implementation=cp", f"--python-version={target.python}"]
        command += ["--target", directory, "--report", str(report)]
        command += ["--constraint", str(ROOT / "constraints.txt")]
        command += [*platforms(target.machine), *options, *needed]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own arguments
            raise Refused(
                f"pip finds no files for {target.machine} and Python {target.python}: "
                "its message is above"
            )
        installed: list[dict[str, Any]] = json.loads(report.read_text())["install"]
        return installed


def _batch() -> list[str]:
    """The image's requirements: the project's own, and those of `batch` and `serving`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["serving"], *extras["batch"]]
    return [requirement for requirement in needed if not requirement.startswith(project["name"])]


def _pins() -> Iterator[str]:
    """The pins of constraints.txt."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, pinned, version = line.partition("==")
        if pinned and not line.startswith("#"):
            yield f"{normal(name)}=={version}"


def normal(name: str) -> str:
    """A project's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _write(path: Path, what: str, hashes: Hashes) -> None:
    lines = [
        " \\\n".join([pin, *(f"    --hash=sha256:{h}" for h in sorted(hashes[pin]))])
        for pin in sorted(hashes)
    ]
    path.write_text(HEAD.format(what) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        sys.exit(f"lock: {error}")
