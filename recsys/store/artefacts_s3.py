"""Keeps releases as prefixes of an S3 bucket."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shortlist.recsys.errors import ArtefactsUnavailable, CorruptArtefact, LoadFailed
from shortlist.recsys.store import local_copies, s3
from shortlist.recsys.store.parallel import run_all
from shortlist.recsys.store.release_files import (
    MANIFEST,
    MANIFEST_BYTES,
    Release,
    check_version,
    entry_of,
    open_verified,
    parse_manifest,
    plain_name,
    size_of,
    verify,
    version_in,
)
from shortlist.recsys.store.release_places import NOTES, already_there, not_there, plain_version

PART_BYTES, STREAMS = 8 << 20, 8
"""The size of a download's parts, and how many run at a time.

One stream of S3 gives less than a function can take.
"""

MANIFEST_SECONDS = 30.0
"""Longest download of a manifest or a note."""

DOWNLOAD_SECONDS = 300.0
"""Longest download of a release: 480 MiB at 1.6 MiB a second.

A reply that drips does not hold up others for ever.
"""

_BLOCK = 1 << 20
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed", "ConditionalRequestConflict")
_OTHER_SIZE = ("416", "InvalidRange")  # the object ends before the part begins


class S3Artefacts:
    """Releases as prefixes of a bucket; see `Artefacts`.

    A file lies under its own sha256, so that a second publication of a version, which the
    manifest's condition refuses, has not touched the files of the first.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._client = s3.open_client()
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._place = f"s3://{bucket}/{self._prefix}"

    def publish(self, directory: Path) -> None:
        """Uploads the files, then the manifest.

        Each file's size is read back, and the manifest replaces none.
        """
        manifest = verify(directory)
        version = version_in(manifest, directory)
        with s3.errors(self._bucket):
            for name, entry in manifest["files"].items():
                key = self._key(version, _stored_name(name, entry))
                self._client.upload_file(str(directory / name), self._bucket, key)
                # upload_file splits large files; a part that was lost shows in the size.
                stored = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
                if stored != entry["size"]:
                    raise CorruptArtefact(
                        f"{self._address(key)} has {stored} bytes, not {entry['size']}: "
                        "publish again"
                    )
            self._put_manifest(version, (directory / MANIFEST).read_bytes())

    def _put_manifest(self, version: str, body: bytes) -> None:
        key = self._key(version, MANIFEST)
        try:
            # S3 refuses where the key exists, so two batches cannot publish over each other.
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, IfNoneMatch="*")
        except self._client.exceptions.ClientError as error:
            if _code(error) in _TAKEN:
                raise already_there(version, self._place) from error
            raise

    def fetch(self, version: str, into: Path) -> Path:
        """The directory of a local copy."""
        with self.open(version, into) as release:
            return release.directory

    def open(self, version: str, into: Path) -> Release:
        """Uses a sound copy, or replaces it.

        Of the older ones at most one stays.
        """
        body = self._manifest_body(version)
        manifest = self._parsed(version, body)
        target = into / version
        with local_copies.exclusive(into):
            local_copies.sweep(into)
            release = _sound_copy(target, manifest, body)
            if release is None:
                local_copies.make_room(into, version, size_of(manifest) + len(body))
                release = self._downloaded(target, manifest, body)
            local_copies.note_use(into, [version])
            return release

    def _downloaded(self, target: Path, manifest: dict[str, Any], body: bytes) -> Release:
        """A new copy: a draft, verified, then renamed."""
        draft = local_copies.draft(target.parent)
        try:
            self._download(manifest, draft)
            (draft / MANIFEST).write_bytes(body)
            release = open_verified(draft, manifest)
            draft.rename(target)
            return Release(target, manifest, release.files)
        except OSError as error:
            raise LoadFailed(
                f"{target} cannot be written ({error}): free the disk, or mend its permissions"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _download(self, manifest: Mapping[str, Any], draft: Path) -> None:
        """Downloads the files in parts, several at a time, and no more than the manifest says."""
        ends = time.monotonic() + DOWNLOAD_SECONDS
        parts = []
        for name, entry in manifest["files"].items():
            path = draft / name
            path.touch()  # its parts are written into it in any order, and it may be empty
            key = self._key(manifest["version"], _stored_name(name, entry))
            for start in range(0, entry["size"], PART_BYTES):
                stop = min(start + PART_BYTES, entry["size"])
                parts.append(partial(self._download_part, key, path, (start, stop), ends))
        run_all(parts, STREAMS)

    def _download_part(self, key: str, path: Path, span: tuple[int, int], ends: float) -> None:
        where, (start, stop) = self._address(key), span
        with s3.errors(self._bucket):
            answer = self._part(key, start, stop)
        with contextlib.closing(_unbuffered(answer)) as body, path.open("r+b") as file:
            if answer["ContentLength"] != stop - start:
                raise CorruptArtefact(
                    f"{where} has another size than its manifest says: activate another release"
                )
            file.seek(start)
            while file.tell() < stop:
                with s3.errors(self._bucket):
                    block = body.read(min(_BLOCK, stop - file.tell()))
                if not block:
                    raise _interrupted(where, "broke off")
                if time.monotonic() > ends:
                    raise _interrupted(where, f"took more than {DOWNLOAD_SECONDS:.0f} s")
                file.write(block)

    def _part(self, key: str, start: int, stop: int) -> Mapping[str, Any]:
        span = f"bytes={start}-{stop - 1}"
        try:
            return dict(self._client.get_object(Bucket=self._bucket, Key=key, Range=span))
        except self._client.exceptions.ClientError as error:
            where, code = self._address(key), _code(error)
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
        """The versions with a manifest."""
        with s3.errors(self._bucket):
            names = [key.removeprefix(self._prefix) for key, _ in self._listed(self._prefix)]
        ending = f"/{MANIFEST}"
        return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))

    def manifest(self, version: str) -> dict[str, Any]:
        """A release's manifest."""
        return self._parsed(version, self._manifest_body(version))

    def _parsed(self, version: str, body: bytes) -> dict[str, Any]:
        manifest = parse_manifest(body, self._key(version, MANIFEST))
        return check_version(manifest, version, self._place)

    def _manifest_body(self, version: str) -> bytes:
        body = self._object(self._key(plain_version(version), MANIFEST), MANIFEST_BYTES + 1)
        if body is None:
            raise not_there(version, self._place)
        return body

    def _object(self, key: str, most: int) -> bytes | None:
        """An object's first `most` bytes, or None.

        Raises:
            ArtefactsUnavailable: they do not come in time.
        """
        with s3.errors(self._bucket):
            try:
                return self._read_body(key, most)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _NOT_FOUND:
                    return None
                raise

    def _read_body(self, key: str, most: int) -> bytes:
        ends, content = time.monotonic() + MANIFEST_SECONDS, bytearray()
        answer = self._client.get_object(Bucket=self._bucket, Key=key)
        with contextlib.closing(_unbuffered(answer)) as body:
            while len(content) < most:
                block = body.read(min(_BLOCK, most - len(content)))
                if not block:
                    break
                if time.monotonic() > ends:
                    raise _interrupted(
                        self._address(key), f"took more than {MANIFEST_SECONDS:.0f} s"
                    )
                content += block
        return bytes(content)

    def address(self, version: str, name: str) -> str:
        """The object's s3:// address."""
        entry = entry_of(self.manifest(version), name)
        return self._address(self._key(version, _stored_name(name, entry)))

    def remove(self, version: str) -> None:
        """Removes the manifest, then the files."""
        self._manifest_body(version)  # not parsed: a corrupt one is a reason to remove it
        with s3.errors(self._bucket):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(version, MANIFEST))
            for key, _ in self._listed(self._key(version, "")):
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def sweep(self, before: float) -> int:
        """Removes old objects of versions without a manifest."""
        whole = {*self.versions(), NOTES}
        with s3.errors(self._bucket):
            stray = [
                key
                for key, changed in self._listed(self._prefix)
                if changed < before and self._version_of(key) not in whole
            ]
            for key in stray:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        return len(stray)

    def read_note(self, name: str) -> bytes | None:
        """A small object next to the releases."""
        return self._object(self._key(NOTES, name), sys.maxsize)

    def write_note(self, name: str, body: bytes) -> None:
        """Writes a small object next to the releases."""
        key = self._key(NOTES, plain_name(name))
        with s3.errors(self._bucket):
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def _listed(self, prefix: str) -> list[tuple[str, float]]:
        """Keys, and when each was written in unix seconds."""
        paginator = self._client.get_paginator("list_objects_v2")
        pages = paginator.paginate(Bucket=self._bucket, Prefix=prefix)
        objects = [entry for page in pages for entry in page.get("Contents", ())]
        return [(entry["Key"], entry["LastModified"].timestamp()) for entry in objects]

    def _key(self, version: str, name: str) -> str:
        return f"{self._prefix}{version}/{name}"

    def _version_of(self, key: str) -> str:
        return key.removeprefix(self._prefix).partition("/")[0]

    def _address(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"


class _Unbuffered:
    """A stream whose `read` gives what has arrived.

    urllib3's waits until it has all that was requested. So the reader may look at the clock after
    each wait for the network, however slowly bytes come.
    """

    def __init__(self, raw: Any) -> None:  # noqa: ANN401 - urllib3's response
        self._raw = raw

    def read(self, amt: int | None = None) -> bytes:
        """1 to `amt` bytes; none at the end."""
        return bytes(self._raw.read1(amt))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._raw, name)


def _unbuffered(answer: Mapping[str, Any]) -> Any:  # noqa: ANN401 - botocore's streaming body
    """An answer's body, whose `read` gives what has arrived.

    botocore still checks length and checksum.
    """
    body = answer["Body"]
    body._raw_stream = _Unbuffered(body._raw_stream)  # noqa: SLF001 - botocore offers no such read
    return body


def _sound_copy(directory: Path, manifest: dict[str, Any], body: bytes) -> Release | None:
    """The copy, if it agrees with the manifest.

    It holds this very manifest, the files that it names, and nothing else.
    """
    try:
        names = {path.name for path in directory.iterdir()}
        if names != {MANIFEST, *manifest["files"]}:
            return None
        copied = directory / MANIFEST
        if copied.stat().st_size != len(body) or copied.read_bytes() != body:
            return None
        return open_verified(directory, manifest)
    except (OSError, CorruptArtefact, LoadFailed):
        return None  # whatever is wrong with a copy, another is fetched


def _stored_name(name: str, entry: Mapping[str, Any]) -> str:
    # 64 bits of the digest: enough that two files of one name never share a key.
    return f"{entry['sha256'][:16]}/{name}"


def _code(error: Any) -> str:  # noqa: ANN401 - boto3's ClientError, which has no static type
    return str(error.response["Error"]["Code"])


def _interrupted(where: str, why: str) -> ArtefactsUnavailable:
    return ArtefactsUnavailable(
        f"the download of {where} {why}: check the network; it is tried again"
    )
