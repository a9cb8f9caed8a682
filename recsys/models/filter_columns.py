"""Finds the items that fulfil conditions, by columns.

The same conditions are tested item by item on cached lists, see `recsys.where`: a condition decides
itself on each distinct value, so that both agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.models.bundle import Items
from shortlist.recsys.models.interactions import Int32
from shortlist.recsys.store.rules import Selector
from shortlist.recsys.where import CATEGORIES, AttributeKind, AttributeValue, Condition

_Encoded = tuple[list[AttributeValue], Int32]
"""The distinct values of a column, and the position of each item's among them."""

REMEMBERED = 64
"""Conditions whose items are kept: most requests repeat a few."""


class FilterColumns:
    """The attributes of a release's items, encoded when they are first asked for."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._attributes = {each.name: each for each in items.attributes}
        self._encoded: dict[str, _Encoded] = {}
        self._rows: dict[str, dict[str, Int32]] = {}
        self._known: dict[Condition, NDArray[np.bool_]] = {}
        self._lock = Lock()

    @cached_property
    def categories(self) -> dict[str, Int32]:
        """Category -> int32 item rows."""
        return _rows_by_label(self._items.categories)

    def fulfilling(self, condition: Condition) -> NDArray[np.bool_]:
        """bool[n]: the items that fulfil a condition, whose kind is known; read only."""
        with self._lock:
            known = self._known.get(condition)
            if known is None:
                while len(self._known) >= REMEMBERED:
                    self._known.pop(next(iter(self._known)))
                known = self._known[condition] = self._found(condition)
        return known

    def selected(self, selector: Selector) -> NDArray[np.bool_]:
        """bool[n]: the items that a selector means."""
        n = len(self._items.ids)
        found = np.ones(n, np.bool_)
        if selector.items:
            row_of = self._items.row_of
            found[:] = False
            found[[row_of[item] for item in selector.items if item in row_of]] = True
        if selector.categories:
            having = np.zeros(n, np.bool_)
            for name in selector.categories:
                having[self.categories.get(name, np.empty(0, np.int32))] = True
            found &= having
        for condition in selector.where:
            found &= self.fulfilling(condition)
        return found

    def _found(self, condition: Condition) -> NDArray[np.bool_]:
        name = condition.attribute
        if condition.kind is AttributeKind.LIST:
            return self._with_label(name, condition)
        if name not in self._attributes:  # of another release
            return np.zeros(len(self._items.ids), np.bool_)
        if name not in self._encoded:
            self._encoded[name] = _encoded(self._attributes[name].values)
        values, codes = self._encoded[name]
        return np.array([condition.admits(value) for value in values], np.bool_)[codes]

    def _with_label(self, name: str, condition: Condition) -> NDArray[np.bool_]:
        rows = self.categories if name == CATEGORIES else self._rows.get(name)
        if rows is None:
            attribute = self._attributes.get(name)
            lists = () if attribute is None else attribute.values
            rows = self._rows[name] = _rows_by_label(
                each if isinstance(each, tuple) else () for each in lists
            )
        found = np.zeros(len(self._items.ids), np.bool_)
        for label in condition.values or ():
            found[rows.get(str(label), np.empty(0, np.int32))] = True
        return found


def _encoded(values: Iterable[AttributeValue]) -> _Encoded:
    position: dict[AttributeValue, int] = {}
    codes = [position.setdefault(value, len(position)) for value in values]
    return list(position), np.array(codes, np.int32)


def _rows_by_label(lists: Iterable[tuple[str, ...]]) -> dict[str, Int32]:
    rows: dict[str, list[int]] = {}
    for row, labels in enumerate(lists):
        for label in labels:
            rows.setdefault(label, []).append(row)
    return {label: np.array(own, np.int32) for label, own in rows.items()}
