"""Reads tables from files of every format.

Columns keep the types they have, and every row the place in its file. Text files are read as text,
so that a bad field costs its row and not the file; `validation` does the rest.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import categories, fields, times
from shortlist.recsys.data.column_names import alias_of, nearest
from shortlist.recsys.data.formats import NO_PARQUET, TYPED, OpenFile, open_file, open_lake
from shortlist.recsys.data.input_schema import (
    FILE_COLUMN,
    INTERACTIONS,
    ITEMS,
    MALFORMED_COLUMN,
    READER_COLUMNS,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    TableSchema,
)
from shortlist.recsys.data.sources import (
    RETURN_TYPE,
    InteractionsSource,
    ReturnMark,
    TableSource,
    TimeFormat,
    source_of,
)
from shortlist.recsys.data.staging import COMPRESSIONS, StagedFile, extension_of, lake_of, staged
from shortlist.recsys.errors import InvalidData

_IDS = ("user_id", "item_id")
_SHOWN_COLUMNS = 20
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table as read: its own columns and READER_COLUMNS.

    files: the names that FILE_COLUMN is a position in; drained: the position in `files` of the
    first file of drained events, None where there are none; notes: sentences on what was left out.
    header: all columns of the files, also those that are not read; is_text: of one file.
    """

    frame: pl.DataFrame
    files: tuple[str, ...]
    drained: int | None = None
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    is_text: bool = False


def read(source: str | TableSource, schema: TableSchema) -> RawTable:
    """Reads a table from its files, in the order of their names.

    A bare path is a file, a directory, a glob or an s3:// address.

    Raises:
        InvalidData: no file, no rows, an unknown extension, a file that is not what its name says,
            or missing columns.
        ArtefactsUnavailable: S3 did not answer.
    """
    source = source_of(source)
    parts: list[RawTable] = []
    for path in source.paths:
        parts += _parts(path, len(parts), schema, source)
    _check_named({name for part in parts for name in part.header}, parts[0], schema, source)
    frames = with_equal_types([part.frame for part in parts])
    frame = pl.concat(frames, how="diagonal", rechunk=False)
    if frame.is_empty():
        raise InvalidData(f"{schema.name}: {str(source)!r} has no rows: a table needs at least one")
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    if schema is INTERACTIONS:
        given = source.time if isinstance(source, InteractionsSource) else TimeFormat()
        frame, more = times.in_seconds(frame, given, schema.name)
        notes += more
    if schema is ITEMS and "categories" in frame.columns:
        frame, more = categories.parted(frame, schema.name)
        notes += more
    return RawTable(frame, tuple(part.files[0] for part in parts), notes=tuple(notes))


def _parts(path: str, first: int, schema: TableSchema, source: TableSource) -> list[RawTable]:
    """The files of one path as tables, numbered from `first`."""
    lake = lake_of(path, schema.name)
    if lake is not None:
        file = StagedFile(path, Path(path))
        with explained(file.name, schema):
            opened = open_lake(path, lake, schema.name)
            return [_read_open(opened, file, first, schema, source)]
    with staged(path, schema.name) as files:
        return [read_file(file, first + i, schema, source) for i, file in enumerate(files)]


def read_file(
    file: StagedFile, position: int, schema: TableSchema, source: TableSource | None = None
) -> RawTable:
    """Reads one file, at `position` among the files. Raises InvalidData as `read` does."""
    source = source_of(file.name) if source is None else source
    with explained(file.name, schema):
        opened = open_file(file, schema, source.csv)
        return _read_open(opened, file, position, schema, source)


def check_columns(source: str | TableSource, schema: TableSchema) -> None:
    """Finds out from the headers whether the columns are there.

    Only as many files are opened as it takes. Nothing is asked of S3: that takes its time, and is
    done when the table is read.

    Raises:
        InvalidData: there is no file, or it lacks a column.
    """
    source = source_of(source)
    is_remote = any(path.startswith("s3://") for path in source.paths)
    names: set[str] = set()
    first: RawTable | None = None
    for header in _headers(source, schema):
        first = first or header
        names.update(header.header)
        if names.issuperset(_named(source)):
            return
    if first is not None and not is_remote:
        _check_named(names, first, schema, source)


def _headers(source: TableSource, schema: TableSchema) -> Iterator[RawTable]:
    """The local files of a source, opened and not read."""
    for path in source.paths:
        if path.startswith("s3://"):
            continue
        lake = lake_of(path, schema.name)
        with ExitStack() as stack:
            files = [StagedFile(path, Path(path))]
            if lake is None:
                files = stack.enter_context(staged(path, schema.name))
            for file in files:
                with explained(file.name, schema):
                    if lake is None:
                        opened = open_file(file, schema, source.csv)
                    else:
                        opened = open_lake(path, lake, schema.name)
                    _columns(opened, file, schema, source)
                    yield RawTable(
                        pl.DataFrame(),
                        (file.name,),
                        header=opened.known,
                        is_text=opened.is_text,
                    )


@contextmanager
def explained(name: str, schema: TableSchema) -> Iterator[None]:
    """Turns errors of a file that is not what its name says into a sentence."""
    try:
        yield
    except pl.exceptions.NoDataError as error:
        needed = "data" if extension_of(name) in TYPED else "a header row and data"
        raise InvalidData(f"{schema.name}: {name!r} is empty: it needs {needed}") from error
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        UnicodeError,
        OSError,
        EOFError,
        zlib.error,
    ) as error:
        said = str(error).strip().split("\n")[0]
        bad = _bad_bytes(name) if "utf-8" in said else ""
        raise InvalidData(
            f"{schema.name}: cannot read {name!r} ({said}{bad}): {_rule(name, said)}"
        ) from error


def _bad_bytes(name: str) -> str:
    """Where a local file is no UTF-8, as an end of a sentence."""
    path = Path(name)
    if not path.is_file() or path.suffix in COMPRESSIONS:
        return ""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                wrong = line[error.start : error.end]
                return f", first {wrong.hex()} in line {number} at byte {error.start + 1}"
    return ""


_CUT = ("end of file", "end-of-stream", "incomplete", "corrupt")
"""What is said of a compressed file that ends too early, or is damaged."""


def _rule(name: str, said: str) -> str:
    """What a file must be, and what to do."""
    if name.lower().endswith(COMPRESSIONS) and any(words in said.lower() for words in _CUT):
        return "the compressed file is cut off or damaged; fetch it again, or pack it again"
    extension = extension_of(name)
    if said == NO_PARQUET:
        return "it is no Parquet; give it the ending of what it is, such as .csv"
    if extension in (".parquet", ".pq"):
        return "Parquet must be whole; write the file again"
    if extension in (".jsonl", ".ndjson", ".json"):
        return (
            "JSON must be an object a line, or a list of objects; mend the file, or write it by "
            "pandas' to_json(orient='records', lines=True)"
        )
    return (
        "CSV must be UTF-8 with closed quotes; mend the file, or say in a mapping file how it is "
        "written (`shortlist data check` finds out)"
    )


def _read_open(
    opened: OpenFile, file: StagedFile, position: int, schema: TableSchema, source: TableSource
) -> RawTable:
    columns, notes = _columns(opened, file, schema, source)
    chosen = [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]
    clock = source.time.clock if isinstance(source, InteractionsSource) else None
    if clock in opened.known:
        chosen = [c for c in chosen if c.meta.output_name() != "timestamp"]
        chosen.append(times.at_clock(columns["timestamp"], clock).alias("timestamp"))
    mark = source.returns if isinstance(source, InteractionsSource) else None
    if mark is not None and mark.column in opened.known:
        chosen = [c for c in chosen if c.meta.output_name() != "event_type"]
        chosen.append(_marked_type(mark, columns.get("event_type")))
    frame = opened.rows.select(*chosen, opened.malformed.alias(MALFORMED_COLUMN)).collect()
    if opened.is_text:
        comma = source.csv is not None and source.csv.decimal == ","
        frame = frame.with_columns(_numbers(frame, schema, comma=comma))
    frame = frame.with_columns(
        pl.lit(position, pl.UInt32).alias(FILE_COLUMN),
        pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(ROW_COLUMN),
    )
    if opened.is_text:
        frame, more = _without_empty_rows(frame, file.name, schema.name)
        notes += more
    return RawTable(frame, (file.name,), notes=notes, header=opened.known, is_text=opened.is_text)


def _without_empty_rows(
    frame: pl.DataFrame, name: str, table: str
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of a text file in which something stands, and a note on the others."""
    fields_read = [c for c in frame.columns if c not in READER_COLUMNS]
    is_empty = pl.all_horizontal(pl.col(fields_read).is_null()) & ~pl.col(MALFORMED_COLUMN)
    filled = frame.filter(~is_empty)
    n_empty = frame.height - filled.height
    if not n_empty:
        return frame, ()
    rows = "row" if n_empty == 1 else "rows"
    return filled, (f"{table}: {n_empty} {rows} of {name!r} have nothing in the columns read",)


def _columns(
    opened: OpenFile, file: StagedFile, schema: TableSchema, source: TableSource
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The columns to read, as our name -> theirs, and notes on what is taken or left out.

    Raises:
        InvalidData: a required column, or one that the mapping names, is not there.
    """
    names, known = opened.columns, opened.known
    _check_ours(schema, source)
    own: dict[str, str] = {}
    notes: list[str] = []
    for ours in schema.columns:
        theirs = source.columns.get(ours, ours)
        if not theirs and ours not in schema.required:  # left out on purpose
            continue
        if theirs not in known and ours not in source.columns:
            theirs = _alias(ours, names, schema, notes)
        if theirs in known:
            own[ours] = theirs
    own |= {
        ours: source.columns[ours] for ours in schema.named if source.columns.get(ours) in known
    }
    missing = [c for c in schema.required if c not in own]
    if any(c in source.columns for c in missing):
        here = RawTable(pl.DataFrame(), (file.name,), is_text=opened.is_text)
        _check_named(set(known), here, schema, source)
    if missing:
        raise _lacking(missing, opened, file, schema, source)
    absent = [name for name in _named(source) if name not in known]
    if absent:
        notes.append(
            f"{schema.name}: {file.name!r} has no {', '.join(absent)}, which other files have: "
            "its rows have none"
        )
    others, clashing = _others(opened, own, schema, source)
    rule = "the reader uses this name itself, rename the column to have it learnt from"
    notes += [f"{schema.name}: column {c} is left out: {rule}" for c in clashing]
    unread = [n for n in names if n not in (*own.values(), *others, *clashing, *_marks(source))]
    # A mapping leaves out what it does not name; a bare path has said nothing.
    if unread and type(source) is TableSource and schema is INTERACTIONS:
        notes.append(_unread_note(unread, schema))
    return own | {name: name for name in others}, tuple(notes)


def _marks(source: TableSource) -> tuple[str, ...]:
    """Columns of theirs that are read into another: the mark of returns, and the time of day."""
    if not isinstance(source, InteractionsSource):
        return ()
    mark = None if source.returns is None else source.returns.column
    return tuple(name for name in (mark, source.time.clock) if name is not None)


def _unread_note(unread: Sequence[str], schema: TableSchema) -> str:
    what = "columns" if len(unread) > 1 else "column"
    return (
        f"{schema.name}: {what} {', '.join(unread)} not read: a mapping file says what they are "
        "(`shortlist data check` writes one)"
    )


def _alias(ours: str, names: Sequence[str], schema: TableSchema, notes: list[str]) -> str:
    """What is taken for one of our columns that is missing: a note says so."""
    theirs = alias_of(ours, names) if schema is ITEMS else None
    if theirs is None:
        return ours
    notes.append(f"{schema.name}: column {theirs} is taken for {ours}")
    return theirs


def _others(
    opened: OpenFile, own: dict[str, str], schema: TableSchema, source: TableSource
) -> tuple[list[str], list[str]]:
    """Their columns to read besides, and those of them whose names are taken."""
    kept = source.kept
    if kept is None:
        kept = tuple(n for n in opened.columns if n not in own.values()) if schema.is_open else ()
    taken = (*RESERVED_COLUMNS, *own)
    renamed = [own[ours] for ours in schema.named if ours in own]
    others = [
        name
        for name in dict.fromkeys(kept)
        if own.get(name) != name and name not in renamed and name in opened.known
    ]
    return [n for n in others if n not in taken], [n for n in others if n in taken]


def _check_ours(schema: TableSchema, source: TableSource) -> None:
    """Refuses a mapping with columns that a table has not, or one for two of them."""
    known = (*schema.columns, *schema.named)
    unknown = [ours for ours in source.columns if ours not in known]
    if unknown:
        raise InvalidData(
            f"{schema.name}: the mapping has {unknown[0]!r} among its columns, known are "
            f"{', '.join(known)}: write one of these = the name of your column"
        )
    mapped = list(filter(None, source.columns.values()))
    if schema is INTERACTIONS and len(set(mapped)) < len(mapped):
        twice = next(name for name in mapped if mapped.count(name) > 1)
        both = " and ".join(ours for ours, theirs in source.columns.items() if theirs == twice)
        raise InvalidData(
            f"{schema.name}: the mapping has column {twice!r} as {both}: a column is one of them"
        )


def _named(source: TableSource) -> list[str]:
    """All columns of theirs that a mapping names."""
    mapped = filter(None, source.columns.values())
    return list(dict.fromkeys((*mapped, *(source.kept or ()), *_marks(source))))


def _check_named(
    names: AbstractSet[str], first: RawTable, schema: TableSchema, source: TableSource
) -> None:
    """Refuses a mapping that names a column which none of the files has.

    names: the columns of all files; first: the file that the message names.
    """
    absent = next((name for name in _named(source) if name not in names), None)
    if absent is None:
        return
    known = sorted(names)
    near = ", ".join(map(values.shown, difflib.get_close_matches(absent, known, n=3, cutoff=0.0)))
    separator = _meant_separator(known, source) if first.is_text else None
    if separator is not None:
        near += f", parted by {_SEPARATORS[separator]} as it seems"
    raise InvalidData(
        f"{schema.name}: {first.files[0]!r} has no column {absent!r}, which the mapping names; "
        f"nearest are {near}: correct the mapping file, or write a new one with "
        "`shortlist data check`"
    )


def _lacking(
    missing: Sequence[str],
    opened: OpenFile,
    file: StagedFile,
    schema: TableSchema,
    source: TableSource,
) -> InvalidData:
    """The error for a file without these required columns, with what was probably meant."""
    names = opened.columns
    separator = _meant_separator(names, source) if opened.is_text else None
    if any("\x00" in name for name in names):
        why = "it seems to be written in UTF-16, not in UTF-8"
        names = tuple(name.replace("\x00", "").lstrip("\ufffd") for name in names)
    elif separator is not None:
        why = f"its header seems to be parted by {_SEPARATORS[separator]}"
    else:
        near = [f"{ours} may be {' or '.join(nearest(ours, opened.known))}" for ours in missing]
        why = "; ".join(near)
    n_more = len(names) - _SHOWN_COLUMNS
    shown = ", ".join(names[:_SHOWN_COLUMNS]) + (f" and {n_more} more" if n_more > 0 else "")
    return InvalidData(
        f"{schema.name}: {file.name!r} lacks {', '.join(missing)}; it has {shown}; required are "
        f"{', '.join(schema.required)}; {why}: rename the columns, or run "
        f"`shortlist data check {file.name} --write data.toml` and give --data data.toml"
    )


def _meant_separator(names: Sequence[str], source: TableSource) -> str | None:
    """The separator by which a header with too few columns has most parts, if any has more."""
    used = "," if source.csv is None else source.csv.separator
    counts = {s: sum(name.count(s) for name in names) for s in _SEPARATORS if s != used}
    best = max(counts, key=lambda s: counts[s])
    return best if counts[best] >= len(names) else None


def _marked_type(mark: ReturnMark, theirs: str | None) -> pl.Expr:
    """The event type: a return where the mark says so, else their own type."""
    value = pl.col(mark.column).cast(pl.String).str.strip_chars()
    own = pl.lit(None, pl.String) if theirs is None else pl.col(theirs).cast(pl.String)
    is_return = value.is_in(list(mark.values)).fill_null(value=False)
    return pl.when(is_return).then(pl.lit(RETURN_TYPE)).otherwise(own).alias("event_type")


def _numbers(frame: pl.DataFrame, schema: TableSchema, *, comma: bool) -> list[pl.Series]:
    """The columns of text that are numbers: people's own, of which every text is one.

    With a decimal comma also weights and years, each text for itself.
    """
    out: list[pl.Series] = []
    for name in frame.columns:
        texts = frame[name]
        if name == MALFORMED_COLUMN or texts.dtype != pl.String:
            continue
        is_number = name in ("weight", "rating", "year")
        is_own = name not in schema.columns
        if comma and (is_number or is_own):
            texts = fields.with_decimal_point(texts)
        numbers = _all_numbers(texts) if is_own else None
        if numbers is not None or comma:
            out.append(texts if numbers is None else numbers)
    return out


def _all_numbers(texts: pl.Series) -> pl.Series | None:
    """A column of texts that are all numbers; None where one is not, or is a code."""
    texts = texts.str.strip_chars()
    numbers = texts.cast(pl.Float64, strict=False)
    all_read = numbers.null_count() == texts.null_count() < len(texts)
    has_codes = texts.str.contains(r"^0[0-9]").any()  # 02139 is a postal code, no number
    return numbers if all_read and not has_codes else None


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
