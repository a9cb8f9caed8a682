"""Finds and shows users.

Redis says who there is: a user who was deleted is in none of these answers, whatever a release's
files still know. Nothing here is logged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from shortlist.batch.studio.facts import StudioFacts, digest_of
from shortlist.batch.studio.items import attributes_of
from shortlist.batch.studio.plain import finite
from shortlist.batch.studio.releases import View
from shortlist.batch.studio.search import IdSearch
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.feedback import Happened, events_of, negatives_of, read
from shortlist.recsys.store.records import UserRecord, unpack_list
from shortlist.recsys.store.redis import RedisStore

PICKS = ("heavy", "light", "new", "random", "worst", "best")
"""Orders in which users are offered without a search."""

MOST_IDS = 200_000
"""Ids that are kept to search in, some 20 MB; of more users, the first that Redis gives."""

SCAN_SECONDS = 5.0
"""Most time to read ids; a Redis with more keys shows a part of its users."""

FRESH_SECONDS = 30.0
"""How long read ids are used again."""

SAMPLED_RECORDS = 2000
"""Users that are looked at for a pick where the release has no facts."""


@dataclass(frozen=True)
class Known:
    """The users that Redis has.

    ids: in no order; is_whole: whether these are all; pick_of: id -> place among the facts' users;
    read_at: monotonic seconds.
    """

    ids: list[str]
    is_whole: bool
    pick_of: dict[str, int]
    version: str | None
    read_at: float

    @cached_property
    def search(self) -> IdSearch:
        """Finds ids."""
        return IdSearch(self.ids)


class Users:
    """The users of a store. Methods may raise StoreUnavailable."""

    def __init__(
        self, store: RedisStore, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """now: unix seconds; clock: monotonic seconds."""
        self._store, self._now, self._clock = store, now, clock
        self._known: Known | None = None
        self._lock = Lock()  # a second request waits for the first one's scan

    def found(self, view: View, query: str, pick: str, limit: int) -> dict[str, Any]:
        """The users that fit a query, or those of a pick.

        Raises:
            InvalidInput: there is no such pick.
        """
        if pick not in PICKS:
            raise InvalidInput(f"pick {pick!r}: must be one of {', '.join(PICKS)}")
        known = self._users(view)
        is_deleted = self._store.is_deleted()  # since the scan
        if query.strip():
            ids = self._searched(known, query)
        elif view.facts is None:
            ids = self._sampled(known, pick)
        else:
            ids = _picked(known, view.facts, pick)
        shown = []
        for start in range(0, len(ids), limit):
            shown += self._rows(view, known, ids[start : start + limit], is_deleted)
            if len(shown) >= limit:
                break
        return {
            "users": shown[:limit],
            "total": len(ids) if query.strip() else len(known.ids),
            "sampled": not known.is_whole or (not query.strip() and _is_part(known, view, pick)),
        }

    def one(self, view: View, user: str) -> dict[str, Any]:
        """All of one user; `known` is False for one of whom Redis has nothing."""
        record = None
        if not self._store.is_deleted()(user):
            record = self._store.user_records([user])[0]
        if record is None:
            return _nobody(user)
        rules = view.bundle.facts.events
        reading = read(record, rules)
        pick = view.pick_of.get(digest_of(user))
        made = self._list(view.version, user)
        return {
            "id": user,
            "known": True,
            "attributes": finite(record.attributes or {}),
            "n_events": record.n_events,
            "history": _history(view, record, rules),
            "disliked": [_item(view, item) for item in sorted(reading.disliked)],
            "n_seen": len(reading.had),
            "ndcg": None if pick is None else _ndcg(view, pick),
            "held_out": [] if pick is None else _held_out(view, pick),
            "holdout_list": [] if pick is None else _listed(view, pick),
            "list": made,
            "newer_events": _newer(record, None if made is None else made["watermark"]),
        }

    def ids(self, view: View | None) -> list[str]:
        """The users of whom Redis has a record."""
        return self._users(view).ids

    def _users(self, view: View | None) -> Known:
        with self._lock:
            known, now = self._known, self._clock()
            is_fresh = known is not None and now - known.read_at < FRESH_SECONDS
            version = None if view is None else view.version
            if known is None or not is_fresh or known.version != version:
                known = self._known = self._scanned(view)
            return known

    def _scanned(self, view: View | None) -> Known:
        started = self._clock()
        picks = {} if view is None else view.pick_of
        ids: list[str] = []
        pick_of: dict[str, int] = {}
        is_whole = True
        for user in self._store.user_ids():
            pick = picks.get(digest_of(user)) if picks else None
            if pick is not None:
                pick_of[user] = pick
            if pick is not None or len(ids) < MOST_IDS:
                ids.append(user)
            else:
                is_whole = False
            if self._clock() - started > SCAN_SECONDS:
                is_whole = False
                break
        version = None if view is None else view.version
        return Known(ids, is_whole, pick_of, version, self._clock())

    def _searched(self, known: Known, query: str) -> list[str]:
        ids = known.search.ids(query)
        exact = query.strip()
        if exact not in ids[:1] and self._store.user_record(exact) is not None:
            ids.insert(0, exact)  # new since the scan, or beyond it
        return ids

    def _sampled(self, known: Known, pick: str) -> list[str]:
        """A pick among a sample, by the records in Redis."""
        ids = random.sample(known.ids, min(SAMPLED_RECORDS, len(known.ids)))
        if pick in ("random", "worst", "best"):  # nothing is known of their hold-out
            return ids if pick == "random" else []
        records = zip(ids, self._store.user_records(ids), strict=True)
        present = [(user, record) for user, record in records if record is not None]
        keys: dict[str, Callable[[UserRecord], float]] = {
            "heavy": lambda record: -record.n_events,
            "light": lambda record: record.n_events,
            "new": lambda record: -min(record.times, default=0),
        }
        present.sort(key=lambda pair: (keys[pick](pair[1]), pair[0]))
        return [user for user, _ in present]

    def _rows(
        self, view: View, known: Known, ids: Sequence[str], is_deleted: Callable[[str], bool]
    ) -> list[dict[str, Any]]:
        left = [user for user in ids if not is_deleted(user)]
        return [
            _row(view, user, record, known.pick_of.get(user))
            for user, record in zip(left, self._store.user_records(left), strict=True)
            if record is not None
        ]

    def _list(self, version: str, user: str) -> dict[str, Any] | None:
        """The stored list's release, time, age in seconds, and watermark."""
        packed, _ = self._store.read_user(version, user)
        if packed is None:
            return None
        listed = unpack_list(packed)
        age = max(0, int(self._now()) - listed.created_at)
        return {
            "version": version,
            "made_at": listed.created_at,
            "age_s": age,
            "n_items": len(listed.rows),
            "watermark": listed.watermark,
        }


def _picked(known: Known, facts: StudioFacts, pick: str) -> list[str]:
    """The ids of a pick, best first."""
    pairs = list(known.pick_of.items())
    if pick == "random":
        random.shuffle(pairs)
        return [user for user, _ in pairs]
    of = facts.arrays
    held = np.diff(of["held_offsets"])
    if pick in ("worst", "best"):
        pairs = [(user, at) for user, at in pairs if not np.isnan(of["pick_ndcg"][at])]
    sign = -1.0 if pick == "best" else 1.0
    orders: dict[str, Callable[[int], Any]] = {
        "heavy": lambda at: -int(of["pick_n"][at]),
        "light": lambda at: int(of["pick_n"][at]),
        "new": lambda at: -int(of["pick_first"][at]),
        # Among equals, those for whom the figure says most.
        "worst": lambda at: (float(of["pick_ndcg"][at]), -int(held[at])),
        "best": lambda at: (sign * float(of["pick_ndcg"][at]), -int(held[at])),
    }
    pairs.sort(key=lambda pair: (orders[pick](pair[1]), pair[0]))
    return [user for user, _ in pairs]


def _is_part(known: Known, view: View, pick: str) -> bool:
    """Whether a pick looked at a part of the users only."""
    del pick
    if view.facts is None:
        return len(known.ids) > SAMPLED_RECORDS
    return bool(view.facts.plain["sampled"])


def _row(view: View, user: str, record: UserRecord, pick: int | None) -> dict[str, Any]:
    first, last = min(record.times, default=None), max(record.times, default=None)
    row: dict[str, Any] = {
        "id": user,
        "n_events": record.n_events,
        "first": first,
        "last": last,
        "ndcg": None,
        "held_out": 0,
        "hit": None,
    }
    if view.facts is None or pick is None:
        return row
    held = view.facts.held_out(pick)
    return row | {
        # As learnt: a record leaves out what was taken back.
        "n_events": int(view.facts.arrays["pick_n"][pick]),
        "first": int(view.facts.arrays["pick_first"][pick]),
        "ndcg": _ndcg(view, pick),
        "held_out": len(held),
        "hit": any(0 < rank <= HIT_DEPTH for _, rank in held) if held else None,
    }


HIT_DEPTH = 10
"""Ranks within which a held-out item is hit, as in NDCG@10."""


def _ndcg(view: View, pick: int) -> float | None:
    assert view.facts is not None
    value = float(view.facts.arrays["pick_ndcg"][pick])
    return None if np.isnan(value) else value


def _held_out(view: View, pick: int) -> list[dict[str, Any]]:
    assert view.facts is not None
    items = view.bundle.catalogue
    return [
        {
            "item_id": items.ids[row],
            "title": items.titles[row],
            "rank": rank or None,
            "hit": 0 < rank <= HIT_DEPTH,
        }
        for row, rank in view.facts.held_out(pick)
    ]


def _listed(view: View, pick: int) -> list[dict[str, Any]]:
    assert view.facts is not None
    items = view.bundle.catalogue
    rows = view.facts.listed(pick)
    return [{"item_id": items.ids[row], "title": items.titles[row]} for row in rows]


def _history(view: View, record: UserRecord, rules: EventRules) -> list[dict[str, Any]]:
    """The events that the record keeps, oldest first, with negative feedback among them."""
    entries = [(event, _is_negative(event, rules)) for event in events_of(record)]
    entries += [(event, True) for event in negatives_of(record)]
    entries.sort(key=lambda entry: entry[0].time)
    return [
        _item(view, event.item)
        | {
            "time": event.time,
            "weight": finite(event.weight),
            "type": event.type,
            "negative": negative,
        }
        for event, negative in entries
    ]


def _is_negative(event: Happened, rules: EventRules) -> bool:
    is_low = event.weight is not None and event.weight < rules.negative_below
    return event.type in rules.negative or is_low


def _item(view: View, item_id: str) -> dict[str, Any]:
    row = view.bundle.catalogue.row_of.get(item_id)
    if row is None:  # no longer in the catalogue
        return {"item_id": item_id, "title": None, "categories": [], "attributes": {}}
    items = view.bundle.catalogue
    return {
        "item_id": item_id,
        "title": items.titles[row],
        "categories": list(items.categories[row]),
        "attributes": attributes_of(view, row),
    }


def _newer(record: UserRecord, watermark: int | None) -> int:
    """Events that the stored list does not know."""
    if watermark is None:
        return 0
    positions = [*record.positions, *(each.position for each in record.negatives)]
    return sum(position > watermark for position in positions)


def _nobody(user: str) -> dict[str, Any]:
    return {
        "id": user,
        "known": False,
        "attributes": {},
        "n_events": 0,
        "history": [],
        "disliked": [],
        "n_seen": 0,
        "ndcg": None,
        "held_out": [],
        "holdout_list": [],
        "list": None,
        "newer_events": 0,
    }
