"""Tests that records and tables are read by one rule of negative feedback."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.feedback import with_feedback as on_tables
from shortlist.recsys.models.interactions import MISSING, Events, UserStates, states_at
from shortlist.recsys.store import histories
from shortlist.recsys.store.feedback import Happened, kinds_by, read
from shortlist.recsys.store.histories import HISTORY_LENGTH, merge, with_events
from shortlist.recsys.store.records import UserRecord, pack_user, unpack_user

RULES = EventRules({"view": 1.0, "cart": 3.0, "buy": 5.0}, ("buy",), ("return", "dislike"), -0.5)
N_ITEMS = 4
HAPPENED = st.tuples(
    st.integers(0, N_ITEMS - 1).map(str),
    st.integers(1, 12),
    st.sampled_from([None, None, 1.0, -1.0]),
    st.sampled_from(["view", "cart", "buy", "buy", "return", "dislike"]),
).map(lambda fields: Happened(*fields[:3], type=fields[3]))
HISTORY = st.lists(HAPPENED, max_size=25)


def state_by_tables(happened: list[Happened]) -> UserStates:
    """The user's state as the batch makes it."""
    kind_of = kinds_by(RULES)
    ordered = sorted(happened, key=lambda event: event.time)
    kinds = np.array([kind_of(event) for event in ordered], np.int64)
    item = np.array([int(event.item) for event in ordered], np.int32)
    time = np.array([event.time for event in ordered], np.int64)
    weight = np.array([np.nan if e.weight is None else e.weight for e in ordered], np.float32)
    is_positive = kinds >= 0
    n = int(is_positive.sum())
    events = Events(
        np.zeros(n, np.int32),
        item[is_positive],
        time[is_positive],
        weight[is_positive],
        1,
        N_ITEMS,
        kind=kinds[is_positive].astype(np.uint8),
        kinds=RULES.kinds,
    )
    feedback = np.zeros(len(ordered) - n, np.int32), item[~is_positive], time[~is_positive]
    paired = on_tables(events, *feedback)
    return states_at(paired, np.array([0]), np.array([n]), users=np.array([0]))


def by_tables(happened: list[Happened], length: int = HISTORY_LENGTH) -> tuple[object, ...]:
    """Standing events, had and disliked items and the number of events, by the batch."""
    state = state_by_tables(happened)
    present = np.flatnonzero(state.items[0] != MISSING)[-length:]
    columns = (column[0, present].tolist() for column in (state.times, state.items, state.kinds))
    standing = sorted(zip(*columns, strict=True))
    disliked = set(state.disliked(0).tolist())
    return standing, set(state.seen(0).tolist()), disliked, int(state.n_events[0])


def by_record(record: UserRecord) -> tuple[object, ...]:
    """The same by the record, as it is read back."""
    reading = read(unpack_user(pack_user(record)), RULES)
    standing = sorted((event.time, int(event.item), kind) for event, kind in reading.events)
    disliked = set(map(int, reading.disliked))
    return standing, set(map(int, reading.had)) | disliked, disliked, record.n_events


@given(HISTORY, st.integers(1, 25))
@settings(max_examples=300)
def test_records_equal_tables(happened: list[Happened], size: int) -> None:
    """Events that came in any order, in requests of any size, are read as the batch reads them."""
    record = UserRecord()
    for start in range(0, len(happened), size):
        record = with_events(record, happened[start : start + size], RULES)
    assert by_record(record) == by_tables(happened)


@given(HISTORY, st.data())
@settings(max_examples=200)
def test_short_records_equal_tables(happened: list[Happened], data: st.DataObject) -> None:
    """What is no longer kept whole is not taken back twice, and stays had or disliked."""
    times = data.draw(st.permutations(range(1, len(happened) + 1)))  # a cut splits no tie
    happened = [event._replace(time=time) for event, time in zip(happened, times, strict=True)]
    with mock.patch.object(histories, "HISTORY_LENGTH", 5):
        record = with_events(UserRecord(), happened, RULES)
    assert len(record.negatives) <= 5
    assert len(record.items) <= 10
    assert by_record(record) == by_tables(happened, 5)


@given(HISTORY, st.integers(0, 25), st.data())
@settings(max_examples=300)
def test_merged_records_equal_tables(
    happened: list[Happened], watermark: int, data: st.DataObject
) -> None:
    """A refresh that has the first events, or later ones too, loses and doubles none."""
    distinct = {(event.item, event.time, event.type): event for event in happened}
    happened = [event._replace(position=place) for place, event in enumerate(distinct.values(), 1)]
    stored = with_events(UserRecord(), happened, RULES)
    in_table = data.draw(st.lists(st.booleans(), min_size=len(happened), max_size=len(happened)))
    table = [
        event._replace(position=0)
        for event, is_known in zip(happened, in_table, strict=True)
        if event.position <= watermark or is_known
    ]
    learnt = with_events(UserRecord(), table, RULES)
    assert by_record(merge(learnt, stored, watermark, RULES)) == by_tables(happened)
