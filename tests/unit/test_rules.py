"""Tests business rules: reading them, and what they do to a list."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.store.rules import (
    NO_RULES,
    Rules,
    arranged,
    fitting,
    of_columns,
)
from shortlist.recsys.store.rules_reading import (
    StoredRules,
    changes,
    pack_rules,
    rules_in,
    rules_of,
    unpack_rules,
)
from shortlist.recsys.where import AttributeKind, seconds_of

EXAMPLE = Path(__file__).parents[2] / "docs" / "rules.toml"
KINDS = {"brand": AttributeKind.TEXT, "price": AttributeKind.NUMBER}
NOW = seconds_of("2026-12-10")


def item(name: str, brand: str = "acme", *categories: str) -> ItemRecord:
    return ItemRecord(name, name, categories, attributes={"brand": brand})


ITEMS = [item(name) for name in "abcdef"]


def order(rules: dict[str, Any], k: int = 6, items: list[ItemRecord] = ITEMS) -> str:
    """The ids of a list after rules; pinned items may be any of a to z."""
    fits, faults = fitting(rules_of(rules), KINDS)
    assert faults == ()
    known = {each.id: each for each in items}
    pinned = {pin.item: known.get(pin.item, item(pin.item)) for pin in fits.pins}
    return "".join(each.item.id for each in arranged(items, k, fits.at(NOW), pinned))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, "abcdef"),
        ({"boost": [{"item": "d", "places": 2}]}, "adbcef"),
        ({"boost": [{"item": "d"}]}, "dabcef"),
        ({"boost": [{"item": ["e", "f"]}]}, "efabcd"),
        ({"bury": [{"item": "a", "places": 2}]}, "bcadef"),
        ({"bury": [{"item": "a"}]}, "bcdefa"),
        ({"boost": [{"item": "d", "places": 3}], "bury": [{"item": "d", "places": 1}]}, "adbcef"),
        ({"boost": [{"item": "z"}]}, "abcdef"),
        ({"pin": [{"item": "e", "place": 2}]}, "aebcdf"),
        ({"pin": [{"item": "z", "place": 1}]}, "zabcde"),
        ({"pin": [{"item": "z", "place": 6}]}, "abcdez"),
        ({"pin": [{"item": "z", "place": 7}]}, "abcdef"),
        ({"pin": [{"item": "y", "place": 2}, {"item": "z", "place": 2}]}, "ayzbcd"),
        ({"pin": [{"item": "y", "place": 1}, {"item": "y", "place": 4}]}, "yabcde"),
        ({"pin": [{"item": "b", "place": 1}], "bury": [{"item": "b"}]}, "bacdef"),
        ({"boost": [{"item": "d", "end": "2026-12-10"}]}, "abcdef"),
        ({"boost": [{"item": "d", "start": "2026-12-10"}]}, "dabcef"),
        ({"boost": [{"where": {"brand": "acme"}, "item": "c"}]}, "cabdef"),
        ({"boost": [{"where": {"brand": "other"}, "item": "c"}]}, "abcdef"),
    ],
)
def test_lists_are_rearranged(rules: dict[str, Any], expected: str) -> None:
    """Moves count from the ranked order, and pinned items have their places."""
    assert order(rules) == expected


MIXED = [
    item("a", "acme", "x"),
    item("b", "acme", "x", "y"),
    item("c", "bruna", "y"),
    item("d", "acme", "y"),
    item("e", "bruna"),
]


@pytest.mark.parametrize(
    ("limits", "pins", "expected"),
    [
        ([{"attribute": "brand", "at_most": 1}], [], "ac"),
        ([{"attribute": "brand", "at_most": 2}], [], "abce"),
        ([{"attribute": "brand", "at_most": 1, "values": ["acme"]}], [], "ace"),
        ([{"attribute": "categories", "at_most": 1}], [], "ace"),
        ([{"attribute": "categories", "at_most": 1, "values": ["x"]}], [], "acde"),
        ([{"attribute": "brand", "at_most": 1}], ["d"], "dc"),
        ([{"attribute": "brand", "at_most": 1}], ["d", "a"], "dac"),
        (
            [{"attribute": "brand", "at_most": 2}, {"attribute": "categories", "at_most": 1}],
            [],
            "ace",
        ),
    ],
)
def test_limits_pass_over_items(limits: list[Any], pins: list[str], expected: str) -> None:
    """Of each label so many; pinned items stay, and count."""
    rules = {"limit": limits, "pin": [{"item": i, "place": n} for n, i in enumerate(pins, 1)]}
    assert order(rules, 5, MIXED) == expected


def test_pins_that_may_not_be_shown() -> None:
    """A pinned item that the caller does not pass on is left out."""
    rules = rules_of({"pin": [{"item": "z", "place": 1}]})
    assert [each.item.id for each in arranged(ITEMS, 2, rules, {})] == ["a", "b"]


def test_moved_items_name_their_rules() -> None:
    """Each place says where its item was, and which rules moved it."""
    rules = rules_of(
        {
            "pin": [{"name": "gift", "item": "z", "place": 1}],
            "boost": [{"item": "c", "places": 1}, {"name": "more", "item": "c", "places": 1}],
        }
    )
    placed = arranged(ITEMS, 3, rules, {"z": item("z")})
    assert [(each.item.id, each.at, each.rules) for each in placed] == [
        ("z", None, ("gift",)),
        ("c", 2, ("boost 1", "more")),
        ("a", 0, ()),
    ]


@pytest.mark.parametrize(
    ("rule", "when", "hides"),
    [
        ({"available": False}, "2026-12-10", True),
        ({"start": "2026-12-10", "end": "2026-12-11"}, "2026-12-09T23:59:59Z", True),
        ({"start": "2026-12-10", "end": "2026-12-11"}, "2026-12-10", False),
        ({"start": "2026-12-10", "end": "2026-12-11"}, "2026-12-11", True),
        ({"start": "2026-12-10", "available": False}, "2026-12-09", False),
        ({"start": "2026-12-10", "available": False}, "2026-12-10", True),
        ({"end": "2026-12-10", "available": False}, "2026-12-10", False),
    ],
)
def test_availability_by_time(rule: dict[str, Any], when: str, *, hides: bool) -> None:
    """Items are there within the time, or away within it; the end is outside."""
    rules = rules_of({"availability": [{"item": "a", **rule}]})
    hidden = rules.hidden(seconds_of(when))
    assert any(selector.selects(ITEMS[0]) for selector in hidden) is hides
    assert not any(selector.selects(ITEMS[1]) for selector in hidden)


@pytest.mark.parametrize(
    ("attributes", "hides"),
    [
        ({}, False),
        ({"available": True}, False),
        ({"available": False}, True),
        ({"available_from": "2026-12-10"}, False),
        ({"available_from": "2026-12-11"}, True),
        ({"available_until": "2026-12-10"}, True),
        ({"available_until": "2026-12-11"}, False),
    ],
)
def test_availability_by_columns(attributes: dict[str, Any], *, hides: bool) -> None:
    """Columns of the items say when each is available; nothing said is available."""
    date = AttributeKind.DATE
    kinds = {"available": AttributeKind.BOOLEAN, "available_from": date, "available_until": date}
    record = ItemRecord("a", "A", attributes=attributes)
    assert any(each.selects(record) for each in of_columns(kinds, NOW)) is hides


def test_columns_of_other_kinds_say_nothing() -> None:
    """A text column that happens to be called available is an attribute like any other."""
    assert of_columns({"available": AttributeKind.TEXT}, NOW) == ()


def test_rules_fit_a_release_or_not() -> None:
    """A rule about attributes that a release lacks is left out, and reported."""
    rules = rules_of(
        {
            "boost": [{"name": "red", "where": {"colour": "red"}}, {"item": "a"}],
            "limit": [{"attribute": "colour", "at_most": 1}, {"attribute": "brand", "at_most": 1}],
        }
    )
    fits, faults = fitting(rules, KINDS)
    assert ([move.name for move in fits.moves], [each.name for each in fits.limits]) == (
        ["boost 2"],
        ["limit 2"],
    )
    assert faults[0].startswith("rule 'red': there is no attribute 'colour' to filter by")
    assert faults[1].startswith("rule 'limit 1': there is no attribute 'colour': known are brand")


def test_example_file_is_read() -> None:
    """The documented file has a rule of every kind, with dates of TOML."""
    rules = rules_of(rules_in(EXAMPLE.read_text(), "rules.toml"))
    assert [each.name for each in rules.availability] == ["winter collection", "recall"]
    assert rules.availability[0].start == seconds_of("2026-11-01")
    assert rules.pins[0].end == seconds_of("2026-12-24T18:00:00Z")
    assert [move.places for move in rules.moves] == [5, -1_000_000]
    assert [each.name for each in rules.limits] == ["brands", "limit 2"]


def test_rules_are_read_back() -> None:
    """The stored record is the same record, with its rules."""
    plain = rules_in(EXAMPLE.read_text(), "rules.toml")
    stored = StoredRules(3, plain, "ops", 1785542400)
    assert unpack_rules(pack_rules(stored)) == (stored, rules_of(plain))


@pytest.mark.parametrize(
    "packed", [b"\xc1", b"\x90", b"\x80", pack_rules(StoredRules(plain={"x": 1}))]
)
def test_other_bytes_are_refused(packed: bytes) -> None:
    """What is no record of rules says so."""
    with pytest.raises(UnreadableRecord, match="the rules cannot be read"):
        unpack_rules(packed)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "the rules: a list must be an object of availability, pin"),
        ({"pins": []}, "the rules: 'pins' is unknown: known are availability, pin"),
        ({"pin": {}}, "pin: an object must be a list of rules"),
        ({"pin": ["a"]}, "pin 1: 'a' must be an object of name"),
        ({"pin": [{"item": "a", "at": 1}]}, "pin 1: 'at' is unknown"),
        ({"pin": [{"place": 1}]}, "pin 1: item is missing"),
        ({"pin": [{"item": "", "place": 1}]}, "pin 1: item ''"),
        ({"pin": [{"item": "a", "place": 0}]}, "pin 1: place is 0: it must be a whole number from"),
        ({"pin": [{"item": "a", "place": 101}]}, "from 1 to 100"),
        ({"pin": [{"item": "a", "name": ""}]}, "pin 1: name is ''"),
        ({"pin": [{"item": "a", "start": "soon"}]}, "pin 1: start is 'soon': write 2024-05-31"),
        ({"pin": [{"item": "a", "start": 5}]}, "pin 1: start is 5: write 2024-05-31"),
        (
            {"pin": [{"item": "a", "start": "2026-01-02", "end": "2026-01-01"}]},
            "pin 1: it starts at 2026-01-02 and ends at 2026-01-01",
        ),
        ({"boost": [{}]}, "boost 1 selects no item"),
        ({"boost": [{"item": []}]}, "boost 1 selects every item"),
        ({"boost": [{"where": {}}]}, "boost 1 selects every item"),
        ({"boost": [{"item": "a", "places": True}]}, "boost 1: places is true"),
        ({"bury": [{"category": [1]}]}, "bury 1: category has 1"),
        ({"boost": [{"where": {"price": {"max": 1}}}]}, "boost 1: where: price has a range of"),
        ({"availability": [{"item": "a"}]}, "availability 1 changes nothing"),
        ({"availability": [{"item": "a", "available": 1}]}, "available is 1"),
        ({"limit": [{"at_most": 1}]}, "limit 1: attribute is null"),
        ({"limit": [{"attribute": "brand"}]}, "limit 1: at_most is missing"),
        ({"pin": [{"item": "a"}] * 501}, "there are 501 rules: at most 500 are taken"),
        ({"boost": [{"item": ["a"] * 10_001}]}, "has 10001 values: at most 10000 are taken"),
    ],
)
def test_bad_rules_are_refused(plain: Any, message: str) -> None:
    """An error names the rule, the value and what is right."""
    with pytest.raises(InvalidInput) as raised:
        rules_of(plain)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"), [("[[pin", "give a TOML file"), ("[[pin]]\nplace = 1", "item is missing")]
)
def test_bad_files_are_refused(text: str, message: str) -> None:
    """The message names the file."""
    with pytest.raises(InvalidInput, match=message) as raised:
        rules_in(text, "rules.toml")
    assert "rules.toml" in str(raised.value)


def test_changes_are_told_by_section() -> None:
    """What was added and what was removed, of sections that differ."""
    before = {"pin": [{"item": "a"}], "bury": [{"item": "x"}]}
    after = {"pin": [{"item": "b"}], "bury": [{"item": "x"}]}
    expected = {"pin": {"added": [{"item": "b"}], "removed": [{"item": "a"}]}}
    assert changes(before, after) == expected


def test_no_rules_change_nothing() -> None:
    """Nothing hides, nothing is rearranged."""
    assert (NO_RULES.hidden(NOW), NO_RULES.at(math.inf), NO_RULES.rearranges) == (
        (),
        Rules(),
        False,
    )
