"""Copies the work directory to S3.

A refresh goes on from the copies when Spot has taken its machine. A stage's files are uploaded when
it has finished, and the stamps of finished stages last: whenever the machine stops, a stamp in S3
means that the files of its stage are there too.
"""

from __future__ import annotations

from pathlib import Path

from shortlist.batch.stages import STAMPS
from shortlist.recsys.atomic_file import DRAFT_SUFFIX
from shortlist.recsys.store import s3


class Checkpoints:
    """The copies of one run's work directory, below s3://bucket/prefix/run."""

    def __init__(self, uri: str, run: str) -> None:
        """uri: s3://bucket/prefix; run: the run's id, the same for each attempt.

        Raises:
            InvalidSettings: the address names no bucket of S3.
        """
        self._bucket, prefix = s3.bucket_and_prefix(uri, "SHORTLIST_CHECKPOINTS")
        self._prefix = f"{prefix}/{run}/".lstrip("/")
        self._client = s3.open_client()
        self._known: dict[str, tuple[int, int]] = {}

    def restore(self, work: Path) -> int:
        """Downloads the copies to `work`; gives their number.

        Nothing is done where finished stages are there already.

        Raises:
            ArtefactsUnavailable: S3 does not answer.
        """
        if (work / STAMPS).exists():  # this machine's own files are at least as new
            return 0
        with s3.errors(self._bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
            names = sorted((key.removeprefix(self._prefix) for key in keys), key=_stamps_last)
            for name in names:
                key = self._prefix + name
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                self._client.download_file(self._bucket, key, str(work / name))
                self._known[name] = _state(work / name)
        return len(names)

    def save(self, work: Path) -> int:
        """Uploads new and changed files; gives their number.

        Raises:
            ArtefactsUnavailable: S3 does not answer.
        """
        changed = [name for name in _files(work) if self._known.get(name) != _state(work / name)]
        with s3.errors(self._bucket):
            for name in changed:
                state = _state(work / name)  # before: what changes meanwhile is uploaded again
                self._client.upload_file(str(work / name), self._bucket, self._prefix + name)
                self._known[name] = state
        return len(changed)


def _files(work: Path) -> list[str]:
    """The finished files of the work directory, stamps last.

    Drafts and hidden files, such as the lock, are left out.
    """
    files = [path for path in work.rglob("*") if path.is_file() and not _is_unfinished(path.name)]
    return sorted((path.relative_to(work).as_posix() for path in files), key=_stamps_last)


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(DRAFT_SUFFIX)


def _stamps_last(name: str) -> tuple[bool, str]:
    """Sorts stamps behind the files that they vouch for."""
    return name.startswith(f"{STAMPS}/"), name


def _state(path: Path) -> tuple[int, int]:
    # Not a digest: the files may be gigabytes, and only this process writes them.
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
