"""Names and errors that every place for releases shares."""

from __future__ import annotations

from shortlist.recsys.errors import ReleaseNotFound, ReleaseRefused
from shortlist.recsys.store.release_files import is_plain_name

NOTES = "notes"
"""The directory of small files next to the releases."""


def already_there(version: str, place: str) -> ReleaseRefused:
    """The error for a second publication of a version."""
    return ReleaseRefused(
        f"release {version} is in {place} already: a version is published once; run the batch again"
    )


def not_there(version: str, place: str) -> ReleaseNotFound:
    """The error for a version that is not there."""
    return ReleaseNotFound(
        f"release {version} is not in {place}: see `shortlist release list` for those that are"
    )


def plain_version(version: str) -> str:
    """The version, if possible. Raises ReleaseNotFound."""
    if not is_plain_name(version):
        raise ReleaseNotFound(
            f"{version!r} is no plain name, so no release has it: see `shortlist release list`"
        )
    return version
