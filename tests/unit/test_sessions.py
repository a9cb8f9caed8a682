"""Tests how a request's history becomes a record."""

from __future__ import annotations

import pytest

from shortlist.lambda_handler.sessions import Session, SessionEvent, excluded, record_of
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.feedback import read
from shortlist.recsys.store.records import Negative, UserRecord
from shortlist.recsys.store.release_facts import ReleaseFacts

RULES = EventRules({"view": 1.0, "buy": 5.0}, negative=("return",))
FACTS = ReleaseFacts(RULES, has_clock_times=True)
STORED = UserRecord(
    ("had", "viewed"),
    (1, 2),
    (None, None),
    2,
    ("old",),
    {"age": 5.0, "region": "n"},
    types=("buy", "view"),
    negatives=(Negative("bad", 3, 0), Negative("again", 4, 0)),
)


def test_history_replaces_the_stored_one() -> None:
    """What was had or disliked stays so, unless the request's history lifts it."""
    session = Session((SessionEvent("again"), SessionEvent("x", type="view")), {"age": 7})
    record = record_of(session, STORED, FACTS, 100.5)
    assert record == UserRecord(
        ("again", "x"),
        (100, 100),
        (None, None),
        2,
        ("had", "old"),
        {"age": 7, "region": "n"},
        types=("buy", "view"),
        disliked=("bad",),
    )


def test_attributes_alone_keep_the_history() -> None:
    """They override those that are stored."""
    record = record_of(Session((), {"age": 7}), STORED, FACTS, 0)
    assert (record.items, record.attributes) == (STORED.items, {"age": 7, "region": "n"})
    assert record_of(Session((), {"age": 7}), None, FACTS, 0).attributes == {"age": 7}


@pytest.mark.parametrize(
    ("stated", "has_clock", "times"),
    [
        ([None, None], True, (100, 100)),
        ([None, None], False, (0, 0)),
        ([None, 5, None, 9], True, (5, 5, 5, 9)),
        ([7, None], False, (7, 7)),
    ],
)
def test_events_without_times(stated, has_clock, times) -> None:
    """They happen with the one before, the first ones with the next, or all of them now."""
    session = Session(tuple(SessionEvent(str(at), time) for at, time in enumerate(stated)))
    facts = ReleaseFacts(has_clock_times=has_clock)
    assert record_of(session, None, facts, 100).times == times


def test_feedback_in_a_history() -> None:
    """It takes back, and does not count as an event."""
    events = (SessionEvent("a"), SessionEvent("b"), SessionEvent("a", type="return"))
    record = record_of(Session(events), None, FACTS, 100)
    reading = read(record, RULES)
    assert record.n_events == 1
    assert ([e.event.item for e in reading.events], reading.disliked) == (["b"], {"a"})


def test_unknown_type_names_its_event() -> None:
    """And the types that the release knows."""
    session = Session((SessionEvent("a"), SessionEvent("b", type="sold")))
    expected = r"^history\.1\.event_type: 'sold' is unknown, .* knows view, buy, return:"
    with pytest.raises(InvalidInput, match=expected):
        record_of(session, None, FACTS, 100)


def test_releases_without_types_take_any() -> None:
    """All events are alike to them."""
    session = Session((SessionEvent("a", type="sold"),))
    assert read(record_of(session, None, ReleaseFacts(), 0), EventRules()).had == {"a"}


@pytest.mark.parametrize(
    ("repeats", "allow", "expected"),
    [
        ("never", None, {"had", "old", "bad", "again"}),
        ("allow", None, {"bad", "again"}),
        ("allow", False, {"had", "old", "bad", "again"}),
        ("never", True, {"bad", "again"}),
    ],
)
def test_what_is_excluded(repeats, allow, expected) -> None:
    """Dislikes always, and what was had unless repeats are allowed; never what was only seen."""
    facts = ReleaseFacts(RULES, repeats)
    assert excluded(STORED, facts, allow_repeats=allow) == expected
