"""Opens files of every format as lazy frames.

Text is kept as text, so that a bad field costs its row and not the file. Nothing but the names of
the columns is read before a frame is collected: a wide table costs what its used columns cost.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from shortlist.recsys.data.input_schema import TableSchema
from shortlist.recsys.data.movielens import read_dat, year_in
from shortlist.recsys.data.sources import Dialect
from shortlist.recsys.data.staging import (
    EXTENSIONS,
    StagedFile,
    extension_of,
    newest_metadata,
)
from shortlist.recsys.errors import InvalidData

UTF8 = ("utf-8", "utf8", "utf_8", "utf-8-sig", "ascii")
"""Names of encodings that UTF-8 reads."""

NO_PARQUET = "it does not begin with PAR1"
"""What is said of a file that only its name calls Parquet."""

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write for null."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file's rows, not read yet.

    columns: their names; malformed: whether a row has more fields than the header; is_text: whether
    all columns are text, whatever they mean; nested: the fields within columns by dotted names,
    such as properties.sku.
    """

    rows: pl.LazyFrame
    columns: tuple[str, ...]
    malformed: pl.Expr
    is_text: bool = False
    nested: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All names by which rows can be selected."""
        return (*self.columns, *self.nested)


def open_file(file: StagedFile, schema: TableSchema, dialect: Dialect | None) -> OpenFile:
    """Opens a file by its name's ending; a Hive partition's values are columns of it.

    Raises:
        InvalidData: the name ends in no known extension.
        pl.exceptions.PolarsError, OSError, UnicodeDecodeError: the file is not what its name says.
    """
    extension = extension_of(file.name)
    if not extension and dialect is None:
        raise InvalidData(
            f"{schema.name}: cannot tell the format of {file.name!r}: the name must end in "
            f"{', '.join(EXTENSIONS)}, text files also in .gz or .zst after it"
        )
    if extension == ".dat" and dialect is None:
        return _dat(file.path, schema)
    if extension in TYPED:
        return _with_partitions(_typed(TYPED[extension](file.path)), file.name)
    given = default_dialect(file.name) if dialect is None else dialect
    return _with_partitions(_csv(file.path, given), file.name)


def default_dialect(name: str) -> Dialect:
    """How a text file is written where nothing else says so: by its name."""
    return Dialect() if extension_of(name) == ".csv" else Dialect(separator="\t")


def open_lake(source: str, lake: str, table: str) -> OpenFile:
    """Opens a "delta" or an "iceberg" table by Polars' own scans.

    Raises:
        InvalidData: the package that reads it is not installed.
        ArtefactsUnavailable: S3 did not answer.
    """
    try:
        return _delta(source, table) if lake == "delta" else _iceberg(source, table)
    except ImportError as error:
        raise InvalidData(
            f"{table}: {source!r} is a table of {lake.title()}, and the package that reads it is "
            f"not installed: pip install 'shortlist-recommender[lake]'"
        ) from error


def _delta(source: str, table: str) -> OpenFile:
    from deltalake.exceptions import DeltaError

    try:
        return _typed(pl.scan_delta(source))
    except DeltaError as error:
        raise _unreadable(source, table, error) from error


def _iceberg(source: str, table: str) -> OpenFile:
    from pyiceberg.exceptions import ValidationError

    # Else Polars warns that a faster planner is not there.
    os.environ.setdefault("POLARS_ICEBERG_PLANNER", "pyiceberg")
    try:
        return _typed(pl.scan_iceberg(newest_metadata(source, table)))
    except (ValidationError, ValueError) as error:
        raise _unreadable(source, table, error) from error


def _unreadable(source: str, table: str, error: Exception) -> InvalidData:
    said = str(error).strip().split("\n")[0]
    return InvalidData(f"{table}: cannot read the table {source!r} ({said}): mend it, or export it")


def _typed(rows: pl.LazyFrame) -> OpenFile:
    schema = rows.collect_schema()
    plain = {name: _unwrapped(pl.col(name), dtype) for name, dtype in schema.items()}
    nested = {
        name: field
        for column, (at, dtype) in plain.items()
        for name, field in _fields(column, at, dtype)
        if name not in schema
    }
    rows = rows.with_columns(
        *(at.alias(name) for name, (at, dtype) in plain.items() if dtype != schema[name]),
        *(field.alias(name) for name, field in nested.items()),
    )
    return OpenFile(rows, tuple(schema.names()), pl.lit(value=False), nested=tuple(nested))


def _unwrapped(at: pl.Expr, dtype: pl.DataType) -> tuple[pl.Expr, pl.DataType]:
    """A value without what MongoDB's exports wrap it in: {"$oid": "5f3a"} is 5f3a."""
    while isinstance(dtype, pl.Struct) and len(dtype.fields) == 1:
        name, inner = dtype.fields[0].name, dtype.fields[0].dtype
        if not name.startswith("$"):
            break
        at, dtype = at.struct.field(name), inner  # type: ignore[assignment]
    return at, dtype


def _fields(name: str, at: pl.Expr, dtype: pl.DataType) -> Iterator[tuple[str, pl.Expr]]:
    """The innermost fields of a column of objects, by their dotted names."""
    if not isinstance(dtype, pl.Struct):
        return
    for field in dtype.fields:
        inner, its_type = _unwrapped(at.struct.field(field.name), field.dtype)  # type: ignore[arg-type]
        dotted = f"{name}.{field.name}"
        if isinstance(its_type, pl.Struct):
            yield from _fields(dotted, inner, its_type)
        else:
            yield dotted, inner


def _parquet(path: Path) -> pl.LazyFrame:
    with path.open("rb") as file:
        if file.read(4) not in (b"PAR1", b"PARE", b""):
            raise pl.exceptions.ComputeError(NO_PARQUET)
    return pl.scan_parquet(path, glob=False, hive_partitioning=False)


def _json(path: Path) -> pl.LazyFrame:
    """An object a line, or one value that holds the rows.

    What Polars refuses, and what is one object, is read row by row.
    """
    content = _json_text(path)
    is_list, is_one = _json_form(content)
    said = "it has one line, which is no object"
    try:
        if is_list:
            source = content if isinstance(content, Path) else io.BytesIO(content)
            return pl.read_json(source, infer_schema_length=None).lazy()
        if not is_one:
            lines = pl.scan_ndjson(content, infer_schema_length=None)
            lines.collect_schema()
            return lines
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        said = str(error)
    # Each at once as text again: all rows as objects would take several times the memory.
    written = [
        json.dumps(row).encode() if isinstance(row, dict) else _NO_OBJECT
        for row in _json_rows(content.read_bytes() if isinstance(content, Path) else content)
    ]
    if 2 * written.count(_NO_OBJECT) > len(written) or not written:
        raise pl.exceptions.ComputeError(said)
    return pl.scan_ndjson(b"\n".join(written), infer_schema_length=None)


_NO_OBJECT = b"{}"
"""In place of what is no object: a row without fields, which is rejected for that."""


def _json_form(content: Path | bytes) -> tuple[bool, bool]:
    """Whether the text is a list, and whether it is one line that is none."""
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        if file.read(1024).lstrip().startswith(b"["):
            return True, False
        file.seek(0)
        return False, sum(1 for _ in islice(filter(bytes.strip, file), 2)) == 1


def _json_text(path: Path) -> Path | bytes:
    """The file, or what is in it where it is compressed or begins with a byte order mark."""
    content = _plain_bytes(path)
    if isinstance(content, Path):
        with content.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                return content
        content = content.read_bytes()
    return content.removeprefix(codecs.BOM_UTF8)


def _json_rows(text: bytes) -> Iterable[object]:
    """The values in one list or object, or of each line; None for a line that is no JSON."""
    if not text.strip():
        raise pl.exceptions.NoDataError("no JSON")
    whole = _value(text)
    if isinstance(whole, list):
        return whole
    if isinstance(whole, dict):
        return _rows_of(whole)
    return (_value(line) for line in text.splitlines() if line.strip())


def _rows_of(table: dict[str, Any]) -> list[object]:
    """The rows of one object: of a list in it, of a table as pandas writes it, or itself.

    A table is {"columns": [], "index": [], "data": []}, or objects in an object, one a column or
    one a row: the rows are those whose names are all numbers, as pandas numbers them. Where that is
    open, many objects with the same fields are a table that is refused, and all else is one row.
    """
    parts = list(table.values())
    if table.keys() == {"columns", "index", "data"} and _are(list, parts):
        rows = [row if isinstance(row, list) else [] for row in table["data"]]
        return [dict(zip(map(str, table["columns"]), row, strict=False)) for row in rows]
    lists = [part for part in parts if isinstance(part, list) and part and _are(dict, part)]
    n_others = sum(name.lower() not in _AROUND_A_LIST for name in table)
    if len(lists) == 1 and n_others <= 1:
        return lists[0]
    names = dict.fromkeys(name for part in parts if isinstance(part, dict) for name in part)
    if not _are(dict, parts):
        return [table]
    if _are_numbers(table) == _are_numbers(names):
        is_table = max(len(table), len(names)) >= _FEWEST_ROWS
        if not (is_table and all(part.keys() == names.keys() for part in parts)):
            return [table]
        raise pl.exceptions.ComputeError(
            f"one object of objects, {', '.join(map(repr, islice(table, 3)))} and so on"
        )
    if _are_numbers(table):
        return parts
    return [{column: part.get(row) for column, part in table.items()} for row in names]


_AROUND_A_LIST = frozenset(
    {"count", "total", "size", "length", "page", "pages", "next", "schema", "meta", "status"}
)
"""Fields next to a list that holds the rows. An event or an item with a list has others."""

_FEWEST_ROWS = 20
"""Of a table in one object; fewer objects may be the parts of one event."""


def _are(kind: type, parts: Iterable[object]) -> bool:
    return all(isinstance(part, kind) for part in parts)


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.isdecimal() for name in names)


_MOST_DIGITS = 38
"""Of an integer that Polars reads: 128 bits."""

_DECODER = json.JSONDecoder(
    parse_constant=lambda _: None,
    parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else digits,
    parse_float=lambda digits: digits if math.isinf(float(digits)) else float(digits),
)


def _value(text: bytes) -> object:
    """A JSON value or None; NaN and Infinity are null, too large numbers text."""
    try:
        return _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None


TYPED: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": _parquet,
    ".pq": _parquet,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
}
"""Of the formats whose columns have types, what scans them."""


def _plain_bytes(path: Path) -> Path | bytes:
    """The file, or what is in it where it is compressed."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.decompress(path.read_bytes())
    if name.endswith(".zst"):
        return _unzstd(path)
    return path


def _unzstd(path: Path) -> bytes:
    # Polars decompresses text files alone: one column whose separator is in no text.
    lines = pl.scan_csv(
        path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False, glob=False
    ).collect()
    return "\n".join(lines.to_series().fill_null("").to_list()).encode()


def _csv(path: Path, dialect: Dialect) -> OpenFile:
    """Text with separators, all columns as text; a row with too few fields ends in nulls."""
    content = _utf8(path, dialect)
    form: dict[str, Any] = {
        "separator": dialect.separator,
        "quote_char": dialect.quote or None,
        "skip_lines": dialect.skip,
        "has_header": dialect.header,
        "truncate_ragged_lines": True,
        "glob": False,
    }
    head = pl.read_csv(content, n_rows=int(not dialect.header), infer_schema=False, **form)
    header = head.columns
    if not dialect.header:
        header = [f"column_{i + 1}" for i in range(len(header))]
    extra = "extra"  # one column more than the header has: it is filled in rows of too many fields
    while extra in header:
        extra += "_"
    if isinstance(content, io.BytesIO):
        content.seek(0)
    rows = pl.scan_csv(
        content,
        schema=dict.fromkeys([*header, extra], pl.String),
        missing_columns="insert",
        **form,
    )
    names = {c: c.strip() for c in header}
    if len(set(names.values())) == len(names):  # else two columns would have one name
        rows = rows.rename(names, strict=False)
        header = list(names.values())
    return OpenFile(rows, tuple(header), pl.col(extra).is_not_null(), is_text=True)


def _utf8(path: Path, dialect: Dialect) -> Path | io.BytesIO:
    """The file, or where it is written otherwise its text as UTF-8 with line feeds."""
    is_utf8 = dialect.encoding.lower() in UTF8
    if is_utf8 and not _ends_lines_by_returns(path):
        return path
    content = _plain_bytes(path)
    raw = content.read_bytes() if isinstance(content, Path) else content
    text = raw if is_utf8 else raw.decode(dialect.encoding).removeprefix("\ufeff").encode()
    return io.BytesIO(text if b"\n" in text else text.replace(b"\r", b"\n"))


def _ends_lines_by_returns(path: Path) -> bool:
    """Whether a file's lines end in carriage returns alone, as old spreadsheets write them."""
    head = head_of(path)
    return b"\r" in head and b"\n" not in head


HEAD_BYTES = 1 << 20
"""Of a file's beginning from which it is found out how it is written."""

_GZIP = 16
"""Added to zlib's window bits, it makes it expect gzip's header."""

_HEAD_ROWS = 20_000


def head_of(path: Path) -> bytes:
    """The beginning of a file, unpacked."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(zlib.MAX_WBITS | _GZIP).decompress(head, HEAD_BYTES)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        lines = pl.scan_csv(
            path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False,
            glob=False, encoding="utf8-lossy",
        ).head(_HEAD_ROWS)  # fmt: skip
        return "\n".join(lines.collect().to_series().fill_null("").to_list()).encode()
    return head


def _dat(path: Path, schema: TableSchema) -> OpenFile:
    frame, malformed = read_dat(path, schema.dat)
    if "title" in schema.optional:
        frame = frame.with_columns(year_in("title").alias("year"))
    if schema.name == "users":
        frame = frame.with_columns(pl.col("age").cast(pl.Int64, strict=False))
    return OpenFile(frame.lazy(), tuple(frame.columns), pl.lit(malformed))


def _with_partitions(opened: OpenFile, name: str) -> OpenFile:
    """The file with the values of the Hive partitions in its path, such as day=2024-01-01."""
    parts = [part.partition("=") for part in Path(name).parts[:-1]]
    values = {key: unquote(value) for key, sign, value in parts if sign and key.isidentifier()}
    new = {key: value for key, value in values.items() if key not in opened.columns}
    if not new:
        return opened
    texts = (
        pl.lit(None if value == _NO_PARTITION else value, pl.String).alias(key)
        for key, value in new.items()
    )
    columns = (*opened.columns, *new)
    return replace(opened, rows=opened.rows.with_columns(*texts), columns=columns)
