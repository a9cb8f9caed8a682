"""Ingests events into the stream and their users' records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shortlist.lambda_handler.sessions import unknown_type
from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.store.admin import AdminStore
from shortlist.recsys.store.event_log import (
    DAY_SECONDS,
    MAX_DEDUP_KEYS,
    Change,
    DedupKeys,
    EventLog,
    Known,
    dedup_key_of,
    window_of,
)
from shortlist.recsys.store.feedback import Happened, kinds_by
from shortlist.recsys.store.histories import ALL_ALIKE, with_events
from shortlist.recsys.store.records import EventRecord, ReleasePointer, UserRecord, unpack_user
from shortlist.recsys.store.watermark import BEGINNING, stream_position

AHEAD_SECONDS = 24 * 3600
"""How far ahead of this machine's clock an event may lie: time zones go wrong by hours."""

ATTEMPTS = 5
"""How often a record is tried again that other processes change at the same moment."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An event that was not accepted: its place in the request, and why."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The outcome of a request's events.

    waiting: events in the stream before them, None if it was not read.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: tuple[Reject, ...] = ()
    waiting: int | None = None


Indexed = tuple[int, EventRecord]
"""An event with its place in the request."""


@dataclass(slots=True)
class _Pending:
    """Events of one user that are not in the record yet.

    stream: ids in the stream of those that were appended already.
    """

    events: list[Indexed]
    stream: DedupKeys = field(default_factory=dict)


Catalogue = Callable[[str, Sequence[str]], Sequence[bool]]
"""Tells for each item id if a release's own catalogue has it, for when Redis has lost it.

Raises Unavailable or BrokenRelease.
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on what events over HTTP may fill.

    waiting: events in the stream; newcomers: users of a day who may get a record before a batch
    knows them; newcomer_seconds: how long such a record lives after their latest event.
    """

    waiting: int
    newcomers: int
    newcomer_seconds: int


class EventIngestor:
    """Takes events into a store."""

    def __init__(
        self, log: EventLog, catalogue: Catalogue, bounds: Bounds, now: Callable[[], float]
    ) -> None:
        """now: unix seconds."""
        self._log, self._catalogue, self._bounds, self._now = log, catalogue, bounds, now
        self._admin = AdminStore(log.store)

    def take(
        self,
        pointer: ReleasePointer,
        rules: Mapping[str, EventRules],
        events: Sequence[Indexed],
    ) -> IngestResult:
        """Checks and stores events.

        Their items must be in one of the pointer's releases, and their types in the rules of one.
        rules: {version: how the release reads events}; all events are alike to others.

        Raises:
            StoreUnavailable: some events may be stored and others not; sending all of them again
                is safe.
            Unavailable: Redis has lost the catalogue, and its bundle cannot be read either.
        """
        valid, rejects = self._checked(pointer.versions, rules.values(), events)
        pending: dict[str, _Pending] = {}
        for at, event in valid:
            pending.setdefault(event.user_id, _Pending([])).events.append((at, event))
        accepted = duplicates = 0
        waiting: int | None = None
        for _ in range(ATTEMPTS):
            if not pending:
                rejected = tuple(sorted(rejects, key=lambda reject: reject.index))
                return IngestResult(accepted, duplicates, rejected, waiting)
            result = self._round(pending, rejects, pointer, rules)
            accepted += result.accepted
            duplicates += result.duplicates
            waiting = result.waiting
        raise StoreUnavailable(
            f"{len(pending)} users' records changed {ATTEMPTS} times meanwhile: "
            "send the events again"
        )

    def _checked(
        self,
        versions: Sequence[str],
        rules: Collection[EventRules],
        events: Sequence[Indexed],
    ) -> tuple[list[Indexed], list[Reject]]:
        """Valid events, and rejects."""
        items = list(dict.fromkeys(event.item_id for _, event in events))  # each once, in order
        unknown = self._unknown(versions, items)
        # A later time would keep an event at the head of the history for ever.
        latest = int(self._now()) + AHEAD_SECONDS
        valid: list[Indexed] = []
        rejects: list[Reject] = []
        for at, event in events:
            if event.item_id in unknown:
                message = f"item_id: {event.item_id!r} is not in the catalogue: correct it"
                rejects.append(Reject(at, "unknown_item", message))
            elif event.timestamp > latest:
                message = (
                    f"timestamp: {event.timestamp} is more than a day ahead, "
                    f"at most {latest} holds: send unix seconds"
                )
                rejects.append(Reject(at, "future_timestamp", message))
            elif not _is_known_type(event, rules):
                message = f"event_type: {unknown_type(event.event_type, [*rules])}"
                rejects.append(Reject(at, "unknown_event_type", message))
            else:
                valid.append((at, event))
        return valid, rejects

    def _unknown(self, versions: Sequence[str], items: list[str]) -> set[str]:
        """Items that no release has.

        The bundle is read if Redis is incomplete.
        """
        left = items
        incomplete: list[str] = []
        for version in versions:
            if not left:
                break
            rows, is_whole = self._log.store.rows_of(version, left)
            left = [item for item, row in zip(left, rows, strict=True) if row is None]
            if not is_whole:
                incomplete.append(version)
        for version in incomplete:  # only now: a bundle may have to be downloaded
            if not left:
                break
            known = self._catalogue(version, left)
            left = [item for item, is_known in zip(left, known, strict=True) if not is_known]
        return self._unknown_anywhere(set(versions), left) if left else set()

    def _unknown_anywhere(self, checked: set[str], items: list[str]) -> set[str]:
        """The items that no other release in Redis has either.

        Users may still be shown items of one that was replaced, or of a canary that has just ended.
        """
        left = items
        for version in self._admin.versions():
            if left and version not in checked:
                rows, _ = self._log.store.rows_of(version, left)
                left = [item for item, row in zip(left, rows, strict=True) if row is None]
        return set(left)

    def _round(
        self,
        pending: dict[str, _Pending],
        rejects: list[Reject],
        pointer: ReleasePointer,
        rules: Mapping[str, EventRules],
    ) -> IngestResult:
        """One attempt for all pending users.

        Those whose record changed meanwhile stay pending.
        """
        window = window_of(self._now())
        known, waiting = self._log.known(list(pending), window)
        self._check_waiting(waiting)
        fresh: dict[str, list[EventRecord]] = {}
        duplicates = 0
        for user in list(pending):
            if known[user].deleted:
                self._clean_up_deleted(user, known[user], pending[user])
            events = pending[user].events
            new, refused = _sorted_out(events, known[user])
            rejects += refused
            duplicates += len(events) - len(new) - len(refused)
            if new:
                pending[user].events = new
                fresh[user] = [event for _, event in new]
            else:
                del pending[user]
        # The stream first: a crash between the two leaves an event that can be sent again.
        self._append(pending, fresh)
        by_user = {user: rules.get(pointer.serving(user), ALL_ALIKE) for user in fresh}
        written = self._written(known, fresh, pending, window, by_user)
        for user in written:
            del pending[user]
        accepted = sum(len(fresh[user]) for user in written)
        return IngestResult(accepted, duplicates, waiting=waiting)

    def _check_waiting(self, waiting: int) -> None:
        if waiting >= self._bounds.waiting:
            raise StoreUnavailable(
                f"{waiting} events wait for a drain, which is the most: "
                "run `shortlist events drain`, or a refresh"
            )

    def _clean_up_deleted(self, user: str, known: Known, pending: _Pending) -> None:
        """Withdraws what was appended for a user who was deleted meanwhile."""
        self._log.withdraw(list(pending.stream.values()))
        if known.packed is not None:  # of an event whose process died before it saw the deletion
            self._admin.delete_user(user, int(self._now()))

    def _written(
        self,
        known: Mapping[str, Known],
        fresh: Mapping[str, list[EventRecord]],
        pending: Mapping[str, _Pending],
        window: int,
        rules: Mapping[str, EventRules],
    ) -> list[str]:
        """Writes the records; returns the users who are done.

        Newcomers beyond the day's limit are done without a record: their events are in the stream.
        """
        newcomers = [user for user in fresh if known[user].packed is None]
        admitted = self._admitted(len(newcomers))
        excess = dict.fromkeys(newcomers[admitted:])
        users = [user for user in fresh if user not in excess]
        changes = [
            _change(user, known[user], fresh[user], pending[user].stream, rules[user])
            for user in users
        ]
        outcomes = self._log.commit(changes, window, self._bounds.newcomer_seconds)
        written = [user for user, is_done in zip(users, outcomes, strict=True) if is_done]
        # A deletion changes no record of a newcomer, so the commit cannot see it: check again.
        unseen = [user for user in written if known[user].packed is None]
        for user in self._log.deleted_among(unseen):
            self._admin.delete_user(user, int(self._now()))
        return [*written, *excess]

    def _admitted(self, newcomers: int) -> int:
        if newcomers == 0:
            return 0
        return self._log.admit(newcomers, int(self._now()) // DAY_SECONDS, self._bounds.newcomers)

    def _append(
        self, pending: Mapping[str, _Pending], fresh: Mapping[str, list[EventRecord]]
    ) -> None:
        """Appends to the stream what an earlier attempt has not."""
        missing = [
            event
            for user, events in fresh.items()
            for event in events
            if dedup_key_of(event.event_id) not in pending[user].stream
        ]
        if not missing:
            return
        for event, stream_id in zip(missing, self._log.append(missing), strict=True):
            pending[event.user_id].stream[dedup_key_of(event.event_id)] = stream_id


def _sorted_out(events: Iterable[Indexed], known: Known) -> tuple[list[Indexed], list[Reject]]:
    """New events of a user, and those to reject."""
    new: dict[bytes, Indexed] = {}
    refused: list[Reject] = []
    for at, event in events:
        key = dedup_key_of(event.event_id)
        if known.deleted:
            message = "user_id: this user was deleted: use another id"
            refused.append(Reject(at, "deleted_user", message))
        elif key in known.dedup_keys or key in known.earlier or key in new:
            continue
        elif len(known.dedup_keys) + len(new) >= MAX_DEDUP_KEYS:
            message = (
                f"user_id: {event.user_id!r} has {MAX_DEDUP_KEYS} events this week already: "
                "is it one user?"
            )
            refused.append(Reject(at, "too_many_events", message))
        else:
            new[key] = at, event
    return list(new.values()), refused


def _is_known_type(event: EventRecord, rules: Collection[EventRules]) -> bool:
    """Whether a release reads events of this type, where any tells types apart."""
    happened = _happened(event)
    return not rules or any(kinds_by(each)(happened) is not None for each in rules)


def _happened(event: EventRecord, position: int = BEGINNING) -> Happened:
    return Happened(event.item_id, event.timestamp, event.weight, position, event.event_type)


def _change(
    user: str,
    known: Known,
    events: Sequence[EventRecord],
    stream: DedupKeys,
    rules: EventRules,
) -> Change:
    # In the order of the events, so that positions pair with them.
    keys = [dedup_key_of(event.event_id) for event in events]
    added = {key: stream[key] for key in keys}
    positions = [stream_position(stream_id) for stream_id in added.values()]
    happened = [_happened(*pair) for pair in zip(events, positions, strict=True)]
    record = with_events(_record(known), happened, rules)
    return Change(
        user, known.packed, record, known.dedup_keys | added, max(known.position, *positions)
    )


def _record(known: Known) -> UserRecord:
    """The stored record.

    An unreadable one is taken as empty, until the batch writes it again.
    """
    try:
        return UserRecord() if known.packed is None else unpack_user(known.packed)
    except UnreadableRecord:
        return UserRecord()
