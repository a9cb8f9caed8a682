"""Reads and checks the arguments of the Python functions."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from shortlist.recsys.data.input_schema import INTERACTIONS, ITEMS, USERS
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.evaluation.names import COMPARED
from shortlist.recsys.models.interactions import Repeats
from shortlist.recsys.settings import RepeatsMode
from shortlist.recsys.training.parameters import FitParams
from shortlist.recsys.values import id_of, shown

Table = Any
"""A path (a file, a directory, a glob, s3://), or a frame of Polars, pandas or Arrow."""

_SCHEMAS = {schema.name: schema for schema in (INTERACTIONS, ITEMS, USERS)}


class Frames:
    """Frames as Parquet files, which live as long as this."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="shortlist-frames-"))
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)

    def path_of(self, table: Table | None, name: str) -> str | None:
        """The table's own path, or that of its copy."""
        if table is None:
            return None
        if isinstance(table, (str, Path)):
            if str(table).endswith(".toml"):
                raise InvalidInput(
                    f"{name} is {str(table)!r}, which may be a mapping file: give it as mapping="
                )
            return str(table)
        path = self._directory / f"{name}.parquet"
        _frame_of(table, name).write_parquet(path)
        return str(path)


def _frame_of(table: Table, name: str) -> pl.DataFrame:
    """A frame of any library that Polars knows, with the columns that the table needs."""
    frame = table.collect() if isinstance(table, pl.LazyFrame) else _converted(table, name)
    missing = [column for column in _SCHEMAS[name].required if column not in frame.columns]
    if missing:
        # Polars has no index, and leaves that of pandas out.
        index = [each for each in getattr(getattr(table, "index", None), "names", ()) if each]
        remedy = "move the index into columns by reset_index()" if index else "rename its columns"
        raise InvalidInput(
            f"{name}: the frame lacks {', '.join(missing)}; it has "
            f"{', '.join(frame.columns) or 'no columns'}: {remedy}"
        )
    if frame.is_empty():
        raise InvalidInput(f"{name}: the frame has no rows: a table needs at least one")
    return frame


def _converted(table: Table, name: str) -> pl.DataFrame:
    try:
        return pl.DataFrame(table)
    except ImportError as error:  # pandas without pyarrow
        raise InvalidInput(f"{name}: {error}: install pyarrow, or give a Polars frame") from error
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        column = _unreadable_column(table)
        if column is not None:
            raise InvalidInput(
                f"{name}: column {column!r} cannot be read ({error}): all its values must be of "
                "one type, such as text"
            ) from error
        raise InvalidInput(
            f"{name} is of type {type(table).__name__}: give a path, or a frame of Polars, pandas "
            "or Arrow"
        ) from error


def _unreadable_column(table: Table) -> str | None:
    """The first column of a pandas frame that Polars refuses; None for other tables."""
    for column in getattr(table, "columns", ()):
        try:
            pl.DataFrame(table[[column]])
        except (TypeError, ValueError, pl.exceptions.PolarsError):
            return str(column)
    return None


def check_paths(files: Iterable[object]) -> None:
    """Raises InvalidInput for what is no path."""
    for file in files:
        if not isinstance(file, (str, Path)):
            raise InvalidInput(
                f"a file to check is of type {type(file).__name__}: give paths; `read` takes frames"
            )


def params_of(params: FitParams | None, repeats: RepeatsMode | None) -> FitParams:
    """The parameters of the models, with `repeats` where it is given."""
    if params is None:
        params = FitParams()
    if not isinstance(params, FitParams):
        raise InvalidInput(
            f"params is {shown(params)}: give shortlist.FitParams(towers=shortlist.TowerParams(…))"
        )
    if repeats is None:
        return params
    known = [each.value for each in Repeats]
    if repeats not in known:
        raise InvalidInput(f"repeats is {shown(repeats)}: it must be one of {', '.join(known)}")
    return replace(params, repeats=Repeats(repeats))


def length_of(k: object) -> int:
    """The length of a list."""
    k = _plain(k)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InvalidInput(f"k is {shown(k)}: it must be a whole number of at least 1")
    return k


def ids_of(values: object, what: str) -> list[str]:
    """Ids as every entry reads them: 42, 42.0 and "42" are one.

    Raises:
        InvalidInput: it is no list, or one of them is no id; `what` names it.
    """
    several = _several(values, what)
    try:
        return [id_of(_plain(each)) for each in several]
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error}") from error


def texts_of(values: object, what: str) -> list[str]:
    """A list of texts."""
    texts: list[str] = []
    for each in _several(values, what):
        if not isinstance(each, str):
            raise InvalidInput(f"{what}: {shown(each)} must be text")
        texts.append(each)
    return texts


def methods_of(names: object) -> list[str]:
    """The methods that an evaluation compares: these, or all where it is None."""
    if names is None:
        return list(COMPARED)
    named = texts_of(names, "methods")
    unknown = [name for name in named if name not in COMPARED]
    if unknown or not named:
        what = shown(unknown[0]) if unknown else "nothing"
        raise InvalidInput(f"methods has {what}: give some of {', '.join(COMPARED)}")
    return named


def _several(values: object, what: str) -> Iterable[object]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidInput(f"{what} is {shown(values)}: give a list")
    return values


def where_of(where: object) -> object:
    """Conditions as JSON has them: dates as text, sets and arrays as lists, numbers as Python's."""
    if isinstance(where, Mapping):
        return {name: where_of(value) for name, value in where.items()}
    if isinstance(where, str) or not isinstance(where, Iterable):
        return _plain(where)
    return [where_of(each) for each in where]


def _plain(value: object) -> object:
    """A scalar of numpy as Python's, a date as ISO 8601 text."""
    if isinstance(value, date):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value
