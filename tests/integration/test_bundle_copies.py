"""Tests local copies of releases from S3.

They are verified at each load, and there are two at most.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from shortlist.lambda_handler.answers import Filters
from shortlist.lambda_handler.live import LivePath
from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    CorruptArtefact,
    LoadFailed,
    NoRoom,
    ReleaseRefused,
)
from shortlist.recsys.settings import Settings
from shortlist.recsys.store import artefacts_s3, local_copies, release_files
from shortlist.recsys.store.artefacts import ensure_fits, open_artefacts
from shortlist.recsys.store.artefacts_s3 import S3Artefacts
from shortlist.recsys.store.release_files import build_manifest, verify

SIZE = 300_000
"""Bytes of a made-up release's larger file."""


def made(directory: Path, version: str, size: int = SIZE) -> Path:
    """A release of two files, one of them empty."""
    directory.mkdir(parents=True)
    (directory / "a.bin").write_bytes(version.encode() * (size // len(version)))
    (directory / "empty.txt").write_text("")
    build_manifest(directory, version=version)
    return directory


@pytest.fixture
def place(bucket: str) -> S3Artefacts:
    """An empty place in S3."""
    opened = open_artefacts(f"s3://{bucket}/releases")
    assert isinstance(opened, S3Artefacts)
    return opened


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where copies go."""
    return tmp_path / "copies"


@pytest.fixture
def copy(place: S3Artefacts, into: Path, tmp_path: Path) -> Path:
    """The copy of a published release."""
    place.publish(made(tmp_path / "source", "v1"))
    return place.fetch("v1", into)


def files(directory: Path) -> dict[str, bytes]:
    """A directory's files by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def cut_short(copy: Path) -> None:
    """Half of a file is missing."""
    (copy / "a.bin").write_bytes((copy / "a.bin").read_bytes()[: SIZE // 2])


def forged(copy: Path) -> None:
    """Another file, and a manifest that agrees with it."""
    (copy / "a.bin").write_bytes(b"forged" * 1000)
    build_manifest(copy, version="v1")


def same_size(copy: Path) -> None:
    """Another file of the same size, under the true manifest."""
    (copy / "a.bin").write_bytes(b"x" * SIZE)


def another_file(copy: Path) -> None:
    """A file that the manifest does not name."""
    (copy / "strata.msgpack").write_bytes(b"\x90")


def no_manifest(copy: Path) -> None:
    """The manifest is missing."""
    (copy / "manifest.json").unlink()


def a_file(copy: Path) -> None:
    """A file lies where the directory should."""
    shutil.rmtree(copy)
    copy.write_text("")


@pytest.mark.parametrize("harm", [cut_short, forged, same_size, another_file, no_manifest, a_file])
def test_harmed_copy(place: S3Artefacts, copy: Path, into: Path, tmp_path: Path, harm) -> None:
    """A copy that is not the store's release is replaced, whatever its own manifest says."""
    harm(copy)
    with place.open("v1", into) as release:
        assert release.read("a.bin", SIZE) == b"v1" * (SIZE // 2)
    assert files(copy) == files(tmp_path / "source")
    assert [path.name for path in into.iterdir()] == ["v1"]


def test_unreadable_copy(
    place: S3Artefacts, copy: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that the disk does not give is fetched again."""
    honest, refused = release_files.open_verified, []

    def refusing(directory: Path, manifest: dict[str, object]) -> release_files.Release:
        if directory == copy and not refused:
            refused.append(directory)
            raise LoadFailed("the disk refuses")
        return honest(directory, manifest)

    monkeypatch.setattr(artefacts_s3, "open_verified", refusing)
    assert place.fetch("v1", into) == copy
    assert refused == [copy]
    assert verify(copy)["version"] == "v1"


def test_sound_copy(
    place: S3Artefacts, copy: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound copy is not downloaded again."""
    monkeypatch.setattr(S3Artefacts, "_download", lambda *_: pytest.fail("downloaded"))
    assert place.fetch("v1", into) == copy


def test_store_away(
    place: S3Artefacts, copy: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the store's manifest a copy, sound or forged, is not used, and not removed."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = S3Artefacts(place._bucket, "releases")
    with pytest.raises(ArtefactsUnavailable, match="does not answer"):
        away.fetch("v1", into)
    assert verify(copy)["version"] == "v1"


def test_another_version(place: S3Artefacts, copy: Path, into: Path, tmp_path: Path) -> None:
    """A manifest under another version's name is refused."""
    client = boto3.client("s3")
    body = (tmp_path / "source" / "manifest.json").read_bytes()
    client.put_object(Bucket=place._bucket, Key="releases/v2/manifest.json", Body=body)
    client.close()
    with pytest.raises(CorruptArtefact, match=r"of v2 in .* is of 'v1'"):
        place.fetch("v2", into)


@pytest.mark.parametrize("change", [b"", b"longer than it was"])
def test_changed_object(place: S3Artefacts, into: Path, tmp_path: Path, change: bytes) -> None:
    """An object of another size is refused, and nothing is left of the download."""
    place.publish(made(tmp_path / "source", "v1", 8))
    client = boto3.client("s3")
    key = next(key for key, _ in place._listed("releases/v1/") if key.endswith("a.bin"))
    client.put_object(Bucket=place._bucket, Key=key, Body=change)
    client.close()
    with pytest.raises(CorruptArtefact, match=r"activate another|fetch it again"):
        place.fetch("v1", into)
    assert list(into.iterdir()) == []


def test_large_file_in_parts(
    place: S3Artefacts, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of many parts comes back as it was."""
    monkeypatch.setattr(artefacts_s3, "PART_BYTES", 7001)
    place.publish(made(tmp_path / "source", "v1"))
    assert files(place.fetch("v1", into)) == files(tmp_path / "source")


def test_endless_download(
    place: S3Artefacts, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that takes too long ends, with nothing left of it."""
    place.publish(made(tmp_path / "source", "v1"))
    monkeypatch.setattr(artefacts_s3, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(ArtefactsUnavailable, match="took more than"):
        place.fetch("v1", into)
    assert list(into.iterdir()) == []


def test_garbage_from_s3(place: S3Artefacts, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is none of S3's is a place that does not answer as it should."""
    from botocore.parsers import ResponseParserError

    def garbled(**_: object) -> None:
        raise ResponseParserError("Unable to parse response")

    monkeypatch.setattr(place._client, "get_object", garbled)
    with pytest.raises(ArtefactsUnavailable, match="Unable to parse"):
        place.fetch("v1", into)


def test_six_releases(place: S3Artefacts, into: Path, tmp_path: Path) -> None:
    """Two copies at most, the ones used last; one in use is not the one that goes."""
    for number in range(6):
        place.publish(made(tmp_path / str(number), f"v{number}"))
        place.fetch(f"v{number}", into)
        assert len(list(into.iterdir())) <= 2
    assert sorted(path.name for path in into.iterdir()) == ["v4", "v5"]
    local_copies.note_use(into, ["v5", "v4"])
    place.fetch("v1", into)
    assert sorted(path.name for path in into.iterdir()) == ["v1", "v4"]


def disk_of(monkeypatch: pytest.MonkeyPatch, into: Path, capacity: int) -> None:
    """The directory lies on a disk of so many bytes."""

    def usage(_: Path) -> object:
        used = sum(path.stat().st_size for path in into.rglob("*") if path.is_file())
        return type("Usage", (), {"free": capacity - used})

    monkeypatch.setattr(local_copies.shutil, "disk_usage", usage)


def test_room_for_one(
    place: S3Artefacts, copy: Path, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two do not fit, the old one is gone before the new one is fetched."""
    place.publish(made(tmp_path / "next", "v2"))
    disk_of(monkeypatch, into, int(SIZE * 1.5) + local_copies.SPARE)
    seen: list[list[str]] = []
    honest = S3Artefacts._download

    def watching(self: S3Artefacts, manifest: dict[str, object], draft: Path) -> None:
        seen.append([path.name for path in into.iterdir() if path != draft])
        honest(self, manifest, draft)

    monkeypatch.setattr(S3Artefacts, "_download", watching)
    place.fetch("v2", into)
    assert seen == [[]]
    assert [path.name for path in into.iterdir()] == ["v2"]


def test_no_room(
    place: S3Artefacts, copy: Path, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit at all is refused with figures and remedy; the copy that is there stays."""
    place.publish(made(tmp_path / "next", "v2", 10 * SIZE))
    disk_of(monkeypatch, into, 2 * SIZE + local_copies.SPARE)
    with pytest.raises(
        NoRoom, match=r"has 4\.\d MiB free, and the bundle of v2 needs 6\.9: free the disk"
    ):
        place.fetch("v2", into)
    assert [path.name for path in into.iterdir()] == ["v1"]


def test_full_disk(
    place: S3Artefacts, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up during the download leaves nothing half-written."""
    place.publish(made(tmp_path / "source", "v1"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(S3Artefacts, "_download_part", full)
    with pytest.raises(LoadFailed, match=r"No space left on device.*free the disk"):
        place.fetch("v1", into)
    assert list(into.iterdir()) == []


def test_directory_that_cannot_be_made(place: S3Artefacts, copy: Path, tmp_path: Path) -> None:
    """A file where the directory should be is refused with the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadFailed, match="SHORTLIST_BUNDLE_DIR"):
        place.fetch("v1", tmp_path / "file" / "copies")


def test_drafts_of_killed_downloads(place: S3Artefacts, copy: Path, into: Path) -> None:
    """They are removed by the next process."""
    (into / f"{local_copies.DRAFT}killed").mkdir()
    (into / f"{local_copies.DRAFT}killed" / "a.bin").write_bytes(b"half")
    place.fetch("v1", into)
    assert [path.name for path in into.iterdir()] == ["v1"]


HOLDER = """
import sys, time
from pathlib import Path
from shortlist.recsys.store import local_copies
with local_copies.exclusive(Path(sys.argv[1])):
    (local_copies.draft(Path(sys.argv[1])) / "a.bin").write_bytes(b"half")
    print("holds", flush=True)
    time.sleep(600)
"""


def test_process_killed_while_it_downloads(place: S3Artefacts, into: Path, tmp_path: Path) -> None:
    """Others wait for it while it lives; its lock and its draft go with it."""
    place.publish(made(tmp_path / "source", "v1"))
    environ = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(into)], stdout=subprocess.PIPE, env=environ
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        waiting = threading.Thread(target=place.fetch, args=("v1", into))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert len(list(into.glob(f"{local_copies.DRAFT}*"))) == 1
        holder.kill()
        waiting.join()
    assert [path.name for path in into.iterdir()] == ["v1"]


def test_many_at_once(
    place: S3Artefacts, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight that share a directory one downloads, and all open the whole release."""
    place.publish(made(tmp_path / "source", "v1"))
    downloads: list[Path] = []
    honest = S3Artefacts._download

    def counting(self: S3Artefacts, manifest: dict[str, object], draft: Path) -> None:
        downloads.append(draft)
        honest(self, manifest, draft)

    monkeypatch.setattr(S3Artefacts, "_download", counting)
    opened: list[bytes] = []

    def one() -> None:
        with place.open("v1", into) as release:
            opened.append(release.read("a.bin", SIZE))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(downloads), opened) == (1, [b"v1" * (SIZE // 2)] * 8)


def test_removal_while_another_reads(place: S3Artefacts, copy: Path, into: Path) -> None:
    """Open files are read to their end, also while the copy is removed."""
    with place.open("v1", into) as release:
        local_copies.remove(copy)
        assert release.read("a.bin", SIZE) == b"v1" * (SIZE // 2)


def test_directory_place(tmp_path: Path) -> None:
    """A release is read as it was opened, also while it is removed; other files are no part."""
    place = open_artefacts(str(tmp_path / "root"))
    place.publish(made(tmp_path / "source", "v1"))
    (tmp_path / "root" / "v1" / "more.bin").write_bytes(b"x")
    with place.open("v1", tmp_path) as release:
        place.remove("v1")
        assert release.read("a.bin", SIZE) == b"v1" * (SIZE // 2)
        with pytest.raises(CorruptArtefact, match=r"has no more\.bin in its manifest"):
            release.file("more.bin")
        with pytest.raises(CorruptArtefact, match="at most 10 are read"):
            release.read("a.bin", 10)


@pytest.mark.parametrize("uri", ["s3://bucket/releases", "directory"])
def test_larger_than_its_target(tmp_path: Path, uri: str) -> None:
    """A release in S3 that is too large for a copy is refused; one served in place is not."""
    manifest = verify(made(tmp_path / "source", "v1", 3 << 20))
    ensure_fits(uri, manifest, 3)
    if uri == "directory":
        ensure_fits(uri, manifest, 2)
        return
    with pytest.raises(
        ReleaseRefused, match=r"v1 has 3\.0 MiB, .* room for 2 \(SHORTLIST_BUNDLE_MAX_MB\)"
    ):
        ensure_fits(uri, manifest, 2)


@pytest.fixture
def live(published, bucket: str, tmp_path: Path) -> tuple[LivePath, Settings]:
    """A process that serves the published release from S3."""
    settings = replace(
        published.settings, artefacts=f"s3://{bucket}/releases", bundle_dir=tmp_path / "disk"
    )
    open_artefacts(settings.artefacts).publish(published.work / "bundle")
    return LivePath(settings), settings


def test_forged_bundle_is_not_served(
    published, live: tuple[LivePath, Settings], tmp_path: Path
) -> None:
    """A copy with another catalogue and sums that agree is replaced when a process starts."""
    import msgpack

    first, settings = live
    titles = [item.title for item in first.popular(published.version, 5, Filters()).items]
    copy = tmp_path / "disk" / "shortlist" / published.version
    catalog = msgpack.unpackb((copy / "catalog.msgpack").read_bytes())
    catalog["titles"] = ["forged"] * len(catalog["titles"])
    (copy / "catalog.msgpack").write_bytes(msgpack.packb(catalog))
    fields = {
        name: value
        for name, value in json.loads((copy / "manifest.json").read_text()).items()
        if name != "files"
    }
    build_manifest(copy, **fields)
    again = LivePath(settings)
    assert [item.title for item in again.popular(published.version, 5, Filters()).items] == titles


def test_truncated_copy_does_not_kill(
    published, live: tuple[LivePath, Settings], tmp_path: Path
) -> None:
    """A file that is cut short under a running process does not kill it: it is not mapped."""
    serving, _ = live
    item = serving.popular(published.version, 1, Filters()).items[0].id
    before = serving.similar(published.version, item, 5, Filters())
    for path in (tmp_path / "disk" / "shortlist" / published.version).iterdir():
        with path.open("r+b") as file:
            file.truncate(0)
    assert serving.similar(published.version, item, 5, Filters()) == before


def test_room_that_a_loaded_bundle_holds(
    published,
    live: tuple[LivePath, Settings],
    release,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk for one release loads the next: the process lets go of its own first."""
    serving, settings = live
    serving.info(published.version)
    held = set(serving._loaded)
    place = open_artefacts(settings.artefacts)
    place.publish(release("next")[0])
    size = release_files.size_of(place.manifest("next"))
    directory = tmp_path / "disk" / "shortlist"

    def usage(_: Path) -> object:
        """A removed copy keeps its room while it is loaded."""
        used = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        mapped = size if serving._loaded and not (directory / published.version).exists() else 0
        return type("Usage", (), {"free": int(size * 1.5) + local_copies.SPARE - used - mapped})

    monkeypatch.setattr(local_copies.shutil, "disk_usage", usage)
    assert serving.info("next")["version"] == "next"
    assert (held, set(serving._loaded)) == ({published.version}, {"next"})
    assert [path.name for path in directory.iterdir()] == ["next"]
