"""Says what data a release has learnt from."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shortlist.batch.studio.facts import NEGATIVE, StudioFacts
from shortlist.batch.studio.overview import event_types
from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.releases import View
from shortlist.recsys.evaluation.repeats_note import repeats_note


def data(view: View) -> dict[str, Any]:
    """The counts that the batch kept; null or empty where the release has none."""
    facts, report = view.facts, view.report or {}
    counted = report.get("data", {}).get("rejects", {})
    days = _days(facts)
    n_kept, n_rejected = sum(row["n"] for row in days), sum(counted.values())
    n_read = n_kept + n_rejected
    plain = {} if facts is None else facts.plain
    return {
        "days": days,
        "unit": plain.get("unit"),
        "activity": [
            {"from": first, "to": last, "users": n} for first, last, n in plain.get("activity", ())
        ],
        "tail": [
            {"share_items": items, "share_events": events}
            for items, events in plain.get("tail", ())
        ],
        "gini": finite(plain.get("gini")),
        "repeats": _repeats(report),
        "rejects": [
            {"reason": reason, "n": n, "samples": plain.get("rejects", {}).get(reason, [])}
            for reason, n in counted.items()
        ],
        "rejected_share": n_rejected / n_read if report and facts is not None and n_read else None,
        "types": _types(view, days),
        "drift": _drift(report),
        "users_without_events": plain.get("users_without_events"),
        "items_without_events": plain.get("items_without_events"),
    }


def _days(facts: StudioFacts | None) -> list[dict[str, Any]]:
    if facts is None:
        return []
    of, types = facts.arrays, facts.plain["types"]
    columns = (of["day"].tolist(), of["day_type"].tolist(), of["day_n"].tolist())
    return [
        {"day": day, "type": types[place], "n": n} for day, place, n in zip(*columns, strict=True)
    ]


def _types(view: View, days: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The types with their numbers of events; all negative feedback is one."""
    counted: Counter[str] = Counter()
    for row in days:
        counted[row["type"]] += row["n"]
    rows = [
        {
            "name": kind["name"],
            "n": counted[kind["name"]],
            "weight": kind["weight"],
            "role": "target" if kind["target"] else "context",
        }
        for kind in event_types(view.bundle.facts.events)
        if not kind["negative"]
    ]
    if counted[NEGATIVE]:
        row = {"name": NEGATIVE, "n": counted[NEGATIVE], "weight": None, "role": "negative"}
        rows.append(row)
    return rows if days else []


def _repeats(report: dict[str, Any]) -> dict[str, Any] | None:
    counted = report.get("repeats")
    if not counted:
        return None
    share, setting = finite(counted.get("events")), counted.get("mode")
    return {"share": share, "setting": setting, "note": repeats_note(counted)}


def _drift(report: dict[str, Any]) -> dict[str, Any] | None:
    section = report.get("drift")
    if section is None:
        return None
    rows = section.get("rows", [])
    flagged = any(row.get("flagged") for row in rows)
    return {"flagged": flagged, "note": section.get("note"), "features": finite(rows)}
