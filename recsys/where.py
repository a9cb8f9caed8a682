"""Reads and checks conditions on attributes of items.

A condition is a value, a list of values of which an item must have one, or a range:
`{"brand": ["acme", "bruna"], "price": {"lte": 20}, "in_stock": true}`. An item without the
attribute fulfils none. Standard library only, because the hit path imports it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.values import shown

CATEGORIES = "categories"
"""The name by which an item's categories are conditions, too."""

MAX_CONDITIONS = 20
MAX_VALUES = 100

LOWER, UPPER = ("gt", "gte"), ("lt", "lte")
RANGES = (*LOWER, *UPPER)
"""The bounds of a range; of each side one at most."""

Scalar = str | int | float | bool
AttributeValue = Scalar | tuple[str, ...] | None
"""What an item has: text, a number, a boolean, ISO 8601 text of a date, or several texts."""


class AttributeKind(Enum):
    """The type of an item's attribute."""

    TEXT = "text"
    LIST = "list"
    """Several texts."""
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    """A date or a date-time, as ISO 8601 text."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attribute must be.

    values: of which the item must have one; None for a range.
    low, high: the bounds, dates as Unix seconds; is_above, is_below: whether a bound itself is out.
    kind: of the attribute, once it is known.
    """

    attribute: str
    values: frozenset[Scalar] | None = None
    low: Scalar = -math.inf
    high: Scalar = math.inf
    is_above: bool = False
    is_below: bool = False
    kind: AttributeKind | None = None

    def admits(self, value: AttributeValue) -> bool:
        """Whether an item with this value fulfils the condition, whose kind is known."""
        if value is None:
            return False
        if isinstance(value, tuple):
            return self.values is not None and not self.values.isdisjoint(value)
        if self.kind is AttributeKind.DATE:
            value = seconds_of(str(value))
        if self.values is not None:
            return value in self.values
        return self._is_within(value)

    def as_plain(self) -> list[object]:
        """The same values in the same order in every process."""
        values = None if self.values is None else sorted(self.values, key=repr)
        bounds = [str(self.low), str(self.high), self.is_above, self.is_below]
        return [self.attribute, values, bounds]

    def _is_within(self, value: Any) -> bool:  # noqa: ANN401 - a number by now
        if value < self.low or value > self.high:
            return False
        return not ((self.is_above and value == self.low) or (self.is_below and value == self.high))


def conditions_of(where: object) -> tuple[Condition, ...]:
    """Conditions from the plain values of JSON, whose attributes are not yet known.

    Raises:
        InvalidInput: the value has another shape, or a range holds nothing.
    """
    if not isinstance(where, Mapping):
        raise InvalidInput(
            f"{shown(where)} must be an object of attributes, such as "
            '{"brand": ["acme"], "price": {"lte": 20}}'
        )
    if len(where) > MAX_CONDITIONS:
        raise InvalidInput(f"{len(where)} conditions are given: at most {MAX_CONDITIONS} are taken")
    return tuple(_condition(name, value) for name, value in where.items())


def _condition(name: object, value: object) -> Condition:
    if not isinstance(name, str):
        raise InvalidInput(f"{shown(name)} must be the name of an attribute")
    if isinstance(value, Mapping):
        return _range(name, value)
    values: Sequence[Any] = [value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        values = value
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidInput(f"{name} has {len(values)} values: give from 1 to {MAX_VALUES}")
    for each in values:
        if not _is_scalar(each):
            raise InvalidInput(
                f"{name} has the value {shown(each)}: it must be text, a number, true or false, a "
                'list of these, or a range such as {"gte": 5, "lte": 20}'
            )
    return Condition(name, frozenset(values))


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int, bool))


def _range(name: str, bounds: Mapping[str, Any]) -> Condition:
    unknown = [bound for bound in bounds if bound not in RANGES]
    sides = [[bound for bound in side if bound in bounds] for side in (LOWER, UPPER)]
    if unknown or not bounds or any(len(side) > 1 for side in sides):
        named = ", ".join(shown(bound) for bound in bounds)
        raise InvalidInput(
            f"{name} has a range of {named or 'no bounds'}: give one or two of "
            f"{', '.join(RANGES)}, one of each side"
        )
    for bound, value in bounds.items():
        if isinstance(value, bool) or not _is_scalar(value):
            raise InvalidInput(
                f"{name} has the bound {bound} {shown(value)}: it must be a number or a date"
            )
    lower, upper = sides
    return Condition(
        name,
        low=bounds[lower[0]] if lower else -math.inf,
        high=bounds[upper[0]] if upper else math.inf,
        is_above="gt" in bounds,
        is_below="lt" in bounds,
    )


def checked(
    conditions: Sequence[Condition], attributes: Mapping[str, AttributeKind]
) -> tuple[Condition, ...]:
    """The conditions with their kinds, dates as seconds.

    attributes: those of the release that can be filtered by.

    Raises:
        InvalidInput: an attribute is unknown, its values are of another type, or a range is empty.
    """
    known = {CATEGORIES: AttributeKind.LIST, **attributes}
    return tuple(_checked(condition, known) for condition in conditions)


def _checked(condition: Condition, known: Mapping[str, AttributeKind]) -> Condition:
    name, kind = condition.attribute, known.get(condition.attribute)
    if kind is None:
        raise InvalidInput(
            f"there is no attribute {shown(name)} to filter by: known are "
            f"{', '.join(sorted(known))}"
        )
    condition = replace(condition, kind=kind)
    if condition.values is not None:
        values = frozenset(_typed(name, value, kind) for value in condition.values)
        return replace(condition, values=values)
    if kind not in (AttributeKind.NUMBER, AttributeKind.DATE):
        raise InvalidInput(f"{name} is {_named(kind)} and has no range: give a value or a list")
    low = -math.inf if condition.low == -math.inf else _typed(name, condition.low, kind)
    high = math.inf if condition.high == math.inf else _typed(name, condition.high, kind)
    if low > high or (low == high and (condition.is_above or condition.is_below)):
        raise InvalidInput(
            f"{name} has a range from {condition.low} to {condition.high}, which holds nothing: "
            "its lower bound must be below the upper one"
        )
    return replace(condition, low=low, high=high)


def _typed(name: str, value: Scalar, kind: AttributeKind) -> Any:  # noqa: ANN401 - by its kind
    """The value as items have it; a date as seconds."""
    fits = {
        AttributeKind.TEXT: isinstance(value, str),
        AttributeKind.LIST: not isinstance(value, bool),
        AttributeKind.BOOLEAN: isinstance(value, bool),
        AttributeKind.NUMBER: isinstance(value, (int, float)) and not isinstance(value, bool),
        AttributeKind.DATE: isinstance(value, str),
    }
    if not fits[kind]:
        raise InvalidInput(f"{name} is {_named(kind)}, and {shown(value)} is not: give one")
    if kind is AttributeKind.LIST:
        return str(value)  # an item's sizes, 38 and 40, are the texts "38" and "40"
    if kind is not AttributeKind.DATE:
        return value
    try:
        return seconds_of(str(value))
    except ValueError as error:
        raise InvalidInput(
            f"{name} is a date, and {shown(value)} is none: write 2024-05-31 or "
            "2024-05-31T18:00:00Z"
        ) from error


_NAMES = {
    AttributeKind.TEXT: "text",
    AttributeKind.LIST: "a list of texts",
    AttributeKind.NUMBER: "a number",
    AttributeKind.BOOLEAN: "true or false",
    AttributeKind.DATE: "a date",
}


def _named(kind: AttributeKind) -> str:
    return _NAMES[kind]


def labels_of(value: AttributeValue) -> tuple[str, ...]:
    """The texts of a value: of a list each, of nothing none."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (str(value),)


def is_date(text: str) -> bool:
    """Whether text is a date or date-time in ISO 8601."""
    try:
        seconds_of(text)
    except (ValueError, OverflowError):
        return False
    return True


def seconds_of(text: str) -> float:
    """Unix seconds of ISO 8601 text; a date is its first second, a time without a zone UTC.

    Raises:
        ValueError: the text is no date.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
