"""Finds out how a file is written, and samples it.

DuckDB's sniffer finds separator, quotes, header and lines before it. It is given the head of the
file as UTF-8; the encoding is found before, as it sniffs none.
"""

from __future__ import annotations

import codecs
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.formats import TYPED, OpenFile, default_dialect, open_file, open_lake
from shortlist.recsys.data.input_schema import TableSchema
from shortlist.recsys.data.readers import explained
from shortlist.recsys.data.sources import Dialect
from shortlist.recsys.data.staging import StagedFile, extension_of, lake_of, staged
from shortlist.recsys.errors import InvalidData

SAMPLE_ROWS = 20_000
"""Rows by which columns are found: enough for shares of a per cent, read in a moment."""

_HEAD_BYTES = 1 << 20
"""Of a file's beginning from which the dialect is found."""

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SPREADSHEETS = {b"PK\x03\x04": ".xlsx", b"\xd0\xcf\x11\xe0": ".xls"}

_ANY = TableSchema("file", required=(), optional=(), dat=(), is_open=True)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A path as it was given, and what its first file holds.

    csv: how its text is written, None where its name says so or it is no text; n_files: how many
    files the path stands for; sample: its first rows, all columns.
    """

    path: str
    csv: Dialect | None
    columns: tuple[str, ...]
    sample: pl.DataFrame
    n_files: int
    is_text: bool

    def values(self, column: str) -> pl.Series:
        """All values of one column of plain type, as text, of every file of the path."""
        with _opened(self.path, self.csv) as opened:
            parts = [_texts(each, column) for each in opened]
        return pl.concat(parts)


def places_in(path: str) -> list[str]:
    """The path, or where its files are of different tables each of them.

    Raises:
        InvalidData: there is no such file, or it cannot be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    if lake_of(path, _ANY.name) is not None:
        return [path]
    with staged(path, _ANY.name) as files:
        if len(files) == 1:
            return [files[0].name]
        headers = {file.name: _header(file) for file in files[:_MAX_TABLES]}
    return [path] if len(set(headers.values())) == 1 else [file.name for file in files]


def _header(file: StagedFile) -> tuple[str, ...]:
    with explained(file.name, _ANY):
        return tuple(sorted(open_file(file, _ANY, _dialect_of(file)).columns))


_MAX_TABLES = 50
"""Files of one path whose headers are compared: more than that are parts of one table."""


def look_at(path: str) -> FoundFile:
    """Looks at what a path stands for: the files of one table.

    Raises:
        InvalidData: there is no such file, or it cannot be read.
        ArtefactsUnavailable: S3 did not answer.
    """
    lake = lake_of(path, _ANY.name)
    if lake is not None:
        with explained(path, _ANY):
            opened = open_lake(path, lake, _ANY.name)
            return FoundFile(path, None, opened.columns, _sample(opened), 1, opened.is_text)
    with staged(path, _ANY.name) as files:
        first = files[0]
        with explained(first.name, _ANY):
            dialect = _readable_dialect(first)
            opened = open_file(first, _ANY, dialect)
            sample = _sample(opened)
        if sample.is_empty():
            raise InvalidData(f"{path!r} has no rows: a table needs at least one")
        if dialect is not None and _has_decimal_commas(sample):
            dialect = replace(dialect, decimal=",")
        if dialect == default_dialect(first.name):
            dialect = None
        return FoundFile(path, dialect, opened.columns, sample, len(files), opened.is_text)


@contextmanager
def _opened(path: str, dialect: Dialect | None) -> Iterator[list[OpenFile]]:
    lake = lake_of(path, _ANY.name)
    if lake is not None:
        yield [open_lake(path, lake, _ANY.name)]
        return
    with staged(path, _ANY.name) as files:
        yield [open_file(file, _ANY, dialect) for file in files]


def _texts(opened: OpenFile, column: str) -> pl.Series:
    values = opened.rows.select(column).collect()
    text = fields.text(column, values.schema[column], _ANY.name)
    return values.select(text.alias(column)).to_series()


def _sample(opened: OpenFile) -> pl.DataFrame:
    return opened.rows.select(opened.columns).head(SAMPLE_ROWS).collect()


def _dialect_of(file: StagedFile) -> Dialect | None:
    """How a file's text is written; None where it is no text with separators."""
    if extension_of(file.name) in TYPED or _is_movielens(file):
        return None
    head = _head(file.path)
    spreadsheet = _SPREADSHEETS.get(head[:4])
    if spreadsheet is not None:
        raise InvalidData(
            f"{file.name!r} is a spreadsheet ({spreadsheet}): save its sheet as CSV, and give that"
        )
    encoding = _encoding(head)
    text = head.decode(encoding, errors="ignore").removeprefix("\ufeff")
    if not text.strip():
        raise InvalidData(f"{file.name!r} is empty: it needs a header row and data")
    whole, newline, _ = text.rpartition("\n")
    return replace(_sniffed(whole + newline if whole else text, file), encoding=encoding)


def _readable_dialect(file: StagedFile) -> Dialect | None:
    """How a file's text is written: without quotes where they are never closed."""
    dialect = _dialect_of(file)
    if dialect is None:
        return None
    try:
        if not _sample(open_file(file, _ANY, dialect)).is_empty():
            return dialect
    except pl.exceptions.PolarsError:
        pass  # without quotes it may be read; if not, that is the error
    return replace(dialect, quote="")


def _is_movielens(file: StagedFile) -> bool:
    """Whether a `.dat` file has the double colons of MovieLens."""
    return extension_of(file.name) == ".dat" and b"::" in _head(file.path).split(b"\n", 1)[0]


def _head(path: Path) -> bytes:
    """The beginning of a file, unpacked."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(zlib.MAX_WBITS | _GZIP).decompress(head, _HEAD_BYTES)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        lines = pl.scan_csv(
            path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False,
            glob=False, encoding="utf8-lossy",
        ).head(SAMPLE_ROWS)  # fmt: skip
        return "\n".join(lines.collect().to_series().fill_null("").to_list()).encode()
    return head


_GZIP = 16
"""Added to zlib's window bits, it makes it expect gzip's header."""


def _encoding(head: bytes) -> str:
    """The encoding of a text: by its mark, its zero bytes, or as what it can be read."""
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return encoding
    if head.count(b"\x00") > len(head) // 4:  # Latin letters in UTF-16 have one each
        return "utf-16-le" if head[1:2] == b"\x00" else "utf-16-be"
    # The end may have been cut within a character.
    if not codecs.getincrementaldecoder("utf-8")("replace").decode(head).count("\ufffd"):
        return "utf-8"
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _sniffed(text: str, file: StagedFile) -> Dialect:
    import duckdb

    with tempfile.TemporaryDirectory(prefix="shortlist-sniff-") as directory:
        path = Path(directory) / "head.csv"
        path.write_text(text, encoding="utf-8", newline="")
        columns = "Delimiter, Quote, SkipRows, HasHeader, len(Columns)"
        found: list[tuple[Any, ...]] = []
        said = ""
        # Strictly a bad row can hide the separator; leniently lines above a header can.
        for lenient in ("false", "true"):
            query = f"SELECT {columns} FROM sniff_csv(?, ignore_errors={lenient})"
            try:
                with duckdb.connect() as connection:
                    found += connection.execute(query, [str(path)]).fetchall()
            except duckdb.Error as error:
                said = str(error).split("\n")[0]
    if not found:
        raise InvalidData(
            f"cannot tell how {file.name!r} is written ({said}): give CSV with a header, "
            "Parquet or JSON lines"
        )
    separator, quote, skip, has_header, _ = max(found, key=lambda row: row[-1])  # first of equals
    # The sniffer gives no quote where the head has none: then the usual one may still follow.
    usual = Dialect().quote
    return Dialect(
        separator, quote if quote in ("'", usual) else usual, skip=skip, header=bool(has_header)
    )


_DECIMAL_COMMA = r"^\s*[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?\s*$"


def _has_decimal_commas(sample: pl.DataFrame) -> bool:
    """Whether a column's texts are all numbers, some with a decimal comma."""
    for name in sample.columns:
        texts = sample[name].drop_nulls()
        # 1,234 alone may be a thousand and more.
        decimal = texts.str.contains(r",(?:[0-9]{1,2}|[0-9]{4,})\s*$")
        if decimal.any() and texts.str.contains(_DECIMAL_COMMA).all():
            return True
    return False
