"""Proposes the mapping that follows from what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import polars as pl

from shortlist.recsys.data import fields
from shortlist.recsys.data.attributes import MAX_TEXTS
from shortlist.recsys.data.check_columns import KNOWN, SCHEMAS, FoundTable
from shortlist.recsys.data.check_events import (
    dislike_bound,
    found_mark,
    proposed_rules,
    type_counts,
)
from shortlist.recsys.data.check_files import agreed
from shortlist.recsys.data.check_times import FoundTimes, day_first, find_times
from shortlist.recsys.data.column_names import closeness, plain
from shortlist.recsys.data.item_attributes import EMBEDDING, ITEMS_PER_TEXT
from shortlist.recsys.data.mapping import DataMapping
from shortlist.recsys.data.sources import InteractionsSource, ItemsSource, UsersSource
from shortlist.recsys.data.times import are_bare_dates, at_clock
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.store.rules import AVAILABILITY_COLUMNS

Ask = Callable[[str, str], bool | None]
"""Asks whether dates such as a text, of a column, have the day first; None: nobody answers."""

MAX_MARKS = 50
"""Most distinct values of a column that may mark returns."""


def decided_times(events: FoundTable, ask: Ask, *, is_day_first: bool | None) -> FoundTimes:
    """How times are written, with day and month distinguished.

    Raises:
        InvalidData: the values do not tell them apart, and neither does anybody else.
    """
    name = events.columns["timestamp"]
    column = events.sample[name]
    if fields.is_text(column.dtype):
        column = events.values(name)
    found = find_times(column)
    clock = _clock(events, found)
    if clock is not None:
        column = _at_clock(events, name, clock)
        joined = find_times(column)
        found = replace(joined, given=replace(joined.given, clock=clock))
    if found.other is None:
        return found
    form, other = str(found.given.format), found.other
    example = str(column.drop_nulls()[0])
    if is_day_first is None:
        is_day_first = ask(example, name)
    if is_day_first is None:
        raise InvalidData(
            f"interactions: all of column {name} can be read as {form} and as {other}, "
            f"such as {example!r}: say --day-first or --month-first"
        )
    chosen = form if day_first(form) == is_day_first else other
    return replace(found, given=replace(found.given, format=chosen), words=chosen, other=None)


_CLOCK = r"^[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?: ?[AaPp][Mm])?$"
_CLOCK_NAMES = ("time", "zeit", "hora", "heure", "ora", "tijd", "clock", "hour")


def _clock(events: FoundTable, found: FoundTimes) -> str | None:
    """The column of the time of day, where the timestamp is a mere date; None where there is none.

    Of several it is the one that is named most like the date: order_date and order_time.
    """
    date = events.columns["timestamp"]
    is_written = found.is_clock and found.given.unit is None and "since" not in found.words
    if not is_written or not are_bare_dates(events.sample[date]):
        return None
    names = [
        name
        for name in events.names
        if name not in events.columns.values()
        and plain(name).endswith(_CLOCK_NAMES)
        and _are_clocks(events.sample[name])
        and find_times(_at_clock(events, date, name)).share >= found.share
    ]
    alike = {name: SequenceMatcher(None, plain(name), plain(date)).ratio() for name in names}
    return max(names, key=lambda name: alike[name], default=None)


def _are_clocks(column: pl.Series) -> bool:
    if column.dtype == pl.Time:
        return True
    return fields.is_text(column.dtype) and bool(
        column.drop_nulls().cast(pl.String).str.strip_chars().str.contains(_CLOCK).all()
    )


def _at_clock(events: FoundTable, date: str, clock: str) -> pl.Series:
    return events.sample.select(at_clock(date, clock).alias(date)).to_series()


def proposed(
    tables: Mapping[str, FoundTable], times: FoundTimes, zone: str | None
) -> tuple[DataMapping, dict[str, int]]:
    """The mapping that follows from what was found, and the events of each type."""
    events = tables["interactions"]
    types = events.columns.get("event_type")
    counts = {} if types is None else type_counts(events.values(types))
    others = {n: events.sample[n] for n in events.names if n not in events.columns.values()}
    rules = proposed_rules(list(counts), is_marked=False)
    mark = None if rules.negative else found_mark(others, MAX_MARKS)
    if mark is not None:
        rules = proposed_rules(list(counts), is_marked=True)
    ratings = events.columns.get("rating")
    if ratings is not None:
        rules = replace(rules, negative_below=dislike_bound(events.sample[ratings]))
    time = times.given if zone is None else replace(times.given, zone=zone)
    source = InteractionsSource(**_place(events, "interactions"), time=time, returns=mark)
    return DataMapping(source, _items(tables), _users(tables), rules), counts


def _place(found: FoundTable, table: str) -> dict[str, Any]:
    """Paths, columns and dialect of a source.

    Raises:
        InvalidData: its files are written in different ways.
    """
    columns = {ours: theirs for ours, theirs in found.columns.items() if ours != theirs}
    # A column of our name that is not what we mean by it.
    clashing = [o for o in SCHEMAS[table].optional if o in found.names and o not in found.columns]
    columns |= dict.fromkeys(clashing, "")
    paths = tuple(file.path for file in found.files)
    return {"paths": paths, "columns": columns, "csv": agreed(found.files, table)}


def _items(tables: Mapping[str, FoundTable]) -> ItemsSource | None:
    if "items" not in tables:
        return None
    found = tables["items"]
    kinds = _kinds(found)
    if not kinds:
        return ItemsSource(**_place(found, "items"))
    learn = tuple(name for name, kind in kinds.items() if kind in ("few", "number", "vector"))
    # Of our columns the year alone is an attribute too.
    years = tuple(name for field, name in found.columns.items() if field == "year")
    show = years + tuple(name for name, kind in kinds.items() if kind not in ("vector", "unusable"))
    narrow = years + tuple(n for n, kind in kinds.items() if kind in ("few", "some", "number"))
    return ItemsSource(**_place(found, "items"), learn=learn, show=show, filter=narrow)


def _users(tables: Mapping[str, FoundTable]) -> UsersSource | None:
    if "users" not in tables:
        return None
    found = tables["users"]
    learn = tuple(name for name, kind in _kinds(found).items() if kind in ("few", "number"))
    return UsersSource(**_place(found, "users"), learn=learn)


def _kinds(found: FoundTable) -> dict[str, str]:
    """Of each of their own columns what can be made of it.

    few: labels to learn from; some: labels to filter by; text; number, or a date; vector; unusable.
    """
    others = [name for name in found.names if name not in found.columns.values()]
    return {name: _kind(found, name) for name in others}


def _is_id(name: str) -> bool:
    """Whether a column is named as ids are: its numbers are none to learn from."""
    return max(closeness(name, "item_id"), closeness(name, "user_id")) >= KNOWN


def _kind(found: FoundTable, name: str) -> str:
    dtype = found.sample.schema[name]
    if name == EMBEDDING:
        return "vector"
    if fields.is_plain_list(dtype):
        return "unusable" if dtype.inner.is_float() else "few"  # type: ignore[attr-defined]
    if not (dtype == pl.Boolean or fields.has_text(dtype)):
        return "unusable"
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Date, pl.Datetime):
        kind = "number"
    else:
        texts = found.values(name)
        kind = _text_kind(texts, max(MAX_TEXTS, len(texts) // ITEMS_PER_TEXT))
    is_special = name in AVAILABILITY_COLUMNS or _is_id(name)
    return "text" if kind == "number" and is_special else kind


def _text_kind(texts: pl.Series, most: int) -> str:
    texts = texts.drop_nulls().str.strip_chars()
    texts = texts.filter(texts != "")
    numbers = fields.with_decimal_point(texts).cast(pl.Float64, strict=False)
    times = texts.to_frame("t").select(fields.seconds("t", pl.String(), "items")).to_series()
    # Numbers are times too: what is both is a number, and either has an order.
    if not texts.is_empty() and 0 in (numbers.null_count(), times.null_count()):
        return "number"
    distinct = texts.n_unique()
    if distinct == 0:
        return "unusable"
    if distinct > len(texts) / 2:  # of most labels there is one each: nothing comes again
        return "text"
    return "few" if distinct <= most else "some"
