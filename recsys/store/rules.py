"""Applies business rules to ranked lists.

Operators say when items are available, pin them to places, move them up or down, and bound how many
of a brand or category a list has. Rules are one record in Redis for all releases: a file at
publication or the admin routes replace it whole. Standard library only, because the hit
path applies them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.values import shown
from shortlist.recsys.where import (
    CATEGORIES,
    AttributeKind,
    Condition,
    checked,
    labels_of,
)

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
