"""Checks the built Lambda package, under the real runtime client."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shortlist.batch.local import serve
from shortlist.infra.local.runtime_api import LambdaService, http_event
from shortlist.infra.tools.package import (
    FORBIDDEN,
    LIMIT_MIB,
    LOCKED,
    OURS,
    Refused,
    build,
    check,
)
from shortlist.infra.tools.sbom import FILE

EVENTS = Path(__file__).parents[2] / "infra" / "events"
LOADED = """
import pathlib
from shortlist.recsys.models.ranker import _library
_library()
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
print(*sorted({line.split()[-1] for line in maps if "/libgomp" in line}), sep="\\n")
"""


@pytest.fixture(scope="module")
def service(built, published) -> Iterator[LambdaService]:
    """The built handler over the published release."""
    with built.service(
        published.environ | {"SHORTLIST_ADMIN_KEY": "a-key-for-local-invokes"}
    ) as running:
        yield running


def answer_of(invoked) -> dict:
    """The JSON body of an answer that must be 200."""
    assert invoked.error is None, invoked.payload
    assert invoked.payload["statusCode"] == 200, invoked.payload
    return json.loads(invoked.payload["body"])


def test_the_package_is_bounded(built) -> None:
    """Its size is what the build stated, below the limit."""
    assert 50 < built.size_mib <= LIMIT_MIB
    assert check(built.root) == pytest.approx(built.size_mib)


def test_the_package_holds_nothing_of_training(built) -> None:
    """No training library, and of ours only what serves."""
    assert [name for name in FORBIDDEN if (built.root / name).exists()] == []
    ours = built.root / "shortlist"
    assert {path.name for path in ours.iterdir()} == {*OURS, "__pycache__"}
    rooms = {path.name for path in (ours / "recsys").iterdir() if path.is_dir()}
    assert rooms == {"__pycache__", "models", "monitoring", "store"}


def test_only_lightgbms_library_is_kept(built) -> None:
    """Its Python would import scipy."""
    files = [
        p.relative_to(built.root / "lightgbm").as_posix()
        for p in (built.root / "lightgbm").rglob("*")
        if p.is_file()
    ]
    assert files == ["lib/lib_lightgbm.so"]


def test_the_bill_lists_what_is_there(built) -> None:
    """Each distribution with its version and a locked wheel; and the copied library."""
    bill = json.loads((built.root / FILE).read_text())
    libraries = {
        (c["name"].lower().replace("_", "-"), c["version"]): c
        for c in bill["components"]
        if c["type"] == "library"
    }
    installed = {
        d.name.removesuffix(".dist-info").partition("-")[::2]
        for d in built.root.glob("*.dist-info")
    }
    named = {(name.lower().replace("_", "-"), version) for name, version in installed}
    own = bill["metadata"]["component"]
    assert named - set(libraries) == {(own["name"], own["version"])}
    assert set(libraries) <= named
    lock = LOCKED.read_text()
    assert [
        name
        for name, c in libraries.items()
        if f"--hash=sha256:{c['hashes'][0]['content']}" not in lock
    ] == []
    assert [c["name"] for c in bill["components"] if c["type"] == "file"] == ["lib/libgomp.so.1"]


def test_every_module_has_trusted_bytecode(built) -> None:
    """A cold start compiles nothing and compares no time: the flags say unchecked, by hash."""
    lacking = []
    for source in built.root.rglob("*.py"):
        compiled = Path(importlib.util.cache_from_source(str(source)))
        if not compiled.exists() or compiled.read_bytes()[4:8] != b"\x01\x00\x00\x00":
            lacking.append(source.relative_to(built.root).as_posix())
    assert lacking == []


def test_lightgbm_finds_the_packages_own_openmp(built, published) -> None:
    """Lambda's image has none, so the one in lib/ is what is loaded."""
    environ = built.environ(published.environ) | {"LD_LIBRARY_PATH": f"{built.root}/lib"}
    command = [*built.python, "-c", LOADED]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(built.root / "lib" / "libgomp.so.1")]


def test_the_four_kinds_of_request(service, published) -> None:
    """A hit, a live answer, a session and popular items, from what the package holds alone."""
    user = published.dataset.user_ids[int(published.dataset.events.user[0])]
    bodies = [
        {"user_id": user},
        {"user_id": user, "use_cache": False},
        {"user_id": "fresh", "history": list(published.dataset.catalogue.ids[:3])},
        {"user_id": "nobody"},
    ]
    answers = [answer_of(service.invoke(http_event("POST", "/recommend", body))) for body in bodies]
    assert [(a["source"], a["degraded"]) for a in answers] == [
        ("batch", False),
        ("live", False),
        ("session", False),
        ("popular", False),
    ]


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_golden_event_is_answered(service, path) -> None:
    """HTTP API v2.0, the schedule and the warm-up."""
    invoked = service.invoke(json.loads(path.read_text()))
    assert invoked.error is None
    assert invoked.payload == {"ok": True} or invoked.payload["statusCode"] == 200


def test_the_package_is_served_over_http(built, published) -> None:
    """What `make local` starts answers each request of the golden events."""
    requests = [
        event
        for event in map(json.loads, map(Path.read_text, EVENTS.glob("*.json")))
        if "http" in event.get("requestContext", {})  # payload 2.0, as the HTTP API sends it
    ]
    environ = os.environ | published.environ | {"SHORTLIST_ADMIN_KEY": "a-key-for-local-invokes"}
    statuses = []

    def ask(address: str) -> None:
        for event in requests:
            method, body = event["requestContext"]["http"]["method"], event.get("body")
            target = f"{address}{event['rawPath']}?{event['rawQueryString']}"
            request = urllib.request.Request(  # noqa: S310 - loopback
                target, body and body.encode(), event["headers"], method=method
            )
            with urllib.request.urlopen(request, timeout=30) as answered:  # noqa: S310
                statuses.append(answered.status)

    serve(published.settings, built.root, 0, environ, ask)
    assert statuses == [200] * len(requests)


def test_full_directory_is_refused(tmp_path) -> None:
    """What an earlier build left would be shipped."""
    (tmp_path / "left").touch()
    with pytest.raises(Refused, match="is not empty"):
        build(tmp_path, "arm64", "3.13")


def test_training_library_is_refused(tmp_path) -> None:
    """A new dependency that brings one fails the build."""
    (tmp_path / "scipy").mkdir()
    with pytest.raises(Refused, match="holds scipy"):
        check(tmp_path)


def test_a_package_that_grew_is_refused(tmp_path) -> None:
    """Above the limit, the build fails."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate((LIMIT_MIB + 1) << 20)
    with pytest.raises(Refused, match="160 are allowed"):
        check(tmp_path)
