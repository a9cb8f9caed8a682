"""Shows items: search, one item, the map."""

from __future__ import annotations

from typing import Any

from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.releases import View
from shortlist.recsys.errors import UnknownItem

MOST = 500
"""Most rows of an answer."""


def found(view: View, query: str, category: str | None, limit: int) -> dict[str, Any]:
    """The items that fit a query, best first."""
    rows = view.search.rows(query)
    if category:
        categories = view.bundle.catalogue.categories
        rows = [row for row in rows if category in categories[row]]
    return {"items": [row_of(view, row) for row in rows[:limit]], "total": len(rows)}


def row_of(view: View, row: int) -> dict[str, Any]:
    """What a list shows of an item."""
    items = view.bundle.catalogue
    return {
        "id": items.ids[row],
        "title": items.titles[row],
        "categories": list(items.categories[row]),
        "attributes": attributes_of(view, row),
        "n_events": int(view.n_events[row]),
        "reach": None,
    }


def attributes_of(view: View, row: int) -> dict[str, Any]:
    """{column: value} of an item, shown ones and others."""
    record = view.bundle.catalogue.record(row)
    return {name: finite(value) for name, value in (record.attributes | record.unshown).items()}


def one(view: View, item_id: str) -> dict[str, Any]:
    """All of one item.

    Raises:
        UnknownItem: the release lacks it.
    """
    row = view.bundle.catalogue.row_of.get(item_id)
    if row is None:
        raise UnknownItem(
            f"item {item_id!r} is not in release {view.version}: search for its title or id"
        )
    return row_of(view, row) | {
        "first": None,
        "last": None,
        "months": None,
        "reach": None,
        "xy": None,
        "blocked": None,
        "rules": [],
    }
