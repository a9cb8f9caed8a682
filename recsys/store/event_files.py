"""Where drained events are kept: Parquet files in a directory or below an address of S3, behind one interface.

A file appears whole or not at all, and when `write` returns it outlives a power cut: an event may
then leave the stream.
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
    """The pattern that all files of events at `address` match, whatever characters the address has."""
    return f"{glob.escape(address.rstrip('/'))}/{PATTERN}"


class EventFiles(Protocol):
    """Files of one place. `address` is that place, for people and for readers of tables."""

    address: str

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Makes the place ready for a drain, which is alone in it where two would disturb each other.

        Raises:
            InvalidInput: the place cannot be written, or another drain is at work in it.
            ArtefactsUnavailable: S3 does not answer, here and in every method.
        """

    def names(self, prefix: str = PREFIX) -> list[str]:
        """The names of the files of events, or of those with another prefix, sorted."""

    def read(self, name: str) -> bytes:
        """A file's bytes."""

    def write(self, name: str, body: bytes) -> None:
        """Writes a file durably, in place of one of that name."""

    def remove(self, name: str) -> None:
        """Removes a file."""


def open_event_files(address: str) -> EventFiles:
    """The files in a directory, or below s3://bucket/prefix. Raises InvalidSettings where that names no bucket."""
    return S3EventFiles(address) if address.startswith(s3.SCHEME) else DirectoryEventFiles(address)


def _is_one_of(name: str, prefix: str) -> bool:
    suffix = ".bin" if prefix == UNREADABLE else SUFFIX
    return name.startswith(prefix) and name.endswith(suffix) and "/" not in name


class DirectoryEventFiles:
    """Files in a directory."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._directory = Path(address)

    @contextmanager
    def draining(self) -> Iterator[None]:
        """See `EventFiles`: the lock goes with its process, and what a drain before left half-written goes too."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with (self._directory / ".lock").open("w") as file:
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
        """See `EventFiles`."""
        return sorted(
            path.name
            for path in self._directory.glob(f"{prefix}*")
            if _is_one_of(path.name, prefix)
        )

    def read(self, name: str) -> bytes:
        """See `EventFiles`."""
        return (self._directory / name).read_bytes()

    def write(self, name: str, body: bytes) -> None:
        """See `EventFiles`: the bytes are made durable before their name."""
        write_atomically(self._directory / name, body)

    def remove(self, name: str) -> None:
        """See `EventFiles`."""
        (self._directory / name).unlink()


class S3EventFiles:
    """Objects below a prefix. S3 shows an object whole, and keeps it once it has said so: there is nothing to lock or sweep.

    Two drains at once may keep an event in two files, as a killed one may; readers take it once.
    """

    def __init__(self, address: str) -> None:
        self._bucket, prefix = s3.bucket_and_prefix(address, "events")
        self.address = address.rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = s3.open_client()

    @contextmanager
    def draining(self) -> Iterator[None]:
        """See `EventFiles`."""
        self.names()  # a bucket that cannot be used is told before anything is taken from the stream
        yield

    def names(self, prefix: str = PREFIX) -> list[str]:
        """See `EventFiles`."""
        with s3.errors(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            found = [
                entry["Key"].removeprefix(self._prefix)
                for page in pages
                for entry in page.get("Contents", ())
            ]
        return sorted(name for name in found if _is_one_of(name, prefix))

    def read(self, name: str) -> bytes:
        """See `EventFiles`."""
        with s3.errors(self._bucket):
            return bytes(
                self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
            )

    def write(self, name: str, body: bytes) -> None:
        """See `EventFiles`."""
        with s3.errors(self._bucket):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body)

    def remove(self, name: str) -> None:
        """See `EventFiles`."""
        with s3.errors(self._bucket):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
