"""Sources of a recommendation answer, in their numbers' order."""

from __future__ import annotations

from typing import Literal, get_args

AnswerSource = Literal["batch", "live", "session", "popular", "stale"]
"""How an answer was made.

batch: a precomputed list; live: computed for a known user; session: computed for events in the
request; popular: the most popular items; stale: a precomputed list that misses later events.
"""

SOURCES: tuple[AnswerSource, ...] = get_args(AnswerSource)
"""Only ever append: an id holds the index, and ids of old answers come back with events."""

BATCH, LIVE, SESSION, POPULAR, STALE = SOURCES
