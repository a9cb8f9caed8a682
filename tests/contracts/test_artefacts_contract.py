"""Tests release storage in a directory and in S3.

One suite covers both. S3 is moto's, over real HTTP.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import boto3
import pytest

from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    CorruptArtefact,
    InvalidSettings,
    ReleaseNotFound,
    ReleaseRefused,
)
from shortlist.recsys.store import artefacts_s3
from shortlist.recsys.store.artefacts import Artefacts, open_artefacts
from shortlist.recsys.store.release_files import build_manifest, verify


@pytest.fixture(params=["directory", "s3"])
def place(request, tmp_path) -> Artefacts:
    """An empty place."""
    if request.param == "directory":
        (tmp_path / "place").mkdir()
        return open_artefacts(str(tmp_path / "place"))
    return open_artefacts(f"s3://{request.getfixturevalue('bucket')}/some/prefix")


def release(directory: Path, version: str, text: str = "hello") -> Path:
    """A release of two files."""
    directory.mkdir()
    (directory / "a.txt").write_text(text)
    (directory / "b.bin").write_bytes(bytes(range(256)) * 100)
    build_manifest(directory, version=version)
    return directory


def test_release_file_has_an_address(place, tmp_path) -> None:
    """For a person who wants to open it; a file that the release lacks is refused."""
    place.publish(release(tmp_path / "source", "v1"))
    address = place.address("v1", "a.txt")
    if address.startswith("s3://"):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        assert boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read() == b"hello"
    else:
        assert Path(address).read_text() == "hello"
    with pytest.raises(CorruptArtefact, match=r"release v1 has no other.txt"):
        place.address("v1", "other.txt")


def test_release_round_trip(place, tmp_path) -> None:
    """Every file, verified, and the manifest."""
    source = release(tmp_path / "source", "v1")
    place.publish(source)
    fetched = place.fetch("v1", tmp_path / "into")
    assert verify(fetched) == verify(source)
    assert (fetched / "b.bin").read_bytes() == (source / "b.bin").read_bytes()
    assert (place.versions(), place.manifest("v1")) == (["v1"], verify(source))
    assert place.fetch("v1", tmp_path / "into") == fetched


def test_version_is_published_once(place, tmp_path) -> None:
    """Two batches cannot publish over each other."""
    place.publish(release(tmp_path / "first", "v1"))
    with pytest.raises(ReleaseRefused, match="v1"):
        place.publish(release(tmp_path / "second", "v1", "another"))
    assert (place.fetch("v1", tmp_path / "into") / "a.txt").read_text() == "hello"


def test_versions_are_listed_oldest_first(place, tmp_path) -> None:
    """Versions sort by their time."""
    for version in ("20260102", "20260101"):
        place.publish(release(tmp_path / version, version))
    assert place.versions() == ["20260101", "20260102"]


def test_empty_place_names_remedy(place, tmp_path) -> None:
    """With the way to see those that are."""
    assert place.versions() == []
    with pytest.raises(ReleaseNotFound, match="shortlist release list"):
        place.fetch("v9", tmp_path / "into")


@pytest.mark.parametrize("version", ["../v1", "a/b", ".hidden"])
def test_a_version_cannot_lead_elsewhere(place, tmp_path, version) -> None:
    """A name with a path in it is refused."""
    with pytest.raises(ReleaseNotFound, match="plain name"):
        place.fetch(version, tmp_path / "into")


def test_a_changed_file_is_not_published(place, tmp_path) -> None:
    """What is not what its manifest says never leaves."""
    source = release(tmp_path / "source", "v1")
    (source / "a.txt").write_text("hullo")
    with pytest.raises(CorruptArtefact, match=r"a\.txt"):
        place.publish(source)
    assert place.versions() == []


def test_manifest_cannot_name_other_places(tmp_path) -> None:
    """Nothing is read or written outside the release."""
    source = release(tmp_path / "source", "v1")
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["files"]["../evil.txt"] = {"size": 1, "sha256": "0" * 64}
    (source / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtefact, match="plain name"):
        verify(source)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', "\x00"])
def test_invalid_manifest_is_corrupt(tmp_path, text) -> None:
    """Whatever lies in its place."""
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorruptArtefact, match="no manifest"):
        verify(tmp_path)


def test_silent_s3_is_unavailable(tmp_path, monkeypatch) -> None:
    """With the bucket's name."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ArtefactsUnavailable, match="no-bucket"):
        open_artefacts("s3://no-bucket/x").versions()


def test_address_needs_a_bucket() -> None:
    """At once, and not at the first upload."""
    with pytest.raises(InvalidSettings, match="names no bucket"):
        open_artefacts("s3://")


def test_removed_release_frees_its_name(place, tmp_path) -> None:
    """The others stay, and the version can be published again."""
    for version in ("v1", "v2"):
        place.publish(release(tmp_path / version, version))
    place.remove("v1")
    assert place.versions() == ["v2"]
    with pytest.raises(ReleaseNotFound, match="v1 is not in"):
        place.remove("v1")
    place.publish(tmp_path / "v1")
    assert place.versions() == ["v1", "v2"]


def test_crashed_upload_is_swept(place, tmp_path, monkeypatch) -> None:
    """A release that is whole stays, and so does an upload that may still be going on."""
    place.publish(release(tmp_path / "whole", "v1"))
    source = release(tmp_path / "crashed", "v2")
    with monkeypatch.context() as crashing:
        # A crash clears nothing up.
        crashing.setattr(shutil, "rmtree", lambda *_, **__: None)
        crashing.setattr(Path, "rename", _crash)
        crashing.setattr(artefacts_s3.S3Artefacts, "_put_manifest", _crash)
        with pytest.raises(KeyboardInterrupt):
            place.publish(source)
    assert place.sweep(before=0.0) == 0
    assert place.sweep(before=time.time() + 60) >= 2
    assert place.sweep(before=time.time() + 60) == 0
    assert place.versions() == ["v1"]
    verify(place.fetch("v1", tmp_path / "into"))


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


def test_note_stays_next_to_releases(place, tmp_path) -> None:
    """It is read as written last, is no release, and no sweep takes it."""
    assert place.read_note("n.msgpack") is None
    for body in (b"one", b"two"):
        place.write_note("n.msgpack", body)
    place.publish(release(tmp_path / "source", "v1"))
    assert place.sweep(time.time() + 10) == 0
    assert (place.read_note("n.msgpack"), place.versions()) == (b"two", ["v1"])


@pytest.mark.parametrize(
    "call",
    [
        lambda place, _into: place.manifest("v1"),
        lambda place, into: place.open("v1", into),
        lambda place, _into: place.address("v1", "a.txt"),
        lambda place, _into: place.remove("v1"),
    ],
)
def test_unknown_version(place, tmp_path, call) -> None:
    """Every method has the same error for a release that is not there, which is no corruption."""
    place.publish(release(tmp_path / "source", "v2"))
    with pytest.raises(ReleaseNotFound, match=r"release v1 is not in .*shortlist release list"):
        call(place, tmp_path / "into")


def test_missing_directory(tmp_path) -> None:
    """No versions before the first publication; a lookup is unavailable, as of a lost disk."""
    place = open_artefacts(str(tmp_path / "nowhere"))
    assert place.versions() == []
    with pytest.raises(ArtefactsUnavailable, match=r"nowhere is missing: mount it"):
        place.manifest("v1")
    place.publish(release(tmp_path / "source", "v1"))
    assert place.versions() == ["v1"]


def test_unreadable_directory(tmp_path) -> None:
    """A file in the directory's place, or a disk that refuses, is unavailable."""
    (tmp_path / "file").write_text("")
    place = open_artefacts(str(tmp_path / "file"))
    with pytest.raises(ArtefactsUnavailable, match="cannot be read"):
        place.versions()
    with pytest.raises(ArtefactsUnavailable, match="file is missing"):
        place.manifest("v1")


def test_missing_bundle_directory(tmp_path) -> None:
    """A bundle whose directory is away is unavailable; one without a manifest is corrupt."""
    with pytest.raises(ArtefactsUnavailable, match="nowhere is missing"):
        verify(tmp_path / "nowhere")
    with pytest.raises(CorruptArtefact, match=r"manifest\.json is missing"):
        verify(tmp_path)
