"""Keeps releases as subdirectories of a directory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import ArtefactsUnavailable
from shortlist.recsys.store.release_files import (
    MANIFEST,
    Release,
    check_version,
    entry_of,
    manifest_in,
    open_verified,
    plain_name,
    verify,
    version_in,
)
from shortlist.recsys.store.release_places import NOTES, already_there, not_there, plain_version

_DRAFT = ".draft-"


class DirectoryArtefacts:
    """Releases as subdirectories of `root`; see `Artefacts`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, directory: Path) -> None:
        """Copies the release to a draft, then renames it."""
        version = version_in(verify(directory), directory)
        target = self._root / version
        if target.exists():
            raise already_there(version, str(self._root))
        draft = self._new_draft()
        try:
            shutil.copytree(directory, draft, dirs_exist_ok=True)
            verify(draft)
            draft.chmod(0o755)  # mkdtemp's 0700 would keep a serving user out
            draft.rename(target)  # fails where another process published the version meanwhile
        except OSError as error:
            if target.exists():
                raise already_there(version, str(self._root)) from error
            raise self._unwritable(error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _new_draft(self) -> Path:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self._root))
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ArtefactsUnavailable:
        return ArtefactsUnavailable(
            f"{self._root} cannot be written ({error}): mend it, and publish again"
        )

    def fetch(self, version: str, into: Path) -> Path:
        """A local release is used where it lies."""
        with self.open(version, into) as release:
            return release.directory

    def open(self, version: str, into: Path) -> Release:
        """A local release is used where it lies."""
        del into  # nothing is copied on one disk
        manifest = self.manifest(version)
        return open_verified(self._root / version, manifest)

    def versions(self) -> list[str]:
        """None before the first publication, which makes the directory."""
        with self._reading():
            if not self._root.exists():
                return []
            entries = [path for path in self._root.iterdir() if not path.name.startswith(".")]
            return sorted(path.name for path in entries if (path / MANIFEST).exists())

    def manifest(self, version: str) -> dict[str, Any]:
        """A release's manifest."""
        directory = self._directory_of(version)
        return check_version(manifest_in(directory), version, str(directory))

    def address(self, version: str, name: str) -> str:
        """The file's path."""
        entry_of(self.manifest(version), name)
        return str(self._root / version / name)

    def remove(self, version: str) -> None:
        """Moves the release out of sight, then removes it."""
        directory = self._directory_of(version)
        draft = self._new_draft()
        directory.rename(draft / version)
        shutil.rmtree(draft)

    def sweep(self, before: float) -> int:
        """Removes the files of old drafts."""
        drafts = list(self._root.glob(f"{_DRAFT}*"))
        old_files = [
            path
            for draft in drafts
            for path in draft.rglob("*")
            if path.is_file() and path.stat().st_mtime < before
        ]
        for path in old_files:
            path.unlink()
        for draft in drafts:
            has_files = any(path.is_file() for path in draft.rglob("*"))
            if draft.stat().st_mtime < before and not has_files:
                shutil.rmtree(draft)
        return len(old_files)

    def read_note(self, name: str) -> bytes | None:
        """A small file next to the releases."""
        try:
            return (self._root / NOTES / plain_name(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtefactsUnavailable(
                f"{self._root / NOTES / name} cannot be read ({error}): mend it"
            ) from error

    def write_note(self, name: str, body: bytes) -> None:
        """Writes a small file next to the releases."""
        try:
            write_atomically(self._root / NOTES / plain_name(name), body)
        except OSError as error:
            raise ArtefactsUnavailable(
                f"{self._root / NOTES} cannot be written ({error}): mend it"
            ) from error

    def _directory_of(self, version: str) -> Path:
        """The directory of a release that is there.

        Raises:
            ReleaseNotFound: it is not.
            ArtefactsUnavailable: the root is missing or cannot be read, as of a disk that is not
                mounted: that says nothing about a release.
        """
        directory = self._root / plain_version(version)
        with self._reading():
            if not self._root.is_dir():
                raise ArtefactsUnavailable(
                    f"the artefact directory {self._root} is missing: mount it, or correct "
                    "SHORTLIST_ARTEFACTS"
                )
            if not (directory / MANIFEST).exists():
                raise not_there(version, str(self._root))
        return directory

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtefactsUnavailable(
                f"the artefact directory {self._root} cannot be read ({error}): mend it"
            ) from error
