"""Where the past ends: every protocol becomes one cut a user, a row of the time-ordered events.

Events are sorted by (user, time, row), so "as of a user's cut" is the rows before it. Splits nest: the training rows of one
split are events again, and can be split once more for the ranker's labels.
"""

from __future__ import annotations

import numpy as np

from recsys.errors import InvalidInput
from recsys.events import Events, Int64
from recsys.settings import PROTOCOLS, Protocol

HELD_OUT_SHARE = 0.1


def cuts(events: Events, protocol: Protocol) -> Int64:
    """int64[n_users]: for each user, the row of `events` at which the held-out part starts.

    `last-10pct` holds out the last tenth of each user's events, at least one; `leave-one-out` the last one; both leave
    a user of a single event alone. `time` holds out whatever is not older than the 90% quantile of all times.

    Raises:
        InvalidInput: the protocol is none of PROTOCOLS.
    """
    offsets = events.offsets()
    starts, ends = offsets[:-1], offsets[1:]
    lengths = ends - starts
    if protocol == "leave-one-out":
        return ends - (lengths >= 2)  # noqa: PLR2004 - one event to learn from, one to hold out
    if protocol == "last-10pct":
        held = np.maximum(1, np.floor(lengths * HELD_OUT_SHARE)).astype(np.int64)
        return np.where(lengths >= 2, ends - held, ends)  # noqa: PLR2004 - likewise
    if protocol == "time":
        if len(events) == 0:
            return ends
        moment = np.quantile(events.time, 1 - HELD_OUT_SHARE, method="nearest")
        past = np.bincount(events.user[events.time < moment], minlength=events.n_users)
        return starts + past
    raise InvalidInput(f"protocol {protocol!r} is unknown: use one of {', '.join(PROTOCOLS)}")


def before(events: Events, cut: Int64) -> Events:
    """The events before each user's cut."""
    return events.take(np.arange(len(events)) < cut[events.user])
