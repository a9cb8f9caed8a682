"""Encodes and decodes recommendation ids: release, source and day.

So an event can be attributed without a look-up. The id is URL-safe base64 of: a layout byte, the
source's number, the day since 1970 (two bytes), eight random bytes, the release. It is no secret
and not signed: callers are those who may send events anyway.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from dataclasses import dataclass

from shortlist.recsys.store.answer_sources import SOURCES, AnswerSource

LAYOUT = 1
DAY_SECONDS = 86_400
# The day has two bytes, which last until 2149; eight random ones keep ids of a day apart.
_HEAD = struct.Struct(">BBH8s")


@dataclass(frozen=True, slots=True)
class Origin:
    """An answer's origin; day: since 1970, in UTC."""

    version: str
    source: AnswerSource
    day: int


def new_id(version: str, source: str, seconds: float) -> str:
    """The id of an answer; seconds: unix time."""
    number, day = SOURCES.index(source), int(seconds // DAY_SECONDS)
    head = _HEAD.pack(LAYOUT, number, day, os.urandom(8))
    return (
        base64.urlsafe_b64encode(head + version.encode()).rstrip(b"=").decode()
    )  # '=' means something in URLs


def origin_of(recommendation_id: str) -> Origin | None:
    """The origin in an id; None for other texts."""
    padding = "=" * (-len(recommendation_id) % 4)
    try:
        content = base64.b64decode(recommendation_id + padding, altchars=b"-_", validate=True)
        layout, source, day, _ = _HEAD.unpack(content[: _HEAD.size])
        version = content[_HEAD.size :].decode()
    except (binascii.Error, struct.error, ValueError):
        return None
    if layout != LAYOUT or source >= len(SOURCES) or not version:
        return None
    return Origin(version, SOURCES[source], day)
