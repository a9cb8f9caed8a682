"""Shows items: search, one item, the map."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.reach import BANDS
from shortlist.batch.studio.releases import View
from shortlist.recsys.errors import UnknownItem
from shortlist.recsys.evaluation.figures import SECONDS_A_DAY
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.store.rules import Rules, of_columns
from shortlist.recsys.where import labels_of

MOST = 500
"""Most rows of an answer."""

MOST_POINTS = 20_000
"""Most points of the map: a browser draws them in a moment."""


def found(view: View, query: str, category: str, limit: int) -> dict[str, Any]:
    """The items that fit a query, best first; category: "" for all."""
    among = view.rows_of.get(category, set()) if category else None
    rows, total = view.search.found(query, limit, among)
    return {"items": [listed(view, row) for row in rows], "total": total}


def listed(view: View, row: int) -> dict[str, Any]:
    """What a list shows of an item."""
    items = view.bundle.catalogue
    return {
        "id": items.ids[row],
        "title": items.titles[row],
        "categories": list(items.categories[row]),
        "attributes": attributes_of(view, row),
        "n_events": int(view.n_events[row]),
        "reach": None if view.reach is None else int(view.reach[:, row].sum()),
    }


def attributes_of(view: View, row: int) -> dict[str, Any]:
    """{column: value} of an item, shown ones and others."""
    record = view.bundle.catalogue.record(row)
    return finite({**record.attributes, **record.unshown})


def one(
    view: View, item_id: str, blocked: Collection[str] | None, rules: Rules, now: float
) -> dict[str, Any]:
    """All of one item.

    blocked: items, None where Redis does not say; rules: as they fit the release; now: unix
    seconds.

    Raises:
        UnknownItem: the release lacks it.
    """
    row = view.bundle.catalogue.row_of.get(item_id)
    if row is None:
        raise UnknownItem(
            f"item {item_id!r} is not in release {view.version}: search for its title or id"
        )
    return listed(view, row) | {
        "first": _day(view, "item_first", row),
        "last": _day(view, "item_last", row),
        "months": _months(view, row),
        "reach": _reach(view, row),
        "xy": _place(view, row),
        "blocked": None if blocked is None else item_id in blocked,
        "rules": _rules(view, view.bundle.catalogue.record(row), rules, now),
    }


def on_the_map(view: View, category: str, limit: int, also: Collection[str] = ()) -> dict[str, Any]:
    """Items with their places on the map, the most popular first.

    also: ids of items that come after them, whatever their popularity and category.
    """
    if view.facts is None:
        return {"points": [], "explained": None, "total": 0}
    items, xy = view.bundle.catalogue, view.facts.arrays["item_xy"].reshape(-1, 2)
    rows = view.bundle.popular.tolist()
    if category:
        among = view.rows_of.get(category, set())
        rows = [row for row in rows if row in among]
    asked = [items.row_of[item] for item in also if item in items.row_of]
    points = [
        {
            "id": items.ids[row],
            "title": items.titles[row],
            "x": float(xy[row, 0]),
            "y": float(xy[row, 1]),
            "category": next(iter(items.categories[row]), None),
            "n_events": int(view.n_events[row]),
        }
        for row in dict.fromkeys(rows[:limit] + asked)
    ]
    explained = sum(view.facts.plain["explained"])
    return {"points": points, "explained": explained, "total": len(rows)}


def _day(view: View, column: str, row: int) -> int | None:
    """The start of a day in unix seconds."""
    day = -1 if view.facts is None else int(view.facts.arrays[column][row])
    return None if day < 0 else day * SECONDS_A_DAY


def _months(view: View, row: int) -> list[dict[str, Any]] | None:
    """Events by month; None where the release has not counted them."""
    if view.facts is None or not len(view.facts.arrays["month"]):
        return None
    curve = view.facts.curve(row)
    if not curve and view.n_events[row]:
        return None  # among those for which there was no room
    return [{"month": f"{datetime.fromtimestamp(at, UTC):%Y-%m}", "n": n} for at, n in curve]


def _reach(view: View, row: int) -> dict[str, Any] | None:
    if view.reach is None:
        return None
    counts = view.reach[:, row].tolist()
    bands = [{"from": a, "to": b, "n": n} for (a, b), n in zip(BANDS, counts, strict=True)]
    return {"lists": sum(counts), "by_rank": bands}


def _place(view: View, row: int) -> list[float] | None:
    if view.facts is None:
        return None
    place: list[float] = view.facts.arrays["item_xy"][2 * row : 2 * row + 2].astype(float).tolist()
    return place


def _rules(view: View, item: ItemRecord, rules: Rules, now: float) -> list[str]:
    """What the business rules say of an item at this moment."""
    hiding = [r for r in rules.availability if r.hides(now) and r.selector.selects(item)]
    said = [f"Rule {rule.name!r} keeps it out of every list now." for rule in hiding]
    columns = of_columns(view.bundle.facts.attributes, now)
    if any(selector.selects(item) for selector in columns):
        said.append("The items table says that it is not available now.")
    holding = rules.at(now)
    said += [
        f"Rule {pin.name!r} pins it to place {pin.place}."
        for pin in holding.pins
        if pin.item == item.id
    ]
    for move in holding.moves:
        if move.selector.selects(item):
            way = "up" if move.places > 0 else "down"
            said.append(f"Rule {move.name!r} moves it {way} by {abs(move.places)} places at most.")
    for limit in holding.limits:
        labels = [
            label
            for label in labels_of(item.value_of(limit.attribute))
            if not limit.labels or label in limit.labels
        ]
        said += [
            f"Rule {limit.name!r} allows at most {limit.at_most} items of "
            f"{limit.attribute} {label} in a list."
            for label in labels
        ]
    return said
