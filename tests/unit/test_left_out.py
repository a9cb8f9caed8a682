"""Tests who is left out of a report, by a user for each reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shortlist.batch.offline_evaluation import left_out, truth_after
from shortlist.recsys.evaluation.names import LEFT_OUT
from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.interactions import Events, Repeats

KINDS = (EventKind("view", 0.2, is_target=False), EventKind("buy", 1.0, is_target=True))

# Rows (user, item, time, kind), kind 1 to predict; the cut lies before the time 10.
ROWS = [
    (0, 0, 1, 1),  # measured: something new comes later
    (0, 1, 10, 1),
    (1, 0, 1, 1),  # one event
    (2, 0, 1, 1),  # nothing held out
    (2, 1, 2, 1),
    (3, 0, 10, 1),  # nothing before
    (3, 1, 11, 1),
    (4, 0, 1, 1),  # nothing to predict: only a view comes later
    (4, 1, 10, 0),
    (5, 0, 1, 1),  # nothing new
    (5, 0, 10, 1),
]  # user 6 has no event


@dataclass
class Data:
    """What `truth_after` and `left_out` read of a data set."""

    events: Events
    attributes: np.ndarray


def world() -> tuple[Data, np.ndarray]:
    user, item, time, kind = np.array(ROWS).T
    weight = np.full(len(ROWS), np.nan, np.float32)
    events = Events(
        user.astype(np.int32),
        item.astype(np.int32),
        time.astype(np.int64),
        weight,
        7,
        2,
        kind.astype(np.uint8),
        kinds=KINDS,
    )
    starts = events.offsets()[:-1]
    cut = starts + np.bincount(user[time < 10], minlength=7)
    return Data(events, np.empty((7, 0), np.int32)), cut


def test_every_reason_is_told_once() -> None:
    """Six users are left out, each for the first reason that holds; one is measured."""
    data, cut = world()
    truth = truth_after(data, cut)  # type: ignore[arg-type]
    assert left_out(data, cut, truth) == dict.fromkeys(LEFT_OUT, 1)  # type: ignore[arg-type]
    assert (truth.counts > 0).sum() == 1


def test_repeats_leave_fewer_out() -> None:
    """Where repeats may be offered, nobody is left out for having had an item before."""
    data, cut = world()
    truth = truth_after(data, cut, Repeats.ALLOW)  # type: ignore[arg-type]
    assert "nothing new" not in left_out(data, cut, truth)  # type: ignore[arg-type]
