"""Tests how events and negative feedback enter a record."""

from __future__ import annotations

from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.feedback import Happened, read
from shortlist.recsys.store.histories import HISTORY_LENGTH, MAX_SEEN, merge, with_events
from shortlist.recsys.store.records import Negative, UserRecord

RULES = EventRules({"view": 1.0, "buy": 5.0}, negative=("return",), negative_below=2.0)


def view(item: str, time: int, position: int = 0) -> Happened:
    """Somebody looks at an item."""
    return Happened(item, time, None, position, "view")


def buy(item: str, time: int, position: int = 0) -> Happened:
    """Somebody buys an item."""
    return Happened(item, time, None, position, "buy")


def back(item: str, time: int, position: int = 0) -> Happened:
    """Somebody returns an item."""
    return Happened(item, time, None, position, "return")


def test_views_are_not_had() -> None:
    """Only what was bought is had, also once it has left the events that are kept whole."""
    first = [view("seen", 1), buy("had", 2)]
    record = with_events(UserRecord(), first, RULES)
    assert (record.types, record.seen, read(record, RULES).had) == (("view", "buy"), (), {"had"})
    more = [view("x", 10 + at) for at in range(HISTORY_LENGTH)]
    record = with_events(record, more, RULES)
    assert (record.items, record.seen, record.n_events) == (("x",) * 100, ("had",), 102)
    assert read(record, RULES).had == {"had"}


def test_returns_take_back_purchases() -> None:
    """Rather than the views after them; the event stays in the record, and the item had."""
    record = with_events(UserRecord(), [buy("a", 1), view("a", 2), back("a", 3, 7)], RULES)
    assert (record.items, record.n_events) == (("a", "a"), 1)
    assert record.negatives == (Negative("a", 3, 7, "return"),)
    reading = read(record, RULES)
    assert [(each.event.time, each.kind) for each in reading.events] == [(2, 1)]
    assert (reading.had, reading.disliked) == ({"a"}, {"a"})


def test_low_weights_are_feedback() -> None:
    """Below the bound of the rules, whatever the type; without a weight they are not."""
    record = with_events(UserRecord(), [buy("a", 1)._replace(weight=1.5), buy("b", 2)], RULES)
    assert ([each.item for each in record.negatives], record.items) == (["a"], ("b",))


def test_later_rules_turn_events() -> None:
    """What was an event of some type is feedback once the rules of a release say so."""
    record = with_events(UserRecord(), [buy("a", 1), back("a", 2)])
    assert (record.items, record.negatives) == (("a", "a"), ())
    reading = read(record, RULES)
    assert (reading.events, reading.disliked) == ((), {"a"})


def test_unknown_types_are_left_out() -> None:
    """A release that tells types apart makes nothing of an event without a known one."""
    record = with_events(UserRecord(), [buy("a", 1), Happened("b", 2, None)], RULES)
    assert [each.event.item for each in read(record, RULES).events] == ["a"]


def test_feedback_is_bounded() -> None:
    """A user who dislikes everything keeps their history, and all dislikes."""
    likes = [buy(f"liked-{at}", at) for at in range(50)]
    record = with_events(UserRecord(), likes, RULES)
    for at in range(3 * HISTORY_LENGTH):
        record = with_events(record, [back(f"disliked-{at}", 100 + at, at + 1)], RULES)
    assert (len(record.items), len(record.negatives)) == (50, HISTORY_LENGTH)
    assert (len(record.disliked), record.spilled) == (2 * HISTORY_LENGTH, 2 * HISTORY_LENGTH)
    assert len(read(record, RULES).disliked) == 3 * HISTORY_LENGTH
    full = UserRecord(disliked=tuple(map(str, range(MAX_SEEN))))
    negatives = [back("x", at) for at in range(HISTORY_LENGTH + 1)]
    assert with_events(full, negatives, RULES).disliked[-2:] == (str(MAX_SEEN - 1), "x")
    assert len(with_events(full, negatives, RULES).disliked) == MAX_SEEN


def test_old_dislikes_are_lifted() -> None:
    """By a purchase, also where the record knows no more than the item; not by a view."""
    record = UserRecord(disliked=("a", "b"))
    after = with_events(record, [buy("a", 5), view("b", 5)], RULES)
    assert read(after, RULES).disliked == {"b"}


def test_spent_feedback_takes_nothing_back() -> None:
    """An old purchase has left with what was returned of it; its return spares a later view."""
    events = [buy("a", 1), *(view("x", 2 + at) for at in range(99)), view("a", 150)]
    record = with_events(UserRecord(), [*events, back("a", 160)], RULES)
    assert record.n_events == 100
    assert len(record.items) == 101  # the purchase is among those that are kept
    record = with_events(record, [view("y", 170)], RULES)
    assert (len(record.items), record.negatives[0].spent) == (100, True)
    assert [e.event.item for e in read(record, RULES).events][-2:] == ["a", "y"]


def test_merge_keeps_new_feedback() -> None:
    """What is beyond the watermark stays, once; what is before it is the batch's to say."""
    stored = with_events(
        UserRecord(),
        [buy("a", 1, 10), back("a", 2, 20), back("b", 3, 30), back("c", 4, 40)],
        RULES,
    )
    learnt = with_events(UserRecord(), [buy("a", 1), back("b", 3)], RULES)
    merged = merge(learnt, stored, 20, RULES)
    assert [(each.item, each.position) for each in merged.negatives] == [("b", 0), ("c", 40)]
    assert read(merged, RULES).events[0].event.item == "a"
    assert merge(learnt, stored, 15, RULES).n_events == 0


def test_merge_keeps_spilled_dislikes() -> None:
    """A dislike that left the record's window after the watermark is not lost."""
    stored = UserRecord(disliked=("x",), spilled=50)
    assert merge(UserRecord(disliked=("y",)), stored, 40).disliked == ("x", "y")
    assert merge(UserRecord(disliked=("y",)), stored, 50).disliked == ("y",)


def test_types_tell_events_apart() -> None:
    """Of one item and second; an event without a type may be any of them."""
    stored = [view("a", 1, 10), buy("a", 1, 11), Happened("a", 1, None, 12)]
    record = with_events(UserRecord(), stored)
    for learnt, left in (
        ([buy("a", 1)], [0, 10]),
        ([Happened("a", 1, None)], [0]),
        ([buy("a", 2)], [10, 11, 12, 0]),
    ):
        merged = merge(with_events(UserRecord(), learnt), record, 0)
        assert sorted(merged.positions or (0,)) == sorted(left)
