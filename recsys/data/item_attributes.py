"""Turns the items' own columns into attributes and content.

Every column that has a meaning is shown, filtered by and learnt from, unless the caller names the
columns. Learnt are lists, booleans, texts of few enough distinct values, numbers and dates, by the
rules of `attributes`; and the vectors of the column `embedding`, from a model of texts or images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.data import fields
from shortlist.recsys.data.attributes import tokenised
from shortlist.recsys.data.item_texts import texts_read, untyped_hint
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.models.catalogue import ItemAttribute, ItemContent, LabelColumn
from shortlist.recsys.models.interactions import MISSING, Float32
from shortlist.recsys.store.rules import AVAILABILITY_COLUMNS, AVAILABLE
from shortlist.recsys.values import MAX_TIME
from shortlist.recsys.where import AttributeKind, AttributeValue

EMBEDDING = "embedding"
"""The column of the items' own vectors."""

MAX_COMPONENTS = 64
"""Principal components that are kept of the items' own vectors: as many as the towers have."""

MIN_SPREAD = 1e-9
"""Of a component, as a share of the strongest one's variance."""

MAX_DIMENSIONS = 8192
"""Of the items' own vectors: more than any published model of texts or images gives."""

ITEMS_PER_TEXT = 10
"""Items for each distinct text, at least, of a column that is learnt from."""

MAX_CELLS = 1 << 28
"""Most items times labels, a GiB for each copy of the matrix; else the rarest are left out."""

MAX_LIST = 32
"""Labels of an item that are learnt from in a column of lists."""

MIN_DIMENSIONS = 8
"""Fewest fractions in every list of a column that are taken for a vector, and not for labels."""

EXACT = 2**53
"""Whole numbers below it have all their digits as a float."""


@dataclass(frozen=True, slots=True)
class ItemUse:
    """Which of the items' own columns to learn from, to show and to filter by; None for all."""

    learn: tuple[str, ...] | None = None
    show: tuple[str, ...] | None = None
    filter: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """The items' own columns, read.

    notes: sentences on what is left out; vectors_digest: sha256 of the embeddings as they came, as
    their principal components differ between machines in the last bits; empty for none.
    """

    attributes: tuple[ItemAttribute, ...]
    content: ItemContent
    notes: tuple[str, ...]
    vectors_digest: bytes


def item_columns(items: pl.DataFrame, year: pl.Series, use: ItemUse, n_labels: int) -> ItemColumns:
    """The items' own columns as attributes and content.

    items: these columns alone, in the order of the catalogue; year: float32, null or NaN where
    unknown; n_labels: of the categories, which count towards MAX_CELLS.

    Raises:
        InvalidData: `use` names a column that is not there, or embeddings break a rule.
    """
    _check_use(items.columns, use)
    notes: list[str] = []
    vectors, digest = np.zeros((items.height, 0), np.float32), b""
    if EMBEDDING in items.columns and _is_chosen(EMBEDDING, use.learn):
        given, known = _vectors(items[EMBEDDING])
        digest = hashlib.sha256(given.tobytes() + known.astype("<f4").tobytes()).digest()
        vectors = _projected(given, known)
        notes.append(_vectors_note(given, known, vectors))
    read: dict[str, tuple[AttributeKind, pl.Series]] = {}
    for name in items.columns:
        if name == EMBEDDING:
            continue
        kind_and_values = _read(items[name])
        if isinstance(kind_and_values, str):
            notes.append(f"items: column {name} is left out: {kind_and_values}")
            continue
        read[name] = kind_and_values
        if name in AVAILABILITY_COLUMNS:
            read[name], hint = _availability(name, *kind_and_values)
        else:
            hint = untyped_hint(*kind_and_values)
        notes += [f"items: column {name} {hint}"] if hint else []
    attributes = [
        ItemAttribute(name, kind, _plain(kind, values), *_uses(name, use))
        for name, (kind, values) in read.items()
    ]
    if year.is_not_nan().fill_null(value=False).any():
        years = _plain(AttributeKind.NUMBER, year.cast(pl.Float64))
        attributes.append(ItemAttribute("year", AttributeKind.NUMBER, years, *_uses("year", use)))
    learnt = {name: both for name, both in read.items() if _is_chosen(name, use.learn)}
    most = MAX_CELLS // max(1, items.height) - n_labels
    content, content_notes = _content(learnt, items.height, vectors, most)
    kept = tuple(a for a in attributes if a.is_shown or a.is_filtered)
    return ItemColumns(kept, content, (*notes, *content_notes), digest)


def _check_use(columns: Sequence[str], use: ItemUse) -> None:
    known = (*columns, "year")
    for what in ("learn", "show", "filter"):
        for name in getattr(use, what) or ():
            if name not in known:
                raise InvalidData(
                    f"items: {what} names the column {name!r}, which is not there: known are "
                    f"{', '.join(known)}"
                )


def _is_chosen(name: str, chosen: tuple[str, ...] | None) -> bool:
    return chosen is None or name in chosen


def _uses(name: str, use: ItemUse) -> tuple[bool, bool]:
    """Whether a column is shown, and whether it is filtered by.

    Those that say when an item is available always are: answers go by them.
    """
    is_filtered = _is_chosen(name, use.filter) or name in AVAILABILITY_COLUMNS
    return _is_chosen(name, use.show), is_filtered


def _read(column: pl.Series) -> tuple[AttributeKind, pl.Series] | str:
    """A column's kind and clean values; the reason why it cannot be an attribute, else.

    Dates become text, numbers Float64 or Int64; what stands for nothing is null.
    """
    dtype = column.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        kind, values = texts_read(column.cast(pl.String).str.strip_chars().replace("", None))
        if kind is AttributeKind.DATE:
            values = _iso_text(values)
        elif kind is AttributeKind.LIST:
            return _read_lists(values)
    elif fields.is_plain_list(dtype):
        return _read_lists(column)
    elif dtype in (pl.Date, pl.Datetime):
        kind, values = AttributeKind.DATE, _iso_text(column)
    elif dtype == pl.Boolean:
        kind, values = AttributeKind.BOOLEAN, column
    elif dtype.is_integer() and not _keeps_digits(column):
        kind, values = AttributeKind.TEXT, column.cast(pl.String)
    elif dtype.is_numeric():
        kind, values = AttributeKind.NUMBER, _numbers(column)
    else:
        return (
            f"it has type {dtype}, attributes are text, lists of text, numbers, booleans or dates"
        )
    return (kind, values) if values.null_count() < len(values) else "it has no values"


def _read_lists(column: pl.Series) -> tuple[AttributeKind, pl.Series] | str:
    """Lists of labels; a reason where they are vectors, or all empty."""
    dtype = column.dtype
    values = column.to_frame().select(fields.names(column.name, dtype, "items")).to_series()
    if values.list.len().max() == 0:
        return "it has no values"
    length = _vector_length(column)
    if length:
        return (
            f"its lists of {length} numbers look like vectors: name it {EMBEDDING}, in the table "
            "or a mapping, to have them learnt from"
        )
    return AttributeKind.LIST, values


def _vector_length(column: pl.Series) -> int:
    """The length of all lists, where they hold fractions and are long enough for vectors; else 0.

    Labels, such as sizes, are seldom fractions, and seldom as many for each item.
    """
    lists = column.cast(pl.List(pl.String), strict=False)
    lengths = lists.list.len().filter(lists.list.len() > 0).unique().to_list()
    if len(lengths) != 1 or lengths[0] < MIN_DIMENSIONS:
        return 0
    parts = lists.explode(empty_as_null=True, keep_nulls=True).drop_nulls()
    is_number = parts.str.strip_chars().cast(pl.Float64, strict=False).is_not_null().all()
    return lengths[0] if is_number and parts.str.contains(r"[.eE]").any() else 0


def _keeps_digits(column: pl.Series) -> bool:
    """Whether whole numbers are the same as floats; codes of more digits are not."""
    known: Any = column.drop_nulls()
    return known.is_empty() or bool(known.min() >= -EXACT and known.max() <= EXACT)


def _availability(
    name: str, kind: AttributeKind, values: pl.Series
) -> tuple[tuple[AttributeKind, pl.Series], str]:
    """A column that says when items are available, in the form that says so, and a hint.

    `available` may hold 1 and 0, the others Unix seconds.
    """
    wanted = AttributeKind.BOOLEAN if name == AVAILABLE else AttributeKind.DATE
    read = values
    if kind is AttributeKind.NUMBER and wanted is AttributeKind.BOOLEAN:
        read = values.cast(pl.Float64).replace_strict({0.0: False, 1.0: True}, default=None)
    elif kind is AttributeKind.NUMBER:
        seconds = values.cast(pl.Float64)
        seconds = seconds.set(~seconds.is_between(0, MAX_TIME).fill_null(value=False), None)
        read = _iso_text(pl.from_epoch(seconds.cast(pl.Int64), "s").alias(name))
    elif kind is AttributeKind.TEXT and wanted is AttributeKind.DATE:
        frame = values.to_frame()
        seconds = frame.select(fields.seconds(name, values.dtype, "items")).to_series()
        seconds = seconds.set((seconds < 0).fill_null(value=False), None)
        read = _iso_text(pl.from_epoch(seconds, "s").alias(name))
    elif kind is not wanted:
        read = pl.Series(name, [None] * len(values))
    lost = values.filter(values.is_not_null() & read.is_null())
    if lost.is_empty():
        return (wanted, read), ""
    rule = {AttributeKind.BOOLEAN: "true or false", AttributeKind.DATE: "a date"}[wanted]
    hint = (
        f"says nothing of {len(lost)} items, which are shown: {lost.to_list()[0]!r} must be {rule}"
    )
    is_other = read.null_count() == len(read)
    return ((kind, values) if is_other else (wanted, read)), hint


def _iso_text(column: pl.Series) -> pl.Series:
    """Dates as 2024-05-31, date-times as 2024-05-31T18:00:00Z; null beyond the years 1 to 9999."""
    known = column.set(~column.dt.year().is_between(1, 9999).fill_null(value=False), None)
    if column.dtype == pl.Date:
        return known.dt.strftime("%Y-%m-%d")
    if known.dtype.time_zone is not None:  # type: ignore[attr-defined]
        known = known.dt.convert_time_zone("UTC")
    return known.dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def _numbers(column: pl.Series) -> pl.Series:
    """Finite numbers; Int64 where all are whole."""
    # By way of text a float of 32 bits is the shortest decimal that it stands for.
    plain = column.cast(pl.String) if column.dtype in (pl.Float16, pl.Float32) else column
    values = plain.cast(pl.Float64)
    values = values.set(~values.is_finite().fill_null(value=False), None)
    known = values.drop_nulls()
    is_whole = (known == known.floor()).all() and (known.abs() < 2**53).all()
    return values.cast(pl.Int64) if is_whole else values


def _plain(kind: AttributeKind, values: pl.Series) -> tuple[AttributeValue, ...]:
    """Python's own values, with None for what is not there."""
    if kind is AttributeKind.LIST:
        return tuple(tuple(each) if each else None for each in values.to_list())
    if kind is AttributeKind.NUMBER:
        values = _numbers(values)
    return tuple(values.to_list())


def _content(
    columns: dict[str, tuple[AttributeKind, pl.Series]], n: int, vectors: Float32, most: int
) -> tuple[ItemContent, list[str]]:
    """What is learnt from the columns; at most so many labels of all of them together."""
    notes: list[str] = []
    labelled: list[LabelColumn] = []
    numbers: dict[str, pl.Series] = {}
    for name, (kind, values) in columns.items():
        if kind in (AttributeKind.NUMBER, AttributeKind.DATE):
            numbers[name] = _as_number(kind, values)
        learnt, reason = _labels(name, kind, values, most)
        if learnt is None:
            notes.append(f"items: column {name} is not learnt from: {reason}")
            continue
        most -= len(learnt.labels)
        labelled.append(learnt)
    ranks = [_ranks(values) for values in numbers.values()]
    matrix = np.column_stack(ranks) if ranks else np.zeros((n, 0))
    content = ItemContent(tuple(labelled), tuple(numbers), matrix.astype(np.float32), vectors)
    return content, notes


def _as_number(kind: AttributeKind, values: pl.Series) -> pl.Series:
    """Numbers, and dates as seconds; Float64, null where unknown."""
    if kind is AttributeKind.NUMBER:
        return values.cast(pl.Float64)
    moments = values.to_frame().select(fields.seconds(values.name, values.dtype, "items"))
    return moments.to_series().cast(pl.Float64)


def _ranks(values: pl.Series) -> np.ndarray:
    """float64[n]: each value's middle rank among the known ones, 0 to 1; NaN for unknown.

    Ranks rather than values: prices, sizes and counts are seldom spread evenly.
    """
    known = max(1, len(values) - values.null_count())
    ranks = (values.rank("average") - 0.5) / known
    return ranks.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _labels(
    name: str, kind: AttributeKind, values: pl.Series, most: int
) -> tuple[LabelColumn | None, str]:
    """A column by its labels, or the reason why it is not learnt from."""
    if kind is AttributeKind.LIST:
        return _list_labels(name, values, most)
    column = _as_number(kind, values) if kind is AttributeKind.DATE else values
    limit = min(most, max(100, len(values) // ITEMS_PER_TEXT))
    vocabulary, tokens, notes = tokenised(column.alias(name).to_frame(), limit)
    if not vocabulary.columns:
        return None, notes[0].partition("is left out: ")[2]
    return LabelColumn(name, tuple(vocabulary.tokens[0]), tokens), ""


def _list_labels(name: str, lists: pl.Series, most: int) -> tuple[LabelColumn | None, str]:
    """The commonest labels of lists that more than one item has."""
    counts = lists.explode(empty_as_null=True, keep_nulls=True).drop_nulls().alias("label")
    frequency = counts.value_counts().sort(["count", "label"], descending=[True, False])
    shared = frequency.filter(pl.col("count") > 1)["label"].head(max(0, most)).sort()
    if shared.is_empty():
        return None, "no two items share a label"
    position = pl.DataFrame({"label": shared}).with_row_index("at")
    rows = pl.DataFrame({"row": np.arange(len(lists)), "label": lists}).explode("label")
    pairs = rows.join(position, on="label", how="inner").sort("row", "at")
    place = pairs.select(pl.int_range(pl.len()).over("row")).to_series().to_numpy()
    kept = place < MAX_LIST
    out = np.full((len(lists), int(place[kept].max()) + 1), MISSING, np.int32)
    out[pairs["row"].to_numpy()[kept], place[kept]] = pairs["at"].to_numpy()[kept]
    return LabelColumn(name, tuple(shared.to_list()), out), ""


def _vectors(column: pl.Series) -> tuple[NDArray[np.bool_], Float32]:
    """Which of n items have embeddings, bool[n], and these, float32[m, d].

    Raises:
        InvalidData: they are no lists of numbers of one length.
    """
    lists = _float_lists(column)
    lengths = lists.list.len()
    given = (lengths > 0).fill_null(value=False)
    distinct = lengths.filter(given).unique().sort().to_list()
    if len(distinct) > 1 or max(distinct, default=0) > MAX_DIMENSIONS:
        raise InvalidData(
            f"items: embeddings have {', '.join(map(str, distinct[:5]))} numbers: all must have as "
            f"many, at most {MAX_DIMENSIONS}; leave it empty for items without one"
        )
    flat = lists.filter(given).explode(empty_as_null=True, keep_nulls=True).to_numpy()
    is_sound = np.abs(flat) <= np.finfo(np.float32).max  # False for NaN
    if not is_sound.all():
        first = flat[~is_sound][0]
        raise InvalidData(
            f"items: an embedding holds {first}, where null stands for NaN: all numbers must be "
            "finite 32-bit floats; leave it empty for items without one"
        )
    known = flat.astype(np.float32).reshape(int(given.sum()), -1 if distinct else 0)
    return given.to_numpy(), known


def _projected(given: NDArray[np.bool_], known: Float32) -> Float32:
    """float32[n, D] principal components, 0 for items without embeddings.

    They are centred, and scaled to a mean length of 1.
    """
    components = _principal(known)
    out = np.zeros((len(given), components.shape[1]), np.float32)
    out[given] = components
    return out


def _vectors_note(given: NDArray[np.bool_], known: Float32, vectors: Float32) -> str:
    if len(known) == 0:
        return f"items: column {EMBEDDING} is left out: it has no values"
    counted = (
        f"items: {len(known)} of {len(given)} items have embeddings of {known.shape[1]} numbers"
    )
    if vectors.shape[1] == 0:
        return f"{counted}, which do not differ: nothing is learnt from them"
    return f"{counted}, learnt from by {vectors.shape[1]} principal components"


def _float_lists(column: pl.Series) -> pl.Series:
    """Lists of Float64, which text may hold as JSON or numpy writes them."""
    dtype: Any = column.dtype
    if dtype == pl.Null or dtype == pl.List(pl.Null):
        return column.cast(pl.List(pl.Float64))
    if isinstance(dtype, (pl.List, pl.Array)) and dtype.inner.is_numeric():
        return column.cast(pl.List(pl.Float64))
    if dtype == pl.String:
        lists = [_parsed(text) for text in column.to_list()]
        return pl.Series(column.name, lists, pl.List(pl.Float64))
    raise InvalidData(
        f"items: column {column.name} has type {dtype}: it must hold a list of numbers for each "
        "item, all of one length; rename the column if it is something else"
    )


def _parsed(text: str | None) -> list[float] | None:
    """The numbers of "[0.1, -0.2]", "[0.1 -0.2]" or "0.1 -0.2"; None for no text."""
    if text is None or not text.strip():
        return None
    try:
        return [float(part) for part in re.split(r"[\s,;]+", text.strip(" []()\t\r\n")) if part]
    except ValueError as error:
        raise InvalidData(
            f"items: the embedding {text[:40]!r} is no list of numbers: write [0.1, -0.2]"
        ) from error


def _principal(known: Float32) -> Float32:
    """float32[m, D]: the strongest principal components of [m, d], D at most MAX_COMPONENTS."""
    if known.size == 0:
        return np.zeros((len(known), 0), np.float32)
    centred = known.astype(np.float64) - known.mean(axis=0, dtype=np.float64)
    spread, axes = np.linalg.eigh(centred.T @ centred)
    # What is left of fewer items than numbers, or of constant ones, is rounding.
    real = spread[::-1][:MAX_COMPONENTS] > MIN_SPREAD * max(spread[-1], np.finfo(np.float64).tiny)
    strongest = axes[:, ::-1][:, :MAX_COMPONENTS][:, real]
    # The sign of an axis is arbitrary: its largest part is made positive, on every machine.
    largest = strongest[np.abs(strongest).argmax(axis=0), np.arange(strongest.shape[1])]
    components = centred @ (strongest * np.sign(largest))
    length = np.sqrt(np.square(components).sum(axis=1).mean()) if components.size else 1.0
    return (components / length).astype(np.float32)
