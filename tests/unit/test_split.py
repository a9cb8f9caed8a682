"""Tests the cuts of each protocol by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shortlist.batch import cold_start
from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.event_rules import EventKind
from shortlist.recsys.models.feedback import with_feedback
from shortlist.recsys.models.interactions import NEVER, Events, Repeats, states_at
from shortlist.recsys.models.ties import is_drawn, steps_of, tied_share
from shortlist.recsys.settings import HoldoutProtocol
from shortlist.recsys.training import ranking_groups, two_tower
from shortlist.recsys.training.fit import label_cuts
from shortlist.recsys.training.parameters import RankerParams
from shortlist.recsys.training.split import before, cuts


def events_of(lengths: list[int], times: list[int] | None = None) -> Events:
    """Users with so many events each, of items 0, 1, 2 and so on."""
    n = sum(lengths)
    user = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    item = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    time = np.arange(n) if times is None else np.array(times)
    return Events(
        user,
        item,
        time.astype(np.int64),
        np.full(n, np.nan, np.float32),
        len(lengths),
        max(lengths),
    )


def test_leave_one_out_by_hand() -> None:
    """A user of one event keeps it; a user of none has nothing."""
    assert cuts(events_of([3, 1, 0, 2]), "leave-one-out").tolist() == [2, 4, 4, 5]


def test_last_tenth_is_at_least_one() -> None:
    """25 events: 2 held out; 10: 1; 2: 1; 1: none."""
    held = events_of([25, 10, 2, 1])
    assert (held.offsets()[1:] - cuts(held, "last-10pct")).tolist() == [2, 1, 1, 0]


def test_time_cut_is_one_moment() -> None:
    """Whatever is not older than the 90% quantile is held out, ties whole."""
    held = events_of([5, 5], [1, 2, 3, 4, 9, 1, 5, 6, 9, 9])
    past = before(held, cuts(held, "time"))
    assert past.time.max() < 9
    assert past.user.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_unknown_protocol_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(InvalidInput, match="last-10pct"):
        cuts(events_of([2]), "random")


def test_states_end_at_their_cut() -> None:
    """Oldest to newest, aligned at the end; seen beyond the window as well."""
    events = events_of([130, 3])
    states = states_at(events, np.array([0, 130]), np.array([120, 132]))
    assert states.items[0].tolist() == list(range(20, 120))
    assert states.items[1].tolist() == [-1] * 98 + [0, 1]
    assert (states.seen(0).tolist(), states.seen(1).tolist()) == (list(range(120)), [0, 1])
    assert states.n_events.tolist() == [120, 2]
    one = states.slice(1, 2)
    assert (one.items[0].tolist(), one.seen(0).tolist()) == (states.items[1].tolist(), [0, 1])


TIED = events_of([6, 4, 3, 5], [1, 2, 2, 3, 3, 3, 7, 7, 7, 7, 1, 1, 2, 1, 1, 1, 1, 9])
"""Users with ties: in the middle, the whole history, the beginning, all but the last."""


def test_leave_one_out_holds_out_ties() -> None:
    """The whole last tie; one event, as drawn, where all share one time."""
    assert cuts(TIED, "leave-one-out").tolist() == [3, 9, 12, 17]


def test_last_tenth_ends_at_tie_border() -> None:
    """At least a tenth is held out, unless that would leave nothing before the first border."""
    times = [*range(18), 18, 18, *[5] * 19, 6, *[5] * 20]
    events = events_of([20, 20, 20], times)
    held = events.offsets()[1:] - cuts(events, "last-10pct")
    assert held.tolist() == [2, 1, 2]
    assert steps_of(events).starts_at(cuts(events, "last-10pct")).all()


def test_single_time_cannot_be_cut() -> None:
    """The error names the time, the rule and what to use."""
    events = events_of([3, 2], [7] * 5)
    with pytest.raises(
        InvalidData, match=r"all 5 events share one time \(7\).*use leave-one-out or last-10pct"
    ):
        cuts(events, "time")


def test_the_time_cut_leaves_a_past() -> None:
    """Where nine tenths share the first time, all later events are held out."""
    events = events_of([12, 12], [4] * 11 + [5] + [4] * 11 + [6])
    assert cuts(events, "time").tolist() == [11, 23]


def test_labels_of_single_time_are_drawn() -> None:
    """Two days, cut between them by time: the first has no order, so its labels are drawn."""
    past = events_of([20, 10], [3] * 30)
    assert label_cuts(past, "time").tolist() == [18, 29]


def test_steps_are_ties_or_drawn_events() -> None:
    """Each with its first row, and the row after it."""
    steps = steps_of(TIED)
    assert steps.first.tolist() == [0, 1, 1, 3, 3, 3, 6, 7, 8, 9, 10, 10, 12, 13, 13, 13, 13, 17]
    assert steps.after.tolist() == [1, 3, 3, 6, 6, 6, 7, 8, 9, 10, 12, 12, 13, 17, 17, 17, 17, 18]
    assert is_drawn(TIED).tolist() == [False, True, False, False]
    assert tied_share(TIED) == pytest.approx(15 / 18)
    assert tied_share(events_of([3])) == 0
    assert len(steps_of(events_of([0, 2]).take(np.zeros(2, bool))).first) == 0


@pytest.mark.parametrize("protocol", ["last-10pct", "leave-one-out"])
def test_positions_as_times_are_cut(protocol) -> None:
    """Without ties each event is a step of its own."""
    events = events_of([25, 10, 2, 1, 0], [*range(25), *range(10), 0, 1, 0])
    held = [2, 1, 1, 0, 0] if protocol == "last-10pct" else [1, 1, 1, 0, 0]
    assert (events.offsets()[1:] - cuts(events, protocol)).tolist() == held


def spied(monkeypatch) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Records the windows of the ranker's groups, in place of making groups."""
    windows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def blocks(_model, _events, _attributes, arrays, _rng) -> tuple[list, ranking_groups.Grades]:
        windows.append(arrays)
        return [], ranking_groups.BINARY

    monkeypatch.setattr(ranking_groups, "_blocks", blocks)
    return windows


def dates(seed: int) -> Events:
    """Users whose events lie on a few days, and some who have but one day."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 30, 40).tolist()
    days = [np.sort(rng.integers(0, 6 if n % 4 else 1, length)) for n, length in enumerate(lengths)]
    return events_of(lengths, np.concatenate(days).tolist())


@pytest.mark.parametrize("horizon", [1, None, 4])
def test_ranker_groups_split_no_tie(horizon, monkeypatch) -> None:
    """Positions and labels keep ties whole, except where a whole history is one tie."""
    windows, events = spied(monkeypatch), dates(1)
    rng, params = np.random.default_rng(2), RankerParams()
    first, last = cuts(events, "last-10pct"), events.offsets()[1:]
    ranking_groups.ranker_groups(None, events, None, first, last, horizon, params, rng)
    users, cut, stop = windows[0]
    day = events.time
    inside = ~is_drawn(events)[users]
    assert 0 < inside.sum() < len(users)
    assert (day[cut[inside] - 1] < day[cut[inside]]).all()
    ends = inside & (stop < last[users])
    assert (day[stop[ends] - 1] < day[stop[ends]]).all()
    if horizon == 1:
        assert (day[cut] == day[stop - 1]).all()
        assert (stop[~inside] - cut[~inside] == 1).all()


def test_cold_start_groups_split_no_tie(monkeypatch) -> None:
    """What lies before their last cut has borders of its own, and is drawn where it is one tie."""
    windows, events = spied(monkeypatch), dates(3)
    last = cuts(events, "last-10pct")
    known = before(events, last)
    ranking_groups.cold_start_groups(
        None,
        events,
        None,
        np.arange(40),
        last,
        1,
        RankerParams(),
        np.random.default_rng(4),
    )
    users, cut, stop = windows[0]
    starts, ends = known.offsets()[:-1], known.offsets()[1:]
    assert (
        (cut > starts[users]) & (cut < ends[users]) & (stop > cut) & (stop <= ends[users])
    ).all()
    inside = ~is_drawn(known)[users]
    assert (known.time[cut[inside] - 1] < known.time[cut[inside]]).all()


def test_towers_hold_out_whole_ties() -> None:
    """Neither states nor training have an event of the target's time, unless all times are one."""
    events = dates(5)
    validation, learnt = two_tower._hold_out_last(
        events, np.empty((40, 0), np.int32), 40, np.random.default_rng(0), Repeats.NEVER
    )
    assert len(validation.states) > 20
    cut = learnt.offsets()[1:]
    kept = np.diff(learnt.offsets())
    assert (kept >= 2).all() or (np.diff(events.offsets())[kept < 2] < 3).all()
    whole = events.offsets()[:-1] + kept
    shorter = (whole < events.offsets()[1:]) & ~is_drawn(events)
    assert shorter.any()
    assert (learnt.time[cut[shorter] - 1] < events.time[whole[shorter]]).all()


def test_fresh_users_end_at_a_border() -> None:
    """Their first events end with a tie, and so do those that judge the lists."""
    events = dates(6)
    held = np.flatnonzero(np.diff(events.offsets()) > 5)
    cut = cold_start._cuts_after(events, held, 3)
    starts, ends = events.offsets()[:-1][held], events.offsets()[1:][held]
    assert ((cut[held] > starts) & (cut[held] < ends)).all()
    inside = ~is_drawn(events)[held]
    assert (events.time[cut[held][inside] - 1] < events.time[cut[held][inside]]).all()
    assert (cut[held][~inside] == starts[~inside] + 3).all()


KINDS = (
    EventKind("purchase", 1.0, is_target=True),
    EventKind("view", 0.2, is_target=False),
)


def funnel(*histories: str, items: str = "") -> Events:
    """A history for each text: p is a purchase, r one that was returned at once, v a view.

    items: a digit for each event's item; else all of a user differ.
    """
    events = events_of([len(history) for history in histories])
    letters = np.array(list("".join(histories)))
    return replace(
        events,
        item=np.array(list(items), np.int32) if items else events.item,
        kind=(letters == "v").astype(np.uint8),
        cancelled=np.where(letters == "r", events.time, NEVER),
        kinds=KINDS,
    )


@pytest.mark.parametrize(
    ("history", "protocol", "held_out"),
    [
        ("vpvpv", "leave-one-out", "vpv"),
        ("vpvpr", "leave-one-out", "vpr"),
        ("pvvvv", "leave-one-out", ""),
        ("vvvvp", "last-10pct", "p"),
        ("vvrvv", "last-10pct", ""),
        ("vp" * 20 + "v", "last-10pct", "vpvpv"),
        ("p" * 9 + "v" * 80 + "p", "last-10pct", "v" * 80 + "p"),
    ],
)
def test_hold_outs_count_target_events(
    history: str, protocol: HoldoutProtocol, held_out: str
) -> None:
    """Purchases that stand are held out, with all that comes after the first of them."""
    for position, histories in enumerate([(history, "pp"), ("pp", history)]):
        events = funnel(*histories)
        cut = cuts(events, protocol)[position] - events.offsets()[position]
        assert history[cut:] == held_out


def test_time_cut_counts_target_events() -> None:
    """The quantile is that of the purchases, though nearly all events are views."""
    events = funnel("p" * 10 + "v" * 90)
    assert cuts(events, "time").tolist() == [8]


def test_hold_outs_of_funnels_split_no_tie() -> None:
    """A view of the purchase's second is held out with it."""
    events = replace(funnel("vvvp"), time=np.array([1, 2, 3, 3]))
    assert cuts(events, "leave-one-out").tolist() == [2]


@pytest.mark.parametrize("later", [3, 10])
def test_one_moment_holds_for_all(later: int) -> None:
    """At a cut in time no later return is known, not even of a user without later events."""
    events = events_of([2, 2], [1, 9, 2, later])
    events = with_feedback(events, np.array([1], np.int32), np.array([0], np.int32), np.array([11]))
    past = before(events, np.array([1, 4]))
    known = [past.cancelled.tolist(), past.negatives.time.tolist()]
    assert known == ([[NEVER] * 3, []] if later == 3 else [[NEVER, 11, NEVER], [11]])


@pytest.mark.parametrize(
    ("horizon", "expected"), [(1, ["vvp", "p", "vp"]), (2, ["vvpp", "pvvp", "vpvv"])]
)
def test_horizons_count_target_events(horizon: int, expected: list[str], monkeypatch) -> None:
    """Labels reach to the next purchases; after the last of these no position is taken."""
    windows, history = spied(monkeypatch), "vpvvppvvpvv"
    events = funnel(history)
    params = RankerParams(positions=99)
    ranking_groups.ranker_groups(
        None,
        events,
        None,
        np.array([2]),
        events.offsets()[1:],
        horizon,
        params,
        np.random.default_rng(0),
    )
    _, cut, stop = windows[0]
    labels = {first: history[first:after] for first, after in zip(cut, stop, strict=True)}
    assert [labels[first] for first in (2, 5, 7)] == expected
    assert sorted(labels) == list(range(2, 9))


@pytest.mark.parametrize(
    ("history", "items", "held_out"),
    [
        ("pvvvp", "01213", "vvvp"),  # after the last purchase
        ("vpvvp", "10231", "vvp"),  # a view before it is known
        ("pvvpp", "01221", "p"),  # whatever it led to
        ("prvvp", "01231", "vvp"),  # as one that was sent back
        ("vvp", "101", ""),  # without a purchase before, nothing would be left
        ("vvp", "011", "vp"),  # or from the first view on
        ("vvvp", "0120", ""),
        ("vvvp", "0121", "vvp"),
    ],
)
def test_hold_outs_begin_before_funnels(history: str, items: str, held_out: str) -> None:
    """No state knows a view that led to what it has to predict."""
    events = funnel("pp", history, items="00" + items)
    cut = cuts(events, "leave-one-out")[1] - 2
    assert history[cut:] == held_out


def test_all_of_a_first_basket_is_unknown() -> None:
    """Without a purchase before, the hold-out begins at the first view of anything in it."""
    events = funnel("vvvvpp", items="012321")
    events = replace(events, time=np.array([0, 1, 2, 3, 4, 4]))
    assert cuts(events, "last-10pct").tolist() == [1]
