"""Positions in the event stream, and watermarks of lists.

A position is one whole number for a stream id `milliseconds-sequence`, so that it packs into a few
bytes and compares as a number. Redis gives ids that only grow, also across a fail-over. A list is
fresh while its user has no accepted event beyond the list's watermark: no count of events, which a
shrinking table would break, and no time of events, which late ones would.
"""

from __future__ import annotations

SEQUENCE_BITS = 20
"""Events of one millisecond that keep their order: a million, more than a server appends."""

_LAST = (1 << SEQUENCE_BITS) - 1

_UNREADABLE = 1 << 62
"""Beyond every position, and still a 64-bit integer."""

_MAX_DIGITS = 19
"""Of a 64-bit integer."""

BEGINNING = 0
"""Before every event."""


def stream_position(stream_id: bytes | str) -> int:
    """The position of an id such as b"1526919030474-55"."""
    text = stream_id.decode() if isinstance(stream_id, bytes) else stream_id
    milliseconds, _, sequence = text.partition("-")
    # Events beyond a million in one millisecond share a position: never one that is too low.
    return (int(milliseconds) << SEQUENCE_BITS) | min(int(sequence or 0), _LAST)


def position_at(seconds: float) -> int:
    """The last position of a millisecond.

    seconds: unix time; before 1970 the position is BEGINNING.
    """
    milliseconds = int(seconds * 1000)
    return BEGINNING if milliseconds <= 0 else (milliseconds << SEQUENCE_BITS) | _LAST


def readable_position(field: bytes | None) -> int:
    """A stored position; BEGINNING for anything else, so that the next one takes its place."""
    position = position_in(field)
    return BEGINNING if position is None or position >= _UNREADABLE else position


def position_in(field: bytes | None) -> int | None:
    """A stored position, or None.

    A field that cannot be read gives a position beyond all: it may be newer than any list, so the
    user is answered live until an event or a refresh writes it again.
    """
    if field is None:
        return None
    is_readable = field.isdigit() and len(field) <= _MAX_DIGITS
    return int(field) if is_readable else _UNREADABLE
