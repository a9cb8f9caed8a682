"""Says where tables are, and how they are written.

A `TableSource` is what the readers take: the files of a table, which of their columns is what, and
how texts and times are written. A bare path stands for a source without peculiarities.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")

_DATE_CODE = re.compile(r"%[-_0^#]?[YyDFscxG+]")
"""The codes of strptime that tell a year."""

Unit = Literal["s", "ms", "us", "ns", "days"]


@dataclass(frozen=True, config=STRICT)
class Dialect:
    """How a text file is written."""

    separator: str = ","
    quote: str = '"'
    """Empty where no field is quoted."""
    encoding: str = "utf-8"
    """A codec of Python, such as latin-1 or utf-16."""
    decimal: Literal[".", ","] = "."
    """With "," the dot parts thousands: 1.234,50."""
    skip: int = 0
    """Lines before the header."""
    header: bool = True
    """Without one the columns are column_1, column_2 and so on."""

    def __post_init__(self) -> None:
        if len(self.separator.encode()) != 1 or len(self.quote.encode()) > 1:
            raise ValueError("separator must be one character of ASCII, quote at most one")
        if self.skip < 0:
            raise ValueError("skip must be a number of lines from 0")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError("encoding must be a codec of Python, such as latin-1") from error


@dataclass(frozen=True, config=STRICT)
class TimeFormat:
    """How times are written."""

    unit: Unit | None = None
    """Of numbers since 1970; None finds it by their size. Days are a spreadsheet's, since 1899."""
    format: str | None = None
    """Of text, as strptime takes it, such as %d.%m.%Y %H:%M; None takes ISO 8601."""
    zone: str = "UTC"
    """Of times that do not say theirs, such as Europe/Berlin."""
    clock: str | None = None
    """Their column of the time of day, where the timestamp is a mere date."""

    def __post_init__(self) -> None:
        if self.format is not None and not _DATE_CODE.search(self.format):
            raise ValueError("format must name the year as strptime does, such as %d.%m.%Y %H:%M")
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("zone must be one of the IANA list, such as Europe/Berlin") from error


@dataclass(frozen=True, config=STRICT)
class ReturnMark:
    """What marks a row as a return: a column and its values."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class TableSource:
    """The files of a table, and how they are read.

    paths: files, directories, globs or s3:// addresses. columns: our name -> theirs; a column that
    is not named keeps its name, and "" leaves it out. csv: None takes what the file's name says.
    """

    paths: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    csv: Dialect | None = None

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths must name at least one file, directory or address")

    @property
    def kept(self) -> tuple[str, ...] | None:
        """Columns of theirs to read besides; None leaves it to the table's schema."""
        return None

    def __str__(self) -> str:
        return ", ".join(self.paths)


@dataclass(frozen=True, config=STRICT)
class InteractionsSource(TableSource):
    """The interactions: also how times are written, and what marks a return."""

    time: TimeFormat = field(default_factory=TimeFormat)
    returns: ReturnMark | None = None


@dataclass(frozen=True, config=STRICT)
class ItemsSource(TableSource):
    """The items: also which of their own columns to learn from, to show and to filter by.

    None takes all.
    """

    learn: tuple[str, ...] | None = None
    show: tuple[str, ...] | None = None
    filter: tuple[str, ...] | None = None

    @property
    def kept(self) -> tuple[str, ...] | None:
        """Those that are learnt from, shown or filtered by."""
        if self.learn is None or self.show is None or self.filter is None:
            return None
        return tuple(dict.fromkeys((*self.learn, *self.show, *self.filter)))


@dataclass(frozen=True, config=STRICT)
class UsersSource(TableSource):
    """The users: also which of their own columns to learn from; None takes all."""

    learn: tuple[str, ...] | None = None

    @property
    def kept(self) -> tuple[str, ...] | None:
        """Those that are learnt from."""
        return self.learn


RETURN_TYPE = "return"
"""The event type of rows that a `ReturnMark` marks."""


def source_of(source: str | TableSource) -> TableSource:
    """The source, or that of a bare path."""
    return TableSource((source,)) if isinstance(source, str) else source
