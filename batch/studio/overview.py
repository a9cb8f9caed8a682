"""Says in one glance what serves, how good and how fresh it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shortlist.batch.studio.facts import NO_TYPE
from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.releases import View
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, TWO_STAGE, headline_value
from shortlist.recsys.evaluation.small_samples import CONSEQUENCE, is_few
from shortlist.recsys.evaluation.tiles import BAD, GOOD, OPEN, PLAIN, tiles
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.records import ReleasePointer

STALE_SECONDS = 3 * 86_400
"""Age of a release from which it is worth a word: batches mostly run by night."""


def overview(
    view: View,
    pointer: ReleasePointer,
    now: float,
    api: dict[str, Any],
    *,
    admin_key_needed: bool,
) -> dict[str, Any]:
    """What the head of every page shows; now: unix seconds."""
    manifest = view.manifest
    created_at = manifest.get("created_at")
    age = None if created_at is None else max(0, int(now) - int(created_at))
    data = manifest.get("data", {})
    canary = pointer.canary
    best = headline(manifest)
    return {
        "version": view.version,
        "created_at": created_at,
        "as_of": manifest.get("as_of"),
        "age_s": age,
        "previous": pointer.previous,
        "canary": canary and {"version": canary.version, "percent": canary.percent},
        "n_users": data.get("n_users"),
        "n_items": len(view.bundle.catalogue.ids),
        "n_events": data.get("n_events"),
        "repeats": view.bundle.model.repeats.value,
        "list_length": manifest.get("list_length"),
        "has_clock_times": view.bundle.facts.has_clock_times,
        "headline": best,
        "tiles": _tiles(view, best, age),
        "has_studio_facts": view.facts is not None,
        "has_report": view.report is not None,
        "api": api,
        "event_types": event_types(view.bundle.facts.events),
        "attributes": view.attributes,
        "categories": view.categories,
        "admin_key_needed": admin_key_needed,
    }


def headline(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """NDCG@10 of the released method, beside the strongest other one; None without a report."""
    methods = manifest.get("metrics", {})
    own = methods.get(TWO_STAGE, {})
    if headline_value(methods) is None:
        return None
    others = {
        name: value
        for name in methods
        if name != TWO_STAGE and (value := headline_value(methods, name)) is not None
    }
    strongest = max(others, key=lambda name: others[name], default=None)
    n_users = own.get("n_users", 0)
    warning = None
    if is_few(n_users):
        warning = f"Of {n_users} users alone something could be predicted: {CONSEQUENCE}."
    return {
        "metric": HEADLINE_METRIC,
        **{name: finite(own[HEADLINE_METRIC].get(name)) for name in ("value", "low", "high")},
        "strongest": strongest and {"method": strongest, "value": finite(others[strongest])},
        "n_users": n_users,
        "warning": warning,
    }


def event_types(rules: EventRules) -> list[dict[str, Any]]:
    """The types of events, by weight; without types, the one kind that there is."""
    kinds = [
        {
            "name": kind.name or NO_TYPE,
            "weight": kind.strength,
            "target": kind.is_target,
            "negative": False,
        }
        for kind in rules.kinds
    ]
    negative = [
        {"name": name, "weight": None, "target": False, "negative": True} for name in rules.negative
    ]
    return kinds + negative


STATES = {GOOD: "good", OPEN: "warn", BAD: "bad", PLAIN: "neutral"}


def _tiles(view: View, best: dict[str, Any] | None, age: int | None) -> list[dict[str, Any]]:
    """The report's own tiles, and the age of the lists."""
    shown = [_quality_tile(best)] if view.report is None else list(_of_report(view.report))
    lists = {
        "id": "lists",
        "label": "How old are the lists?",
        "value": "unknown" if age is None else _span(age),
        "detail": "since the batch made them",
        "state": "neutral" if age is None else "warn" if age > STALE_SECONDS else "good",
    }
    return [*shown, lists]


def _of_report(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for tile in tiles(report):
        yield {
            "id": tile.question.lower().rstrip("?").replace(" ", "-"),
            "label": tile.question,
            "value": tile.answer,
            "detail": tile.detail,
            "state": STATES[tile.mood],
        }


def _quality_tile(best: dict[str, Any] | None) -> dict[str, Any]:
    """What a release without a report says of its quality."""
    tile = {"id": "is-it-good", "label": "Is it good?", "state": "neutral"}
    if best is None:
        return tile | {"value": "unknown", "detail": "the release has no report"}
    detail = f"of {best['n_users']} users, {_number(best['low'])} to {_number(best['high'])}"
    other = best["strongest"]
    if other is not None:
        detail += f"; the strongest other method, {other['method']}, has {_number(other['value'])}"
    return tile | {"value": f"NDCG@10 {_number(best['value'])}", "detail": detail}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _span(seconds: int) -> str:
    """A length of time in the largest unit of which there are two."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"
