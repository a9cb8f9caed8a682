"""Says what the types of events mean: strength, polarity, possession.

Standard library only, because the hit path imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from shortlist.recsys.errors import InvalidSettings


class EventKind(NamedTuple):
    """One type of positive events."""

    name: str
    strength: float
    """Relative to the strongest type, above 0 and at most 1."""
    is_target: bool
    """Whether such events are predicted and evaluated, and make an item one that the user had."""


ONE_KIND = (EventKind("", 1.0, is_target=True),)
"""The kinds of data whose events are all alike."""


@dataclass(frozen=True, slots=True)
class EventRules:
    """How to read the types and weights of events.

    weights: the weight, above 0, of each positive type; empty where types are not told apart.
    targets: the types that are predicted and evaluated; empty for the type of the largest weight.
    negative: the types that are negative feedback, such as returns and dislikes.
    negative_below: a rating or weight below this is negative feedback, whatever the type; an event
    without a rating or weight is not.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    negative_below: float = 0.0

    def __post_init__(self) -> None:
        """Raises InvalidSettings where the rules contradict each other."""
        for name, weight in self.weights.items():
            if not 0 < weight < float("inf"):
                raise InvalidSettings(
                    f"the weight of event type {name!r} is {weight}: it must be above 0; "
                    "list types of negative feedback under `negative`"
                )
        unknown = [name for name in self.targets if name not in self.weights]
        if unknown:
            raise InvalidSettings(
                f"event type {unknown[0]!r} is a target without a weight: "
                f"give it one next to {', '.join(self.weights) or 'no other'}"
            )
        both = [name for name in self.negative if name in self.weights]
        if both:
            raise InvalidSettings(
                f"event type {both[0]!r} has a weight and is negative: remove it from one of them"
            )

    @property
    def kinds(self) -> tuple[EventKind, ...]:
        """The positive kinds, strongest first; an event's kind is a position in them."""
        if not self.weights:
            return ONE_KIND
        strongest = max(self.weights.values())
        ordered = sorted(self.weights, key=lambda name: (-self.weights[name], name))
        targets = self.targets or (ordered[0],)
        return tuple(
            EventKind(name, self.weights[name] / strongest, name in targets) for name in ordered
        )
