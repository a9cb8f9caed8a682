"""Finds out how a file is written, and samples it.

DuckDB's sniffer finds separator, quotes, header and lines before it. It is given the head of the
file as UTF-8; the encoding is found before, as it sniffs none.
"""

from __future__ import annotations

import codecs
import gzip
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.formats import (
    HEAD_BYTES,
    TYPED,
    OpenFile,
    default_dialect,
    head_of,
    open_file,
    open_lake,
)
from shortlist.recsys.data.input_schema import INTERACTIONS, ITEMS, USERS, TableSchema
from shortlist.recsys.data.readers import explained
from shortlist.recsys.data.sources import Dialect
from shortlist.recsys.data.staging import StagedFile, extension_of, lake_of, staged
from shortlist.recsys.errors import InvalidData

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLE_ROWS = 20_000
"""Rows by which columns are found: enough for shares of a per cent, read in a moment."""

_LEAST_ROWS = 1_000
"""Rows of each file, where there are many."""

Known = dict[str, Dialect]
"""First line -> dialect: files that begin alike are written alike, and sniffing takes its time."""

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ASCII = "ascii"
"""Stands for a text that nearly every encoding writes alike."""

_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
"""Encodings that write even ASCII otherwise."""

_FOREIGN = {
    b"PK\x03\x04": ("a ZIP archive, as .xlsx is", "unpack it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet (.xls)", "save its sheet as CSV"),
    b"BZh": ("compressed by bzip2", "unpack it"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it"),
    b"PAR1": ("Parquet", "give it a name that ends in .parquet"),
    b"ARROW1": ("Arrow's own format (Feather)", "save it as Parquet"),
    b"\x80\x04": ("a pickle of Python", "save the table as Parquet"),
    b"\x80\x05": ("a pickle of Python", "save the table as Parquet"),
    b"\x89HDF": ("HDF5", "save the table as Parquet"),
    b"SQLite format 3": ("a database of SQLite", "export its tables as CSV"),
}
"""Of files that are no text how they begin: what they are, and what to do."""

_ANY = TableSchema("file", required=(), optional=(), dat=(), is_open=True)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A path as it was given, and what its first file holds.

    csv: how its text is written, None where its name says so or it is no text; n_files: how many
    files the path stands for; sample: its first rows, all columns; written: the same as csv, also
    where its name says so; is_ascii: whether its encoding makes no difference; has_points: whether
    it has numbers with a decimal point; nested: fields within columns, by dotted names.
    """

    path: str
    csv: Dialect | None
    columns: tuple[str, ...]
    sample: pl.DataFrame
    n_files: int
    is_text: bool
    written: Dialect | None = None
    is_ascii: bool = False
    has_points: bool = False
    nested: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """Its columns, and the fields within them."""
        return (*self.columns, *self.nested)

    def values(self, column: str) -> pl.Series:
        """All values of one column of plain type, as text, of every file of the path."""
        with explained(self.path, _ANY), _opened(self.path, self.csv) as opened:
            parts = [_texts(each, column) for each in opened if column in each.known]
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
        known: Known = {}
        headers = {file.name: _header(file, known) for file in files[:_MAX_TABLES]}
    return [path] if len(set(headers.values())) == 1 else [file.name for file in files]


def _header(file: StagedFile, known: Known) -> tuple[str, ...]:
    with explained(file.name, _ANY):
        return tuple(sorted(open_file(file, _schema_of(file), _dialect_of(file, known)).columns))


_MAX_TABLES = 50
"""Files of one path that are looked at: more than that are parts of one table."""


def look_at(path: str) -> FoundFile:
    """Looks at what a path stands for: the files of one table.

    Raises:
        InvalidData: there is no such file, or it cannot be read; or its files are written in ways
            that no one dialect reads.
        ArtefactsUnavailable: S3 did not answer.
    """
    lake = lake_of(path, _ANY.name)
    if lake is not None:
        with explained(path, _ANY):
            opened = open_lake(path, lake, _ANY.name)
            return FoundFile(
                path, None, opened.columns, _sample(opened), 1, opened.is_text, nested=opened.nested
            )
    with staged(path, _ANY.name) as files:
        known: Known = {}
        n_rows = max(_LEAST_ROWS, SAMPLE_ROWS // len(files))
        parts = [_look_at_one(file, known, n_rows) for file in files[:_MAX_TABLES]]
    filled = [part for part in parts if not part.sample.is_empty()]
    if not filled:
        raise InvalidData(f"{path!r} has no rows: a table needs at least one")
    csv = agreed(filled, path)
    return replace(
        filled[0],
        path=path,
        csv=csv,
        n_files=len(files),
        written=filled[0].written if csv is None else csv,
        is_ascii=all(part.is_ascii for part in filled),
        has_points=any(part.has_points for part in filled),
    )


def _look_at_one(file: StagedFile, known: Known, n_rows: int) -> FoundFile:
    with explained(file.name, _ANY):
        found = _readable_dialect(file, known)
        is_ascii = found is not None and found.encoding == _ASCII
        dialect = replace(found, encoding="utf-8") if found is not None and is_ascii else found
        opened = open_file(file, _schema_of(file), dialect)
        sample = _sample(opened, n_rows)
    if dialect is not None and _has_decimals(sample, ","):
        dialect = replace(dialect, decimal=",")
    csv = None if dialect == default_dialect(file.name) else dialect
    return FoundFile(
        file.name, csv, opened.columns, sample, 1, opened.is_text, dialect, is_ascii,
        dialect is not None and _has_decimals(sample, "."), opened.nested,
    )  # fmt: skip


def agreed(files: Sequence[FoundFile], table: str) -> Dialect | None:
    """The dialect that reads all texts of a table; None where their names say it.

    Raises:
        InvalidData: they are written in different ways.
    """
    texts = [file for file in files if file.written is not None]
    if all(file.csv is None for file in texts):
        return None
    alike = _alike(texts)
    for file, dialect in zip(texts, alike, strict=True):
        if dialect != alike[0]:
            raise InvalidData(
                f"{table}: {texts[0].path!r} and {file.path!r} are written in different ways "
                f"({_differing(alike[0], dialect)}; {_differing(dialect, alike[0])}): write them "
                "alike"
            )
    return alike[0]


def _alike(texts: Sequence[FoundFile]) -> list[Dialect]:
    """The dialects of texts, with what a file leaves open taken from the others.

    Plain ASCII reads alike in most encodings, and whole numbers with every decimal sign.
    """
    written = [(file, file.written) for file in texts if file.written is not None]
    encodings = {dialect.encoding for file, dialect in written if not file.is_ascii}
    is_one = len(encodings) == 1 and not encodings & set(_WIDE)
    is_comma = any(dialect.decimal == "," for _, dialect in written)
    is_comma &= not any(file.has_points and dialect.decimal == "." for file, dialect in written)
    return [
        replace(
            dialect,
            encoding=next(iter(encodings)) if is_one else dialect.encoding,
            decimal="," if is_comma else dialect.decimal,
        )
        for _, dialect in written
    ]


def _differing(one: Dialect, other: Dialect) -> str:
    """What one dialect says otherwise than another."""
    mine, theirs = asdict(one), asdict(other)
    return ", ".join(f"{name} {mine[name]!r}" for name in mine if mine[name] != theirs[name])


@contextmanager
def _opened(path: str, dialect: Dialect | None) -> Iterator[list[OpenFile]]:
    lake = lake_of(path, _ANY.name)
    if lake is not None:
        yield [open_lake(path, lake, _ANY.name)]
        return
    with staged(path, _ANY.name) as files:
        yield [open_file(file, _schema_of(file), dialect) for file in files]


def _texts(opened: OpenFile, column: str) -> pl.Series:
    values = opened.rows.select(column).collect()
    text = fields.text(column, values.schema[column], _ANY.name)
    return values.select(text.alias(column)).to_series()


def _sample(opened: OpenFile, n_rows: int = SAMPLE_ROWS) -> pl.DataFrame:
    return opened.rows.select(opened.known).head(n_rows).collect()


def _dialect_of(file: StagedFile, known: Known) -> Dialect | None:
    """How a file's text is written; None where it is no text with separators."""
    if extension_of(file.name) in TYPED or _is_movielens(file):
        return None
    head = head_of(file.path)
    foreign = next((words for start, words in _FOREIGN.items() if head.startswith(start)), None)
    if foreign is not None:
        what, remedy = foreign
        raise InvalidData(f"{file.name!r} is {what}, no text: {remedy}")
    encoding = _encoding(head if not head.isascii() else _first_beyond_ascii(file.path))
    text = head.decode(encoding, errors="ignore").removeprefix("\ufeff")
    if not text.strip():
        raise InvalidData(f"{file.name!r} is empty: it needs a header row and data")
    text = text.replace("\r\n", "\n")  # the sniffer refuses a text that mixes both
    if "\n" not in text:
        text = text.replace("\r", "\n")
    first, _, _ = text.partition("\n")
    if first not in known:
        whole, newline, _ = text.rpartition("\n")
        known[first] = _like(first, known) or _sniffed(whole + newline if whole else text, file)
    return replace(known[first], encoding=encoding)


def _like(first: str, known: Known) -> Dialect | None:
    """The dialect of a file without a header whose first line has as many fields."""
    for line, dialect in known.items():
        is_alike = line.count(dialect.separator) == first.count(dialect.separator) > 0
        if is_alike and not dialect.header and not dialect.skip:
            return dialect
    return None


def _first_beyond_ascii(path: Path) -> bytes:
    """What stands in a file from its first byte beyond ASCII on; nothing where there is none."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as file:
        while part := file.read(HEAD_BYTES):
            if not part.isascii():
                first = next(i for i, byte in enumerate(part) if byte > _LAST_ASCII)
                return bytes(part[first:])
    return b""


_LAST_ASCII = 127


def _readable_dialect(file: StagedFile, known: Known) -> Dialect | None:
    """How a file's text is written: without quotes where they are never closed."""
    dialect = _dialect_of(file, known)
    if dialect is None:
        return None
    try:
        if not _sample(open_file(file, _schema_of(file), dialect)).is_empty():
            return dialect
    except pl.exceptions.PolarsError:
        pass  # without quotes it may be read; if not, that is the error
    return replace(dialect, quote="")


def _is_movielens(file: StagedFile) -> bool:
    """Whether a `.dat` file has the double colons of MovieLens."""
    return extension_of(file.name) == ".dat" and b"::" in head_of(file.path).split(b"\n", 1)[0]


def _schema_of(file: StagedFile) -> TableSchema:
    """A schema that takes any columns; of a MovieLens file that with as many fields."""
    if not _is_movielens(file):
        return _ANY
    n_fields = head_of(file.path).split(b"\n", 1)[0].count(b"::") + 1
    fitting = (schema for schema in (INTERACTIONS, ITEMS, USERS) if len(schema.dat) == n_fields)
    return next(fitting, INTERACTIONS)


def _encoding(head: bytes) -> str:
    """The encoding of a text: by its mark, its zero bytes, or as what it can be read."""
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return encoding
    if head.count(b"\x00") > len(head) // 4:  # Latin letters in UTF-16 have one each
        return "utf-16-le" if head[1:2] == b"\x00" else "utf-16-be"
    if head.isascii():
        return _ASCII
    # The end may have been cut within a character.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    n_bad = text.count("\ufffd")
    if n_bad < sum(map(len, _BEYOND_ASCII.findall(text))) - n_bad:  # a few bytes may be spoilt
        return "utf-8"
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def _sniffed(text: str, file: StagedFile) -> Dialect:
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix="shortlist-sniff-") as directory,
        duckdb.connect() as connection,
    ):
        path = Path(directory) / "head.csv"
        path.write_text(text, encoding="utf-8", newline="")
        # Strictly a bad row can hide the separator; leniently lines above a header can.
        found = [way for lenient in ("false", "true") for way in _ways(connection, path, lenient)]
        if max((way[-1] for way in found), default=0) <= 1:
            rare = (separator for separator in _RARE_SEPARATORS if separator in text)
            found += [
                way for separator in rare for way in _ways(connection, path, "false", separator)
            ]
    if not found:
        raise InvalidData(
            f"cannot tell how {file.name!r} is written: give CSV with a header, Parquet or "
            "JSON lines"
        )
    separator, quote, skip, has_header, _ = max(found, key=lambda row: row[-1])  # first of equals
    # The sniffer gives no quote where the head has none: then the usual one may still follow.
    usual = Dialect().quote
    return Dialect(
        separator, quote if quote in ("'", usual) else usual, skip=skip, header=bool(has_header)
    )


_RARE_SEPARATORS = ("\x01", "\x1f", "~", "^", " ")
"""Tried where none of the usual ones parts a line, the likelier first; \\x01 is Hive's."""


def _ways(
    connection: DuckDBPyConnection, path: Path, lenient: str, separator: str | None = None
) -> list[tuple[Any, ...]]:
    """What DuckDB's sniffer finds: separator, quote, lines before the header, header, columns."""
    import duckdb

    given = "" if separator is None else ", delim=?"
    query = (
        "SELECT Delimiter, Quote, SkipRows, HasHeader, len(Columns) "
        f"FROM sniff_csv(?, ignore_errors={lenient}{given})"
    )
    parameters = [str(path)] if separator is None else [str(path), separator]
    try:
        return connection.execute(query, parameters).fetchall()
    except duckdb.Error:
        return []


_DECIMALS = {
    # 1,234 alone may be a thousand and more.
    ",": (
        r",(?:[0-9]{1,2}|[0-9]{4,})\s*$",
        r"^\s*[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?\s*$",
    ),
    ".": (r"\.(?:[0-9]{1,2}|[0-9]{4,})\s*$", r"^\s*[+-]?[0-9]+(?:\.[0-9]+)?\s*$"),
}
"""Of each decimal sign what a number with decimals, and any number, looks like."""


def _has_decimals(sample: pl.DataFrame, sign: str) -> bool:
    """Whether a column's texts are all numbers, some with this decimal sign."""
    decimal, number = _DECIMALS[sign]
    for name in sample.columns:
        texts = sample[name].drop_nulls()
        if texts.str.contains(decimal).any() and texts.str.contains(number).all():
            return True
    return False
