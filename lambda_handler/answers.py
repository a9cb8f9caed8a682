"""Internal records of queries, filters and answers, not their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from shortlist.lambda_handler.sessions import Session
from shortlist.recsys.errors import Unavailable
from shortlist.recsys.store.records import ItemRecord
from shortlist.recsys.store.release_facts import ReleaseFacts
from shortlist.recsys.store.rules import (
    NO_RULES,
    Placed,
    Rules,
    Selector,
    arranged,
)
from shortlist.recsys.where import CATEGORIES, Condition

T = TypeVar("T")

BATCH = "batch"
"""Source of an answer that is the precomputed list."""

LIVE = "live"
"""Source of an answer that the models computed from the stored history."""

SESSION = "session"
"""Source of an answer that the models computed from the request's history."""

POPULAR = "popular"
"""Source of an answer of popular items."""

STALE = "stale"
"""Source of an outdated precomputed list, served because the models could not be reached."""


POOL = 300
"""Ranked items from which rules choose: enough that a limit finds others, and cheap to look at."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The rules that hold, and the records of the items that they pin."""

    rules: Rules = NO_RULES
    pinned: tuple[ItemRecord, ...] = ()


PLAIN_ORDER = Arrangement()
"""The ranked order as it is."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say at a moment: which items are not available, and how lists change."""

    hidden: tuple[Selector, ...] = ()
    arrangement: Arrangement = PLAIN_ORDER


NO_RULING = Ruling()


@dataclass(frozen=True, slots=True)
class Filters:
    """What an item must not be, and what it must have.

    excluded: item ids; categories: of which an item must have one (none: any); where: conditions on
    its attributes, all of which must hold; hidden: selects items that are not available.
    arrangement: how the list that is left is rearranged.
    """

    excluded: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    where: tuple[Condition, ...] = ()
    hidden: tuple[Selector, ...] = ()
    arrangement: Arrangement = PLAIN_ORDER

    def admit(self, item: ItemRecord) -> bool:
        """Tells if the item may be shown."""
        if not item.available or (self.excluded and item.id in self.excluded):
            return False
        if self.categories and self.categories.isdisjoint(item.categories):
            return False
        # Mostly there is neither: then no generator is made for each item of each answer.
        if self.hidden and any(selector.selects(item) for selector in self.hidden):
            return False
        if not self.where:
            return True
        return all(each.admits(item.value_of(each.attribute)) for each in self.where)

    def pool(self, k: int) -> int:
        """How many ranked items a list of k is chosen from."""
        return max(k, POOL) if self.arrangement.rules.rearranges else k

    def arranged(self, ranked: Ranked, k: int) -> Ranked:
        """The first k items after the rules."""
        if not self.arrangement.rules.rearranges:
            return ranked
        pinned = {each.id: each for each in self.arrangement.pinned if self.admit(each)}
        placed = arranged(ranked.items, k, self.arrangement.rules, pinned)
        return ranked.placed(placed)

    @property
    def narrows(self) -> bool:
        """Whether only items with certain categories or attributes are admitted."""
        return bool(self.categories or self.where)

    def unknown_values(self, facts: ReleaseFacts) -> dict[str, list[str]]:
        """{attribute: values} that are asked for, and that no item of the release has."""
        asked = {each.attribute: each.values or () for each in self.where}
        asked[CATEGORIES] = self.categories.union(asked.get(CATEGORIES, ()))
        unknown = {
            name: sorted(str(value) for value in values if value not in facts.labels[name])
            for name, values in asked.items()
            if name in facts.labels
        }
        return {name: values for name, values in unknown.items() if values}

    def without(self, items: Iterable[str]) -> Filters:
        """Adds item ids to exclude."""
        excluded = self.excluded.union(items)
        # The same object if nothing changes: the hit path makes no copies.
        return self if len(excluded) == len(self.excluded) else replace(self, excluded=excluded)


@dataclass(frozen=True, slots=True)
class Options:
    """Diversity from 0 (none) to 1, and whether each item comes with its reason.

    allow_repeats: whether the user may be offered what they had; None as the release has it.
    """

    diversity: float = 0.0
    explain: bool = False
    allow_repeats: bool | None = None


PLAIN = Options()
"""The only options that precomputed lists are made with."""


@dataclass(frozen=True, slots=True)
class Cause:
    """An item of the history that speaks for a recommended one; share: of all causes, 0 to 1."""

    item_id: str
    title: str
    share: float


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item is recommended: causes, and the features' parts of the score, largest first.

    habit: how often the user comes back to it, "" for what they never had.
    """

    causes: tuple[Cause, ...] = ()
    features: tuple[tuple[str, float], ...] = ()
    habit: str = ""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Items, best first, with their scores; reasons: one for each item if requested, else none."""

    items: tuple[ItemRecord, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]
    n_candidates: int
    unknown_items: int = 0
    reasons: tuple[Reason, ...] = ()
    rules: tuple[tuple[str, ...], ...] = ()
    """Of each item, the names of the rules that moved it; empty where no rule could."""

    def placed(self, places: Sequence[Placed]) -> Ranked:
        """These items in other places.

        A pinned item that the models did not propose has scores of 0 and no reason.
        """

        def column(values: Sequence[T], absent: T) -> tuple[T, ...]:
            return tuple(absent if each.at is None else values[each.at] for each in places)

        return replace(
            self,
            items=tuple(each.item for each in places),
            scores=column(self.scores, 0.0),
            retrieval=column(self.retrieval, 0.0),
            reasons=column(self.reasons, Reason()) if self.reasons else (),
            rules=tuple(each.rules for each in places),
        )


@dataclass(frozen=True, slots=True)
class RecommendationQuery:
    """A request, with ids as strings; user: None for nobody in particular."""

    user: str | None
    k: int
    use_cache: bool = True
    session: Session | None = None
    filters: Filters = field(default_factory=Filters)
    options: Options = PLAIN

    def without(self, items: Iterable[str]) -> RecommendationQuery:
        """Adds item ids to exclude."""
        filters = self.filters.without(items)
        return self if filters is self.filters else replace(self, filters=filters)


@dataclass(frozen=True, slots=True)
class Answer:
    """A ranked list and where it came from."""

    ranked: Ranked
    source: str
    version: str
    cache_hit: bool = False
    list_age_s: int | None = None
    degraded: bool = False
    unknown_values: Mapping[str, list[str]] = field(default_factory=dict)
    """{attribute: values} that the filters ask for, and that no item has."""


class NothingToServe(Unavailable):
    """There is no release, or no part of it can be reached."""
