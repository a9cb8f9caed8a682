"""Tests interrupted, damaged and unreachable releases in each storage.

They look the same in a directory and in S3.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import boto3
import pytest

from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    CorruptArtefact,
    ReleaseNotFound,
    ReleaseRefused,
)
from shortlist.recsys.store import artefacts_s3
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.release_files import build_manifest, verify
from tests.tcp_proxy import TcpProxy

SECONDS = 30


class Raw(Protocol):
    """A place as its files, past the interface."""

    uri: str

    def names(self) -> list[str]:
        """The files of all releases."""

    def write(self, name: str, body: bytes) -> None:
        """Replaces a file."""

    def remove(self, name: str) -> None:
        """Removes a file."""


class RawDirectory:
    """A directory of releases."""

    def __init__(self, root: Path) -> None:
        self.uri, self._root = str(root), root

    def names(self) -> list[str]:
        """See `Raw`."""
        return sorted(str(p.relative_to(self._root)) for p in self._root.rglob("*") if p.is_file())

    def write(self, name: str, body: bytes) -> None:
        """See `Raw`."""
        (self._root / name).write_bytes(body)

    def remove(self, name: str) -> None:
        """See `Raw`."""
        (self._root / name).unlink()


class RawBucket:
    """A bucket of releases."""

    def __init__(self, bucket: str) -> None:
        self._client = boto3.client("s3")
        self._bucket = bucket
        self.uri = f"s3://{bucket}"

    def names(self) -> list[str]:
        """See `Raw`."""
        return [
            entry["Key"]
            for entry in self._client.list_objects_v2(Bucket=self._bucket).get("Contents", ())
        ]

    def write(self, name: str, body: bytes) -> None:
        """See `Raw`."""
        self._client.put_object(Bucket=self._bucket, Key=name, Body=body)

    def remove(self, name: str) -> None:
        """See `Raw`."""
        self._client.delete_object(Bucket=self._bucket, Key=name)


@pytest.fixture(params=["directory", "s3"])
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Raw:
    """An empty place, as its files."""
    if request.param == "directory":
        return RawDirectory(tmp_path / "place")
    return RawBucket(request.getfixturevalue("bucket"))


@pytest.fixture
def place(raw: Raw) -> Artefacts:
    """The same place, through the interface."""
    return open_artefacts(raw.uri)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A release of two files."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "a.txt").write_text("hello")
    (directory / "b.bin").write_bytes(bytes(range(256)) * 100)
    build_manifest(directory, version="v1")
    return directory


def _named(raw: Raw, ending: str) -> str:
    return next(name for name in raw.names() if name.endswith(ending))


def test_upload_without_manifest(raw: Raw, place: Artefacts, source: Path, tmp_path: Path) -> None:
    """A release without its manifest is none: neither listed, nor described, nor fetched."""
    place.publish(source)
    raw.remove(_named(raw, "manifest.json"))
    assert place.versions() == []
    for call in (lambda: place.manifest("v1"), lambda: place.fetch("v1", tmp_path / "into")):
        with pytest.raises(ReleaseNotFound, match="release v1 is not in"):
            call()


@pytest.mark.parametrize("name", ["a.txt", "b.bin"])
def test_changed_file(raw: Raw, place: Artefacts, source: Path, tmp_path: Path, name: str) -> None:
    """A file that differs from the manifest is corrupt, and leaves nothing that looks fetched."""
    place.publish(source)
    raw.write(_named(raw, name), b"hullo")
    with pytest.raises(CorruptArtefact, match=name):
        place.fetch("v1", tmp_path / "into")
    assert list((tmp_path / "into").glob("*")) == []


def test_missing_file(raw: Raw, place: Artefacts, source: Path, tmp_path: Path) -> None:
    """A file that went missing is a corrupt release, and not a place that does not answer."""
    place.publish(source)
    raw.remove(_named(raw, "a.txt"))
    with pytest.raises(CorruptArtefact, match=r"a\.txt"):
        place.fetch("v1", tmp_path / "into")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"[]", b'{"files": 3}', b'{"files": {"a.txt": {}}}', b'{"files": {"a.txt": 5}}'],
)
def test_no_manifest(raw: Raw, place: Artefacts, source: Path, tmp_path: Path, body: bytes) -> None:
    """Whatever lies in the manifest's place and is none is corrupt."""
    place.publish(source)
    raw.write(_named(raw, "manifest.json"), body)
    with pytest.raises(CorruptArtefact):
        place.fetch("v1", tmp_path / "into")


def test_release_without_a_version(place: Artefacts, source: Path) -> None:
    """A manifest that names no version is corrupt, and nothing is published."""
    build_manifest(source)
    with pytest.raises(CorruptArtefact, match="version"):
        place.publish(source)
    assert place.versions() == []


def test_refused_release_names_the_version(place: Artefacts, source: Path) -> None:
    """The second publication of a version is refused, even of the same files."""
    place.publish(source)
    with pytest.raises(ReleaseRefused, match=r"release v1 is in .* already"):
        place.publish(source)


def test_interrupted_upload_to_s3(
    bucket: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that broke off after its files is invisible, and the next one completes it."""
    raw = RawBucket(bucket)
    broken = open_artefacts(raw.uri)
    monkeypatch.setattr(broken, "_put_manifest", _break_off)
    with pytest.raises(KeyboardInterrupt):
        broken.publish(source)
    place = open_artefacts(raw.uri)
    assert (len(raw.names()), place.versions()) == (2, [])
    place.publish(source)
    assert verify(place.fetch("v1", tmp_path / "into")) == json.loads(
        (source / "manifest.json").read_text()
    )


def test_interrupted_copy(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that broke off leaves nothing, and the next one completes."""
    place = open_artefacts(str(tmp_path / "place"))
    with monkeypatch.context() as patch:
        patch.setattr("shortlist.recsys.store.artefacts_directory.shutil.copytree", _break_off)
        with pytest.raises(KeyboardInterrupt):
            place.publish(source)
    assert (place.versions(), list((tmp_path / "place").iterdir())) == ([], [])
    place.publish(source)
    assert place.versions() == ["v1"]


def _break_off(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["publish", "fetch", "versions", "manifest"])
@pytest.mark.parametrize("why", ["nobody listens", "no bucket"])
def test_unreachable_s3(
    bucket: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    why: str,
) -> None:
    """A bucket that is missing or does not answer is unavailable to every method."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if why == "nobody listens":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    arguments = {
        "publish": (source,),
        "fetch": ("v1", tmp_path / "into"),
        "versions": (),
        "manifest": ("v1",),
    }
    with pytest.raises(ArtefactsUnavailable, match="s3://missing-bucket"):
        getattr(open_artefacts("s3://missing-bucket/x"), command)(*arguments[command])


def test_directory_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    """A file where the directory should be is a place that is not available."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactsUnavailable, match="cannot be written"):
        open_artefacts(str(tmp_path / "file" / "place")).publish(source)


@pytest.mark.parametrize("command", ["manifest", "open"])
def test_dripping_reply_is_cut_off(bucket, source, tmp_path, monkeypatch, command) -> None:
    """Neither a manifest's nor a file's: the clock is looked at after each piece that arrives."""
    (source / "b.bin").write_bytes(bytes(1 << 20))
    build_manifest(source, version="v1")
    open_artefacts(f"s3://{bucket}").publish(source)
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    failed: list[ArtefactsUnavailable] = []

    def read() -> None:
        with pytest.raises(
            ArtefactsUnavailable, match=r"the download of s3://.* took more than 0 s"
        ) as caught:
            getattr(place, command)("v1", *([tmp_path / "into"] if command == "open" else ()))
        failed.append(caught.value)

    limit = "MANIFEST_SECONDS" if command == "manifest" else "DOWNLOAD_SECONDS"
    with TcpProxy((endpoint.hostname, endpoint.port)) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{wire.place[1]}")
        monkeypatch.setattr(artefacts_s3, limit, 0.2)
        wire.drip = 0.0005
        place = open_artefacts(f"s3://{bucket}")
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(SECONDS)
        waits = thread.is_alive()
    thread.join(SECONDS)
    assert failed
    assert not waits
    assert not (tmp_path / "into" / "v1").exists()
