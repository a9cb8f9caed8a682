"""Says which business rules change nothing in a release.

Standard library only, because the API calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from shortlist.recsys.store.release_facts import ReleaseFacts
from shortlist.recsys.store.rules import Availability, Limit, Move, Pin, Rules, Selector
from shortlist.recsys.values import shown
from shortlist.recsys.where import CATEGORIES


def named_items(rules: Rules) -> list[str]:
    """The ids of all items that rules name, sorted."""
    named = {pin.item for pin in rules.pins}
    selecting: list[Availability | Move] = [*rules.availability, *rules.moves]
    for each in selecting:
        named |= each.selector.items
    return sorted(named)


def vain(
    rules: Rules, facts: ReleaseFacts, unknown_items: Collection[str], now: float
) -> list[str]:
    """Notes on rules that are over, or that name what no item of the release is or has.

    unknown_items: of `named_items`, those that the release lacks.
    """
    lacking = frozenset(unknown_items)
    every: list[Availability | Move | Pin | Limit]
    every = [*rules.availability, *rules.moves, *rules.pins, *rules.limits]
    notes: list[str] = []
    for rule in every:
        notes += (f"rule {rule.name!r}: {why}" for why in _reasons(rule, facts, lacking, now))
    return notes


def _reasons(
    rule: Availability | Move | Pin | Limit,
    facts: ReleaseFacts,
    lacking: frozenset[str],
    now: float,
) -> Iterator[str]:
    # Items that were available until then stay hidden.
    if rule.end <= now and not (isinstance(rule, Availability) and rule.available):
        yield "it is over: its end has passed"
    if isinstance(rule, Pin):
        yield from _unknown_items({rule.item}, lacking)
    elif isinstance(rule, Limit):
        yield from _unknown_labels({rule.attribute: rule.labels}, facts)
    else:
        yield from _unknown_items(rule.selector.items, lacking)
        yield from _unknown_labels(_labels_asked(rule.selector), facts)


def _unknown_items(named: Collection[str], lacking: frozenset[str]) -> Iterator[str]:
    unknown = sorted(lacking.intersection(named))
    if unknown:
        more = f" and {len(unknown) - 1} more of its items" if len(unknown) > 1 else ""
        yield f"the release has no item {shown(unknown[0])}{more}"


def _labels_asked(selector: Selector) -> dict[str, frozenset[str]]:
    asked = {
        each.attribute: frozenset(value for value in each.values or () if isinstance(value, str))
        for each in selector.where
    }
    asked[CATEGORIES] = selector.categories.union(asked.get(CATEGORIES, ()))
    return asked


def _unknown_labels(asked: Mapping[str, Collection[str]], facts: ReleaseFacts) -> Iterator[str]:
    for attribute, values in asked.items():
        unknown = sorted(set(values) - facts.labels.get(attribute, frozenset(values)))
        if unknown:
            yield f"no item has {attribute} {', '.join(map(shown, unknown[:5]))}"
