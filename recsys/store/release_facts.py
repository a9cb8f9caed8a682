"""States what a release's data mean, for serving.

A small record of each release in Redis: how its events are read, whether the user's own items may
come again, and which attributes of items can be filtered by. Publishing makes it from the bundle's
manifest; a release of before there were facts has the defaults. Standard library and msgpack only,
because the hit path imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from shortlist.recsys.errors import InvalidSettings, UnreadableRecord
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.where import AttributeKind

FIELD = "facts"
"""The manifest's field of the facts."""

MAX_LABELS = 10_000
"""Most known labels of an attribute: of more, no answer says that a label is unknown."""


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """Facts of a release that answers and events are checked against.

    events: how types and weights of events are read.
    repeats: "allow" where the user's own items are candidates, else "never".
    has_clock_times: whether the times of the data are a clock's, and no mere sequence.
    attributes: {column: kind} of the items' attributes that can be filtered by.
    labels: {column: labels} that items have, of those attributes and `categories`; absent for a
    column with more than MAX_LABELS.
    """

    events: EventRules = field(default_factory=EventRules)
    repeats: str = "never"
    has_clock_times: bool = False
    attributes: Mapping[str, AttributeKind] = field(default_factory=dict)
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


def as_fields(facts: ReleaseFacts) -> dict[str, Any]:
    """The facts as plain values, for a manifest; without the labels."""
    events = facts.events
    return {
        "events": {
            "weights": dict(events.weights),
            "targets": list(events.targets),
            "negative": list(events.negative),
            "negative_below": events.negative_below,
        },
        "repeats": facts.repeats,
        "has_clock_times": facts.has_clock_times,
        "attributes": {name: kind.value for name, kind in facts.attributes.items()},
    }


def facts_in(manifest: Mapping[str, Any]) -> ReleaseFacts:
    """The facts of a bundle's manifest; defaults for an older bundle.

    Raises:
        UnreadableRecord: they are not what `as_fields` writes.
    """
    return _facts(manifest.get(FIELD, {}))


def pack_facts(facts: ReleaseFacts) -> bytes:
    """Packs ReleaseFacts as a map, which a person can read in a Redis client."""
    labels = {column: sorted(names) for column, names in facts.labels.items()}
    return msgpack.packb({**as_fields(facts), "labels": labels})


def unpack_facts(packed: bytes) -> ReleaseFacts:
    """Reads `pack_facts`. Raises UnreadableRecord for anything else."""
    try:
        fields = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise _unreadable(f"are not msgpack ({error})") from error
    return _facts(fields)


def _facts(fields: object) -> ReleaseFacts:
    """The facts in plain values; absent ones are the defaults, unknown ones left out."""
    known = _map_of(fields, object)
    events = _map_of(known.get("events", {}), object)
    kinds = _map_of(known.get("attributes", {}), str)
    labels = _map_of(known.get("labels", {}), list)
    names = {kind.value: kind for kind in AttributeKind}
    try:
        rules = EventRules(
            dict(_map_of(events.get("weights", {}), int | float)),
            tuple(_texts(events.get("targets", []))),
            tuple(_texts(events.get("negative", []))),
            _of(int | float, events.get("negative_below", 0.0)),
        )
    except InvalidSettings as error:
        raise _unreadable(f"have rules that contradict each other ({error})") from error
    return ReleaseFacts(
        events=rules,
        repeats=_of(str, known.get("repeats", "never")),
        has_clock_times=_of(bool, known.get("has_clock_times", False)),
        # A kind that a newer version has added cannot be filtered by here.
        attributes={name: names[kind] for name, kind in kinds.items() if kind in names},
        labels={column: frozenset(_texts(each)) for column, each in labels.items()},
    )


def _map_of(value: object, kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type or a union
    """A map of texts to values of one kind."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _unreadable(f"hold {value!r} where a map of names belongs")
    for each in value.values():
        _of(kind, each)
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _unreadable(f"hold {value!r} where a list of texts belongs")
    return value


def _of(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type or a union, and one of it
    if not isinstance(value, kind):
        raise _unreadable(f"hold a {type(value).__name__} where {kind} belongs")
    return value


def _unreadable(why: str) -> UnreadableRecord:
    return UnreadableRecord(f"the facts of a release {why}: publish the release again")
