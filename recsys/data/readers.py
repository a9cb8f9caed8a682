"""Reads tables from CSV, Parquet and `.dat` files.

Columns keep the types they have, and every row the place in its file. CSV and `.dat` are read as
text, so that a bad field costs its row and not the file; `validation` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.input_schema import (
    FILE_COLUMN,
    MALFORMED_COLUMN,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    TableSchema,
)
from shortlist.recsys.data.movielens import read_dat, year_in
from shortlist.recsys.data.staging import StagedFile, staged
from shortlist.recsys.errors import InvalidData

_IDS = ("user_id", "item_id")


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as read: its own columns and READER_COLUMNS.

    files: the names that FILE_COLUMN is a position in; drained: the position in `files` of the
    first file of drained events, None where there are none; notes: sentences on what was left out.
    """

    frame: pl.DataFrame
    files: tuple[str, ...]
    drained: int | None = None
    notes: tuple[str, ...] = ()


def read(source: str, schema: TableSchema) -> RawTable:
    """Reads a table from a path, a glob or an s3:// address, files in the order of their names.

    Raises:
        InvalidData: no file, no rows, an unknown extension, a file that is not what its name says,
            or missing columns.
        ArtefactsUnavailable: S3 did not answer.
    """
    with staged(source, schema.name) as files:
        parts = [read_file(file, i, schema) for i, file in enumerate(files)]
    frames = with_equal_types([part.frame for part in parts])
    frame = pl.concat(frames, how="diagonal", rechunk=False)
    if frame.is_empty():
        raise InvalidData(f"{schema.name}: {source!r} has no rows: a table needs at least one")
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return RawTable(frame, tuple(file.name for file in files), notes=tuple(notes))


def read_file(file: StagedFile, position: int, schema: TableSchema) -> RawTable:
    """Reads one file, at `position` among the files. Raises InvalidData as `read` does."""
    reader = _reader(file, schema)
    try:
        frame, malformed = reader(file.path, schema)
    except pl.exceptions.NoDataError as error:
        raise InvalidData(
            f"{schema.name}: {file.name!r} is empty: it needs a header row and data"
        ) from error
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        UnicodeDecodeError,
        OSError,
    ) as error:
        said = str(error).strip().split("\n")[0]
        rule = "CSV must be UTF-8 with closed quotes, Parquet whole"
        raise InvalidData(
            f"{schema.name}: cannot read {file.name!r} ({said}): {rule}; mend the file"
        ) from error
    _check_columns(frame, file, schema)
    kept, clashing = _kept_columns(frame.columns, schema)
    frame = frame.select(
        *kept,
        malformed.alias(MALFORMED_COLUMN),
        pl.lit(position, pl.UInt32).alias(FILE_COLUMN),
        pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(ROW_COLUMN),
    )
    rule = "the reader uses this name itself, rename the column to have it learnt from"
    notes = tuple(f"{schema.name}: column {c} is left out: {rule}" for c in clashing)
    return RawTable(frame, (file.name,), notes=notes)


def _kept_columns(columns: Sequence[str], schema: TableSchema) -> tuple[list[str], list[str]]:
    """The columns to keep, and those of an open table whose names are reserved."""
    if not schema.is_open:
        return [c for c in columns if c in schema.columns], []
    clashing = [c for c in columns if c in RESERVED_COLUMNS]
    return [c for c in columns if c not in clashing], clashing


_FileContent = tuple[pl.DataFrame, pl.Series | pl.Expr]
"""The columns of a file, and whether each row had too many fields."""


def _reader(file: StagedFile, schema: TableSchema) -> Callable[[Path, TableSchema], _FileContent]:
    name = file.path.name.lower()
    readers = {".parquet": _parquet, ".pq": _parquet, ".csv": _csv, ".csv.gz": _csv, ".dat": _dat}
    for extension, reader in readers.items():
        if name.endswith(extension):
            return reader
    known = ", ".join(readers)
    raise InvalidData(
        f"{schema.name}: cannot tell the format of {file.name!r}: the name must end in {known}"
    )


def _check_columns(frame: pl.DataFrame, file: StagedFile, schema: TableSchema) -> None:
    columns = frame.columns
    missing = [c for c in schema.required if c not in columns]
    if missing:
        raise InvalidData(
            f"{schema.name}: {file.name!r} lacks {', '.join(missing)}; "
            f"it has {', '.join(columns)}; required are {', '.join(schema.required)}: "
            "rename or add the columns"
        )


def _parquet(path: Path, schema: TableSchema) -> _FileContent:
    scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    names = scan.collect_schema().names()
    # Where a required column is missing, all are read, so that the message can list them.
    if not schema.is_open and set(schema.required) <= set(names):
        names = [n for n in names if n in schema.columns]
    return scan.select(names).collect(), pl.lit(value=False)


def _csv(path: Path, schema: TableSchema) -> _FileContent:
    """CSV with a header, all columns as text; a row with too few fields ends in nulls."""
    header = pl.read_csv(
        path, n_rows=0, infer_schema=False, glob=False, truncate_ragged_lines=True
    ).columns
    extra = "extra"  # one column more than the header has: it is filled in rows of too many fields
    while extra in header:
        extra += "_"
    frame = pl.read_csv(
        path,
        schema=dict.fromkeys([*header, extra], pl.String),
        truncate_ragged_lines=True,
        missing_columns="insert",
        glob=False,
    )
    malformed = frame[extra].is_not_null()
    frame = frame.drop(extra)
    names = {c: c.strip() for c in header}
    if len(set(names.values())) == len(names):  # else two columns would have one name
        frame = frame.rename(names)
    if schema.is_open:
        frame = frame.with_columns(_numeric_columns(frame, schema))
    return frame, malformed


def _numeric_columns(frame: pl.DataFrame, schema: TableSchema) -> list[pl.Series]:
    """The attribute columns of which every text is a number, as numbers."""
    attributes = [name for name in frame.columns if name not in schema.columns]
    out: list[pl.Series] = []
    for name in attributes:
        texts = frame[name].str.strip_chars()
        numbers = texts.cast(pl.Float64, strict=False)
        all_read = numbers.null_count() == texts.null_count() < len(texts)
        has_codes = texts.str.contains(r"^0[0-9]").any()  # 02139 is a postal code, no number
        if all_read and not has_codes:
            out.append(numbers)
    return out


def _dat(path: Path, schema: TableSchema) -> _FileContent:
    frame, malformed = read_dat(path, schema.dat)
    if "title" in schema.optional:
        frame = frame.with_columns(year_in("title").alias("year"))
    if "age" in frame.columns:
        frame = frame.with_columns(pl.col("age").cast(pl.Int64, strict=False))
    return frame, malformed


def with_equal_types(parts: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The frames with each column of one type: text, where files differ."""
    types: dict[str, set[pl.DataType]] = {}
    for part in parts:
        for name, dtype in part.schema.items():
            types.setdefault(name, set()).add(dtype)
    mixed = {name for name, dtypes in types.items() if len(dtypes) > 1}
    return [_with_texts(part, mixed & set(part.columns)) for part in parts]


def _with_texts(frame: pl.DataFrame, columns: set[str]) -> pl.DataFrame:
    return frame.with_columns(_as_text(frame, c) for c in frame.columns if c in columns)


def _as_text(frame: pl.DataFrame, column: str) -> pl.Expr:
    """A column as text, a list as its names joined by "|"."""
    dtype = frame.schema[column]
    if fields.is_plain_list(dtype):
        return pl.col(column).cast(pl.List(pl.String), strict=False).list.join("|")
    if dtype.is_float() and column in _IDS:
        return fields.float_ids(column, dtype)
    if not fields.has_text(dtype):
        raise InvalidData(
            f"column {column} has type {dtype} in one file and another in the next: "
            "use one plain type"
        )
    return fields.text(column, dtype, "").alias(column)
