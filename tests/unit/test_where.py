"""Tests conditions on attributes of items."""

from __future__ import annotations

from typing import Any

import pytest

from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.where import AttributeKind, checked, conditions_of

KINDS = {
    "brand": AttributeKind.TEXT,
    "tags": AttributeKind.LIST,
    "price": AttributeKind.NUMBER,
    "in_stock": AttributeKind.BOOLEAN,
    "released": AttributeKind.DATE,
}
ITEM: dict[str, Any] = {
    "brand": "acme",
    "tags": ("new", "red", "38"),
    "price": 19.99,
    "in_stock": True,
    "released": "2024-05-31",
}


def admits(where: dict[str, Any], item: dict[str, Any] = ITEM) -> bool:
    """Whether an item fulfils all conditions."""
    return all(
        each.admits(item.get(each.attribute)) for each in checked(conditions_of(where), KINDS)
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"brand": "acme"}, True),
        ({"brand": ["bruna", "acme"]}, True),
        ({"brand": ["bruna"]}, False),
        ({"brand": "Acme"}, False),
        ({"tags": "red"}, True),
        ({"tags": ["blue", "red"]}, True),
        ({"tags": "re"}, False),
        ({"tags": 38}, True),
        ({"tags": [3]}, False),
        ({"price": 19.99}, True),
        ({"price": [1, 2]}, False),
        ({"price": {"lte": 20}}, True),
        ({"price": {"lt": 19.99}}, False),
        ({"price": {"gt": 19.99}}, False),
        ({"price": {"gte": 19.99, "lte": 19.99}}, True),
        ({"price": {"gt": -5, "lt": 10**30}}, True),
        ({"in_stock": True}, True),
        ({"in_stock": [False]}, False),
        ({"released": "2024-05-31"}, True),
        ({"released": "2024-05-31T00:00:00Z"}, True),
        ({"released": {"gt": "2024-05-30T23:59:59Z"}}, True),
        ({"released": {"gte": "2024-05-31T02:00:00+02:00"}}, True),
        ({"released": {"lt": "2024-05-31"}}, False),
        ({"brand": "acme", "price": {"lte": 20}, "in_stock": True}, True),
        ({"brand": "acme", "price": {"lte": 2}, "in_stock": True}, False),
    ],
)
def test_conditions_admit(where: dict[str, Any], *, expected: bool) -> None:
    """All conditions must hold; of a list one value is enough."""
    assert admits(where) is expected


@pytest.mark.parametrize("where", [{"brand": "acme"}, {"price": {"lte": 20}}, {"in_stock": False}])
def test_absent_attribute_fulfils_nothing(where: dict[str, Any]) -> None:
    """An item without a price is not cheap."""
    assert not admits(where, {})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"colour": "red"}, "there is no attribute 'colour' to filter by: known are brand, categ"),
        ({"brand": 7}, "brand is text, and 7 is not"),
        ({"brand": True}, "brand is text, and true is not"),
        ({"tags": [True]}, "tags is a list of texts, and true is not"),
        ({"price": "20"}, "price is a number, and '20' is not"),
        ({"price": True}, "price is a number, and true is not"),
        ({"price": {"lte": "20"}}, "price is a number, and '20' is not"),
        ({"in_stock": 1}, "in_stock is true or false, and 1 is not"),
        ({"released": 2024}, "released is a date, and 2024 is not"),
        ({"released": "May"}, "released is a date, and 'May' is none: write 2024-05-31"),
        ({"brand": {"lte": "b"}}, "brand is text and has no range: give a value or a list"),
        ({"price": {"gte": 5, "lte": 3}}, "price has a range from 5 to 3, which holds nothing"),
        ({"price": {"gt": 5, "lte": 5}}, "price has a range from 5 to 5, which holds nothing"),
        ({"price": {"gte": 5, "gt": 3}}, "give one or two of gt, gte, lt, lte"),
        ({"price": {}}, "give one or two of gt, gte, lt, lte"),
        ({"price": {"max": 5}}, "price has a range of 'max': give one or two of gt, gte, lt, lte"),
        ({"price": {"lte": None}}, "price has the bound lte null"),
        ({"price": {"lte": float("nan")}}, "price has the bound lte nan"),
        ({"price": {"lte": True}}, "price has the bound lte true"),
        ({"brand": []}, "brand has 0 values: give from 1 to 100"),
        ({"brand": ["a"] * 101}, "brand has 101 values: give from 1 to 100"),
        ({"brand": None}, "brand has the value null"),
        ({"brand": [["a"]]}, "brand has the value a list"),
        ({str(n): 1 for n in range(21)}, "21 conditions are given: at most 20 are taken"),
        ("brand", "'brand' must be an object of attributes"),
        ([], "a list must be an object of attributes"),
    ],
)
def test_bad_conditions_are_refused(where: Any, message: str) -> None:
    """An error names the attribute, the value and the rule."""
    with pytest.raises(InvalidInput) as raised:
        checked(conditions_of(where), KINDS)
    assert message in str(raised.value)


def test_categories_are_an_attribute() -> None:
    """An item's categories can stand among the conditions, whatever the release."""
    (condition,) = checked(conditions_of({"categories": ["garden"]}), {})
    assert condition.admits(("kitchen", "garden"))
    assert not condition.admits(())
