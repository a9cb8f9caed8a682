"""Tables from files, as they stand there: the right columns, whatever their types, and each row's place in its file.

CSV and `.dat` are read as text, so that a bad field costs its row and not the file; `validation` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.data.movielens import read_dat, year_in
from recsys.data.schemas import FILE, MALFORMED, MARKS, ROW, TableSchema
from recsys.data.staging import Staged, staged
from recsys.errors import InvalidData

_EXTRA = "_extra"
_MARKERS = {MALFORMED, FILE, ROW, _EXTRA}


@dataclass(frozen=True, slots=True)
class Raw:
    """A table as read: its own columns and `schemas.MARKS`; `files` names the files that FILE counts."""

    frame: pl.DataFrame
    files: tuple[str, ...]


def read(source: str, schema: TableSchema) -> Raw:
    """Read the table `schema` from a path, a glob or an s3:// address, files in the order of their names.

    Raises:
        InvalidData: no file, no rows, an unknown extension, a file that is not what its name says, or missing columns.
        ArtefactsUnavailable: S3 did not answer.
    """
    with staged(source, schema.name) as files:
        parts = [_read_file(file, i, schema) for i, file in enumerate(files)]
    frame = pl.concat(alike(parts), how="diagonal", rechunk=False)
    if frame.is_empty():
        raise InvalidData(f"{schema.name}: {source!r} has no rows: a table needs at least one")
    return Raw(frame, tuple(file.name for file in files))


def _read_file(file: Staged, position: int, schema: TableSchema) -> pl.DataFrame:
    reader = _reader(file, schema)
    try:
        frame = reader(file.path, schema)
    except pl.exceptions.NoDataError as error:
        raise InvalidData(f"{schema.name}: {file.name!r} is empty: it needs a header row and data") from error
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError) as error:
        said = str(error).strip().split("\n")[0]
        rule = "CSV must be UTF-8 with closed quotes, Parquet whole"
        raise InvalidData(f"{schema.name}: cannot read {file.name!r} ({said}): {rule}; mend the file") from error
    _check_columns(frame, file, schema)
    kept = frame.columns if schema.is_open else [c for c in frame.columns if c in (*schema.columns, MALFORMED)]
    places = pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(ROW)
    return frame.select(*kept, pl.lit(position, pl.UInt32).alias(FILE), places)


def _reader(file: Staged, schema: TableSchema) -> Callable[[Path, TableSchema], pl.DataFrame]:
    name = file.path.name.lower()
    readers = {".parquet": _parquet, ".pq": _parquet, ".csv": _csv, ".csv.gz": _csv, ".dat": _dat}
    for extension, reader in readers.items():
        if name.endswith(extension):
            return reader
    known = ", ".join(readers)
    raise InvalidData(f"{schema.name}: cannot tell the format of {file.name!r}: the name must end in {known}")


def _check_columns(frame: pl.DataFrame, file: Staged, schema: TableSchema) -> None:
    columns = [c for c in frame.columns if c not in MARKS]
    missing = [c for c in schema.required if c not in columns]
    if missing:
        raise InvalidData(
            f"{schema.name}: {file.name!r} lacks {', '.join(missing)}; it has {', '.join(columns)}; "
            f"required are {', '.join(schema.required)}: rename or add the columns"
        )


def _parquet(path: Path, schema: TableSchema) -> pl.DataFrame:
    scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    names = [n for n in scan.collect_schema().names() if n not in _MARKERS]
    if not schema.is_open and set(schema.required) <= set(names):
        names = [n for n in names if n in schema.columns]
    return scan.select(names).collect().with_columns(pl.lit(value=False).alias(MALFORMED))


def _csv(path: Path, schema: TableSchema) -> pl.DataFrame:
    """CSV with a header, all columns as text; a row of too many fields is marked, one of too few padded with nulls."""
    header = pl.read_csv(path, n_rows=0, infer_schema=False, glob=False, truncate_ragged_lines=True).columns
    frame = pl.read_csv(
        path,
        schema=dict.fromkeys([*header, _EXTRA], pl.String),
        truncate_ragged_lines=True,
        missing_columns="insert",
        glob=False,
    )
    names = {c: c.strip() for c in header}
    if len(set(names.values())) == len(names):
        frame = frame.rename(names)
    frame = frame.with_columns(pl.col(_EXTRA).is_not_null().alias(MALFORMED)).drop(_EXTRA)
    return frame.with_columns(_numbers(frame, schema)) if schema.is_open else frame


def _numbers(frame: pl.DataFrame, schema: TableSchema) -> list[pl.Series]:
    """The attribute columns whose every text is a number, as numbers; a leading zero makes a code, not a number."""
    out: list[pl.Series] = []
    for name in frame.columns:
        if name in (*schema.required, *MARKS):
            continue
        texts = frame[name].str.strip_chars()
        numbers = texts.cast(pl.Float64, strict=False)
        if numbers.null_count() == texts.null_count() < len(texts) and not texts.str.contains(r"^0\d").any():
            out.append(numbers)
    return out


def _dat(path: Path, schema: TableSchema) -> pl.DataFrame:
    frame, malformed = read_dat(path, schema.dat)
    if "title" in schema.optional:
        frame = frame.with_columns(year_in("title").alias("year"))
    if schema.is_open:
        frame = frame.with_columns(pl.col("age").cast(pl.Int64, strict=False))
    return frame.with_columns(malformed.alias(MALFORMED))


def alike(parts: Sequence[pl.DataFrame]) -> list[pl.DataFrame]:
    """The frames with each column of one type: where files differ, lists are joined by "|" and all becomes text."""
    types: dict[str, set[pl.DataType]] = {}
    for part in parts:
        for name, dtype in part.schema.items():
            types.setdefault(name, set()).add(dtype)
    mixed = {name for name, found in types.items() if len(found) > 1}
    return [p.with_columns(_as_text(p, c) for c in p.columns if c in mixed) for p in parts]


def _as_text(frame: pl.DataFrame, column: str) -> pl.Expr:
    dtype = frame.schema[column]
    if isinstance(dtype, pl.List):
        return pl.col(column).cast(pl.List(pl.String)).list.join("|")
    if dtype == pl.Null or not dtype.is_nested():
        return pl.col(column).cast(pl.String)
    raise InvalidData(f"column {column} has type {dtype} in one file and another in the next: use one plain type")
