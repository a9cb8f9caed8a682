"""Keeps releases in a directory or S3, behind one interface.

A release is a directory of files and a `manifest.json` that names each file's size and sha256. The
manifest is written last and only if the release has none yet, so an interrupted upload is invisible
and two batches cannot publish over each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from shortlist.recsys.errors import InvalidSettings, ReleaseRefused
from shortlist.recsys.store import s3
from shortlist.recsys.store.artefacts_directory import DirectoryArtefacts
from shortlist.recsys.store.artefacts_s3 import S3Artefacts
from shortlist.recsys.store.release_files import Release, size_of


class Artefacts(Protocol):
    """A place for releases. Every method may raise ArtefactsUnavailable."""

    def publish(self, directory: Path) -> None:
        """Stores the release in `directory`, verified, its manifest last.

        Raises:
            CorruptArtefact: a file is not what the manifest says.
            ReleaseRefused: the version is there already.
        """

    def fetch(self, version: str, into: Path) -> Path:
        """Brings a release to `into`/version, verified and whole.

        Gives its directory.

        Raises as `open`.
        """

    def open(self, version: str, into: Path) -> Release:
        """As `fetch`, with its files open and verified.

        The manifest is the place's own each time. A copy in `into` serves only as far as it agrees
        with it: one that was cut short, forged, or holds other files is fetched again; where the
        place does not answer, no copy is used.

        Raises:
            ReleaseNotFound: the place has no release of that version.
            CorruptArtefact: the release is not what its manifest says.
            LoadFailed, NoRoom: this machine's disk refuses, or is too small.
        """

    def versions(self) -> list[str]:
        """The versions that are there whole, oldest first."""

    def manifest(self, version: str) -> dict[str, Any]:
        """A release's manifest. Raises ReleaseNotFound or CorruptArtefact."""

    def address(self, version: str, name: str) -> str:
        """The path or s3:// address of a file.

        Raises:
            ReleaseNotFound: the place has no release of that version.
            CorruptArtefact: the release has no such file.
        """

    def remove(self, version: str) -> None:
        """Removes a release, its manifest first.

        Raises:
            ReleaseNotFound: the place has no release of that version.
        """

    def sweep(self, before: float) -> int:
        """Removes the files of uploads that stopped.

        before: unix seconds. Gives the number of files. Such an upload has no manifest.
        """

    def read_note(self, name: str) -> bytes | None:
        """A small file next to the releases, or None."""

    def write_note(self, name: str, body: bytes) -> None:
        """Writes or replaces a small file next to the releases."""


def open_artefacts(uri: str) -> Artefacts:
    """The place that `uri` names: s3://bucket/prefix, or a directory."""
    if not uri.startswith(s3.SCHEME):
        return DirectoryArtefacts(Path(uri))
    return S3Artefacts(*s3.bucket_and_prefix(uri, "SHORTLIST_ARTEFACTS"))


def existing_artefacts(uri: str) -> Artefacts:
    """As `open_artefacts`, of a place that is there.

    Raises:
        InvalidSettings: the directory is missing, or no directory.
    """
    ensure_usable(uri)
    if not uri.startswith(s3.SCHEME) and not Path(uri).exists():
        raise InvalidSettings(
            f"SHORTLIST_ARTEFACTS={uri!r}: there is no {str(Path(uri).absolute())!r}: work in the "
            "folder of the batch, set the variable, or run `shortlist batch run`, which makes it"
        )
    return open_artefacts(uri)


def ensure_usable(uri: str) -> None:
    """Refuses a file that stands where a directory of releases should be.

    Raises:
        InvalidSettings: it does; or the address names no bucket.
    """
    if uri.startswith(s3.SCHEME):
        s3.bucket_and_prefix(uri, "SHORTLIST_ARTEFACTS")
        return
    path = Path(uri).absolute()
    in_the_way = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None)
    if in_the_way is not None:
        raise InvalidSettings(
            f"SHORTLIST_ARTEFACTS={uri!r}: {str(in_the_way)!r} is a file: name a directory"
        )


def ensure_fits(uri: str, manifest: Mapping[str, Any], most_mb: int) -> None:
    """Refuses a release in S3 without room for copies.

    A process that serves it keeps a copy on its disk.

    Raises:
        ReleaseRefused: the artefacts are in S3, and the release has more than most_mb MiB.
    """
    size = size_of(manifest) / 2**20
    if uri.startswith(s3.SCHEME) and size > most_mb:
        raise ReleaseRefused(
            f"release {manifest.get('version')} has {size:.1f} MiB, and a process that serves it "
            f"has room for {most_mb} (SHORTLIST_BUNDLE_MAX_MB): give the function more ephemeral "
            "storage (more than 512 MB excludes SnapStart) and raise the setting, or make the "
            "bundle smaller by a lower EMBEDDING_DIM or fewer items"
        )
