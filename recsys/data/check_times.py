"""Finds out how a column's times are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.data.sources import TimeFormat
from shortlist.recsys.data.times import (
    COMPACT,
    NAMED_ZONE,
    REMARK,
    UNIT_NAMES,
    ZONE_NAME,
    are_sheet_days,
    found_form,
    moments,
    parsed_seconds,
    says_zone,
)

_DAYS_FIRST = ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%y", "%d/%m/%y", "%d-%m-%y")
_MONTHS_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m.%d.%Y", "%m/%d/%y", "%m-%d-%y", "%m.%d.%y")
_OTHER_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y",
    "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%a, %d %b %Y", "%a %b %d %Y", "%A, %B %d, %Y",
)  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S%.f",
    ", %H:%M", ", %H:%M:%S", ", %I:%M %p", ", %I:%M:%S %p", ":%H:%M:%S", " at %H:%M",
    " %H.%M.%S", " %I.%M.%S%.f %p", " %H:%M:%S,%3f", "T%H%M%S", "T%H%M%SZ",
    " %H:%M:%S GMT", " %H:%M:%S UTC",
)  # fmt: skip
_ZONES = ("", " %z", "%z")
_MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", "%b %Y", "%B %Y")
_WHOLE = ("%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S UTC %Y")

_TRIED = 2_000
"""Texts that formats are tried on."""


@dataclass(frozen=True, slots=True)
class FoundTimes:
    """How times are written.

    given: what a mapping says of it; words: the same for a person; share: of the texts that are
    times so; other: the format that reads just as many where day and month cannot be distinguished;
    says_zone: whether the texts say their zone.
    """

    given: TimeFormat
    words: str
    share: float
    other: str | None = None
    says_zone: bool = False
    is_clock: bool = True
    """False for sequence numbers."""


def find_times(column: pl.Series) -> FoundTimes:
    """The way in which most values of a column are times; a share of 0 where they are none."""
    dtype = column.dtype
    if dtype in (pl.Date, pl.Datetime):
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        return FoundTimes(
            TimeFormat(), "dates" if dtype == pl.Date else "date-times", 1.0, None, zoned
        )
    if not (dtype.is_integer() or dtype.is_float() or dtype.is_decimal() or fields.is_text(dtype)):
        return FoundTimes(TimeFormat(), f"type {dtype}", 0.0)
    form = found_form(column)
    if form in COMPACT.values():
        return FoundTimes(TimeFormat(format=form), f"digits, {form}", _share(column))
    if form is not None:
        return _numbers(column, form)
    if not fields.is_text(dtype):
        return FoundTimes(TimeFormat(), f"type {dtype}", 0.0)
    texts = column.cast(pl.String).str.strip_chars(values.BLANKS)
    texts = texts.filter(texts != "")
    # From the whole column: the first days of a year cannot tell day and month apart.
    return _text(texts.gather_every(max(1, len(texts) // _TRIED)))


def _share(column: pl.Series) -> float:
    """The share of values that are there."""
    return 1 - column.null_count() / max(1, len(column))


def _numbers(column: pl.Series, form: str) -> FoundTimes:
    """Numbers in a unit; small ones are sequence numbers."""
    share = _share(column)
    if form == "s" and are_sheet_days(column):
        return FoundTimes(TimeFormat(unit="days"), "days of a spreadsheet", share)
    if form != "s":
        return FoundTimes(TimeFormat(unit=form), f"{UNIT_NAMES[form]} since 1970", share)  # type: ignore[arg-type]
    largest = column.cast(pl.Float64, strict=False).max()
    is_clock = isinstance(largest, float) and largest >= _FIRST_CLOCK
    words = "seconds since 1970" if is_clock else "sequence numbers"
    return FoundTimes(TimeFormat(), words, share, is_clock=is_clock)


_FIRST_CLOCK = 100_000_000
"""1973: smaller numbers are taken for sequence numbers."""


def _text(texts: pl.Series) -> FoundTimes:
    if texts.is_empty():
        return FoundTimes(TimeFormat(), "nothing", 0.0)
    frame = texts.alias("t").to_frame()
    is_iso = frame.select(fields.seconds("t", pl.String(), "file").is_not_null()).to_series()
    # Of the times alone: among them may be texts that are none.
    zoned = bool(texts.filter(is_iso).str.contains(fields.ZONED).all())
    best = FoundTimes(TimeFormat(), "ISO 8601", float(is_iso.to_numpy().mean()), None, zoned)
    if best.share == 1.0:
        return best
    texts = texts.str.replace(REMARK, "${1}")
    found = _text_of_formats(texts, best)
    if found.share == 1.0 or not texts.str.contains(ZONE_NAME).all():
        return found
    # A zone's name stands where its offset may.
    offsets = _text_of_formats(texts.str.replace(ZONE_NAME, "+0000"), found)
    form = (offsets.given.format or "").replace("%z", NAMED_ZONE)
    if NAMED_ZONE not in form:
        return found
    return replace(offsets, given=TimeFormat(format=form), words=form)


def _text_of_formats(texts: pl.Series, best: FoundTimes) -> FoundTimes:
    """The format that reads most texts, or `best` where none reads more."""
    shares = {form: _parsed_share(texts, form) for form in _likely(texts)}
    form = max(shares, key=lambda name: shares[name], default="")
    if not form or shares[form] <= best.share:
        return best
    zoned = says_zone(form)
    other = next((f for f in _mirrored(form) if shares.get(f) == shares[form]), None)
    return FoundTimes(TimeFormat(format=form), form, shares[form], other, zoned)


def _formats() -> Iterator[str]:
    for date, clock, zone in product(
        (*_DAYS_FIRST, *_MONTHS_FIRST, *_OTHER_DATES), _CLOCKS, _ZONES
    ):
        if clock or not zone:
            yield f"{date}{clock}{zone}"
    yield from _WHOLE
    yield from _MONTHS


def _likely(texts: pl.Series) -> Sequence[str]:
    """The formats that read some of the first texts: all at once, for a query takes its time."""
    head = texts.head(_FIRST_TRIED).alias("t").to_frame()
    if not head["t"].str.contains(_DATE_LIKE).any():
        return ()
    # Most formats have a sign that no text has: they are left out without a trial.
    signs = set("".join(head["t"]))
    possible = [form for form in _formats() if signs.issuperset(_CODE_OR_BLANK.sub("", form))]
    read = head.select(moments(pl.col("t"), f).is_not_null().any().alias(f) for f in possible)
    return [form for form, reads in read.row(0, named=True).items() if reads]


_CODE_OR_BLANK = re.compile(r"%[.3]?[A-Za-z]|\s")
"""What a text may have in its own form; all else in a format stands in the text as it is."""


_DATE_LIKE = r"[0-9]{4}|[0-9][./ -].*[0-9]"
"""What every date has: a year of four digits, or several numbers."""


def _parsed_share(texts: pl.Series, form: str) -> float:
    """The share of texts of a format that are times which a load takes."""
    seconds = parsed_seconds(texts, TimeFormat(format=form))
    return float(seconds.is_between(0, values.MAX_TIME).fill_null(value=False).mean())  # type: ignore[arg-type]


_FIRST_TRIED = 50


def _mirrored(form: str) -> Iterator[str]:
    """The format with day and month exchanged, where there is one."""
    swapped = {"%d": "%m", "%m": "%d"}
    if form[:2] in swapped and form[3:5] == swapped[form[:2]]:
        yield f"{swapped[form[:2]]}{form[2]}{form[:2]}{form[5:]}"


def day_first(form: str) -> bool:
    """Whether a format has the day before the month."""
    return form.startswith("%d")
