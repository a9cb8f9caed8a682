"""Tests that cached and live answers filter alike."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shortlist.lambda_handler.answers import Filters
from shortlist.recsys.models.bundle import Items
from shortlist.recsys.models.catalogue import ItemAttribute
from shortlist.recsys.models.filter_columns import FilterColumns
from shortlist.recsys.where import AttributeKind, Condition, checked, conditions_of

LABELS = st.sampled_from("abc")
DATES = st.sampled_from(["2024-01-01", "2024-05-31T18:00:00Z", "2024-05-31", "1999-12-31"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-0.0, 0.5, 1.0, 2.5])
VALUES: dict[AttributeKind, st.SearchStrategy[Any]] = {
    AttributeKind.TEXT: LABELS,
    AttributeKind.LIST: st.lists(LABELS, min_size=1, max_size=3, unique=True).map(tuple),
    AttributeKind.NUMBER: NUMBERS,
    AttributeKind.BOOLEAN: st.booleans(),
    AttributeKind.DATE: DATES,
}
ASKED = VALUES | {AttributeKind.LIST: LABELS}
ORDERED = (AttributeKind.NUMBER, AttributeKind.DATE)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Items, list[Condition]]:
    """Items with an attribute of each kind, and a condition on each."""
    n = draw(st.integers(1, 6))
    attributes, conditions = [], []
    for kind, values in VALUES.items():
        column = draw(st.lists(st.none() | values, min_size=n, max_size=n))
        attributes.append(ItemAttribute(kind.value, kind, tuple(column)))
        where: Any = draw(st.lists(ASKED[kind], min_size=1, max_size=3))
        if kind in ORDERED and draw(st.booleans()):
            where = {draw(st.sampled_from(["gt", "gte", "lt", "lte"])): draw(values)}
        conditions += checked(conditions_of({kind.value: where}), {kind.value: kind})
    ids = [str(row) for row in range(n)]
    categories = [tuple(draw(st.sets(LABELS))) for _ in range(n)]
    conditions += checked(conditions_of({"categories": draw(LABELS)}), {})
    rows = {item: row for row, item in enumerate(ids)}
    return Items(ids, ids, categories, rows, tuple(attributes)), conditions


@given(worlds())
def test_columns_and_items_agree(world: tuple[Items, list[Condition]]) -> None:
    """A condition admits the same items by columns as item by item."""
    items, conditions = world
    columns = FilterColumns(items)
    for condition in conditions:
        admitted = [
            Filters(where=(condition,)).admit(items.record(row)) for row in range(len(items.ids))
        ]
        assert columns.fulfilling(condition).tolist() == admitted
