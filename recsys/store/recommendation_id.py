"""The id of a recommendation answer, which tells its release, its source and its day: whoever reads an event needs no look-up.

URL-safe base64 of: a layout byte, the source's number, the day since 1970 (two bytes), eight random
bytes, the release. It
is no secret and not signed: callers are those who may send events anyway.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from dataclasses import dataclass

SOURCES = ("batch", "live", "session", "popular", "stale")
"""By their number in an id: only ever append."""

LAYOUT = 1
DAY_SECONDS = 86_400
_HEAD = struct.Struct(">BBH8s")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an answer came from; day: since 1970, in UTC."""

    version: str
    source: str
    day: int


def new_id(version: str, source: str, seconds: float) -> str:
    """The id of an answer that is given at `seconds`, unix time."""
    head = _HEAD.pack(LAYOUT, SOURCES.index(source), int(seconds // DAY_SECONDS), os.urandom(8))
    return base64.urlsafe_b64encode(head + version.encode()).rstrip(b"=").decode()


def origin_of(recommendation_id: str) -> Origin | None:
    """What the id tells; None where it is not one of ours."""
    try:
        told = base64.b64decode(
            recommendation_id + "=" * (-len(recommendation_id) % 4), altchars=b"-_", validate=True
        )
        layout, source, day, _ = _HEAD.unpack(told[: _HEAD.size])
        version = told[_HEAD.size :].decode()
    except (binascii.Error, struct.error, ValueError):
        return None
    if layout != LAYOUT or source >= len(SOURCES) or not version:
        return None
    return Origin(version, SOURCES[source], day)
