"""What a caller was promised: the oracle against which a run's service is judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

Key = tuple[str, str]
"""User and event id."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that was sent; no two of a user have the same time."""

    user: str
    event_id: str
    item: str
    time: int

    @property
    def key(self) -> Key:
        """By which it is told from every other."""
        return self.user, self.event_id

    def body(self) -> dict[str, object]:
        """As it is sent."""
        return {
            "event_id": self.event_id,
            "user_id": self.user,
            "item_id": self.item,
            "timestamp": self.time,
        }


@dataclass
class Ledger:
    """What the service owes.

    owed: events that it accepted, and must neither lose nor double; unsure: events whose sending
    failed, to be sent again;
    perhaps: events of which nobody can say more (Redis forgot them, or their user's deletion failed
    half-way).
    deleted, unsure_deleted: users likewise. blocked, unsure_blocked: items likewise.
    had: items of events that the service knows of, by user.
    """

    owed: dict[Key, SentEvent] = field(default_factory=dict)
    unsure: dict[Key, SentEvent] = field(default_factory=dict)
    perhaps: dict[Key, SentEvent] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    unsure_deleted: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    unsure_blocked: set[str] = field(default_factory=set)
    event_items: dict[str, set[str]] = field(default_factory=dict)
    evicts: bool = False
    """Whether Redis may throw out records of users whom no batch knows."""
    floor: dict[str, set[str]] | None = None
    """Items of each user that are in every table so far; None before the first."""

    def accepted(self, events: Iterable[SentEvent]) -> None:
        """The service said that it has these, now or from before."""
        for event in events:
            self.unsure.pop(event.key, None)
            if event.user in self.unsure_deleted:
                self.perhaps[event.key] = event
            elif event.user not in self.deleted:
                self.perhaps.pop(event.key, None)
                self.owed[event.key] = event
                if not self.evicts or event.user in (self.floor or {}):
                    self.event_items.setdefault(event.user, set()).add(event.item)

    def failed(self, events: Iterable[SentEvent]) -> None:
        """The service gave an error: they may be there or not."""
        self.unsure |= {event.key: event for event in events if event.key not in self.owed}

    def was_deleted(self, user: str, *, surely: bool) -> None:
        """Somebody asked for a user's deletion."""
        for book in (self.owed, self.unsure, self.perhaps):
            for key in [key for key in book if key[0] == user]:
                event = book.pop(key)
                if not surely:
                    self.perhaps[key] = event
        self.event_items.pop(user, None)
        if surely:
            self.unsure_deleted.discard(user)
            self.deleted.add(user)
        elif user not in self.deleted:
            self.unsure_deleted.add(user)

    def redis_forgot(self) -> None:
        """Redis lost everything: what no drain has taken, the deletions, the blocked items, and every record."""
        self.perhaps |= self.owed
        self.owed.clear()
        self.event_items.clear()
        self.floor = None
        self.unsure_blocked |= self.blocked
        self.blocked.clear()
        self.unsure_deleted |= self.deleted
        self.deleted.clear()

    def redis_evicts(self, *, evicts: bool) -> None:
        """Redis begins, or ends, to throw out what has a time to live."""
        self.evicts = evicts
        self.event_items = {
            user: items for user, items in self.event_items.items() if user in (self.floor or {})
        }

    def learns_from(self, table: pl.DataFrame) -> None:
        """A batch has begun to learn from a table: from now on answers may be by it or by those before."""
        rows = table.group_by("user_id").agg("item_id").rows()
        items = {user: set(found) for user, found in rows}
        self.floor = (
            items
            if self.floor is None
            else {u: kept & items.get(u, set()) for u, kept in self.floor.items()}
        )

    def seen(self, user: str) -> set[str]:
        """Items that an answer for the user may not have."""
        if user in self.deleted | self.unsure_deleted:
            return set()
        return (self.floor or {}).get(user, set()) | self.event_items.get(user, set())

    def is_known(self, user: str) -> bool:
        """Whether the service must know the user."""
        return bool((self.floor or {}).get(user)) and user not in self.deleted | self.unsure_deleted
