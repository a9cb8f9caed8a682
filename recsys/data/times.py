"""Reads times as people write them, and brings them to seconds.

The unit of numbers is found by their size, with a note: seconds end in the year 5138 where
milliseconds begin in 1973, and so on. Digits such as 20240102154356 are a date and a time of day
where nearly all are. A value of another unit than most are in is left unreadable, so its row is
rejected.
"""

from __future__ import annotations

from zoneinfo import available_timezones

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.data.column_names import words
from shortlist.recsys.data.sources import TimeFormat
from shortlist.recsys.errors import InvalidData

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Of each unit, how many are a second."""

UNIT_NAMES = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}

_FIRST_NOT_SECONDS = 10**11
"""The year 5138 in seconds and 1973 in milliseconds: no clock's time is read both ways."""

_NO_TIME = 2.0**63
"""More nanoseconds than 64 bits hold: no unit's time."""

COMPACT = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Of a number of digits, the date that they may spell."""

_COMPACT_PATTERN = (
    r"^(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?)?$"
)

_SHEET_EPOCH = 25_569
"""1970-01-01 in days since 1899-12-30, which spreadsheets count."""

_DAY = 86_400

_ZONE_HOURS = {
    "UTC": 0, "GMT": 0, "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2,
    "EET": 2, "EEST": 3, "MSK": 3, "JST": 9, "AEST": 10, "AEDT": 11, "EST": -5, "EDT": -4,
    "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
}  # fmt: skip
"""Hours that clocks of a zone are ahead of UTC; names of several zones, as IST, are left out."""

ZONE_NAME = rf"\b({'|'.join(_ZONE_HOURS)}|[A-Z][A-Za-z]+(?:/[A-Za-z_+-]+)+)\b"
"""A zone in a text: an abbreviation, or a name of the IANA list such as Europe/Berlin."""

NAMED_ZONE = "%Z"
"""strptime's code for the name of a zone."""

REMARK = r"([0-9Z])\s*(?:\([^()]*\)|\[[^\[\]]*\])$"
"""A remark behind a time, which says its zone again: (CET), [Europe/Berlin]."""

_MIDNIGHT = r"[T ]0?0:00(?::00(?:\.0+)?)?$"

_MOSTLY = 0.5
"""A unit or a form is the column's where more than this share has it."""

_NEARLY = 0.9
"""Digits are dates where this share is: the others say that there is no time, as 0 does."""

_MOST_IN_A_ROW = 31
"""Sequence numbers spell no more days than these before many that spell none."""


def in_seconds(
    frame: pl.DataFrame, given: TimeFormat, table: str
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table with its timestamps as validation reads them, and notes on what was found.

    Times that cannot be read as `given` says, or as most others are, become text that says so.

    Raises:
        InvalidData: the column holds what can be no time, or not what `given` says.
    """
    dtype = frame.schema["timestamp"]
    if given.format is not None:
        return _parsed(frame, given, table), ()
    if dtype in (pl.Date, pl.Datetime):
        return _zoned(frame, given), ()
    if not (dtype.is_numeric() or fields.is_text(dtype)):
        return frame, ()  # which validation refuses by name
    form = given.unit or found_form(frame["timestamp"])
    if form in COMPACT.values():
        note = f"{table}: timestamps are read as {form}, UTC unless a mapping file says otherwise"
        return _parsed(frame, TimeFormat(format=form, zone=given.zone), table), (note,)
    if form in (None, "days"):  # None: ISO 8601
        read = _from_days if form else _zoned_text
        return read(frame, given), ()
    notes: tuple[str, ...] = ()
    if given.unit is None and form != "s":
        notes = (f"{table}: timestamps are read as {UNIT_NAMES[form]} since 1970",)
    return _scaled(frame, form, is_given=given.unit is not None), notes


def found_form(column: pl.Series) -> str | None:
    """The unit of most numbers in a column, or the format of its digits; None where it is text."""
    number = _as_number(column).drop_nulls()
    number = number.filter(number.is_finite())
    if len(number) <= _MOSTLY * (len(column) - _blanks(column)):
        return None
    whole = number.filter(number == number.floor())
    compact = _compact_form(whole) if len(whole) == len(number) else None
    if compact is not None:
        return compact
    counts = number.to_frame("n").select(_unit(pl.col("n")).alias("unit"))["unit"].value_counts()
    return str(counts.sort("count", "unit", descending=[True, False])["unit"][0])


def _blanks(column: pl.Series) -> int:
    return int(column.to_frame("t").select(fields.absent("t", column.dtype).sum()).item())


def _as_number(column: pl.Series) -> pl.Series:
    """float64[n]: the numbers of a column, null where text is none."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    text = column.cast(pl.String).str.strip_chars(values.BLANKS)
    return text.cast(pl.Float64, strict=False)


def _unit(number: pl.Expr) -> pl.Expr:
    """The unit that a number's size speaks for."""
    size, limit = number.abs(), float(_FIRST_NOT_SECONDS)
    unit = pl.when(size < limit).then(pl.lit("s"))
    return (
        unit.when(size < limit * 10**3)
        .then(pl.lit("ms"))
        .when(size < limit * 10**6)
        .then(pl.lit("us"))
        .otherwise(pl.lit("ns"))
    )


def _compact_form(whole: pl.Series) -> str | None:
    """The format of numbers of which nearly all spell a date; None where they do not."""
    for length, form in COMPACT.items():
        century = 10.0 ** (length - 2)
        like_dates = whole.filter(whole.is_between(19 * century, 21 * century, closed="left"))
        if len(like_dates) >= _NEARLY * max(1, len(whole)):
            digits = like_dates.cast(pl.Int64).cast(pl.String)
            dates = digits.filter(digits.str.contains(_COMPACT_PATTERN))
            is_sequence = len(dates) < len(digits) and dates.n_unique() <= _MOST_IN_A_ROW
            # One number proves little: a few in a hundred are a date by chance.
            is_chance = dates.n_unique() == 1 and length == min(COMPACT)
            is_form = len(dates) >= _NEARLY * len(whole) and not (is_sequence or is_chance)
            return form if is_form else None
    return None


def _scaled(frame: pl.DataFrame, unit: str, *, is_given: bool) -> pl.DataFrame:
    """The table with numbers of a unit as seconds, and those of another as text that says so."""
    at, dtype = pl.col("timestamp"), frame.schema["timestamp"]
    number = pl.lit(_as_number(frame["timestamp"]))
    is_other = (number.abs() < _NO_TIME) & (_unit(number) != unit)
    # What is said against the size of most numbers is believed of all of them.
    if is_given and found_form(frame["timestamp"]) != unit:
        is_other = pl.lit(value=False)
    n_other = frame.select((is_other & number.is_not_null()).sum()).item()
    if unit == "s" and not n_other:
        return frame  # as it is: validation reads seconds
    whole = at if dtype.is_integer() else at.cast(pl.String).str.strip_chars(values.BLANKS)
    exact = whole.cast(pl.Int64, strict=False) // UNITS[unit]  # a float has lost nanoseconds
    rounded = (number / UNITS[unit]).floor()
    safe = rounded.is_finite() & rounded.is_between(-(2.0**62), 2.0**62)
    seconds = pl.coalesce(exact, pl.when(safe).then(rounded).cast(pl.Int64, strict=False))
    why = pl.lit(f" (most others are in {UNIT_NAMES[unit]})")
    text = pl.when(is_other.fill_null(value=False)).then(pl.concat_str(at.cast(pl.String), why))
    return _with_unread(frame, seconds, is_other.fill_null(value=False), text)


def _parsed(frame: pl.DataFrame, given: TimeFormat, table: str) -> pl.DataFrame:
    """The table with texts of a format as seconds, and others as text that says so."""
    dtype, form = frame.schema["timestamp"], str(given.format)
    if not (dtype.is_integer() or dtype.is_float() or fields.is_text(dtype)):
        raise InvalidData(
            f"{table}: column timestamp has type {dtype}, its format is said to be {form!r}: "
            "a format is for text; remove it from the mapping file"
        )
    at = (
        pl.col("timestamp").cast(pl.Int64, strict=False)
        if dtype.is_float()
        else pl.col("timestamp")
    )
    text = at.cast(pl.String).str.strip_chars(values.BLANKS)
    seconds = pl.lit(parsed_seconds(frame.select(text).to_series(), given))
    unread = seconds.is_null() & ~fields.absent("timestamp", dtype)
    return _with_unread(frame, seconds, unread, pl.concat_str(text, pl.lit(f" (not {form})")))


def parsed_seconds(texts: pl.Series, given: TimeFormat) -> pl.Series:
    """int64[n]: texts of a format as unix seconds, null where one is not of it."""
    form = str(given.format)
    frame = texts.alias("t").to_frame()
    if NAMED_ZONE in form:
        return _in_named_zones(frame, form)
    zone = "UTC" if form.endswith(_UTC) else given.zone
    parsed = frame.select(moments(pl.col("t"), form)).to_series()
    has_offset = any(code in form for code in _OFFSETS)
    return (parsed if has_offset else _in_zone(parsed, zone)).dt.epoch("s")


def moments(text: pl.Expr, form: str) -> pl.Expr:
    """Texts of a format as date-times, null where one is not of it."""
    text = text.str.replace(REMARK, "${1}")
    if not any(code in form for code in _DAYS):  # a bare month is its first day
        text, form = text + " 01", f"{form} %d"
    # Polars wants an hour and a minute: a bare date is its midnight.
    if not any(code in form for code in ("%H", "%I", "%T", "%X", "%R", "%s", "%c", "%+", "%k")):
        text, form = text + " 00:00", f"{form} %H:%M"
    return text.str.to_datetime(form, strict=False, time_unit="us")


def _in_named_zones(frame: pl.DataFrame, form: str) -> pl.Series:
    """int64[n]: texts `t` that name their zones as unix seconds, null where a zone is not known."""
    bare = pl.col("t").str.replace(ZONE_NAME, "")
    names = frame.select(pl.col("t").str.extract(ZONE_NAME)).to_series()
    local = frame.select(moments(bare, form.replace(NAMED_ZONE, ""))).to_series()
    seconds = pl.repeat(None, len(local), dtype=pl.Int64, eager=True)
    places = {place.lower(): place for place in available_timezones()}
    for name in names.drop_nulls().unique():
        if name in _ZONE_HOURS:
            own = local.dt.epoch("s") - 3600 * _ZONE_HOURS[name]
        elif name.lower() in places:  # Oracle writes EUROPE/BERLIN
            own = _in_zone(local, places[name.lower()]).dt.epoch("s")
        else:
            continue
        seconds = own.zip_with(names.eq_missing(name), seconds)
    return seconds


def at_clock(date: str, clock: str) -> pl.Expr:
    """A date, or a midnight, and the time of day of another column as one text."""
    day = pl.col(date).cast(pl.String).str.strip_chars(values.BLANKS).str.replace(_MIDNIGHT, "")
    time = pl.col(clock).cast(pl.String).str.strip_chars(values.BLANKS)
    time = time.str.replace(r"^([0-9]):", "0${1}:")  # ISO 8601 has two digits
    return pl.when(day != "").then(pl.concat_str(day, time, separator=" ", ignore_nulls=True))


_DAY_IN = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
"""Length of a day in the units of moments."""


def are_bare_dates(column: pl.Series) -> bool:
    """Whether times of a column are without a time of day, or all at midnight."""
    if isinstance(column.dtype, pl.Date):
        return True
    if isinstance(column.dtype, pl.Datetime):  # as numbers: far moments have no text
        day = _DAY_IN[column.dtype.time_unit]
        return bool((column.to_physical() % day == 0).all())
    texts = column.cast(pl.String).str.strip_chars(values.BLANKS)
    return not texts.str.replace(_MIDNIGHT, "").str.contains(":", literal=True).any()


def are_sheet_days(column: pl.Series) -> bool:
    """Whether numbers are a spreadsheet's days, by their fractions or by their column's name.

    They would be of 1990 to 2099; a sequence number has no fraction.
    """
    number = _as_number(column).drop_nulls()
    if number.is_empty() or not number.is_between(32_874, 73_050).all():
        return False
    has_fractions = bool((number != number.floor()).any())
    return has_fractions or bool(words(column.name) & {"date", "datum", "fecha", "datetime"})


def _from_days(frame: pl.DataFrame, given: TimeFormat) -> pl.DataFrame:
    """The table with a spreadsheet's days as seconds."""
    text = pl.col("timestamp").cast(pl.String)
    since_1970 = ((_as_number(frame["timestamp"]) - _SHEET_EPOCH) * _DAY).round()
    possible = since_1970.is_between(0, values.MAX_TIME)
    whole = since_1970.set(~possible.fill_null(value=False), None).cast(pl.Int64)
    local = pl.from_epoch(whole, time_unit="s").cast(pl.Datetime("us"))
    seconds = pl.lit(_in_zone(local, given.zone).dt.epoch("s"))
    unread = seconds.is_null() & ~fields.absent("timestamp", frame.schema["timestamp"])
    return _with_unread(frame, seconds, unread, pl.concat_str(text, pl.lit(" (no spreadsheet's)")))


_OFFSETS = ("%z", NAMED_ZONE, "%:z", "%#z", "%+")
_UTC = ("GMT", "UTC", "Z")
_DAYS = ("%d", "%e", "%j", "%D", "%F", "%x", "%v", "%c", "%+", "%s", "%U", "%W", "%V", "%-d", "%_d")
"""Codes of strptime that tell a day."""


def says_zone(form: str) -> bool:
    """Whether times of a format say their zone."""
    return form.endswith(_UTC) or any(code in form for code in _OFFSETS)


def _in_zone(moments: pl.Series, zone: str) -> pl.Series:
    """Moments without a zone as those of `zone`."""
    # Of the hour that a clock shows twice the first, of the one that it leaves out the next.
    local = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    if local.null_count() == moments.null_count():
        return local
    next_hour = moments.dt.offset_by("1h").dt.replace_time_zone(
        zone, ambiguous="earliest", non_existent="null"
    )
    return local.fill_null(next_hour)


def _zoned(frame: pl.DataFrame, given: TimeFormat) -> pl.DataFrame:
    """The table with date-times that know no zone as those of the given one."""
    dtype = frame.schema["timestamp"]
    knows = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
    if given.zone == "UTC" or knows:
        return frame
    moments = frame["timestamp"].cast(pl.Datetime("us"))
    return frame.with_columns(_in_zone(moments, given.zone).alias("timestamp"))


def _zoned_text(frame: pl.DataFrame, given: TimeFormat) -> pl.DataFrame:
    """The table with ISO texts that know no zone as seconds in the given one."""
    if given.zone == "UTC":
        return frame
    dtype = frame.schema["timestamp"]
    text = pl.col("timestamp").cast(pl.String)
    local = fields.seconds("timestamp", dtype, "interactions")
    knows = text.str.contains(fields.ZONED)
    moments = frame.select(local.alias("s"), knows.alias("knows"))
    naive = moments.select(
        pl.from_epoch(pl.when(~pl.col("knows")).then("s"), time_unit="s")
    ).to_series()
    shifted = _in_zone(naive.cast(pl.Datetime("us")), given.zone).dt.epoch("s")
    seconds = shifted.fill_null(moments["s"])
    unread = pl.lit(moments["s"]).is_null() & ~fields.absent("timestamp", dtype)
    return _with_unread(frame, pl.lit(seconds), unread, text)


def _with_unread(
    frame: pl.DataFrame, seconds: pl.Expr, unread: pl.Expr, text: pl.Expr
) -> pl.DataFrame:
    """The table with these seconds, and where some are unread with everything as text."""
    made = frame.select(seconds.alias("seconds"), unread.alias("unread"), text.alias("text"))
    column = made["seconds"]
    if made["unread"].any():
        shown = pl.when("unread").then("text").otherwise(pl.col("seconds").cast(pl.String))
        column = made.select(shown.alias("text")).to_series()
    return frame.with_columns(column.alias("timestamp"))


def described(form: str | None) -> str:
    """A form of times in words."""
    return UNIT_NAMES.get(form or "", "ISO 8601" if form is None else str(form))
