"""Reads and verifies a release's files by their manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import ArtefactsUnavailable, CorruptArtefact, LoadFailed
from shortlist.recsys.store import local_copies

MANIFEST = local_copies.MARK
MANIFEST_BYTES = 4 << 20
"""The largest manifest that is read; a real one has some 15 kB."""

MANIFEST_DEPTH = 16
"""How deep its values may be nested; a real one has five levels."""

MAX_FILES = 64
"""Files that a release may have; a real one has a dozen."""

_BLOCK = 1 << 20
_MAX_NAME_LENGTH = 200
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """A release on this disk, its files open.

    They agreed with the manifest when they were opened. A reader reads these very files, whatever
    is renamed or removed meanwhile. `with` closes them.
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
        """An open file, at its beginning. Raises CorruptArtefact."""
        if name not in self.files:
            raise CorruptArtefact(
                f"{self.directory} has no {name} in its manifest: publish the release again"
            )
        self.files[name].seek(0)
        return self.files[name]

    def read(self, name: str, most: int) -> bytes:
        """A file's bytes, at most `most`. Raises CorruptArtefact."""
        size = self.manifest["files"][name]["size"] if name in self.files else 0
        if size > most:
            raise CorruptArtefact(
                f"{self.directory / name} has {size} bytes, at most {most} are read: "
                "publish the release again"
            )
        return self.file(name).read()


def build_manifest(directory: Path, **fields: object) -> dict[str, Any]:
    """Writes the manifest of all files; gives it.

    fields: further entries.
    """
    # Hidden files are drafts of `atomic_file`.
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    manifest = {**fields, "files": files}
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=2))
    return manifest


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`, with which every file agrees.

    Raises:
        CorruptArtefact: the manifest or a file is missing, or differs.
        ArtefactsUnavailable: the directory is missing, or cannot be read.
    """
    with open_verified(directory, manifest_in(directory)) as release:
        return release.manifest


def manifest_in(directory: Path) -> dict[str, Any]:
    """The manifest of `directory`; its files are not read.

    Raises as `verify`.
    """
    path = directory / MANIFEST
    with _reading(path):
        if not directory.is_dir():
            raise ArtefactsUnavailable(
                f"{directory} is missing: mount its disk, or fetch or build the bundle again"
            )
        if not path.is_file():
            raise CorruptArtefact(f"{path} is missing: fetch or build the bundle again")
        with path.open("rb") as file:
            # One byte more than allowed shows that there are more.
            return parse_manifest(file.read(MANIFEST_BYTES + 1), str(path))


def open_verified(directory: Path, manifest: dict[str, Any]) -> Release:
    """Opens the files of a manifest, verified.

    Raises:
        CorruptArtefact: a file is missing, or differs.
        LoadFailed: one cannot be read.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, BufferedReader] = {}
        for name, entry in manifest["files"].items():
            path = directory / name
            with _reading(path):
                if not path.is_file():
                    raise CorruptArtefact(
                        f"{path} is missing (no file), its manifest names it: fetch it again"
                    )
                files[name] = stack.enter_context(path.open("rb"))
                _check_file(path, files[name], entry)
        stack.pop_all()  # from here on they are the Release's to close
        return Release(directory, manifest, files)


def _check_file(path: Path, file: BufferedReader, entry: Mapping[str, Any]) -> None:
    size = file.seek(0, 2)
    if size != entry["size"]:
        raise CorruptArtefact(
            f"{path} has {size} bytes, its manifest says {entry['size']}: fetch it again"
        )
    file.seek(0)
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != entry["sha256"]:
        raise CorruptArtefact(
            f"{path} has sha256 {sha256[:12]}, its manifest says {entry['sha256'][:12]}: "
            "fetch it again"
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoadFailed(
            f"{path} cannot be read ({error}): mend its permissions or the disk"
        ) from error


def parse_manifest(body: bytes, where: str) -> dict[str, Any]:
    """Parses a manifest; where: for messages.

    Raises CorruptArtefact.
    """
    if len(body) > MANIFEST_BYTES:
        raise CorruptArtefact(
            f"{where} has more than {MANIFEST_BYTES} bytes, and is no manifest: "
            "publish the release again"
        )
    try:
        manifest: dict[str, Any] = json.loads(body)
        files: dict[str, Any] = manifest["files"]
        if len(files) <= MAX_FILES and _is_shallow(manifest, MANIFEST_DEPTH):
            for name, entry in files.items():
                _check_entry(name, entry)
            return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptArtefact(
            f"{where} is no manifest ({error!r}): publish the release again"
        ) from error
    raise CorruptArtefact(
        f"{where} is no manifest (too many files, or nested too deeply): publish the release again"
    )


def _is_shallow(value: object, depth: int) -> bool:
    # json reads far deeper than the code that walks a manifest may recurse.
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(each, depth - 1) for each in inner)


def _check_entry(name: str, entry: Any) -> None:  # noqa: ANN401 - whatever the JSON has
    """Checks a file's entry.

    Raises CorruptArtefact, ValueError or TypeError where it describes no file.
    """
    if not _NAME.fullmatch(plain_name(name)) or name == MANIFEST:
        raise ValueError(f"{name!r} is no name of a file")
    size, sha256 = entry["size"], entry["sha256"]
    if type(size) is not int or size < 0:  # not isinstance: JSON's true would be 1 byte
        raise ValueError(f"{name} has size {size!r}")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{name} has sha256 {sha256!r}")


def plain_name(name: str) -> str:
    """The name, if it is one part of a path.

    So nothing is read or written elsewhere.

    Raises:
        CorruptArtefact: it is not.
    """
    if not is_plain_name(name):
        raise CorruptArtefact(
            f"{name!r} is no plain name of a release or file: publish the release again"
        )
    return name


def is_plain_name(name: str) -> bool:
    """Whether a name is one visible path part."""
    is_one_part = Path(name).name == name and not name.startswith(".")
    return is_one_part and name.isprintable() and len(name) <= _MAX_NAME_LENGTH


def version_in(manifest: Mapping[str, Any], directory: Path) -> str:
    """The version in a manifest. Raises CorruptArtefact."""
    version = manifest.get("version")
    if not isinstance(version, str):
        raise CorruptArtefact(
            f"the manifest in {directory} has {version!r} for a version: build the bundle again"
        )
    return plain_name(version)


def check_version(manifest: dict[str, Any], version: str, where: str) -> dict[str, Any]:
    """The manifest, if of this version. Raises CorruptArtefact."""
    if manifest.get("version") != version:
        raise CorruptArtefact(
            f"the manifest of {version} in {where} is of {manifest.get('version')!r}: "
            "publish the release again"
        )
    return manifest


def entry_of(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A file's size and sha256. Raises CorruptArtefact."""
    if name not in manifest["files"]:
        raise CorruptArtefact(
            f"release {manifest['version']} has no {name}: "
            "see `shortlist release show` for what it has"
        )
    entry: Mapping[str, Any] = manifest["files"][name]
    return entry


def size_of(manifest: Mapping[str, Any]) -> int:
    """Bytes of a release's files."""
    return sum(int(entry["size"]) for entry in manifest["files"].values())


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
