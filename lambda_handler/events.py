"""Takes events in: each is checked, told to the next training, and put into its user's history, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from recsys.errors import CorruptArtefact, StoreUnavailable
from recsys.event_log import MOST_MARKS, Change, EventLog, Known, Marks, mark_of, window_of
from recsys.histories import with_events
from recsys.upkeep import Upkeep
from recsys.wire import EventRecord, UserRecord, unpack_user

AHEAD_SECONDS = 24 * 3600
"""How far ahead of this machine's clock an event may lie."""

ATTEMPTS = 5
"""How often a record that others change at the same moment is tried again."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An event that was not taken: its place in the request, and why."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request's events."""

    accepted: int = 0
    duplicates: int = 0
    rejected: tuple[Reject, ...] = ()


Indexed = tuple[int, EventRecord]


@dataclass(slots=True)
class _Mail:
    """The events of one user that are not told yet; stream: the ids in the stream of those that are there already."""

    events: list[Indexed]
    stream: Marks = field(default_factory=dict)


class Intake:
    """Takes events into a store."""

    def __init__(self, log: EventLog, now: Callable[[], float]) -> None:
        self._log, self._now = log, now

    def take(self, version: str, events: Sequence[Indexed]) -> Taken:
        """Checks and takes events, whose items are those of the release `version`.

        Raises:
            StoreUnavailable: some may have been taken and others not; sending all of them again is safe.
        """
        good, rejects = self._checked(version, events)
        mail: dict[str, _Mail] = {}
        for at, event in good:
            mail.setdefault(event.user_id, _Mail([])).events.append((at, event))
        accepted = duplicates = 0
        for _ in range(ATTEMPTS):
            if not mail:
                return Taken(accepted, duplicates, tuple(sorted(rejects, key=lambda r: r.index)))
            told = self._round(mail, rejects)
            accepted, duplicates = accepted + told.accepted, duplicates + told.duplicates
        raise StoreUnavailable(f"{len(mail)} users' records changed {ATTEMPTS} times meanwhile: send the events again")

    def _checked(self, version: str, events: Sequence[Indexed]) -> tuple[list[Indexed], list[Reject]]:
        items = list(dict.fromkeys(event.item_id for _, event in events))
        rows = dict(zip(items, self._log.store.rows_of(version, items), strict=True))
        latest = int(self._now()) + AHEAD_SECONDS
        good: list[Indexed] = []
        rejects: list[Reject] = []
        for at, event in events:
            if rows[event.item_id] is None:
                rejects.append(Reject(at, "unknown_item", f"item_id: {event.item_id!r} is not in the catalogue: correct it"))
            elif event.timestamp > latest:
                message = f"timestamp: {event.timestamp} is more than a day ahead, at most {latest} holds: send unix seconds"
                rejects.append(Reject(at, "future_timestamp", message))
            else:
                good.append((at, event))
        return good, rejects

    def _round(self, mail: dict[str, _Mail], rejects: list[Reject]) -> Taken:
        """One attempt for every user in `mail`, which keeps those whose record changed meanwhile."""
        window = window_of(self._now())
        known = self._log.known(list(mail), window)
        fresh: dict[str, list[EventRecord]] = {}
        duplicates = 0
        for user in list(mail):
            found, refused = _sorted_out(mail[user].events, known[user])
            rejects += refused
            duplicates += len(mail[user].events) - len(found) - len(refused)
            mail[user].events = found
            if found:
                fresh[user] = [event for _, event in found]
            else:
                del mail[user]
        self._append(mail, fresh)
        done = self._log.commit([_change(user, known[user], events, mail[user].stream) for user, events in fresh.items()], window)
        written = [user for user, is_done in zip(fresh, done, strict=True) if is_done]
        for user in written:
            del mail[user]
        # A first event is written beside no record that a deletion could have changed, so it asks once more.
        for user in self._log.deleted_among([user for user in written if known[user].packed is None]):
            Upkeep(self._log.store).delete_user(user, int(self._now()))
        return Taken(sum(len(fresh[user]) for user in written), duplicates)

    def _append(self, mail: dict[str, _Mail], fresh: dict[str, list[EventRecord]]) -> None:
        lacking = [e for user, events in fresh.items() for e in events if mark_of(e.event_id) not in mail[user].stream]
        for event, stream_id in zip(lacking, self._log.append(lacking) if lacking else (), strict=True):
            mail[event.user_id].stream[mark_of(event.event_id)] = stream_id


def _sorted_out(events: Iterable[Indexed], known: Known) -> tuple[list[Indexed], list[Reject]]:
    """The events that are new to this user, and those that the user may not have."""
    new: dict[bytes, Indexed] = {}
    refused: list[Reject] = []
    for at, event in events:
        mark = mark_of(event.event_id)
        if known.deleted:
            refused.append(Reject(at, "deleted_user", "user_id: this user was deleted: use another id"))
        elif mark in known.marks or mark in known.earlier or mark in new:
            continue
        elif len(known.marks) + len(new) >= MOST_MARKS:
            message = f"user_id: {event.user_id!r} has {MOST_MARKS} events this week already: is it one user?"
            refused.append(Reject(at, "too_many_events", message))
        else:
            new[mark] = at, event
    return list(new.values()), refused


def _change(user: str, known: Known, events: Sequence[EventRecord], stream: Marks) -> Change:
    record = with_events(_record(known), [(e.item_id, e.timestamp, e.weight) for e in events])
    marks = known.marks | {mark_of(e.event_id): stream[mark_of(e.event_id)] for e in events}
    return Change(user, known.packed, record, marks)


def _record(known: Known) -> UserRecord:
    """The stored record; one that cannot be read begins afresh, until the batch writes it again."""
    try:
        return UserRecord() if known.packed is None else unpack_user(known.packed)
    except CorruptArtefact:
        return UserRecord(n_events=known.n_events)
