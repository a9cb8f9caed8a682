"""Tracks the promises of a service: a scenario's oracle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import polars as pl

Key = tuple[str, str]
"""User and event id."""


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that was sent; each user's events have different times."""

    user: str
    event_id: str
    item: str
    time: int

    @property
    def key(self) -> Key:
        """The pair that identifies the event."""
        return self.user, self.event_id

    def body(self) -> dict[str, object]:
        """The event as JSON of `POST /v1/events`."""
        return {
            "event_id": self.event_id,
            "user_id": self.user,
            "item_id": self.item,
            "timestamp": self.time,
        }


@dataclass
class Ledger:
    """The promises of one service.

    owed: accepted events, which must be neither lost nor doubled.
    unsure: events whose sending failed; they may have arrived, and are sent again.
    perhaps: events that may be there or not, because Redis lost them or their user's deletion
        failed half-way.
    deleted, unsure_deleted: users likewise.
    blocked, unsure_blocked: items likewise.
    event_items: items of the events in each user's record.
    evicts: Redis may evict the records of users whom no batch knows.
    table_items: items of each user that are in every table so far; None before the first.
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
    table_items: dict[str, set[str]] | None = None

    def accepted(self, events: Iterable[SentEvent]) -> None:
        """Notes events that the service confirmed, as new or as duplicates."""
        for event in events:
            self.unsure.pop(event.key, None)
            if event.user in self.unsure_deleted:
                self.perhaps[event.key] = event
            elif event.user not in self.deleted:
                self.perhaps.pop(event.key, None)
                self.owed[event.key] = event
                if not self.evicts or event.user in (self.table_items or {}):
                    self.event_items.setdefault(event.user, set()).add(event.item)

    def failed(self, events: Iterable[SentEvent]) -> None:
        """Notes events that were answered with an error."""
        self.unsure |= {event.key: event for event in events if event.key not in self.owed}

    def was_deleted(self, user: str, *, surely: bool) -> None:
        """Notes a user's deletion. surely: the service confirmed it."""
        for events in (self.owed, self.unsure, self.perhaps):
            for key in [key for key in events if key[0] == user]:
                event = events.pop(key)
                if not surely:
                    self.perhaps[key] = event
        self.event_items.pop(user, None)
        if surely:
            self.unsure_deleted.discard(user)
            self.deleted.add(user)
        elif user not in self.deleted:
            self.unsure_deleted.add(user)

    def redis_forgot(self) -> None:
        """Notes that Redis lost everything, as far as no drain has saved it."""
        self.perhaps |= self.owed
        self.owed.clear()
        self.event_items.clear()
        self.table_items = None
        self.unsure_blocked |= self.blocked
        self.blocked.clear()
        self.unsure_deleted |= self.deleted
        self.deleted.clear()

    def redis_evicts(self, *, evicts: bool) -> None:
        """Notes that eviction of keys with a time to live begins or ends."""
        self.evicts = evicts
        self.event_items = {
            user: items
            for user, items in self.event_items.items()
            if user in (self.table_items or {})
        }

    def learns_from(self, table: pl.DataFrame) -> None:
        """Notes that a batch started on a table.

        From now on answers may come from it or from any table before, so only items in all of them
        are sure to be filtered out.
        """
        rows = table.group_by("user_id").agg("item_id").rows()
        current = {user: set(items) for user, items in rows}
        if self.table_items is None:
            self.table_items = current
            return
        self.table_items = {
            user: items & current.get(user, set()) for user, items in self.table_items.items()
        }

    def seen(self, user: str) -> set[str]:
        """Items that no answer for the user may have."""
        if user in self.deleted | self.unsure_deleted:
            return set()
        return (self.table_items or {}).get(user, set()) | self.event_items.get(user, set())

    def is_known(self, user: str) -> bool:
        """Whether the service must know the user."""
        return (
            bool((self.table_items or {}).get(user))
            and user not in self.deleted | self.unsure_deleted
        )
