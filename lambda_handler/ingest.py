"""Takes events in: each is checked, appended to the stream, and put into its user's record, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shortlist.recsys.errors import StoreUnavailable, UnreadableRecord
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
from shortlist.recsys.store.histories import Happened, with_events
from shortlist.recsys.store.records import EventRecord, UserRecord, unpack_user
from shortlist.recsys.store.watermark import stream_position

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
class IngestResult:
    """What became of a request's events; waiting: events in the stream before them, None where it was not asked."""

    accepted: int = 0
    duplicates: int = 0
    rejected: tuple[Reject, ...] = ()
    waiting: int | None = None


Indexed = tuple[int, EventRecord]


@dataclass(slots=True)
class _Pending:
    """The events of one user that are not told yet; stream: the ids in the stream of those that are there already."""

    events: list[Indexed]
    stream: DedupKeys = field(default_factory=dict)


Catalogue = Callable[[str, Sequence[str]], Sequence[bool]]
"""Whether each item id is in a release's own catalogue, for when Redis has lost it. Raises Unavailable or BrokenRelease."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What events over HTTP may fill.

    waiting: events in the stream, beyond which none is taken; newcomers: users of a day who may
    have a record before a batch has learnt of them, and newcomer_seconds: how long such a record
    lives after their latest event.
    """

    waiting: int
    newcomers: int
    newcomer_seconds: int


class EventIngestor:
    """Takes events into a store."""

    def __init__(
        self, log: EventLog, catalogue: Catalogue, bounds: Bounds, now: Callable[[], float]
    ) -> None:
        self._log, self._catalogue, self._bounds, self._now = log, catalogue, bounds, now

    def take(self, versions: Sequence[str], events: Sequence[Indexed]) -> IngestResult:
        """Checks and takes events, whose items are those of any of the releases `versions`, which are all alive.

        Raises:
            StoreUnavailable: some may have been taken and others not; sending all of them again is
                safe.
            Unavailable: Redis has lost the catalogue, and its bundle cannot be read either.
        """
        good, rejects = self._checked(versions, events)
        mail: dict[str, _Pending] = {}
        for at, event in good:
            mail.setdefault(event.user_id, _Pending([])).events.append((at, event))
        accepted = duplicates = 0
        waiting: int | None = None
        for _ in range(ATTEMPTS):
            if not mail:
                return IngestResult(
                    accepted, duplicates, tuple(sorted(rejects, key=lambda r: r.index)), waiting
                )
            taken = self._round(mail, rejects)
            accepted, duplicates, waiting = (
                accepted + taken.accepted,
                duplicates + taken.duplicates,
                taken.waiting,
            )
        raise StoreUnavailable(
            f"{len(mail)} users' records changed {ATTEMPTS} times meanwhile: send the events again"
        )

    def _checked(
        self, versions: Sequence[str], events: Sequence[Indexed]
    ) -> tuple[list[Indexed], list[Reject]]:
        unknown = self._unknown(versions, list(dict.fromkeys(event.item_id for _, event in events)))
        latest = int(self._now()) + AHEAD_SECONDS
        good: list[Indexed] = []
        rejects: list[Reject] = []
        for at, event in events:
            if event.item_id in unknown:
                rejects.append(
                    Reject(
                        at,
                        "unknown_item",
                        f"item_id: {event.item_id!r} is not in the catalogue: correct it",
                    )
                )
            elif event.timestamp > latest:
                message = f"timestamp: {event.timestamp} is more than a day ahead, at most {latest} holds: send unix seconds"
                rejects.append(Reject(at, "future_timestamp", message))
            else:
                good.append((at, event))
        return good, rejects

    def _unknown(self, versions: Sequence[str], items: list[str]) -> set[str]:
        """The items that no release has: by Redis where it has the release whole, else by the release's own bundle."""
        left = items
        doubtful: list[str] = []
        for version in versions:
            if not left:
                break
            rows, is_whole = self._log.store.rows_of(version, left)
            left = [item for item, row in zip(left, rows, strict=True) if row is None]
            doubtful += [] if is_whole else [version]
        for version in doubtful:
            if not left:
                break
            left = [
                item
                for item, known in zip(left, self._catalogue(version, left), strict=True)
                if not known
            ]
        return self._unknown_anywhere(set(versions), left) if left else set()

    def _unknown_anywhere(self, asked: set[str], items: list[str]) -> set[str]:
        """The items that no other release in Redis has: one flipped a moment ago, or a canary that has just ended."""
        left = items
        for version in AdminStore(self._log.store).versions():
            if left and version not in asked:
                rows, _ = self._log.store.rows_of(version, left)
                left = [item for item, row in zip(left, rows, strict=True) if row is None]
        return set(left)

    def _round(self, mail: dict[str, _Pending], rejects: list[Reject]) -> IngestResult:
        """One attempt for every user in `mail`, which keeps those whose record changed meanwhile."""
        window = window_of(self._now())
        known, waiting = self._log.known(list(mail), window)
        if waiting >= self._bounds.waiting:
            message = f"{waiting} events wait for a drain, which is the most: run `shortlist events drain`, or a refresh"
            raise StoreUnavailable(message)
        fresh: dict[str, list[EventRecord]] = {}
        duplicates = 0
        for user in list(mail):
            if known[user].deleted:
                self._log.withdraw(list(mail[user].stream.values()))
                if (
                    known[user].packed is not None
                ):  # of an event whose process died before it could know of the deletion
                    AdminStore(self._log.store).delete_user(user, int(self._now()))
            new, refused = _sorted_out(mail[user].events, known[user])
            rejects += refused
            duplicates += len(mail[user].events) - len(new) - len(refused)
            mail[user].events = new
            if new:
                fresh[user] = [event for _, event in new]
            else:
                del mail[user]
        self._append(mail, fresh)
        written = self._written(known, fresh, mail, window)
        for user in written:
            del mail[user]
        return IngestResult(sum(len(fresh[user]) for user in written), duplicates, waiting=waiting)

    def _written(
        self,
        known: Mapping[str, Known],
        fresh: Mapping[str, list[EventRecord]],
        mail: Mapping[str, _Pending],
        window: int,
    ) -> list[str]:
        """Writes the records; gives the users who are done with, those among them who may have no record yet."""
        newcomers = [user for user in fresh if known[user].packed is None]
        allowed = self._admitted(len(newcomers))
        excess = set(newcomers[allowed:])
        changed = [user for user in fresh if user not in excess]
        changes = [_change(user, known[user], fresh[user], mail[user].stream) for user in changed]
        done = self._log.commit(changes, window, self._bounds.newcomer_seconds)
        written = [user for user, is_done in zip(changed, done, strict=True) if is_done]
        # A first event meets no record that a deletion could have changed, so it asks once more.
        for user in self._log.deleted_among(
            [user for user in written if known[user].packed is None]
        ):
            AdminStore(self._log.store).delete_user(user, int(self._now()))
        return [*written, *newcomers[allowed:]]

    def _admitted(self, newcomers: int) -> int:
        if newcomers == 0:
            return 0
        return self._log.admit(newcomers, int(self._now()) // DAY_SECONDS, self._bounds.newcomers)

    def _append(self, mail: Mapping[str, _Pending], fresh: Mapping[str, list[EventRecord]]) -> None:
        lacking = [
            e
            for user, events in fresh.items()
            for e in events
            if dedup_key_of(e.event_id) not in mail[user].stream
        ]
        for event, stream_id in zip(
            lacking, self._log.append(lacking) if lacking else (), strict=True
        ):
            mail[event.user_id].stream[dedup_key_of(event.event_id)] = stream_id


def _sorted_out(events: Iterable[Indexed], known: Known) -> tuple[list[Indexed], list[Reject]]:
    """The events that are new to this user, and those that the user may not have."""
    new: dict[bytes, Indexed] = {}
    refused: list[Reject] = []
    for at, event in events:
        mark = dedup_key_of(event.event_id)
        if known.deleted:
            refused.append(
                Reject(at, "deleted_user", "user_id: this user was deleted: use another id")
            )
        elif mark in known.dedup_keys or mark in known.earlier or mark in new:
            continue
        elif len(known.dedup_keys) + len(new) >= MAX_DEDUP_KEYS:
            message = f"user_id: {event.user_id!r} has {MAX_DEDUP_KEYS} events this week already: is it one user?"
            refused.append(Reject(at, "too_many_events", message))
        else:
            new[mark] = at, event
    return list(new.values()), refused


def _change(user: str, known: Known, events: Sequence[EventRecord], stream: DedupKeys) -> Change:
    added = {dedup_key_of(e.event_id): stream[dedup_key_of(e.event_id)] for e in events}
    positions = [stream_position(stream_id) for stream_id in added.values()]
    happened = [
        Happened(e.item_id, e.timestamp, e.weight, at)
        for e, at in zip(events, positions, strict=True)
    ]
    record = with_events(_record(known), happened)
    return Change(
        user, known.packed, record, known.dedup_keys | added, max(known.position, *positions)
    )


def _record(known: Known) -> UserRecord:
    """The stored record; one that cannot be read begins again, until the batch writes it."""
    try:
        return UserRecord() if known.packed is None else unpack_user(known.packed)
    except UnreadableRecord:
        return UserRecord()
