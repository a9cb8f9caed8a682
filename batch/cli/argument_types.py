"""Types of arguments: numbers in bounds, places to write to."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import click

from shortlist.batch.exit_status import misplaced

MAX_PORT = 65_535

STDOUT = Path("-")
"""Stands for standard output, where a file is named otherwise."""


class Whole(click.IntRange):
    """A whole number within bounds."""

    name = "whole number"


class Number(click.FloatRange):
    """A finite number within bounds: NaN passes every comparison of click's own type."""

    name = "number"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """The number; fails where it is none, not finite, or out of bounds."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number

    def _describe_range(self) -> str:
        """The bounds for the help; click would show a missing one as None."""
        return "" if self.min is None and self.max is None else super()._describe_range()


PORT = Whole(0, MAX_PORT)


class OutputFile(click.Path):
    """A file to write, refused before the work where it could not be written after it.

    makes_folders: whether missing folders above it will be made.
    """

    def __init__(self, *, makes_folders: bool = False) -> None:
        super().__init__(path_type=Path, dir_okay=False)
        self._makes_folders = makes_folders

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """The path; fails where no file can be written there."""
        _refuse_nothing(self, value, param, ctx)
        path = Path(value)
        try:
            _check_file(path, makes_folders=self._makes_folders)
        except OSError as error:
            self.fail(misplaced(error) or str(error), param, ctx)
        return path


class OutputFolder(click.Path):
    """A folder to write into; it is made where it is missing."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, file_okay=False)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """The path; fails where no folder can be made or written."""
        _refuse_nothing(self, value, param, ctx)
        path = Path(value)
        try:
            _check_folder(path)
        except OSError as error:
            self.fail(misplaced(error) or str(error), param, ctx)
        return path


class OutputPlace(click.Path):
    """A folder to write into, or s3://bucket/prefix."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """The place; fails where it is a folder that cannot be made or written."""
        if not str(value).startswith("s3://"):
            OutputFolder().convert(value, param, ctx)
        return str(value)


class JsonFile(OutputFile):
    """A file whose name ends in .json, or `-` for standard output.

    The ending keeps a table from being overwritten that follows `--json` by mistake.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """The path; fails where no such file can be written."""
        if str(value) == str(STDOUT):
            return STDOUT
        path = super().convert(value, param, ctx)
        if path.suffix != ".json":
            self.fail(
                f"{str(value)!r} does not end in .json: name a file that does, "
                "or put --json last to print",
                param,
                ctx,
            )
        return path


def _check_file(path: Path, *, makes_folders: bool) -> None:
    _stat(path)  # a name that is too long, or a folder that may not be searched
    if path.is_dir():
        raise _refused(errno.EISDIR, path)
    if makes_folders:
        _check_folder(path.parent)
        return
    if not path.parent.exists():
        raise _refused(errno.ENOENT, path.parent)
    _check_writable(path.parent)


def _check_folder(path: Path) -> None:
    """Checks the folder, or the nearest one above it that is there."""
    _stat(path)
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    _check_writable(there)


def _check_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise _refused(errno.ENOTDIR, folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(errno.EACCES, folder)


def _stat(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        return  # what is missing can be made


def _refuse_nothing(
    kind: click.Path,
    value: str | os.PathLike[str],
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> None:
    if not str(value).strip():
        kind.fail("'' names nothing: give a path", param, ctx)


def _refused(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
