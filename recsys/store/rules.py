"""Defines business rules, and applies them to ranked lists.

Operators say when items are available, pin them to places, move them up or down, and bound how many
of a brand or category a list has. Rules are one record in Redis for all releases: a file at
publication or the admin routes replace it whole. Standard library and msgpack only, because the hit
path applies them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.values import MAX_ID_LENGTH, id_of, shown
from shortlist.recsys.where import (
    CATEGORIES,
    AttributeKind,
    Condition,
    checked,
    conditions_of,
    labels_of,
    seconds_of,
)

MAX_RULES = 500
"""Of one record: each answer looks at all of them."""

MAX_SELECTED = 10_000
"""Items that one rule names."""

MAX_PLACE = 100
"""The last place that can be pinned or bounded: the longest list that is asked for."""

EVERY_PLACE = 1_000_000
"""Places by which a rule moves an item that says no number: to an end of the list."""

SECTIONS = ("availability", "pin", "boost", "bury", "limit")

AVAILABLE, AVAILABLE_FROM, AVAILABLE_UNTIL = "available", "available_from", "available_until"
AVAILABILITY_COLUMNS = (AVAILABLE, AVAILABLE_FROM, AVAILABLE_UNTIL)
"""Columns of the items table that say when an item is available."""

STEP_SECONDS = 60
"""By which time advances for these columns, so that cached results serve for a minute."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects the items that have one of the ids, one of the categories and every attribute.

    What is empty selects all.
    """

    items: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    where: tuple[Condition, ...] = ()

    def selects(self, item: ItemRecord) -> bool:
        """Whether an item is meant."""
        if self.items and item.id not in self.items:
            return False
        if self.categories and self.categories.isdisjoint(item.categories):
            return False
        return all(each.admits(item.value_of(each.attribute)) for each in self.where)

    def as_plain(self) -> list[object]:
        """The same values in the same order in every process."""
        conditions = [each.as_plain() for each in self.where]
        return [sorted(self.items), sorted(self.categories), conditions]


@dataclass(frozen=True, slots=True)
class _Rule:
    """What all rules have: a name, and the time in which they hold, in Unix seconds."""

    name: str
    start: float
    end: float

    def holds(self, now: float) -> bool:
        """Whether the rule holds at a time."""
        return self.start <= now < self.end


@dataclass(frozen=True, slots=True)
class Availability(_Rule):
    """Items that are available within the time only, or, with `available` false, not within it."""

    selector: Selector
    available: bool

    def hides(self, now: float) -> bool:
        """Whether the items are not available at a time."""
        return self.holds(now) is not self.available


@dataclass(frozen=True, slots=True)
class Pin(_Rule):
    """An item that has a place, from 1, whatever its rank."""

    item: str
    place: int


@dataclass(frozen=True, slots=True)
class Move(_Rule):
    """Items that move up by so many places, or down where it is negative."""

    selector: Selector
    places: int


@dataclass(frozen=True, slots=True)
class Limit(_Rule):
    """At most so many items of each label of an attribute; labels: of these alone, if any."""

    attribute: str
    at_most: int
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules."""

    availability: tuple[Availability, ...] = ()
    pins: tuple[Pin, ...] = ()
    moves: tuple[Move, ...] = ()
    limits: tuple[Limit, ...] = ()

    def hidden(self, now: float) -> tuple[Selector, ...]:
        """What selects the items that are not available at a time."""
        return tuple(rule.selector for rule in self.availability if rule.hides(now))

    def at(self, now: float) -> Rules:
        """The rules that rearrange lists at a time."""
        return Rules(
            pins=tuple(rule for rule in self.pins if rule.holds(now)),
            moves=tuple(rule for rule in self.moves if rule.holds(now)),
            limits=tuple(rule for rule in self.limits if rule.holds(now)),
        )

    @property
    def rearranges(self) -> bool:
        """Whether any rule changes the order of a list."""
        return bool(self.pins or self.moves or self.limits)


NO_RULES = Rules()


class Placed(NamedTuple):
    """An item in its place.

    at: its place among the ranked ones, from 0; None for a pinned item that was not among them;
    rules: the names of those that moved it.
    """

    item: ItemRecord
    at: int | None
    rules: tuple[str, ...]


def arranged(
    items: Sequence[ItemRecord], k: int, rules: Rules, pinned: Mapping[str, ItemRecord]
) -> list[Placed]:
    """The first k places of a ranked list under rules that hold.

    First items move: one that moves up to the place of another stands before it, one that moves
    down stands after. Then pinned items take their places, as far as the list is that long; of two
    for one place the second takes the next. The others fill the gaps in order, but for those above
    a limit, towards which pinned items count.

    pinned: the items of pins by id, as far as they may be shown.
    """
    order = _moved(items, rules.moves)
    at = {item.id: place for place, item in enumerate(items)}
    fixed: dict[str, Pin] = {}
    for pin in sorted(rules.pins, key=lambda pin: pin.place):
        if pin.place <= k and pin.item in pinned:
            fixed.setdefault(pin.item, pin)
    within = _Within(rules.limits)
    for item_id in fixed:
        within.add(pinned[item_id])
    placed: list[Placed] = []
    waiting = list(fixed.values())
    for each in order:
        waiting = _pin(waiting, placed, pinned, at)
        if each.item.id not in fixed and within.admits(each.item):
            placed.append(each)
            within.add(each.item)
        if len(placed) >= k:
            break
    placed += (Placed(pinned[pin.item], at.get(pin.item), (pin.name,)) for pin in waiting)
    return placed[:k]


def _pin(
    waiting: list[Pin],
    placed: list[Placed],
    pinned: Mapping[str, ItemRecord],
    at: Mapping[str, int],
) -> list[Pin]:
    """Puts the pins whose turn has come in their places; gives those left."""
    while waiting and waiting[0].place <= len(placed) + 1:
        pin, *waiting = waiting
        placed.append(Placed(pinned[pin.item], at.get(pin.item), (pin.name,)))
    return waiting


def _moved(items: Sequence[ItemRecord], moves: Sequence[Move]) -> list[Placed]:
    """The items in the order after all moves."""
    shifted: list[tuple[int, int, Placed]] = []
    for place, item in enumerate(items):
        own = [move for move in moves if move.selector.selects(item)]
        shift = sum(move.places for move in own)
        names = tuple(move.name for move in own)
        shifted.append((place - shift, -shift, Placed(item, place, names)))
    return [placed for *_, placed in sorted(shifted, key=lambda each: each[:2])]


class _Within:
    """Counts labels against limits."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        self._counts: dict[tuple[int, str], int] = {}

    def admits(self, item: ItemRecord) -> bool:
        """Whether one more such item is within every limit."""
        return all(
            self._counts.get((number, label), 0) < limit.at_most
            for number, limit, label in self._labels(item)
        )

    def add(self, item: ItemRecord) -> None:
        """Counts an item."""
        for number, _, label in self._labels(item):
            self._counts[number, label] = self._counts.get((number, label), 0) + 1

    def _labels(self, item: ItemRecord) -> Iterable[tuple[int, Limit, str]]:
        for number, limit in enumerate(self._limits):
            for label in labels_of(item.value_of(limit.attribute)):
                if not limit.labels or label in limit.labels:
                    yield number, limit, label


def of_columns(attributes: Mapping[str, AttributeKind], now: float) -> tuple[Selector, ...]:
    """What selects the items that columns of the items table say are not available.

    attributes: of the release; now: unix seconds.
    """
    moment = now // STEP_SECONDS * STEP_SECONDS
    date_kind = AttributeKind.DATE
    known = (
        (AVAILABLE, AttributeKind.BOOLEAN, {"values": frozenset({False})}),
        (AVAILABLE_FROM, date_kind, {"low": moment, "is_above": True}),
        (AVAILABLE_UNTIL, date_kind, {"high": moment}),
    )
    return tuple(
        Selector(where=(Condition(name, kind=kind, **bounds),))
        for name, kind, bounds in known
        if attributes.get(name) is kind
    )


def fitting(rules: Rules, attributes: Mapping[str, AttributeKind]) -> tuple[Rules, tuple[str, ...]]:
    """The rules as a release's attributes have it, and why some do not fit it."""
    faults: list[str] = []

    def fitted(selector: Selector, name: str) -> Selector | None:
        try:
            return replace(selector, where=checked(selector.where, attributes))
        except InvalidInput as error:
            faults.append(f"rule {name!r}: {error}")
            return None

    def all_fitted(each: Iterable[Any]) -> tuple[Any, ...]:
        pairs = [(rule, fitted(rule.selector, rule.name)) for rule in each]
        return tuple(replace(rule, selector=own) for rule, own in pairs if own is not None)

    known = {CATEGORIES, *attributes}
    fits = Rules(
        all_fitted(rules.availability),
        rules.pins,
        all_fitted(rules.moves),
        tuple(limit for limit in rules.limits if limit.attribute in known),
    )
    faults += (
        f"rule {limit.name!r}: there is no attribute {shown(limit.attribute)}: known are "
        f"{', '.join(sorted(known))}"
        for limit in rules.limits
        if limit.attribute not in known
    )
    return fits, tuple(faults)


# Reading.


@dataclass(frozen=True, slots=True)
class StoredRules:
    """The record of the rules.

    version: counts changes, 0 for none yet; plain: as JSON has them; by: who wrote them; at: unix
    seconds.
    """

    version: int = 0
    plain: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    at: int = 0


def pack_rules(rules: StoredRules) -> bytes:
    """Packs StoredRules as a map, which a person can read in a Redis client."""
    fields = {"version": rules.version, "rules": rules.plain, "by": rules.by, "at": rules.at}
    return msgpack.packb(fields)


def unpack_rules(packed: bytes) -> tuple[StoredRules, Rules]:
    """Reads `pack_rules`. Raises UnreadableRecord for anything else."""
    try:
        match msgpack.unpackb(packed):
            case {"version": int(version), "rules": dict(plain), "by": str(by), "at": int(at)}:
                return StoredRules(version, plain, by, at), rules_of(plain)
    except (ValueError, TypeError, msgpack.UnpackException, InvalidInput) as error:
        raise _unreadable(f" ({error})") from error
    raise _unreadable("")


def _unreadable(why: str) -> UnreadableRecord:
    return UnreadableRecord(f"the rules cannot be read{why}: put them again")


def read_rules(path: Path) -> dict[str, Any]:
    """The rules of a TOML file, as JSON has them.

    Raises:
        InvalidInput: the file cannot be read, or breaks a rule.
    """
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"rules {str(path)!r}: {error}; give a TOML file") from error
    plain = _without_dates(sections)
    try:
        rules_of(plain)
    except InvalidInput as error:
        raise InvalidInput(f"rules {str(path)!r}: {error}") from error
    return plain


def _without_dates(value: Any) -> Any:  # noqa: ANN401 - what TOML holds
    if isinstance(value, dict):
        return {name: _without_dates(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_dates(each) for each in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def rules_of(plain: object) -> Rules:
    """Rules from plain values of JSON; see docs/rules.md.

    Raises:
        InvalidInput: a value breaks a rule.
    """
    sections = _object(plain, "the rules", SECTIONS)
    lists = {name: _list(sections.get(name, []), name) for name in SECTIONS}
    number = sum(map(len, lists.values()))
    if number > MAX_RULES:
        raise InvalidInput(f"there are {number} rules: at most {MAX_RULES} are taken")
    boosts = (_move(each, f"boost {n}", 1) for n, each in enumerate(lists["boost"], 1))
    burials = (_move(each, f"bury {n}", -1) for n, each in enumerate(lists["bury"], 1))
    return Rules(
        tuple(
            _availability(e, f"availability {n}") for n, e in enumerate(lists["availability"], 1)
        ),
        tuple(_pinned(each, f"pin {n}") for n, each in enumerate(lists["pin"], 1)),
        (*boosts, *burials),
        tuple(_limit(each, f"limit {n}") for n, each in enumerate(lists["limit"], 1)),
    )


_COMMON = ("name", "start", "end")
_SELECTING = ("item", "category", "where")


def _availability(plain: object, where: str) -> Availability:
    fields = _object(plain, where, (*_COMMON, *_SELECTING, "available"))
    name, start, end = _common(fields, where)
    available = fields.get("available", True)
    if not isinstance(available, bool):
        raise InvalidInput(f"{where}: available is {shown(available)}: it must be true or false")
    if available and (start, end) == (-math.inf, math.inf):
        raise InvalidInput(f"{where} changes nothing: give available = false, a start or an end")
    return Availability(name, start, end, _selector(fields, where), available)


def _pinned(plain: object, where: str) -> Pin:
    fields = _object(plain, where, (*_COMMON, "item", "place"))
    name, start, end = _common(fields, where)
    if "item" not in fields:
        raise InvalidInput(f"{where}: item is missing: give the id of the item to pin")
    place = _whole(fields.get("place", 1), f"{where}: place", MAX_PLACE)
    return Pin(name, start, end, _id(fields["item"], where), place)


def _move(plain: object, where: str, sign: int) -> Move:
    fields = _object(plain, where, (*_COMMON, *_SELECTING, "places"))
    name, start, end = _common(fields, where)
    places = _whole(fields.get("places", EVERY_PLACE), f"{where}: places", EVERY_PLACE)
    return Move(name, start, end, _selector(fields, where), sign * places)


def _limit(plain: object, where: str) -> Limit:
    fields = _object(plain, where, (*_COMMON, "attribute", "at_most", "values"))
    name, start, end = _common(fields, where)
    attribute = fields.get("attribute")
    if not isinstance(attribute, str):
        raise InvalidInput(
            f"{where}: attribute is {shown(attribute)}: give the name of one, such as brand or "
            "categories"
        )
    if "at_most" not in fields:
        raise InvalidInput(f"{where}: at_most is missing: give a number of items from 1")
    at_most = _whole(fields["at_most"], f"{where}: at_most", MAX_PLACE)
    return Limit(
        name, start, end, attribute, at_most, _texts(fields.get("values", []), f"{where}: values")
    )


def _object(plain: object, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise InvalidInput(f"{where}: {shown(plain)} must be an object of {', '.join(known)}")
    for name in plain:
        if name not in known:
            raise InvalidInput(f"{where}: {shown(name)} is unknown: known are {', '.join(known)}")
    return plain


def _list(plain: object, where: str) -> list[Any]:
    if not isinstance(plain, list):
        raise InvalidInput(f"{where}: {shown(plain)} must be a list of rules")
    return plain


def _common(fields: Mapping[str, Any], where: str) -> tuple[str, float, float]:
    """A rule's name, which is its place where it has none, and its time."""
    name = fields.get("name", where)
    if not isinstance(name, str) or not 0 < len(name) <= MAX_ID_LENGTH:
        raise InvalidInput(
            f"{where}: name is {shown(name)}: it must be text of 1 to {MAX_ID_LENGTH} characters"
        )
    start, end = (_moment(fields.get(each), f"{where}: {each}") for each in ("start", "end"))
    start, end = -math.inf if start is None else start, math.inf if end is None else end
    if start >= end:
        raise InvalidInput(
            f"{where}: it starts at {fields['start']} and ends at {fields['end']}: it must start "
            "before it ends"
        )
    return name, start, end


def _moment(value: object, where: str) -> float | None:
    if value is None:
        return None
    try:
        return seconds_of(str(value) if isinstance(value, str) else "")
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{where} is {shown(value)}: write 2024-05-31 or 2024-05-31T18:00:00Z"
        ) from error


def _selector(fields: Mapping[str, Any], where: str) -> Selector:
    if not any(name in fields for name in _SELECTING):
        raise InvalidInput(f"{where} selects no item: give an item, a category or where")
    items = _list_of(fields.get("item", []), f"{where}: item", MAX_SELECTED)
    categories = _texts(fields.get("category", []), f"{where}: category")
    try:
        conditions = conditions_of(fields.get("where", {}))
    except InvalidInput as error:
        raise InvalidInput(f"{where}: where: {error}") from error
    selector = Selector(frozenset(_id(item, where) for item in items), categories, conditions)
    if selector == Selector():
        raise InvalidInput(f"{where} selects every item: name an item, a category or an attribute")
    return selector


def _list_of(value: object, where: str, most: int) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if len(values) > most:
        raise InvalidInput(f"{where} has {len(values)} values: at most {most} are taken")
    return values


def _texts(value: object, where: str) -> frozenset[str]:
    values = _list_of(value, where, MAX_SELECTED)
    for each in values:
        if not isinstance(each, str) or not each:
            raise InvalidInput(f"{where} has {shown(each)}: it must be text, or a list of texts")
    return frozenset(values)


def _id(value: object, where: str) -> str:
    try:
        return id_of(value)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: item {error}") from error


def _whole(value: object, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidInput(f"{where} is {shown(value)}: it must be a whole number from 1 to {most}")
    return value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """What a change added to and removed from each section."""
    told: dict[str, dict[str, list[Any]]] = {}
    for section in SECTIONS:
        old, new = before.get(section, []), after.get(section, [])
        added = [rule for rule in new if rule not in old]
        removed = [rule for rule in old if rule not in new]
        if added or removed:
            told[section] = {"added": added, "removed": removed}
    return told
