"""What is asked and what is answered, as values; and what the light part of the Lambda expects of the heavy one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from shortlist.recsys.errors import Unavailable
from shortlist.recsys.store.records import ItemRecord, UserRecord


@dataclass(frozen=True, slots=True)
class Filters:
    """What an answer may not contain (item ids), and the categories of which it must have one (none: any)."""

    excluded: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()

    def admit(self, item: ItemRecord) -> bool:
        """Whether the item may be shown."""
        if not item.available or item.id in self.excluded:
            return False
        return not self.categories or not self.categories.isdisjoint(item.categories)

    def without(self, items: Iterable[str]) -> Filters:
        """The same, and none of these items either."""
        excluded = self.excluded.union(items)
        return self if len(excluded) == len(self.excluded) else replace(self, excluded=excluded)


@dataclass(frozen=True, slots=True)
class Options:
    """How a list is made beyond its filters: diversity from 0 (none) to 1, and whether each item comes with its reason."""

    diversity: float = 0.0
    explain: bool = False


PLAIN = Options()


@dataclass(frozen=True, slots=True)
class Cause:
    """An item of the user's history that speaks for a recommended one; share: of all that does, 0 to 1."""

    item_id: str
    title: str
    share: float


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item is recommended: what the user had, and what each feature added to the ranker's score, most first."""

    causes: tuple[Cause, ...] = ()
    features: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Ranked:
    """Items, best first, with their scores; reasons: one for each item where they were asked for, else none."""

    items: tuple[ItemRecord, ...]
    scores: tuple[float, ...]
    retrieval: tuple[float, ...]
    n_candidates: int
    unknown_items: int = 0
    reasons: tuple[Reason, ...] = ()


class LivePath(Protocol):
    """The heavy path, loaded when first needed. Every method may raise Unavailable or BrokenRelease."""

    def recommend(
        self, version: str, user: UserRecord, k: int, filters: Filters, shape: Options = PLAIN
    ) -> Ranked:
        """The two stages for one user."""

    def popular(self, version: str, k: int, filters: Filters) -> Ranked:
        """The most popular items."""

    def trending(self, version: str, k: int, filters: Filters) -> Ranked:
        """The items of the most recent interest."""

    def similar(self, version: str, item_id: str, k: int, filters: Filters) -> Ranked:
        """The items that are most like one of the catalogue."""

    def rank(
        self, version: str, user: UserRecord, items: Sequence[str], filters: Filters
    ) -> Ranked:
        """Just these items, in the ranker's order; unknown_items counts those that the catalogue lacks."""

    def items(self, version: str, item_ids: Sequence[str]) -> list[ItemRecord | None]:
        """What the release's own catalogue has of these items; None for those that it lacks."""

    def info(self, version: str) -> dict[str, object]:
        """The release's manifest."""


@dataclass(frozen=True, slots=True)
class RecommendationQuery:
    """A request, with ids as strings and its history as a record (None: none was given)."""

    user: str
    k: int
    use_cache: bool = True
    session: UserRecord | None = None
    filters: Filters = field(default_factory=Filters)
    shape: Options = PLAIN

    def without(self, items: Iterable[str]) -> RecommendationQuery:
        """The same, and none of these items."""
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


class NothingToServe(Unavailable):
    """There is no release, or no part of it can be reached."""


def session_of(
    events: Iterable[tuple[str, int | None, float | None]], attributes: dict[str, object] | None
) -> UserRecord:
    """A request's history as a record; an event without a time takes the one before it."""
    items, times, weights = [], [], []
    last = 0
    for item, when, weight in events:
        last = last if when is None else when
        items.append(item)
        times.append(last)
        weights.append(weight)
    return UserRecord(tuple(items), tuple(times), tuple(weights), len(items), (), attributes)


def joined(session: UserRecord, stored: UserRecord | None) -> UserRecord:
    """The request's history in place of the stored one, if it has one; its attributes above the stored ones.

    What the store knows that the user had stays excluded either way.
    """
    if stored is None:
        return session
    attributes = {**(stored.attributes or {}), **(session.attributes or {})}
    if not session.items:
        return replace(stored, attributes=attributes)
    return replace(session, seen=(*stored.seen, *stored.items), attributes=attributes)
