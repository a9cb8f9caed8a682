"""Reads business rules from JSON, TOML and their record.

Every fault names the rule, the value and the remedy. Standard library and msgpack only, because the
hit path reads the record.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import msgpack

from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.store.rules import Availability, Limit, Move, Pin, Rules, Selector
from shortlist.recsys.values import MAX_ID_LENGTH, id_of, shown
from shortlist.recsys.where import conditions_of, seconds_of

MAX_RULES = 500
"""Of one record: each answer looks at all of them."""

MAX_SELECTED = 10_000
"""Items that one rule names."""

MAX_PLACE = 100
"""The last place that can be pinned or bounded: the longest list that is asked for."""

EVERY_PLACE = 1_000_000
"""Places by which a rule moves an item that says no number: to an end of the list."""

SECTIONS = ("availability", "pin", "boost", "bury", "limit")


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


def rules_in(text: str, source: str) -> dict[str, Any]:
    """The rules of TOML text, as JSON has them; source: names the file in errors.

    Raises:
        InvalidInput: the text is no TOML, or breaks a rule.
    """
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"rules {source!r}: {error}; give a TOML file") from error
    plain = _without_dates(sections)
    try:
        rules_of(plain)
    except InvalidInput as error:
        raise InvalidInput(f"rules {source!r}: {error}") from error
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
    changed: dict[str, dict[str, list[Any]]] = {}
    for section in SECTIONS:
        old, new = before.get(section, []), after.get(section, [])
        added = [rule for rule in new if rule not in old]
        removed = [rule for rule in old if rule not in new]
        if added or removed:
            changed[section] = {"added": added, "removed": removed}
    return changed
