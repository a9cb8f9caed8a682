"""Checks the bill of materials: CycloneDX's requirements, and reproducibility."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from shortlist.infra.tools.sbom import FILE, Installed, bill, read_report, write

REDIS = Installed("redis", "8.1.0", "ab" * 32, "MIT")
CORE = Installed("pydantic_core", "2.50.4", "cd" * 32, None)
TYPES = {
    "application",
    "framework",
    "library",
    "container",
    "platform",
    "operating-system",
    "device",
    "firmware",
    "file",
    "data",
}


@pytest.fixture
def package(tmp_path) -> Path:
    """A package with one library that was copied out of a wheel."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libgomp.so.1").write_bytes(b"library")
    return tmp_path


def test_it_has_what_the_specification_requires(package) -> None:
    """Format, version and serial number; each component has a type, a name and a reference."""
    write(package, [REDIS, CORE])
    document = json.loads((package / FILE).read_text())
    assert (document["bomFormat"], document["specVersion"], document["version"]) == (
        "CycloneDX",
        "1.6",
        1,
    )
    assert re.fullmatch(
        "urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        document["serialNumber"],
    )
    components = [document["metadata"]["component"], *document["components"]]
    assert all(c["type"] in TYPES and c["name"] for c in components)
    references = [c["bom-ref"] for c in components]
    assert len(set(references)) == len(references)
    [graph] = document["dependencies"]
    assert [graph["ref"], *graph["dependsOn"]] == references


def test_components_are_whole() -> None:
    """Name, version, address, hash of the wheel, and the licence where it is known."""
    assert bill([REDIS, CORE], [], Path())["components"] == [
        {
            "type": "library",
            "bom-ref": "pkg:pypi/redis@8.1.0",
            "name": "redis",
            "version": "8.1.0",
            "purl": "pkg:pypi/redis@8.1.0",
            "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
            "licenses": [{"license": {"name": "MIT"}}],
        },
        {
            "type": "library",
            "bom-ref": "pkg:pypi/pydantic-core@2.50.4",
            "name": "pydantic_core",
            "version": "2.50.4",
            "purl": "pkg:pypi/pydantic-core@2.50.4",
            "hashes": [{"alg": "SHA-256", "content": "cd" * 32}],
        },
    ]


def test_copied_library_is_a_file(package) -> None:
    """With its own hash."""
    [component] = bill([], [package / "lib" / "libgomp.so.1"], package)["components"]
    assert (component["type"], component["name"]) == ("file", "lib/libgomp.so.1")
    assert component["hashes"] == [
        {"alg": "SHA-256", "content": hashlib.sha256(b"library").hexdigest()}
    ]


def test_same_package_has_same_bill(package) -> None:
    """No time and nothing random; another package has another serial number."""
    assert bill([REDIS], [], package) == bill([REDIS], [], package)
    assert bill([REDIS], [], package)["serialNumber"] != bill([CORE], [], package)["serialNumber"]


def test_pips_report_is_read(tmp_path) -> None:
    """By name; a licence's whole text is not its name."""
    entries = [
        {
            "metadata": {"name": name, "version": "1", **licensed},
            "download_info": {"archive_info": {"hashes": {"sha256": name * 64}}},
        }
        for name, licensed in (
            ("b", {"license": "MIT License\n\nPermission is hereby granted"}),
            ("a", {"license_expression": "Apache-2.0"}),
            ("c", {"license": " BSD "}),
            ("d", {}),
        )
    ]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"install": entries}))
    assert [(package.name, package.license) for package in read_report(path)] == [
        ("a", "Apache-2.0"),
        ("b", None),
        ("c", "BSD"),
        ("d", None),
    ]
