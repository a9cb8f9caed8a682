"""Rules for ids, times and weights, and their readings.

The API, the drain and the table reader share them: `recsys.data.fields` says the same in Polars
expressions, and a property test holds both readings equal. Standard library only, because the hit
path imports it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time

from shortlist.recsys.errors import InvalidInput

_EN_QUAD, _HAIR_SPACE = 0x2000, 0x200A
_SPACES = "".join(map(chr, range(_EN_QUAD, _HAIR_SPACE + 1)))
BLANKS = "\t\n\v\f\r \x85\xa0\u1680" + _SPACES + "\u2028\u2029\u202f\u205f\u3000"
"""Characters cut off around an id: Unicode's white space, spelt out, as libraries disagree."""

MAX_ID_LENGTH = 256
"""Characters (code points) of an id after it was read."""

EXACT = 2**53
"""From here on a 64-bit float no longer tells neighbouring integers apart."""

FIRST_CLOCK_TIME = 100_000_000
"""1973: data whose latest time lies below have sequence numbers."""

MAX_TIME = 10**11 - 1
"""The largest time, in the year 5138: from there on numbers are of another unit than seconds."""

_OTHER_UNITS = (
    (10**14, "milliseconds", 10**3),
    (10**17, "microseconds", 10**6),
    (10**20, "nanoseconds", 10**9),
)
"""Units of numbers beyond MAX_TIME, each with where it ends and how many are a second."""

MAX_WEIGHT = float.fromhex("0x1.fffffep+127")
"""The largest weight, in size, of a 32-bit float: models and records keep weights in 32 bits."""

LAST_POSITION = 100
"""The largest place of an item in an answer, since no answer is longer."""

# Both regex engines that read these have ASCII classes spelt out: `\d` is any script's digits.
_REPLACED = "\ufffd"
_NO_TEXT = rf"\x00-\x1f\x7f-\x9f{_REPLACED}"
CONTROL = f"[{_NO_TEXT}]"
"""A control character, which would break lines, headers and logs; or U+FFFD.

Servers put U+FFFD for bytes of a path or query that are no text: many requests would share an id.
"""

WHOLE = r"(-?[0-9]+)\.0+"
"""Text of a whole number with a fraction of zeros, which is read as the integer."""

ROUNDED = r"[+-]?[0-9]+(?:[.,][0-9]*[eE][+-]?|[eE]\+)[0-9]+"
"""Text of a float in exponent form, as spreadsheets and data frames write large ids."""

FLOAT_RULE = "a float beyond 2^53 has lost digits, give text or int64"
CONTROL_RULE = "control characters and U+FFFD are not allowed, remove them"
LENGTH_RULE = f"at most {MAX_ID_LENGTH} characters are allowed, use a shorter id"
ID_FAULTS = (FLOAT_RULE, CONTROL_RULE, LENGTH_RULE)
"""Reasons to refuse an id, in the order in which the rules are tried."""

TIME_RULE = (
    f"a time must be unix seconds, a whole number from 0 to {MAX_TIME}, a date, or ISO 8601 text"
)
WEIGHT_RULE = f"a weight must be a finite number from {-MAX_WEIGHT!r} to {MAX_WEIGHT!r}"

ID_PATTERN = (
    f"^[{BLANKS}]*"
    rf"(?!{ROUNDED}[{BLANKS}]*$)"
    rf"[^{BLANKS}{_NO_TEXT}](?:[^{_NO_TEXT}]{{0,{MAX_ID_LENGTH - 2}}}"
    rf"[^{BLANKS}{_NO_TEXT}])?"
    f"[{BLANKS}]*$"
)
"""Text that may be an id, for documents. It does not say that `N.0` must lie below 2^53."""

_ZONE_NAME = "[Zz]|[Uu][Tt][Cc]|[Gg][Mm][Tt]"
_DAY = (
    "(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
    "|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
TIME_PATTERN = (
    rf"^[{BLANKS}]*(?:[0-9]{{1,11}}(?:\.0+)?|(?:197[1-9]|19[89][0-9]|[2-4][0-9]{{3}})-{_DAY}"
    rf"(?:(?:[Tt]| +){_HOUR}:{_MINUTE}(?::{_MINUTE}(?:\.[0-9]+)?)?"
    rf" ?(?:{_ZONE_NAME}|[+-]{_HOUR}(?::?{_MINUTE})?)?)?)[{BLANKS}]*$"
)
"""Text that is a time, for documents.

It leaves out 1970, what lies beyond the year 4999, and leap days, which are read all the same.
"""

_SECONDS = re.compile(r"[0-9]{1,20}(?:\.0+)?")
# A date, or a date and a time of day; seconds, fraction and zone (else UTC) may be missing.
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:(?:[Tt]| +)([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?"
    rf" ?(?:{_ZONE_NAME}|([+-])([0-9]{{2}})(?::?([0-9]{{2}}))?)?)?"
)
_CONTROL = re.compile(CONTROL)
_WHOLE = re.compile(WHOLE)
_ROUNDED = re.compile(ROUNDED)
# Nearly every id: no other rule can refuse it, so it is let through at once.
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SHOWN = 60
_MAX_SHOWN = 10**30
_TOO_LONG = 10**MAX_ID_LENGTH


def id_of(value: object) -> str:
    """An id as text, without outer blanks.

    42, 42.0, "42.0" and " 42 " are all "42".

    Raises:
        InvalidInput: it is blank, too long, has control characters, or is no text or whole number.
    """
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _id_of_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _TOO_LONG:  # before its digits are written, which takes quadratic time
            raise _refused(value, LENGTH_RULE)
        return _short(str(value), value)
    if isinstance(value, float):
        if not (value.is_integer() and abs(value) < EXACT):
            raise _refused(value, FLOAT_RULE)
        return str(int(value))
    raise _refused(value, "an id must be text or a whole number")


def _id_of_text(text: str) -> str:
    stripped = text.strip(BLANKS)
    if not stripped:
        raise _refused(text, "an id must not be blank")
    whole = _WHOLE.fullmatch(stripped)
    if _ROUNDED.fullmatch(stripped) or (whole and abs(float(whole[1])) >= EXACT):
        raise _refused(text, FLOAT_RULE)
    if _CONTROL.search(stripped):
        raise _refused(text, CONTROL_RULE)
    return _utf8(_short(whole[1] if whole else stripped, text))


def _short(text: str, value: object) -> str:
    if len(text) > MAX_ID_LENGTH:
        raise _refused(value, LENGTH_RULE)
    return text


def _utf8(text: str) -> str:
    """The text, if UTF-8 can hold it.

    It cannot hold half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refused(text, "it cannot be written as UTF-8, send whole characters") from error
    return text


def label_of(value: object) -> str:
    """A text kept as it is, such as an event id.

    Raises:
        InvalidInput: it is not text of 1 to MAX_ID_LENGTH characters that can be written as UTF-8.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ID_LENGTH:
        raise _refused(value, f"it must be text of 1 to {MAX_ID_LENGTH} characters")
    return _utf8(value)


def type_of(value: object) -> str:
    """An event's type, without outer blanks.

    Raises:
        InvalidInput: it is blank, or no text of at most MAX_ID_LENGTH characters that can be
            written as UTF-8.
    """
    return label_of(value.strip(BLANKS) if isinstance(value, str) else value)


def time_of(value: object) -> int:
    """Unix seconds from 0 to MAX_TIME; 42.0 and "42" are 42.

    Dates and ISO 8601 text are read as tables are: fractions of a second are cut off, and what
    names no zone is UTC.

    Raises:
        InvalidInput: it is no such time; the message names the unit that it may be in.
    """
    seconds = _seconds_of(value.strip(BLANKS)) if isinstance(value, str) else value
    if isinstance(seconds, float) and seconds.is_integer():
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 0:
        raise _refused(value, TIME_RULE)
    if seconds > MAX_TIME:
        raise _refused(value, TIME_RULE + _unit_of(seconds))
    return seconds


def _seconds_of(text: str) -> int | None:
    """The seconds that text says, None where it says no time."""
    if _SECONDS.fullmatch(text):
        return int(text.partition(".")[0])
    read = _ISO.fullmatch(text)
    if read is None:
        return None
    *moment, sign, zone_hours, zone_minutes = read.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in moment)
    try:
        ahead = time(int(zone_hours or 0), int(zone_minutes or 0))
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:  # such as the 30th of February
        return None
    offset = ahead.hour * 3600 + ahead.minute * 60
    return int(at.timestamp()) + (offset if sign == "-" else -offset)


def _unit_of(number: int) -> str:
    """Says what a number beyond MAX_TIME may be, and what to do."""
    for end, unit, per_second in _OTHER_UNITS:
        if number < end:
            return f"; this looks like {unit}, divide it by {per_second}"
    return ""


def weight_of(value: object) -> float:
    """A weight from -MAX_WEIGHT to MAX_WEIGHT; the rules of events say which are negative feedback.

    Raises:
        InvalidInput: it is no such number, or not finite.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not -MAX_WEIGHT <= value <= MAX_WEIGHT:  # type: ignore[operator]
        raise _refused(value, WEIGHT_RULE)
    return float(value) + 0.0  # type: ignore[arg-type]  # -0.0 is 0.0


def rank_position_of(value: object) -> int:
    """An item's rank in an answer, from 1.

    Raises:
        InvalidInput: it is no such whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LAST_POSITION:
        raise _refused(value, f"a position must be a whole number from 1 to {LAST_POSITION}")
    return value


def shown(value: object) -> str:
    """A value for a message, short and on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and abs(value) >= _MAX_SHOWN:
        return "an integer of more than 30 digits"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    kinds: dict[type, str] = {list: "a list", dict: "an object", tuple: "a list", bytes: "bytes"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")


def _refused(value: object, rule: str) -> InvalidInput:
    return InvalidInput(f"{shown(value)} is refused: {rule}")
