"""Where releases are kept: a directory or S3, behind one interface.

A release is a directory of files and a `manifest.json` that names each file's size and sha256. The
manifest is written last and only if the release has none yet, so an interrupted upload is invisible
and two batches cannot publish over each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol, Self

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import (
    ArtefactsUnavailable,
    CorruptArtefact,
    LoadFailed,
    ReleaseRefused,
)
from shortlist.recsys.store import local_copies, s3
from shortlist.recsys.store.parallel import run_all

MANIFEST = local_copies.MARK
MANIFEST_BYTES = 4 << 20
"""The largest manifest that is read; a real one has some 15 kB."""

MANIFEST_DEPTH = 16
"""How deep its values may lie; a real one has five levels."""

FILES = 64
"""Files that a release may have; a real one has a dozen."""

PART_BYTES, STREAMS = 8 << 20, 8
"""A release is downloaded in parts of this size, so many at a time: one stream of S3 gives less than a function takes."""

MANIFEST_SECONDS = 30.0
"""Longest download of a manifest or a note."""

DOWNLOAD_SECONDS = 300.0
"""Longest download of a release: 480 MiB at 1.6 MiB a second. A reply that drips does not hold up others for ever."""

NOTES = "notes"
"""The directory of small files beside the releases."""

_BLOCK = 1 << 20
_MAX_NAME_LENGTH = 200
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed", "ConditionalRequestConflict")
_OTHER_SIZE = ("416", "InvalidRange")


@dataclass(frozen=True, slots=True)
class Release:
    """A release on this disk whose files are open, and were what the manifest says when they were opened.

    Whoever reads it reads these very files, whatever is renamed or removed meanwhile. It is closed
    by `with`.
    """

    directory: Path
    manifest: dict[str, Any]
    files: dict[str, BufferedReader]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def file(self, name: str) -> BufferedReader:
        """An open file, at its beginning. Raises CorruptArtefact where the manifest names none such."""
        if name not in self.files:
            raise CorruptArtefact(
                f"{self.directory} has no {name} in its manifest: publish the release again"
            )
        self.files[name].seek(0)
        return self.files[name]

    def read(self, name: str, most: int) -> bytes:
        """A file's bytes. Raises CorruptArtefact where there is none, or it has more than `most`."""
        size = self.manifest["files"][name]["size"] if name in self.files else 0
        if size > most:
            raise CorruptArtefact(
                f"{self.directory / name} has {size} bytes, at most {most} are read: publish the release again"
            )
        return self.file(name).read()


class Artefacts(Protocol):
    """A place for releases."""

    def publish(self, directory: Path) -> None:
        """Stores the release in `directory`, verified, its manifest last.

        Raises:
            CorruptArtefact: a file is not what the manifest says.
            ReleaseRefused: the version is there already.
            ArtefactsUnavailable: the place does not answer.
        """

    def fetch(self, version: str, into: Path) -> Path:
        """Brings a release to `into`/version, verified, whole or not at all; gives that directory."""

    def open(self, version: str, into: Path) -> Release:
        """As `fetch`, with its files open, which need no other verification.

        The manifest is the place's own each time. A copy in `into` serves only as far as it agrees
        with it: one that was cut short, forged, or holds other files is fetched again; where the
        place does not answer, no copy is used.

        Raises:
            CorruptArtefact: the release is not there, or is not what its manifest says.
            ArtefactsUnavailable: the place does not answer.
            LoadFailed, NoRoom: this machine's disk refuses, or is too small.
        """

    def versions(self) -> list[str]:
        """The versions that are there whole, oldest first."""

    def manifest(self, version: str) -> dict[str, Any]:
        """A release's manifest. Raises CorruptArtefact where there is none."""

    def address(self, version: str, name: str) -> str:
        """Where a file of a release lies, for a person: a path, or s3://. Raises CorruptArtefact where there is none."""

    def remove(self, version: str) -> None:
        """Removes a release, its manifest first, so that no half of it is seen. Raises CorruptArtefact where there is none."""

    def sweep(self, before: float) -> int:
        """Removes what uploads left that stopped before this unix time without a manifest; gives the number of files."""

    def read_note(self, name: str) -> bytes | None:
        """A small file beside the releases; None where there is none."""

    def write_note(self, name: str, body: bytes) -> None:
        """Writes a small file beside the releases, whole, in place of one of that name."""


def open_artefacts(uri: str) -> Artefacts:
    """The place that `uri` names: s3://bucket/prefix, or a directory."""
    if not uri.startswith(s3.SCHEME):
        return DirectoryArtefacts(Path(uri))
    return S3Artefacts(*s3.bucket_and_prefix(uri, "SHORTLIST_ARTEFACTS"))


def build_manifest(directory: Path, **fields: object) -> dict[str, Any]:
    """Writes the manifest of all files in `directory`, with `fields` beside them; gives it."""
    files = sorted(
        p
        for p in directory.iterdir()
        if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
    )
    manifest = {
        **fields,
        "files": {p.name: {"size": p.stat().st_size, "sha256": sha256_of(p)} for p in files},
    }
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=2))
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, whose every file is what it says.

    Raises:
        CorruptArtefact: the manifest or a file is missing, or differs.
        LoadFailed: one of them cannot be read.
    """
    with opened(directory, manifest_in(directory)) as release:
        return release.manifest


def manifest_in(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, whose files are not looked at. Raises as `verify`."""
    path = directory / MANIFEST
    with _reading(path):
        if not path.is_file():
            raise CorruptArtefact(f"{path} is missing: fetch or build the bundle again")
        with path.open("rb") as file:
            return _parsed(file.read(MANIFEST_BYTES + 1), str(path))


def opened(directory: Path, manifest: dict[str, Any]) -> Release:
    """The files of `directory` that a manifest names, open; each has its size and sha256.

    Raises:
        CorruptArtefact: a file is missing, or differs.
        LoadFailed: one cannot be read.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, BufferedReader] = {}
        for name, told in manifest["files"].items():
            path = directory / name
            with _reading(path):
                if not path.is_file():
                    raise CorruptArtefact(
                        f"{path} is missing (no file), its manifest names it: fetch it again"
                    )
                files[name] = stack.enter_context(path.open("rb"))
                _check(path, files[name], told)
        stack.pop_all()
        return Release(directory, manifest, files)


def _check(path: Path, file: BufferedReader, told: Mapping[str, Any]) -> None:
    size = file.seek(0, 2)
    if size != told["size"]:
        raise CorruptArtefact(
            f"{path} has {size} bytes, its manifest says {told['size']}: fetch it again"
        )
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != told["sha256"]:
        raise CorruptArtefact(
            f"{path} has sha256 {found[:12]}, its manifest says {told['sha256'][:12]}: fetch it again"
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoadFailed(
            f"{path} cannot be read ({error}): mend its permissions or the disk"
        ) from error


def ensure_fits(uri: str, manifest: Mapping[str, Any], most_mb: int) -> None:
    """Refuses a release that whoever serves it has no room for: a copy of a bundle from S3 lies on their disk.

    Raises:
        ReleaseRefused: the artefacts are in S3, and the release has more than most_mb MiB.
    """
    size = size_of(manifest) / 2**20
    if uri.startswith(s3.SCHEME) and size > most_mb:
        message = (
            f"release {manifest.get('version')} has {size:.1f} MiB, and whoever serves it has room for {most_mb} "
            "(SHORTLIST_BUNDLE_MAX_MB): give the function more ephemeral storage (more than 512 MB excludes SnapStart) and "
            "raise the setting, or make the bundle smaller by a lower EMBEDDING_DIM or fewer items"
        )
        raise ReleaseRefused(message)


def size_of(manifest: Mapping[str, Any]) -> int:
    """Bytes of a release's files."""
    return sum(int(told["size"]) for told in manifest["files"].values())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class DirectoryArtefacts:
    """Releases as subdirectories of `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, directory: Path) -> None:
        """See `Artefacts`: copied beside its place, then renamed."""
        version = _version(verify(directory), directory)
        target = self._root / _plain(version)
        if target.exists():
            raise _already(version, str(self._root))
        draft = self._draft()
        try:
            shutil.copytree(directory, draft, dirs_exist_ok=True)
            verify(draft)
            draft.chmod(0o755)
            draft.rename(target)
        except OSError as error:
            if target.exists():
                raise _already(version, str(self._root)) from error
            raise ArtefactsUnavailable(
                f"{self._root} cannot be written ({error}): mend it, and publish again"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _draft(self) -> Path:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".draft-", dir=self._root))
        except OSError as error:
            raise ArtefactsUnavailable(
                f"{self._root} cannot be written ({error}): mend it, and publish again"
            ) from error

    def fetch(self, version: str, into: Path) -> Path:
        """See `Artefacts`: a local release is used where it lies."""
        with self.open(version, into) as release:
            return release.directory

    def open(self, version: str, into: Path) -> Release:
        """See `Artefacts`: a local release is used where it lies."""
        del into
        return opened(self._root / version, self.manifest(version))

    def versions(self) -> list[str]:
        """See `Artefacts`."""
        return sorted(path.parent.name for path in self._root.glob(f"[!.]*/{MANIFEST}"))

    def manifest(self, version: str) -> dict[str, Any]:
        """See `Artefacts`."""
        directory = self._root / _plain(version)
        if not (directory / MANIFEST).exists():
            raise _missing(version, str(self._root))
        return _of_version(manifest_in(directory), version, str(directory))

    def address(self, version: str, name: str) -> str:
        """See `Artefacts`."""
        _told(self.manifest(version), name)
        return str(self._root / version / name)

    def remove(self, version: str) -> None:
        """See `Artefacts`: moved out of sight, then removed."""
        if not (self._root / _plain(version) / MANIFEST).exists():
            raise _missing(version, str(self._root))
        draft = self._draft()
        (self._root / version).rename(draft / version)
        shutil.rmtree(draft)

    def sweep(self, before: float) -> int:
        """See `Artefacts`."""
        files = [
            path
            for path in self._root.glob(".draft-*/**/*")
            if path.is_file() and path.stat().st_mtime < before
        ]
        for path in files:
            path.unlink()
        for draft in self._root.glob(".draft-*"):
            if draft.stat().st_mtime < before and not any(
                path.is_file() for path in draft.rglob("*")
            ):
                shutil.rmtree(draft)
        return len(files)

    def read_note(self, name: str) -> bytes | None:
        """See `Artefacts`."""
        try:
            return (self._root / NOTES / _plain(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtefactsUnavailable(
                f"{self._root / NOTES / name} cannot be read ({error}): mend it"
            ) from error

    def write_note(self, name: str, body: bytes) -> None:
        """See `Artefacts`."""
        try:
            write_atomically(self._root / NOTES / _plain(name), body)
        except OSError as error:
            raise ArtefactsUnavailable(
                f"{self._root / NOTES} cannot be written ({error}): mend it"
            ) from error


class S3Artefacts:
    """Releases as prefixes of an S3 bucket.

    A file lies under its own sha256, so that a second publication of a version, which the
    manifest's condition refuses, has not touched the files of the first.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._client = s3.open_client()
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""

    def publish(self, directory: Path) -> None:
        """See `Artefacts`: files first, each read back by size, the manifest last and only where there is none."""
        manifest = verify(directory)
        version = _version(manifest, directory)
        with s3.errors(self._bucket):
            for name, told in manifest["files"].items():
                key = self._key(version, _stored_name(name, told))
                self._client.upload_file(str(directory / name), self._bucket, key)
                stored = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
                if stored != told["size"]:
                    raise CorruptArtefact(
                        f"s3://{self._bucket}/{key} has {stored} bytes, not {told['size']}: publish again"
                    )
            self._put_manifest(version, (directory / MANIFEST).read_bytes())

    def fetch(self, version: str, into: Path) -> Path:
        """See `Artefacts`."""
        with self.open(version, into) as release:
            return release.directory

    def open(self, version: str, into: Path) -> Release:
        """See `Artefacts`: a sound copy is used, another is replaced; of the older ones at most one stays."""
        target = into / _plain(version)
        body = self._manifest_body(version)
        manifest = _of_version(
            _parsed(body, self._key(version, MANIFEST)),
            version,
            f"s3://{self._bucket}/{self._prefix}",
        )
        with local_copies.exclusive(into):
            local_copies.sweep(into)
            release = _copy(target, manifest, body)
            if release is None:
                local_copies.make_room(into, version, size_of(manifest) + len(body))
                release = self._brought(target, manifest, body)
            local_copies.note_use(into, [version])
            return release

    def _brought(self, target: Path, manifest: dict[str, Any], body: bytes) -> Release:
        """A new copy: written beside its place, verified, then renamed."""
        draft = local_copies.draft(target.parent)
        try:
            self._download(manifest, draft)
            (draft / MANIFEST).write_bytes(body)
            release = opened(draft, manifest)
            draft.rename(target)
            return Release(target, manifest, release.files)
        except OSError as error:
            raise LoadFailed(
                f"{target} cannot be written ({error}): free the disk, or mend its permissions"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _download(self, manifest: Mapping[str, Any], draft: Path) -> None:
        """All files, in parts, several at a time; no more bytes than the manifest says."""
        ends = time.monotonic() + DOWNLOAD_SECONDS
        parts = []
        for name, told in manifest["files"].items():
            (draft / name).touch()
            key = self._key(manifest["version"], _stored_name(name, told))
            for start in range(0, told["size"], PART_BYTES):
                stop = min(start + PART_BYTES, told["size"])
                parts.append(partial(self._download_part, key, draft / name, (start, stop), ends))
        run_all(parts, STREAMS)

    def _download_part(self, key: str, path: Path, span: tuple[int, int], ends: float) -> None:
        where, (start, stop) = f"s3://{self._bucket}/{key}", span
        with s3.errors(self._bucket):
            answer = self._part(key, start, stop)
        with contextlib.closing(_arriving(answer)) as body, path.open("r+b") as file:
            if answer["ContentLength"] != stop - start:
                raise CorruptArtefact(
                    f"{where} has another size than its manifest says: activate another release"
                )
            file.seek(start)
            while file.tell() < stop:
                with s3.errors(self._bucket):
                    block = body.read(min(_BLOCK, stop - file.tell()))
                if not block or time.monotonic() > ends:
                    raise _interrupted(
                        where, f"took more than {DOWNLOAD_SECONDS:.0f} s" if block else "broke off"
                    )
                file.write(block)

    def _part(self, key: str, start: int, stop: int) -> Mapping[str, Any]:
        try:
            return dict(
                self._client.get_object(
                    Bucket=self._bucket, Key=key, Range=f"bytes={start}-{stop - 1}"
                )
            )
        except self._client.exceptions.ClientError as error:
            where, code = f"s3://{self._bucket}/{key}", error.response["Error"]["Code"]
            if code in _NOT_FOUND:
                raise CorruptArtefact(
                    f"{where} is missing, and its manifest names it: activate another release"
                ) from error
            if code in _OTHER_SIZE:
                raise CorruptArtefact(
                    f"{where} has fewer bytes than its manifest says: activate another release"
                ) from error
            raise

    def versions(self) -> list[str]:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            names = [key.removeprefix(self._prefix) for key, _ in self._listed(self._prefix)]
        return sorted(
            name.removesuffix(f"/{MANIFEST}") for name in names if name.endswith(f"/{MANIFEST}")
        )

    def manifest(self, version: str) -> dict[str, Any]:
        """See `Artefacts`."""
        body = self._manifest_body(version)
        return _of_version(
            _parsed(body, self._key(version, MANIFEST)),
            version,
            f"s3://{self._bucket}/{self._prefix}",
        )

    def _manifest_body(self, version: str) -> bytes:
        key = self._key(_plain(version), MANIFEST)
        with s3.errors(self._bucket):
            try:
                return self._whole(key, MANIFEST_BYTES + 1)
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _NOT_FOUND:
                    raise _missing(version, f"s3://{self._bucket}/{self._prefix}") from error
                raise

    def _whole(self, key: str, most: int) -> bytes:
        """An object's bytes, up to `most` of them. Raises ArtefactsUnavailable where they do not come in time."""
        ends, found = time.monotonic() + MANIFEST_SECONDS, bytearray()
        with contextlib.closing(
            _arriving(self._client.get_object(Bucket=self._bucket, Key=key))
        ) as body:
            while len(found) < most and (block := body.read(min(_BLOCK, most - len(found)))):
                if time.monotonic() > ends:
                    where = f"s3://{self._bucket}/{key}"
                    raise _interrupted(where, f"took more than {MANIFEST_SECONDS:.0f} s")
                found += block
        return bytes(found)

    def address(self, version: str, name: str) -> str:
        """See `Artefacts`."""
        told = _told(self.manifest(version), name)
        return f"s3://{self._bucket}/{self._key(version, _stored_name(name, told))}"

    def remove(self, version: str) -> None:
        """See `Artefacts`."""
        self._manifest_body(version)  # it may be corrupt: that is a reason to remove it
        with s3.errors(self._bucket):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(version, MANIFEST))
            for key, _ in self._listed(f"{self._prefix}{_plain(version)}/"):
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def sweep(self, before: float) -> int:
        """See `Artefacts`."""
        whole = {*self.versions(), NOTES}
        with s3.errors(self._bucket):
            stray = [
                key
                for key, changed in self._listed(self._prefix)
                if changed < before
                and key.removeprefix(self._prefix).partition("/")[0] not in whole
            ]
            for key in stray:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        return len(stray)

    def _listed(self, prefix: str) -> list[tuple[str, float]]:
        """Keys, and when each was written."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return [
            (o["Key"], o["LastModified"].timestamp())
            for page in pages
            for o in page.get("Contents", ())
        ]

    def _key(self, version: str, name: str) -> str:
        return f"{self._prefix}{version}/{name}"

    def read_note(self, name: str) -> bytes | None:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            try:
                return self._whole(self._key(NOTES, name), sys.maxsize)
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _NOT_FOUND:
                    return None
                raise

    def write_note(self, name: str, body: bytes) -> None:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            self._client.put_object(
                Bucket=self._bucket, Key=self._key(NOTES, _plain(name)), Body=body
            )

    def _put_manifest(self, version: str, body: bytes) -> None:
        key = self._key(version, MANIFEST)
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _TAKEN:
                raise _already(version, f"s3://{self._bucket}/{self._prefix}") from error
            raise


class _Arriving:
    """A stream whose `read` gives what has arrived, where urllib3's waits until it has all that was asked for.

    So whoever reads may look at the clock after each wait for the network, however slowly bytes
    come.
    """

    def __init__(self, raw: Any) -> None:  # noqa: ANN401 - urllib3's response
        self._raw = raw

    def read(self, amt: int | None = None) -> bytes:
        """At least one byte and at most `amt`; none at the end."""
        return bytes(self._raw.read1(amt))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._raw, name)


def _arriving(answer: Mapping[str, Any]) -> Any:  # noqa: ANN401 - botocore's streaming body
    """The body of an answer, whose `read` does not wait for more than has arrived; lengths and checksums are still checked."""
    body = answer["Body"]
    body._raw_stream = _Arriving(body._raw_stream)  # noqa: SLF001 - botocore offers no such read
    return body


def _interrupted(where: str, why: str) -> ArtefactsUnavailable:
    return ArtefactsUnavailable(
        f"the download of {where} {why}: check the network; it is tried again"
    )


def _copy(directory: Path, manifest: dict[str, Any], body: bytes) -> Release | None:
    """The copy, if it holds this very manifest and the files that it names, each what it says, and nothing else."""
    try:
        names = {path.name for path in directory.iterdir()}
        if names != {MANIFEST, *manifest["files"]} or (directory / MANIFEST).stat().st_size != len(
            body
        ):
            return None
        return opened(directory, manifest) if (directory / MANIFEST).read_bytes() == body else None
    except (OSError, CorruptArtefact, LoadFailed):
        return None  # whatever is wrong with a copy, another is fetched


def _parsed(body: bytes, where: str) -> dict[str, Any]:
    """The manifest that these bytes are. Raises CorruptArtefact."""
    if len(body) > MANIFEST_BYTES:
        raise CorruptArtefact(
            f"{where} has more than {MANIFEST_BYTES} bytes, and is no manifest: publish the release again"
        )
    try:
        manifest: dict[str, Any] = json.loads(body)
        files: dict[str, Any] = manifest["files"]
        if len(files) <= FILES and _is_shallow(manifest, MANIFEST_DEPTH):
            for name, told in files.items():
                _check_entry(name, told)
            return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtefact(
            f"{where} is no manifest ({error!r}): publish the release again"
        ) from error
    raise CorruptArtefact(
        f"{where} is no manifest (too many files, or nested too deeply): publish the release again"
    )


def _is_shallow(value: object, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(each, depth - 1) for each in inner)


def _check_entry(name: str, told: Any) -> None:  # noqa: ANN401 - whatever the JSON has
    """Raises CorruptArtefact, ValueError or TypeError where an entry is none of a file."""
    if not _NAME.fullmatch(_plain(name)) or name == MANIFEST:
        raise ValueError(f"{name!r} is no name of a file")
    size, sha256 = told["size"], told["sha256"]
    if type(size) is not int or size < 0:
        raise ValueError(f"{name} has size {size!r}")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name} has sha256 {sha256!r}")


def _of_version(manifest: dict[str, Any], version: str, where: str) -> dict[str, Any]:
    if manifest.get("version") != version:
        message = f"the manifest of {version} in {where} is of {manifest.get('version')!r}: publish the release again"
        raise CorruptArtefact(message)
    return manifest


def _version(manifest: Mapping[str, Any], directory: Path) -> str:
    version = manifest.get("version")
    if not isinstance(version, str):
        raise CorruptArtefact(
            f"the manifest in {directory} has {version!r} for a version: build the bundle again"
        )
    return version


def _plain(name: str) -> str:
    """The name, if it is one part of a path and no more, so that nothing is read or written elsewhere."""
    if (
        Path(name).name != name
        or name.startswith(".")
        or not name.isprintable()
        or len(name) > _MAX_NAME_LENGTH
    ):
        raise CorruptArtefact(
            f"{name!r} is no plain name of a release or file: publish the release again"
        )
    return name


def _told(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the manifest says of a file."""
    if name not in manifest["files"]:
        raise CorruptArtefact(
            f"release {manifest['version']} has no {name}: see `shortlist release show` for what it has"
        )
    told: Mapping[str, Any] = manifest["files"][name]
    return told


def _stored_name(name: str, told: Mapping[str, Any]) -> str:
    return f"{told['sha256'][:16]}/{name}"


def _already(version: str, place: str) -> ReleaseRefused:
    return ReleaseRefused(
        f"release {version} is in {place} already: a version is published once; run the batch again"
    )


def _missing(version: str, place: str) -> CorruptArtefact:
    return CorruptArtefact(
        f"release {version} is not in {place}: see `shortlist release list` for those that are"
    )
