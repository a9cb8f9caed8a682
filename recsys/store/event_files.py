"""Keeps drained events as Parquet files, locally or on S3.

A file appears whole or not at all, and when `write` returns it outlives a power cut: only then may
its events leave the stream.
"""

from __future__ import annotations

import fcntl
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from shortlist.recsys.atomic_file import remove_drafts, write_atomically
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.store import s3

PREFIX, SUFFIX = "events-", ".parquet"
PATTERN = f"{PREFIX}*{SUFFIX}"

DEAD_LETTERS = "dead-letters-"
"""Files, as Parquet too, of entries that could not be drained as events."""

UNREADABLE = "unreadable-"
"""Files of one such entry each, which earlier releases wrote."""


def pattern_of(address: str) -> str:
    """A glob pattern of all files of events at `address`."""
    # The address may hold characters that a pattern reads.
    return f"{glob.escape(address.rstrip('/'))}/{PATTERN}"


class EventFiles(Protocol):
    """Files of one place, named by `address`.

    Readers of tables take the same address. Every method may raise ArtefactsUnavailable: S3 does
    not answer.
    """

    address: str

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Prepares the place for a drain.

        The drain is alone where two would disturb each other.

        Raises:
            InvalidInput: the place cannot be written, or another drain is at work in it.
        """

    def names(self, prefix: str = PREFIX) -> list[str]:
        """The sorted names of files with a prefix."""

    def read(self, name: str) -> bytes:
        """A file's bytes."""

    def write(self, name: str, body: bytes) -> None:
        """Writes or replaces a file, durably."""

    def remove(self, name: str) -> None:
        """Removes a file."""


def open_event_files(address: str) -> EventFiles:
    """The files in a directory, or below s3://bucket/prefix.

    Raises:
        InvalidSettings: the address names no bucket.
    """
    return S3EventFiles(address) if address.startswith(s3.SCHEME) else DirectoryEventFiles(address)


def _is_one_of(name: str, prefix: str) -> bool:
    suffix = ".bin" if prefix == UNREADABLE else SUFFIX
    return name.startswith(prefix) and name.endswith(suffix) and "/" not in name


class DirectoryEventFiles:
    """Files in a directory; see `EventFiles`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._directory = Path(address)

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Holds a lock, and removes an earlier drain's drafts.

        The end of the process, however it comes, frees the lock.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with (self._directory / ".lock").open("w") as file:
                # Not waited for: the other drain does the same work.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_drafts(self._directory)
                yield
        except BlockingIOError as error:
            raise InvalidInput(
                f"another drain is at work in {self.address!r}: wait for it, or drain elsewhere"
            ) from error
        except OSError as error:
            raise InvalidInput(
                f"events cannot be written to {self.address!r} ({error}): free or mend the disk"
            ) from error

    def names(self, prefix: str = PREFIX) -> list[str]:
        """The files' names, sorted."""
        names = [path.name for path in self._directory.glob(f"{prefix}*")]
        return sorted(name for name in names if _is_one_of(name, prefix))

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        return (self._directory / name).read_bytes()

    def write(self, name: str, body: bytes) -> None:
        """Makes the bytes durable before their name."""
        write_atomically(self._directory / name, body)

    def remove(self, name: str) -> None:
        """Removes a file."""
        (self._directory / name).unlink()


class S3EventFiles:
    """Objects below a prefix; see `EventFiles`.

    S3 shows an object whole, and keeps it once it has said so: there is nothing to lock or sweep.
    Two drains at once may keep an event in two files, as a killed one may; readers take it once.
    """

    def __init__(self, address: str) -> None:
        self._bucket, prefix = s3.bucket_and_prefix(address, "events")
        self.address = address.rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = s3.open_client()

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Checks the bucket before anything leaves the stream."""
        self.names()
        yield

    def names(self, prefix: str = PREFIX) -> list[str]:
        """The files' names, sorted."""
        paginator = self._client.get_paginator("list_objects_v2")
        with s3.errors(self._bucket):
            pages = paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        names = [key.removeprefix(self._prefix) for key in keys]
        return sorted(name for name in names if _is_one_of(name, prefix))

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        with s3.errors(self._bucket):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return bytes(answer["Body"].read())

    def write(self, name: str, body: bytes) -> None:
        """Writes a file."""
        with s3.errors(self._bucket):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body)

    def remove(self, name: str) -> None:
        """Removes a file."""
        with s3.errors(self._bucket):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
