"""Reports click-through rates by release, source and position.

Every answer's id names its release, its source and its day. The API counts the answers by these,
and by how many items they showed; the events that name an id are the clicks. A share is of answers
acted on at least once, so that it is a share of independent trials as far as users are: someone who
comes back often counts as often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.drain import frame_of
from shortlist.recsys.errors import InvalidInput, UnreadableRecord
from shortlist.recsys.evaluation.proportions import newcombe, wilson
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.answer_sources import SOURCES
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.feedback import NEGATIVE, Happened, kinds_by
from shortlist.recsys.store.recommendation_id import DAY_SECONDS, origin_of
from shortlist.recsys.store.records import ReleasePointer, unpack_event
from shortlist.recsys.store.redis import RedisStore
from shortlist.recsys.store.release_facts import ReleaseFacts, unpack_facts

READ_AT_ONCE = 1000
"""Waiting events read at once."""

POSITIONS = 20
"""Positions in the report, from the first; 20 items is what the API recommends by default."""

Click = tuple[str | None, int | None]
"""An event's recommendation id and position."""

IsClick = Callable[[str | None, float | None], bool]
"""Tells by its type and weight whether an event is no negative feedback."""


class AnswerGroup(NamedTuple):
    """Answers that are counted together."""

    version: str
    source: str


@dataclass(slots=True)
class ImpressionStats:
    """A group's answers.

    lengths: number of answers by how many items they showed; clicked: ids acted on; at: ids acted
    on, by position.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    clicked: set[str] = field(default_factory=set)
    at: dict[int, set[str]] = field(default_factory=dict)

    def answers(self, position: int = 1) -> int:
        """Answers that showed an item at `position`.

        Counts that were lost are made up for by clicks.
        """
        counted = sum(number for length, number in self.lengths.items() if length >= position)
        clicked = self.clicked if position == 1 else self.at.get(position, set())
        return max(counted, len(clicked))

    @property
    def lost(self) -> int:
        """How many answers were acted on beyond those counted."""
        return max(0, len(self.clicked) - self.lengths.total())


@dataclass(frozen=True, slots=True)
class Online:
    """What was shown and clicked.

    days: how many, today included; groups: the counts; current, other: releases to compare;
    unrecognised_ids: events whose recommendation id no API of ours made; broken: files of drained
    events that cannot be read.
    """

    days: int
    groups: dict[AnswerGroup, ImpressionStats]
    current: str | None
    other: str | None
    unrecognised_ids: int
    broken: tuple[str, ...] = ()


def online(settings: Settings, days: int, events: str | None, now: float) -> Online:
    """Counts answers and clicks of the last `days`.

    events: where `events drain` wrote to; now: unix seconds.

    Raises:
        InvalidInput: no drain has written to `events`.
        ArtefactsUnavailable: S3 did not answer.
        StoreUnavailable: Redis did not answer.
    """
    today = int(now // DAY_SECONDS)
    first_day = today - days + 1
    groups: dict[AnswerGroup, ImpressionStats] = {}
    broken: list[str] = []
    with batch_store(settings) as store:
        log = CountLog(store)
        for day in range(first_day, today + 1):
            add_impressions(groups, log.read(store.keys.impressions(_date(day))))
        # The stream before the files: what a drain moves meanwhile is counted once at least, and a
        # second time changes nothing, as clicks are sets of ids.
        pointer = store.release()
        is_click = _click_test(store, pointer)
        clicks = [*waiting(EventLog(store), is_click), *drained(events, is_click, broken)]
    unrecognised = add_clicks(groups, clicks, first_day)
    current = other = None
    if pointer is not None:
        current, other = pointer.current, pointer.previous
        if pointer.canary is not None:
            other = pointer.canary.version
    return Online(days, groups, current, other, unrecognised, tuple(broken))


def _click_test(store: RedisStore, pointer: ReleasePointer | None) -> IsClick:
    """Tells clicks from negative feedback by the serving release's rules."""
    packed = None if pointer is None else store.facts(pointer.current)
    rules = (ReleaseFacts() if packed is None else unpack_facts(packed)).events
    kind_of = kinds_by(rules)
    return lambda event_type, weight: kind_of(Happened("", 0, weight, type=event_type)) != NEGATIVE


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_SECONDS, UTC).strftime("%Y-%m-%d")


def add_impressions(groups: dict[AnswerGroup, ImpressionStats], counts: Mapping[str, int]) -> None:
    """Adds a day's counts, by `source:length:version`.

    Raises:
        UnreadableRecord: a field has another form.
    """
    for name, number in counts.items():
        source, length, version = (*name.split(":", 2), "", "")[:3]
        if source not in SOURCES or not length.isdecimal() or not version:
            raise UnreadableRecord(
                f"the impressions have {name!r}, not source:length:version: delete that day's hash"
            )
        stats = groups.setdefault(AnswerGroup(version, source), ImpressionStats())
        stats.lengths[int(length)] += number


def waiting(log: EventLog, is_click: IsClick) -> Iterator[Click]:
    """The clicks in the stream, which stay there."""
    after = b"0"
    while entries := log.waiting(after, READ_AT_ONCE):
        for _, fields in entries:
            try:
                event = unpack_event(fields.get(b"e", b""))
            except UnreadableRecord:
                continue  # the next drain makes a dead letter of it, and reports it
            if is_click(event.event_type, event.weight):
                yield event.recommendation_id, event.position
        after = entries[-1][0]


def drained(
    address: str | None, is_click: IsClick, broken: list[str] | None = None
) -> Iterator[Click]:
    """The clicks in the files of `events drain`.

    Older files have no positions and types.

    broken: takes the names of files that cannot be read.

    Raises:
        InvalidInput: no drain has written to `address`.
    """
    if address is None:
        return
    files = open_event_files(address)
    names = files.names()
    if not names:
        raise InvalidInput(
            f"{address!r} has no events: "
            "give what `shortlist events drain --out` wrote to, or nothing"
        )
    for name in names:
        frame = frame_of(files, name, "recommendation_id")
        if frame is not None:
            yield from _clicks(frame, is_click)
        elif broken is not None:
            broken.append(name)


def _clicks(frame: pl.DataFrame, is_click: IsClick) -> Iterator[Click]:
    wanted = {"position": pl.Int64, "event_type": pl.String, "weight": pl.Float64}
    lacking = [name for name, dtype in wanted.items() if frame.schema.get(name) != dtype]
    frame = frame.with_columns(pl.lit(None, wanted[name]).alias(name) for name in lacking)
    events = frame.filter(pl.col("recommendation_id").is_not_null())
    for recommendation_id, *columns in events.select("recommendation_id", *wanted).iter_rows():
        position, event_type, weight = columns
        if is_click(event_type, weight):
            yield recommendation_id, position


def add_clicks(
    groups: dict[AnswerGroup, ImpressionStats], clicks: Iterable[Click], first_day: int
) -> int:
    """Adds clicks on answers of `first_day` and later.

    Each answer counts once.

    Gives how many had an id that cannot be read.
    """
    unrecognised = 0
    for recommendation_id, position in clicks:
        if recommendation_id is None:
            continue
        origin = origin_of(recommendation_id)
        if origin is None:
            unrecognised += 1
        elif origin.day >= first_day:
            group = AnswerGroup(origin.version, origin.source)
            stats = groups.setdefault(group, ImpressionStats())
            stats.clicked.add(recommendation_id)
            if position is not None:
                stats.at.setdefault(position, set()).add(recommendation_id)
    return unrecognised


def report(online: Online) -> dict[str, Any]:
    """The report's figures.

    {"days", "serving", "other", "groups": [{"release", "source", share, "positions": [{"position",
    share}, …]}, …], "differences": [{"source", "ctr", "serving_ctr", "difference": {"value", "low",
    "high"}}, …], "lost", "foreign", "broken"}, where a share is "answers", "acted_on", "ctr":
    {"value", "low", "high"}; a value is null where there was no answer; "foreign" counts ids that
    cannot be read.
    """
    sources = [source for source in ("all", *SOURCES) if _comparable(online, source)]
    return {
        "days": online.days,
        "serving": online.current,
        "other": online.other,
        "groups": [_group_row(group, stats) for group, stats in sorted(online.groups.items())],
        "differences": [_difference(online, source) for source in sources],
        "lost": sum(stats.lost for stats in online.groups.values()),
        "foreign": online.unrecognised_ids,
        "broken": list(online.broken),
    }


def _group_row(group: AnswerGroup, stats: ImpressionStats) -> dict[str, Any]:
    deepest = min(POSITIONS, max(stats.at, default=0))
    positions = [
        {"position": position} | _share(len(stats.at.get(position, ())), stats.answers(position))
        for position in range(1, deepest + 1)
    ]
    share = _share(len(stats.clicked), stats.answers())
    return {"release": group.version, "source": group.source} | share | {"positions": positions}


def _share(hits: int, trials: int) -> dict[str, Any]:
    low, high = wilson(hits, trials)
    value = hits / trials if trials else None
    return {"answers": trials, "acted_on": hits, "ctr": {"value": value, "low": low, "high": high}}


def _comparable(online: Online, source: str) -> bool:
    """Whether both releases gave answers."""
    return all(totals(online, version, source)[1] for version in (online.other, online.current))


def _difference(online: Online, source: str) -> dict[str, Any]:
    hits, trials = totals(online, online.other, source)
    base_hits, base_trials = totals(online, online.current, source)
    low, high = newcombe(hits, trials, base_hits, base_trials)
    ctr, serving_ctr = hits / trials, base_hits / base_trials
    difference = {"value": ctr - serving_ctr, "low": low, "high": high}
    return {"source": source, "ctr": ctr, "serving_ctr": serving_ctr, "difference": difference}


def tables(figures: dict[str, Any]) -> list[Table]:
    """Tables by group, by position, and of two releases."""
    groups = [((group["release"], group["source"]), group) for group in figures["groups"]]
    positions = [
        ((*names, str(row["position"])), row)
        for names, group in groups
        for row in group["positions"]
    ]
    return [
        _share_table(f"answers of {figures['days']} days", ("release", "source"), groups),
        _share_table("by position", ("release", "source", "position"), positions),
        _difference_table(figures),
    ]


def _share_table(
    title: str, columns: Sequence[str], rows: Iterable[tuple[Sequence[str], dict[str, Any]]]
) -> Table:
    table = Table(*columns, "answers", "acted on", "CTR", "95%", title=title)
    for names, share in rows:
        value, low, high = _bounds(share["ctr"])
        ctr = "-" if value is None else f"{value:.4f}"
        counts = str(share["answers"]), str(share["acted_on"])
        table.add_row(*names, *counts, ctr, f"{low:.4f} to {high:.4f}")
    return table


def _difference_table(figures: dict[str, Any]) -> Table:
    title = "one release: nothing to compare"
    if figures["other"]:
        title = f"{figures['other']} minus {figures['serving']}"
    table = Table("source", "CTR", "CTR of the serving one", "difference", "95%", title=title)
    for row in figures["differences"]:
        value, low, high = _bounds(row["difference"])
        shares = f"{row['ctr']:.4f}", f"{row['serving_ctr']:.4f}"
        table.add_row(row["source"], *shares, f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}")
    return table


def _bounds(figure: dict[str, Any]) -> tuple[Any, Any, Any]:
    return figure["value"], figure["low"], figure["high"]


def totals(online: Online, version: str | None, source: str) -> tuple[int, int]:
    """Answers acted on, and answers, of a release and a source or of "all" sources."""
    chosen = [
        stats
        for group, stats in online.groups.items()
        if group.version == version and source in ("all", group.source)
    ]
    return sum(len(stats.clicked) for stats in chosen), sum(stats.answers() for stats in chosen)


def notes(figures: dict[str, Any]) -> list[str]:
    """What a reader should know of a report's figures."""
    lines = []
    if figures["lost"]:
        lines.append(
            f"{figures['lost']} answers were acted on beyond those counted: "
            "counts were lost, so shares are too high"
        )
    if figures["foreign"]:
        lines.append(f"{figures['foreign']} events name a recommendation_id that is not ours")
    lines += [
        f"{name} cannot be read, and its clicks are not counted: mend or remove it"
        for name in figures["broken"]
    ]
    return lines
