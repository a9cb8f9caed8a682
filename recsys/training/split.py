"""Splits events into past and hold-out by cuts.

Every user has one cut. It is a row of the events, which are sorted by (user, time): the user's past
is the rows before it. No cut lies inside a tie (see `recsys.models.ties`). Splits nest: the past of
one split is events again, and is split once more for the ranker's labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.models.interactions import NEVER, Events, Int64
from shortlist.recsys.models.ties import cuts_before_last
from shortlist.recsys.settings import PROTOCOLS, HoldoutProtocol

HELD_OUT_SHARE = 0.1


def cuts(events: Events, protocol: HoldoutProtocol) -> Int64:
    """int64[n_users]: for each user, the row of `events` at which the held-out part starts.

    `last-10pct` holds out the last tenth of each user's events, at least one; `leave-one-out` the
    last one; both hold out what shares its time with these as well, and leave a user of a single
    event alone. Where nothing would be left to learn from, what comes after the user's first time
    is held out; where a user's events all share one time, that many of them as they were drawn.
    `time` holds out whatever is not older than the 90% quantile of all times, or what is younger
    than the first time, where that is later.

    Raises:
        InvalidInput: the protocol is none of PROTOCOLS.
        InvalidData: the protocol is `time`, and all events share one time.
    """
    if protocol == "leave-one-out":
        return cuts_before_last(events, 1)
    if protocol == "last-10pct":
        tenth = np.floor(np.diff(events.offsets()) * HELD_OUT_SHARE).astype(np.int64)
        return cuts_before_last(events, np.maximum(1, tenth))
    if protocol == "time":
        return _at_one_moment(events)
    raise InvalidInput(f"protocol {protocol!r} is unknown: use one of {', '.join(PROTOCOLS)}")


def _at_one_moment(events: Events) -> Int64:
    """The same moment for all users."""
    starts = events.offsets()[:-1]
    if len(events) == 0:
        return starts
    earliest = events.time.min()
    if earliest == events.time.max():
        raise InvalidData(
            f"all {len(events)} events share one time ({earliest}), so there is no moment to cut "
            "at: the protocol time needs at least two; give timestamps, or use leave-one-out or "
            "last-10pct, which draw the hold-out where there is no order"
        )
    moment = np.quantile(events.time, 1 - HELD_OUT_SHARE, method="nearest")
    if moment == earliest:  # which would leave nothing before it
        moment = events.time[events.time > earliest].min()
    return starts + np.bincount(events.user[events.time < moment], minlength=events.n_users)


def before(events: Events, cut: Int64) -> Events:
    """The events before each user's cut, as far as they were not taken back before it.

    What is taken back later stands, because nobody could know at the cut.
    """
    known = events.take(np.arange(len(events)) < cut[events.user])
    negatives = events.negatives
    if len(negatives.user) == 0:
        return known
    ends = events.offsets()[1:]
    moments = np.full(events.n_users, NEVER, np.int64)
    moments[cut < ends] = events.time[cut[cut < ends]]
    negatives = negatives.take(negatives.time < moments[negatives.user])
    is_late = negatives.until >= moments[negatives.user]
    negatives = replace(negatives, until=np.where(is_late, NEVER, negatives.until))
    standing = known.cancelled >= moments[known.user]
    known = known.take(standing)
    return replace(known, negatives=negatives, cancelled=np.full(len(known), NEVER, np.int64))
