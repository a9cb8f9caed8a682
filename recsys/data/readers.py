"""Tables from files, as they stand there: the right columns, whatever their types, and each row's place in its file.

CSV and `.dat` are read as text, so that a bad field costs its row and not the file; `validation`
does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.input_schema import FILE, MALFORMED, RESERVED, ROW, TableSchema
from shortlist.recsys.data.movielens import read_dat, year_in
from shortlist.recsys.data.staging import Staged, staged
from shortlist.recsys.errors import InvalidData

_IDS = ("user_id", "item_id")


@dataclass(frozen=True, slots=True)
class Raw:
    """A table as read: its own columns and `schemas.MARKS`; `files` names the files that FILE counts.

    drained: the position in `files` of the first file of drained events, None where there are none;
    notes: sentences on what was left out.
    """

    frame: pl.DataFrame
    files: tuple[str, ...]
    drained: int | None = None
    notes: tuple[str, ...] = ()


def read(source: str, schema: TableSchema) -> Raw:
    """Read the table `schema` from a path, a glob or an s3:// address, files in the order of their names.

    Raises:
        InvalidData: no file, no rows, an unknown extension, a file that is not what its name says,
            or missing columns.
        ArtefactsUnavailable: S3 did not answer.
    """
    with staged(source, schema.name) as files:
        parts = [read_file(file, i, schema) for i, file in enumerate(files)]
    frame = pl.concat(alike([part.frame for part in parts]), how="diagonal", rechunk=False)
    if frame.is_empty():
        raise InvalidData(f"{schema.name}: {source!r} has no rows: a table needs at least one")
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Raw(frame, tuple(file.name for file in files), notes=tuple(notes))


def read_file(file: Staged, position: int, schema: TableSchema) -> Raw:
    """One file, whose FILE is `position`. Raises InvalidData as `read` does."""
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
    taken = [c for c in frame.columns if c in RESERVED] if schema.is_open else []
    kept = (
        [c for c in frame.columns if c not in taken]
        if schema.is_open
        else [c for c in frame.columns if c in schema.columns]
    )
    marks = (
        pl.lit(position, pl.UInt32).alias(FILE),
        pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(ROW),
    )
    frame = frame.select(*kept, malformed.alias(MALFORMED), *marks)
    rule = "the reader uses this name itself, rename the column to have it learnt from"
    notes = tuple(f"{schema.name}: column {c} is left out: {rule}" for c in taken)
    return Raw(frame, (file.name,), notes=notes)


Read = tuple[pl.DataFrame, pl.Series | pl.Expr]
"""The columns as they stand in the file, and whether each row had too many fields."""


def _reader(file: Staged, schema: TableSchema) -> Callable[[Path, TableSchema], Read]:
    name = file.path.name.lower()
    readers = {".parquet": _parquet, ".pq": _parquet, ".csv": _csv, ".csv.gz": _csv, ".dat": _dat}
    for extension, reader in readers.items():
        if name.endswith(extension):
            return reader
    known = ", ".join(readers)
    raise InvalidData(
        f"{schema.name}: cannot tell the format of {file.name!r}: the name must end in {known}"
    )


def _check_columns(frame: pl.DataFrame, file: Staged, schema: TableSchema) -> None:
    columns = frame.columns
    missing = [c for c in schema.required if c not in columns]
    if missing:
        raise InvalidData(
            f"{schema.name}: {file.name!r} lacks {', '.join(missing)}; it has {', '.join(columns)}; "
            f"required are {', '.join(schema.required)}: rename or add the columns"
        )


def _parquet(path: Path, schema: TableSchema) -> Read:
    scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    names = scan.collect_schema().names()
    if not schema.is_open and set(schema.required) <= set(names):
        names = [n for n in names if n in schema.columns]
    return scan.select(names).collect(), pl.lit(value=False)


def _csv(path: Path, schema: TableSchema) -> Read:
    """CSV with a header, all columns as text; a row of too many fields is marked, one of too few padded with nulls."""
    header = pl.read_csv(
        path, n_rows=0, infer_schema=False, glob=False, truncate_ragged_lines=True
    ).columns
    extra = "extra"
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
    if len(set(names.values())) == len(names):
        frame = frame.rename(names)
    return (frame.with_columns(_numbers(frame, schema)) if schema.is_open else frame), malformed


def _numbers(frame: pl.DataFrame, schema: TableSchema) -> list[pl.Series]:
    """The attribute columns whose every text is a number, as numbers; a leading zero makes a code, not a number."""
    out: list[pl.Series] = []
    for name in frame.columns:
        if name in schema.required:
            continue
        texts = frame[name].str.strip_chars()
        numbers = texts.cast(pl.Float64, strict=False)
        if (
            numbers.null_count() == texts.null_count() < len(texts)
            and not texts.str.contains(r"^0[0-9]").any()
        ):
            out.append(numbers)
    return out


def _dat(path: Path, schema: TableSchema) -> Read:
    frame, malformed = read_dat(path, schema.dat)
    if "title" in schema.optional:
        frame = frame.with_columns(year_in("title").alias("year"))
    if schema.is_open:
        frame = frame.with_columns(pl.col("age").cast(pl.Int64, strict=False))
    return frame, malformed


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
    if fields.is_plain_list(dtype):
        return pl.col(column).cast(pl.List(pl.String), strict=False).list.join("|")
    if dtype.is_float() and column in _IDS:
        return fields.float_ids(column, dtype)
    if not fields.has_text(dtype):
        raise InvalidData(
            f"column {column} has type {dtype} in one file and another in the next: use one plain type"
        )
    return fields.text(column, dtype, "").alias(column)
