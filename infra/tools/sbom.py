"""Writes a package's software bill of materials, in CycloneDX's JSON.

It lists what pip installed, with the hash of each wheel. It holds no time and nothing random, so
the same package has the same bill.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FILE = "sbom.cdx.json"
SPECIFICATION = "1.6"
NAMESPACE = uuid.UUID("6f1f6c1e-6d0e-5c1f-9a52-0b6b9a5d7c11")
"""Of the bills' serial numbers."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed package; sha256: of its wheel; license: from its metadata, or None."""

    name: str
    version: str
    sha256: str
    license: str | None

    @property
    def purl(self) -> str:
        """The package's address in vulnerability databases."""
        return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{self.version}"


def read_report(path: Path) -> list[Installed]:
    """The packages in a report of `pip install --report`, sorted by name."""
    entries = json.loads(path.read_text())["install"]
    packages = [
        Installed(
            entry["metadata"]["name"],
            entry["metadata"]["version"],
            entry["download_info"]["archive_info"]["hashes"]["sha256"],
            entry["metadata"].get("license_expression") or _short(entry["metadata"].get("license")),
        )
        for entry in entries
    ]
    return sorted(packages, key=lambda package: package.name.lower())


def _short(text: str | None) -> str | None:
    """A licence's name; some packages put its whole text there."""
    return None if text is None or not text.strip() or "\n" in text.strip() else text.strip()


def bill(installed: Sequence[Installed], files: Sequence[Path], root: Path) -> dict[str, Any]:
    """The bill of the packages, and of `files` below `root` that no package has put there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reference = f"pkg:pypi/{project['name']}@{project['version']}"
    components = [_library(package) for package in installed] + [
        _file(file, root) for file in files
    ]
    serial = uuid.uuid5(NAMESPACE, json.dumps(components, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference,
                "name": project["name"],
                "version": project["version"],
                "purl": reference,
            }
        },
        "components": components,
        "dependencies": [
            {"ref": reference, "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


def _library(package: Installed) -> dict[str, Any]:
    licensed = (
        {} if package.license is None else {"licenses": [{"license": {"name": package.license}}]}
    )
    return {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        **licensed,
    }


def _file(path: Path, root: Path) -> dict[str, Any]:
    name = path.relative_to(root).as_posix()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "type": "file",
        "bom-ref": f"file:{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def write(root: Path, installed: Sequence[Installed]) -> None:
    """Writes the bill into the package in `root`; libraries in `lib` are listed as files."""
    files = sorted(path for path in (root / "lib").glob("*") if path.is_file())
    (root / FILE).write_text(
        json.dumps(bill(installed, files, root), indent=1, ensure_ascii=False) + "\n"
    )
