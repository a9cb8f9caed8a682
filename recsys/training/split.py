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

    What is counted are the events to predict: those of a target kind that were not taken back.
    `last-10pct` holds out the last tenth of each user's, at least one; `leave-one-out` the last
    one; both hold out what led to them (see `before_funnels`), shares their time or comes later as
    well, and leave a user alone who has nothing before. Where nothing would be left to learn from,
    what comes after the user's first time is held out; where a user's events all share one time,
    that many of them as they were drawn. `time` holds out whatever is not older than the 90%
    quantile of all times to predict, or what is younger than the first time, where that is later.

    Raises:
        InvalidInput: the protocol is none of PROTOCOLS.
        InvalidData: the protocol is `time`, and all events share one time.
    """
    if protocol == "leave-one-out":
        return cuts_before_last(events, 1)
    if protocol == "last-10pct":
        n_to_predict = np.bincount(events.user[events.to_predict], minlength=events.n_users)
        tenth = np.floor(n_to_predict * HELD_OUT_SHARE).astype(np.int64)
        return cuts_before_last(events, np.maximum(1, tenth))
    if protocol == "time":
        return _at_one_moment(events)
    raise InvalidInput(f"protocol {protocol!r} is unknown: use one of {', '.join(PROTOCOLS)}")


def _at_one_moment(events: Events) -> Int64:
    """The same moment for all users."""
    starts = events.offsets()[:-1]
    times = events.time[events.to_predict]
    if len(times) == 0:
        return events.offsets()[1:]
    earliest = events.time.min()
    if earliest == events.time.max():
        raise InvalidData(
            f"all {len(events)} events share one time ({earliest}), so there is no moment to cut "
            "at: the protocol time needs at least two; give timestamps, or use leave-one-out or "
            "last-10pct, which draw the hold-out where there is no order"
        )
    moment = np.quantile(times, 1 - HELD_OUT_SHARE, method="nearest")
    if moment == earliest:  # which would leave nothing before it
        moment = events.time[events.time > earliest].min()
    return starts + np.bincount(events.user[events.time < moment], minlength=events.n_users)


def before(events: Events, cut: Int64) -> Events:
    """The events before each user's cut, and the negative feedback that was known at it.

    An event that was taken back before the cut is there, and says so: `standing` leaves it out.
    What is taken back later stands, because nobody could know at the cut.
    """
    known = events.take(np.arange(len(events)) < cut[events.user])
    moments = moments_of(events, cut)
    negatives = events.negatives
    negatives = negatives.take(negatives.time < moments[negatives.user])
    return replace(
        known,
        cancelled=_known(known.cancelled, moments[known.user]),
        negatives=replace(negatives, until=_known(negatives.until, moments[negatives.user])),
    )


def _known(times: Int64, moments: Int64) -> Int64:
    """The times before the moments; NEVER in place of later ones."""
    return np.where(times < moments, times, NEVER)


def moments_of(events: Events, cut: Int64) -> Int64:
    """int64[n_users]: the moment of each cut: the time of the user's first event after it.

    A user without events after the cut is known to the end. Only where all users were cut at one
    moment does it hold for such a user as well.
    """
    after = np.arange(len(events)) >= cut[events.user]
    is_one_moment = after.any() and events.time[~after].max(initial=-1) < events.time[after].min()
    moments = np.full(
        events.n_users, events.time[after].min() if is_one_moment else NEVER, np.int64
    )
    is_followed = cut < events.offsets()[1:]
    moments[is_followed] = events.time[cut[is_followed]]
    return moments
