"""Where releases are kept: a directory or S3, behind one interface.

A release is a directory of files and a `manifest.json` that names each file's size and sha256. The manifest is written
last and only if the release has none yet, so an interrupted upload is invisible and two batches cannot publish over each
other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from recsys import s3
from recsys.errors import ArtefactsUnavailable, CorruptArtefact, ReleaseRefused

MANIFEST = "manifest.json"
NOTES = "notes"
"""The directory of small files beside the releases."""

_BLOCK = 1 << 20
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed", "ConditionalRequestConflict")


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
    files = sorted(p for p in directory.iterdir() if p.is_file() and p.name != MANIFEST)
    manifest = {**fields, "files": {p.name: {"size": p.stat().st_size, "sha256": sha256_of(p)} for p in files}}
    draft = directory / f".{MANIFEST}"
    draft.write_text(json.dumps(manifest, indent=2))
    draft.replace(directory / MANIFEST)
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, whose every file is what it says.

    Raises:
        CorruptArtefact: the manifest or a file is missing, or differs.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise CorruptArtefact(f"{path} is missing: fetch or build the bundle again")
    manifest = _parsed(path.read_bytes(), str(path))
    for name, told in manifest["files"].items():
        file = directory / name
        found = sha256_of(file) if file.is_file() else "no file"
        if found != told["sha256"]:
            raise CorruptArtefact(f"{file} has sha256 {found[:12]}, its manifest says {told['sha256'][:12]}: fetch it again")
    return manifest


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
            raise ArtefactsUnavailable(f"{self._root} cannot be written ({error}): mend it, and publish again") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _draft(self) -> Path:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=".draft-", dir=self._root))
        except OSError as error:
            raise ArtefactsUnavailable(f"{self._root} cannot be written ({error}): mend it, and publish again") from error

    def fetch(self, version: str, into: Path) -> Path:
        """See `Artefacts`: a local release is used where it lies."""
        del into
        self.manifest(version)
        verify(self._root / version)
        return self._root / version

    def versions(self) -> list[str]:
        """See `Artefacts`."""
        return sorted(path.parent.name for path in self._root.glob(f"[!.]*/{MANIFEST}"))

    def manifest(self, version: str) -> dict[str, Any]:
        """See `Artefacts`."""
        path = self._root / _plain(version) / MANIFEST
        if not path.exists():
            raise _missing(version, str(self._root))
        return _parsed(path.read_bytes(), str(path))

    def address(self, version: str, name: str) -> str:
        """See `Artefacts`."""
        _told(self.manifest(version), name)
        return str(self._root / version / name)

    def remove(self, version: str) -> None:
        """See `Artefacts`: moved out of sight, then removed."""
        self.manifest(version)
        draft = self._draft()
        (self._root / version).rename(draft / version)
        shutil.rmtree(draft)

    def sweep(self, before: float) -> int:
        """See `Artefacts`."""
        files = [path for path in self._root.glob(".draft-*/**/*") if path.is_file() and path.stat().st_mtime < before]
        for path in files:
            path.unlink()
        for draft in self._root.glob(".draft-*"):
            if draft.stat().st_mtime < before and not any(path.is_file() for path in draft.rglob("*")):
                shutil.rmtree(draft)
        return len(files)

    def read_note(self, name: str) -> bytes | None:
        """See `Artefacts`."""
        try:
            return (self._root / NOTES / _plain(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtefactsUnavailable(f"{self._root / NOTES / name} cannot be read ({error}): mend it") from error

    def write_note(self, name: str, body: bytes) -> None:
        """See `Artefacts`: written beside its place, then renamed."""
        draft = self._draft()
        try:
            (draft / name).write_bytes(body)
            (self._root / NOTES).mkdir(exist_ok=True)
            (draft / name).rename(self._root / NOTES / _plain(name))
        except OSError as error:
            raise ArtefactsUnavailable(f"{self._root / NOTES} cannot be written ({error}): mend it") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


class S3Artefacts:
    """Releases as prefixes of an S3 bucket.

    A file lies under its own sha256, so that a second publication of a version, which the manifest's condition refuses,
    has not touched the files of the first.
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
                    raise CorruptArtefact(f"s3://{self._bucket}/{key} has {stored} bytes, not {told['size']}: publish again")
            self._put_manifest(version, (directory / MANIFEST).read_bytes())

    def fetch(self, version: str, into: Path) -> Path:
        """See `Artefacts`: downloaded beside its place, verified, then renamed."""
        target = into / _plain(version)
        if (target / MANIFEST).exists():
            return target
        into.mkdir(parents=True, exist_ok=True)
        manifest = self.manifest(version)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=into))
        try:
            with s3.errors(self._bucket):
                for name, told in manifest["files"].items():
                    self._download(self._key(version, _stored_name(name, told)), draft / name)
            (draft / MANIFEST).write_text(json.dumps(manifest))
            verify(draft)
            draft.rename(target)
        except OSError as error:
            if not (target / MANIFEST).exists():
                raise ArtefactsUnavailable(f"{target} cannot be written ({error}): free the disk") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def versions(self) -> list[str]:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            names = [key.removeprefix(self._prefix) for key, _ in self._listed(self._prefix)]
        return sorted(name.removesuffix(f"/{MANIFEST}") for name in names if name.endswith(f"/{MANIFEST}"))

    def manifest(self, version: str) -> dict[str, Any]:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            try:
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(version, MANIFEST))["Body"].read()
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _NOT_FOUND:
                    raise _missing(version, f"s3://{self._bucket}/{self._prefix}") from error
                raise
        return _parsed(body, self._key(version, MANIFEST))

    def address(self, version: str, name: str) -> str:
        """See `Artefacts`."""
        told = _told(self.manifest(version), name)
        return f"s3://{self._bucket}/{self._key(version, _stored_name(name, told))}"

    def remove(self, version: str) -> None:
        """See `Artefacts`."""
        self.manifest(version)
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
                if changed < before and key.removeprefix(self._prefix).partition("/")[0] not in whole
            ]
            for key in stray:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        return len(stray)

    def _listed(self, prefix: str) -> list[tuple[str, float]]:
        """Keys, and when each was written."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [(o["Key"], o["LastModified"].timestamp()) for page in pages for o in page.get("Contents", ())]

    def _key(self, version: str, name: str) -> str:
        return f"{self._prefix}{version}/{name}"

    def read_note(self, name: str) -> bytes | None:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            try:
                return bytes(self._client.get_object(Bucket=self._bucket, Key=self._key(NOTES, name))["Body"].read())
            except self._client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in _NOT_FOUND:
                    return None
                raise

    def write_note(self, name: str, body: bytes) -> None:
        """See `Artefacts`."""
        with s3.errors(self._bucket):
            self._client.put_object(Bucket=self._bucket, Key=self._key(NOTES, _plain(name)), Body=body)

    def _download(self, key: str, path: Path) -> None:
        try:
            self._client.download_file(self._bucket, key, str(path))
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                message = f"s3://{self._bucket}/{key} is missing, and its manifest names it: activate another release"
                raise CorruptArtefact(message) from error
            raise

    def _put_manifest(self, version: str, body: bytes) -> None:
        key = self._key(version, MANIFEST)
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _TAKEN:
                raise _already(version, f"s3://{self._bucket}/{self._prefix}") from error
            raise


def _parsed(body: bytes, where: str) -> dict[str, Any]:
    try:
        manifest: Mapping[str, Any] = json.loads(body)
        if isinstance(manifest["files"], dict):
            for name, told in manifest["files"].items():
                _stored_name(_plain(name), told)
            return dict(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtefact(f"{where} is no manifest ({error!r}): publish the release again") from error
    raise CorruptArtefact(f"{where} is no manifest: publish the release again")


def _version(manifest: Mapping[str, Any], directory: Path) -> str:
    version = manifest.get("version")
    if not isinstance(version, str):
        raise CorruptArtefact(f"the manifest in {directory} has {version!r} for a version: build the bundle again")
    return version


def _plain(name: str) -> str:
    """The name, if it is one part of a path and no more, so that nothing is read or written elsewhere."""
    if Path(name).name != name or name.startswith("."):
        raise CorruptArtefact(f"{name!r} is no plain name of a release or file: publish the release again")
    return name


def _told(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """What the manifest says of a file."""
    if name not in manifest["files"]:
        raise CorruptArtefact(f"release {manifest['version']} has no {name}: see `shortlist release show` for what it has")
    told: Mapping[str, Any] = manifest["files"][name]
    return told


def _stored_name(name: str, told: Mapping[str, Any]) -> str:
    return f"{told['sha256'][:16]}/{name}"


def _already(version: str, place: str) -> ReleaseRefused:
    return ReleaseRefused(f"release {version} is in {place} already: a version is published once; run the batch again")


def _missing(version: str, place: str) -> CorruptArtefact:
    return CorruptArtefact(f"release {version} is not in {place}: see `shortlist release list` for those that are")
