"""Builds the Lambda's package: serving's code, libraries and bytecode.

Lambda takes 250 MB unpacked, and a cold start reads all of it, so the size is bounded. pip fetches
the wheels of infra/locked/serving.txt for the Lambda's own platform, each by its hash: neither
Docker nor that platform is needed. sbom.cdx.json lists them. Of LightGBM only the shared library is
kept, since its package would bring scipy. The OpenMP runtime that it needs, and that Lambda lacks,
is the one that FAISS brings.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":  # as a script, where the project is not installed
    sys.path.insert(0, str(ROOT / "src"))

from shortlist.infra.tools import sbom  # noqa: E402 - once it can be found

LOCKED = ROOT / "infra" / "locked" / "serving.txt"
OURS = ("__init__.py", "py.typed", "recsys", "lambda_handler")
NOT_SERVED = ("recsys/training", "recsys/evaluation", "recsys/data")
"""Of our own packages, what only the batch imports."""

MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
GLIBC = range(34, 16, -1)
"""Minor versions of glibc whose wheels run on Amazon Linux 2023, the newest first."""

LIMIT_MIB = 160
FORBIDDEN = ("torch", "polars", "duckdb", "scipy", "pandas", "sklearn", "narwhals", "implicit")
KEPT_SERVICES = ("s3", "sts")
"""Services whose descriptions botocore keeps; all of them are 25 MiB."""

DROPPED = (
    "**/__pycache__",
    "**/tests",
    "**/*.pyi",
    "bin",
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/random/lib",
    "faiss/contrib",
    "lightgbm/[!l]*",
    "lightgbm/*.py",
    "boto3/examples",
    "include",
)


class Refused(Exception):
    """The package cannot be built, or breaks a rule."""


def build(out: Path, machine: str, python: str) -> float:
    """Builds the package in `out` and returns its size in MiB; python: a version such as 3.13.

    Raises:
        Refused: pip failed, or the package holds what it may not, or is too large.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise Refused(f"{out} is not empty: give a directory that is, or remove it")
    installed = install(out, machine, python, LOCKED)
    _copy_ours(out)
    trim(out)
    _give_openmp(out)
    sbom.write(out, installed)
    _compile(out, python)
    return check(out)


def requirements() -> tuple[list[str], list[str]]:
    """The requirements with their dependencies, and those without: LightGBM is only a carrier."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["serving"]]
    bare = [requirement for requirement in needed if requirement.startswith("lightgbm")]
    return [requirement for requirement in needed if requirement not in bare], bare


def trim(out: Path) -> None:
    """Removes what the handler never opens."""
    for pattern in DROPPED:
        for path in sorted(out.glob(pattern)):
            _remove(path)
    for service in (out / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in KEPT_SERVICES:
            _remove(service)


def check(out: Path) -> float:
    """The size of the package in MiB, printed by its parts.

    Raises:
        Refused: it holds a library that serving may not have, or is above LIMIT_MIB.
    """
    unwanted = [name for name in FORBIDDEN if (out / name).exists()]
    if unwanted:
        raise Refused(
            f"{out} holds {', '.join(unwanted)}: the Lambda may not have it; "
            "see what requires it in pyproject.toml"
        )
    sizes = {path.name: size_mib(path) for path in out.iterdir()}
    for name, size in sorted(sizes.items(), key=lambda part: -part[1])[:8]:
        print(f"  {size:7.1f} MiB  {name}")  # noqa: T201 - the build's own report
    total = sum(sizes.values())
    print(f"  {total:7.1f} MiB  unpacked, of {LIMIT_MIB}")  # noqa: T201
    if total > LIMIT_MIB:
        raise Refused(
            f"the package is {total:.1f} MiB unpacked, {LIMIT_MIB} are allowed: trim what grew"
        )
    return total


def size_mib(path: Path) -> float:
    """The size of a file or a tree in MiB."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def platforms(machine: str) -> list[str]:
    """The options of pip for the wheels that run on the Lambda of a machine."""
    named = [f"manylinux_2_{minor}_{MACHINES[machine]}" for minor in GLIBC] + [
        f"manylinux2014_{MACHINES[machine]}"
    ]
    return [f"--platform={platform}" for platform in named]


def install(out: Path, machine: str, python: str, locked: Path) -> list[sbom.Installed]:
    """Installs the packages of a lock, each by its hash, and returns what was installed.

    Raises:
        Refused: pip failed, or an index offered another file.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--upgrade"]
        command += ["--disable-pip-version-check", "--target", str(out), "--report", str(report)]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += platforms(machine)
        command += ["--require-hashes", "--no-deps", "--requirement", str(locked)]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own arguments
            raise Refused(
                f"pip could not install {locked.name} for {machine} and Python {python}: "
                "its message is above; `make lock` writes the list again"
            )
        return sbom.read_report(report)


def _copy_ours(out: Path) -> None:
    ours = out / "shortlist"
    shutil.copytree(ROOT / "src" / "shortlist", ours, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ours.iterdir():
        if path.name not in OURS:
            _remove(path)
    for name in NOT_SERVED:
        _remove(ours / name)
    _write_metadata(out)


def _write_metadata(out: Path) -> None:
    """Writes what `importlib.metadata` needs to tell the version, which the API shows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    directory = out / f"{name.replace('-', '_')}-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )


def _give_openmp(out: Path) -> None:
    """Puts FAISS's OpenMP runtime where the loader finds it for LightGBM as well."""
    runtimes = sorted(out.glob("faiss_cpu.libs/libgomp*.so*"))
    if len(runtimes) != 1:
        raise Refused(
            f"FAISS brings {len(runtimes)} OpenMP runtimes, one was expected: "
            f"see faiss_cpu.libs in {out}"
        )
    (out / "lib").mkdir(exist_ok=True)
    shutil.copy2(runtimes[0], out / "lib" / "libgomp.so.1")


def _compile(out: Path, python: str) -> None:
    """Writes bytecode that is trusted without looking at the source, whose time a zip changes."""
    interpreter = _interpreter(python)
    if interpreter is None:
        print(  # noqa: T201
            f"  no Python {python} here: the package has no bytecode, and starts 0.5 s later"
        )
        return
    command = [interpreter, "-m", "compileall", "-q", "-j", "0"]
    command += ["--invalidation-mode", "unchecked-hash", str(out)]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
        raise Refused(f"{interpreter} could not compile the package: its message is above")


def _interpreter(python: str) -> str | None:
    """An interpreter of that very version, if there is one: bytecode of another is useless."""
    for candidate in (sys.executable, shutil.which(f"python{python}")):
        if candidate is not None:
            command = [candidate, "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
            if done.stdout.strip() == python:
                return candidate
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main() -> None:
    """The command line: `python infra/tools/package.py --out DIRECTORY`."""
    parser = argparse.ArgumentParser(description="Builds the Lambda's package.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machine", choices=MACHINES, default="arm64")
    parser.add_argument("--python", default="3.13")
    options = parser.parse_args()
    try:
        build(options.out, options.machine, options.python)
    except Refused as error:
        sys.exit(f"package: {error}")


if __name__ == "__main__":
    main()
