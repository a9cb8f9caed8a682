"""Tests the pairing of negative feedback by known answers."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.feedback import with_feedback
from shortlist.recsys.models.interactions import NEVER, Events

KINDS = (
    EventKind("purchase", 1.0, is_target=True),
    EventKind("cart", 0.5, is_target=False),
    EventKind("view", 0.25, is_target=False),
)


def paired(
    events: list[tuple[int, int, int, int]], feedback: list[tuple[int, int, int]]
) -> tuple[list[int], list[tuple[int, int, int, int]]]:
    """The times at which events (user, item, time, kind) are taken back, and the feedback."""
    user, item, time, kind = np.array(events, np.int64).reshape(-1, 4).T
    raw = Events(
        user.astype(np.int32),
        item.astype(np.int32),
        time,
        np.full(len(user), np.nan, np.float32),
        5,
        9,
        kind.astype(np.uint8),
        kinds=KINDS,
    )
    by_user, by_item, by_time = np.array(feedback, np.int64).reshape(-1, 3).T
    result = with_feedback(raw, by_user.astype(np.int32), by_item.astype(np.int32), by_time)
    negatives = result.negatives
    columns = (negatives.user, negatives.item, negatives.time, negatives.until)
    return result.cancelled.tolist(), list(zip(*(c.tolist() for c in columns), strict=True))


def bought(*times: int) -> list[tuple[int, int, int, int]]:
    """Purchases of user 1 and item 2."""
    return [(1, 2, time, 0) for time in times]


def returned(*times: int) -> list[tuple[int, int, int]]:
    """Returns of user 1 and item 2."""
    return [(1, 2, time) for time in times]


@pytest.mark.parametrize(
    ("events", "feedback", "cancelled"),
    [
        (bought(1, 5), returned(3), [3, NEVER]),
        (bought(1, 5), returned(7), [NEVER, 7]),
        (bought(1, 5), returned(7, 8), [8, 7]),
        (bought(1, 5), returned(7, 8, 9), [8, 7]),
        (bought(1, 5), returned(0, 2, 3), [2, NEVER]),
        (bought(1, 5, 6), returned(2, 3, 7), [2, NEVER, 7]),
        (bought(4), returned(4), [4]),
        (bought(4, 4), returned(4), [NEVER, 4]),
        (bought(4), [(0, 2, 5), (1, 3, 5)], [NEVER]),
        ([], returned(5), []),
        (bought(4), [], [NEVER]),
    ],
)
def test_latest_standing_event_is_cancelled(
    events: list[tuple[int, int, int, int]],
    feedback: list[tuple[int, int, int]],
    cancelled: list[int],
) -> None:
    """Feedback takes back the latest event of its user and item that stands, ties included."""
    assert paired(events, feedback)[0] == cancelled


@pytest.mark.parametrize(
    ("events", "cancelled"),
    [
        ([(1, 2, 1, 0), (1, 2, 5, 2)], [7, NEVER]),
        ([(1, 2, 1, 1), (1, 2, 5, 2)], [NEVER, 7]),
        ([(1, 2, 5, 1), (1, 2, 5, 2)], [7, NEVER]),
        ([(1, 2, 5, 2), (1, 2, 9, 0)], [7, NEVER]),
    ],
)
def test_targets_are_cancelled_first(
    events: list[tuple[int, int, int, int]], cancelled: list[int]
) -> None:
    """A return takes back the purchase, not the view after it; else the latest, strongest one."""
    assert paired(events, returned(7))[0] == cancelled


def test_later_targets_lift_feedback() -> None:
    """The next purchase after a return lifts it; a view or a purchase of that time does not."""
    events = [(1, 2, 3, 0), (1, 2, 4, 2), (1, 2, 6, 0), (1, 2, 9, 0), (1, 3, 4, 0)]
    assert paired(events, returned(7, 3, 9))[1] == [
        (1, 2, 3, 6),
        (1, 2, 7, 9),
        (1, 2, 9, NEVER),
    ]


def test_pairing_agrees_with_the_rule() -> None:
    """Many random histories are paired as the rule says, event by event."""
    rng = np.random.default_rng(3)
    events = sorted(
        (int(u), int(i), int(t), int(k))
        for u, i, t, k in rng.integers(0, (3, 3, 12, 3), (150, 4)).tolist()
    )
    events.sort(key=lambda event: (event[0], event[2]))
    feedback = [tuple(row) for row in rng.integers(0, (3, 3, 12), (90, 3)).tolist()]
    cancelled = [NEVER] * len(events)
    for user, item, time in sorted(feedback, key=lambda each: each[2]):
        standing = [
            (kind == 0, at, -kind, row)
            for row, (u, i, at, kind) in enumerate(events)
            if (u, i) == (user, item) and at <= time and cancelled[row] == NEVER
        ]
        if standing:
            cancelled[max(standing)[3]] = time
    assert paired(events, feedback)[0] == cancelled
