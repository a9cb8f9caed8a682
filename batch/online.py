"""How good the recommendations are to those who get them: answers shown and acted on, by release, source and position.

Every answer's id tells its release, its source and its day. The API counts the answers by these,
and by how many items they showed; the events that name an id are the clicks. A share is of answers
acted on at least once, so that it is a share of
independent trials as far as users are: someone who comes back often counts as often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import polars as pl
from rich.table import Table

from shortlist.batch.batch_store import batch_store
from shortlist.batch.drain import frame_of
from shortlist.recsys.errors import CorruptArtefact, InvalidInput
from shortlist.recsys.evaluation.proportions import newcombe, wilson
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.counts import CountLog
from shortlist.recsys.store.event_files import open_event_files
from shortlist.recsys.store.event_log import EventLog
from shortlist.recsys.store.recommendation_id import DAY_SECONDS, SOURCES, origin_of
from shortlist.recsys.store.records import unpack_event

CHUNK = 1000
"""Waiting events read at once."""

POSITIONS = 20
"""Positions told, from the first."""

Click = tuple[str | None, int | None]
"""An event's recommendation id and position."""


class Group(NamedTuple):
    """Answers that are told together."""

    version: str
    source: str


@dataclass(slots=True)
class ImpressionStats:
    """A group's answers. lengths: by number of items; clicked: ids acted on; at: ids acted on, by position."""

    lengths: Counter[int] = field(default_factory=Counter)
    clicked: set[str] = field(default_factory=set)
    at: dict[int, set[str]] = field(default_factory=dict)

    def answers(self, position: int = 1) -> int:
        """Answers that showed an item at `position`; at least those acted on there, as counts may have been lost."""
        counted = sum(number for length, number in self.lengths.items() if length >= position)
        return max(counted, len(self.clicked if position == 1 else self.at.get(position, ())))

    @property
    def lost(self) -> int:
        """How many answers were acted on beyond those counted."""
        return max(0, len(self.clicked) - self.lengths.total())


@dataclass(frozen=True, slots=True)
class Online:
    """days: how many, today included; groups: what was shown; current, other: releases to compare; foreign: ids not ours.

    broken: files of drained events that cannot be read.
    """

    days: int
    groups: dict[Group, ImpressionStats]
    current: str | None
    other: str | None
    foreign: int
    broken: tuple[str, ...] = ()


def online(settings: Settings, days: int, events: str | None, now: float) -> Online:
    """What was shown in the last `days`, and what of it was acted on, by the stream and the files drained to `events`.

    Raises:
        InvalidInput: no drain has written to `events`.
        ArtefactsUnavailable: S3 did not answer.
        StoreUnavailable: Redis did not answer.
    """
    today = int(now // DAY_SECONDS)
    with batch_store(settings) as store:
        log = CountLog(store)
        groups: dict[Group, ImpressionStats] = {}
        for day in range(today - days + 1, today + 1):
            add_impressions(groups, log.read(store.keys.impressions(_name(day))))
        broken: list[str] = []
        clicks = [*waiting(EventLog(store)), *drained(events, broken)]
        pointer = store.release()
    foreign = add_clicks(groups, clicks, today - days + 1)
    if pointer is None:
        return Online(days, groups, None, None, foreign, tuple(broken))
    other = pointer.previous if pointer.canary is None else pointer.canary.version
    return Online(days, groups, pointer.current, other, foreign, tuple(broken))


def _name(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_SECONDS, UTC).strftime("%Y-%m-%d")


def add_impressions(groups: dict[Group, ImpressionStats], counts: Mapping[str, int]) -> None:
    """Adds a day's counts, by `source:length:version`.

    Raises:
        CorruptArtefact: a field is not that.
    """
    for name, number in counts.items():
        source, length, version = (*name.split(":", 2), "", "")[:3]
        if source not in SOURCES or not length.isdecimal() or not version:
            raise CorruptArtefact(
                f"the impressions have {name!r}, not source:length:version: delete that day's hash"
            )
        groups.setdefault(Group(version, source), ImpressionStats()).lengths[int(length)] += number


def waiting(log: EventLog) -> Iterator[Click]:
    """Of the events in the stream, which stay there."""
    after = b"0"
    while entries := log.waiting(after, CHUNK):
        for _, fields in entries:
            try:
                event = unpack_event(fields.get(b"e", b""))
            except CorruptArtefact:
                continue  # the next drain puts it aside and tells
            yield event.recommendation_id, event.position
        after = entries[-1][0]


def drained(address: str | None, broken: list[str] | None = None) -> Iterator[Click]:
    """Of the events in the files of `events drain`; older files know no positions.

    broken: takes the names of files that cannot be read.
    """
    if address is None:
        return
    files = open_event_files(address)
    names = files.names()
    if not names:
        raise InvalidInput(
            f"{address!r} has no events: give what `shortlist events drain --out` wrote to, or nothing"
        )
    for name in names:
        frame = frame_of(files, name, "recommendation_id")
        if frame is None:
            if broken is not None:
                broken.append(name)
            continue
        if frame.schema.get("position") != pl.Int64:
            frame = frame.with_columns(position=pl.lit(None, pl.Int64))
        yield from (
            frame.select("recommendation_id", "position")
            .filter(pl.col("recommendation_id").is_not_null())
            .iter_rows()
        )


def add_clicks(
    groups: dict[Group, ImpressionStats], clicks: Iterable[Click], first_day: int
) -> int:
    """Adds the clicks on answers of `first_day` and later, each answer once; gives how many had an id that is not ours."""
    foreign = 0
    for recommendation_id, position in clicks:
        if recommendation_id is None:
            continue
        origin = origin_of(recommendation_id)
        if origin is None:
            foreign += 1
        elif origin.day >= first_day:
            shown = groups.setdefault(Group(origin.version, origin.source), ImpressionStats())
            shown.clicked.add(recommendation_id)
            if position is not None:
                shown.at.setdefault(position, set()).add(recommendation_id)
    return foreign


def report(found: Online) -> dict[str, Any]:
    """The figures: of each release and source, by position, and of one release beside the serving one.

    {"days", "serving", "other", "groups": [{"release", "source", share, "positions": [{"position",
    share}, …]}, …], "differences": [{"source", "ctr", "serving_ctr", "difference": {"value", "low",
    "high"}}, …], "lost", "foreign", "broken"}, where a share is "answers", "acted_on", "ctr":
    {"value", "low", "high"}; a value is null where there was no answer.
    """
    return {
        "days": found.days,
        "serving": found.current,
        "other": found.other,
        "groups": [_of_group(group, shown) for group, shown in sorted(found.groups.items())],
        "differences": [
            _difference(found, source) for source in ("all", *SOURCES) if _comparable(found, source)
        ],
        "lost": sum(shown.lost for shown in found.groups.values()),
        "foreign": found.foreign,
        "broken": list(found.broken),
    }


def _of_group(group: Group, shown: ImpressionStats) -> dict[str, Any]:
    told = {"release": group.version, "source": group.source} | _share(
        len(shown.clicked), shown.answers()
    )
    positions = range(1, min(POSITIONS, max(shown.at, default=0)) + 1)
    return told | {
        "positions": [
            {"position": p} | _share(len(shown.at.get(p, ())), shown.answers(p)) for p in positions
        ]
    }


def _share(hits: int, trials: int) -> dict[str, Any]:
    low, high = wilson(hits, trials)
    return {
        "answers": trials,
        "acted_on": hits,
        "ctr": {"value": hits / trials if trials else None, "low": low, "high": high},
    }


def _comparable(found: Online, source: str) -> bool:
    """Whether both releases gave answers."""
    return all(totals(found, version, source)[1] for version in (found.other, found.current))


def _difference(found: Online, source: str) -> dict[str, Any]:
    (hits, trials), (base, base_trials) = (
        totals(found, version, source) for version in (found.other, found.current)
    )
    low, high = newcombe(hits, trials, base, base_trials)
    ctr, serving = hits / trials, base / base_trials
    difference = {"value": ctr - serving, "low": low, "high": high}
    return {"source": source, "ctr": ctr, "serving_ctr": serving, "difference": difference}


def tables(told: dict[str, Any]) -> list[Table]:
    """A report for a terminal: by release and source, by position, and one release beside the other."""
    groups = [((g["release"], g["source"]), g) for g in told["groups"]]
    positions = [((*names, str(p["position"])), p) for names, g in groups for p in g["positions"]]
    return [
        _shares(f"answers of {told['days']} days", ("release", "source"), groups),
        _shares("by position", ("release", "source", "position"), positions),
        _compared(told),
    ]


def _shares(
    title: str, names: Sequence[str], rows: Iterable[tuple[Sequence[str], dict[str, Any]]]
) -> Table:
    out = Table(*names, "answers", "acted on", "CTR", "95%", title=title)
    for named, share in rows:
        value, low, high = (share["ctr"][field] for field in ("value", "low", "high"))
        ctr = "-" if value is None else f"{value:.4f}"
        out.add_row(
            *named, str(share["answers"]), str(share["acted_on"]), ctr, f"{low:.4f} to {high:.4f}"
        )
    return out


def _compared(told: dict[str, Any]) -> Table:
    title = (
        f"{told['other']} minus {told['serving']}"
        if told["other"]
        else "one release: nothing to compare"
    )
    out = Table("source", "CTR", "CTR of the serving one", "difference", "95%", title=title)
    for row in told["differences"]:
        value, low, high = (row["difference"][field] for field in ("value", "low", "high"))
        shares = f"{row['ctr']:.4f}", f"{row['serving_ctr']:.4f}"
        out.add_row(row["source"], *shares, f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}")
    return out


def totals(found: Online, version: str | None, source: str) -> tuple[int, int]:
    """Answers acted on, and answers, of a release and a source, or "all" sources."""
    chosen = [
        s for g, s in found.groups.items() if g.version == version and source in ("all", g.source)
    ]
    return sum(len(shown.clicked) for shown in chosen), sum(shown.answers() for shown in chosen)


def notes(told: dict[str, Any]) -> list[str]:
    """What a reader should know of a report's figures."""
    lost, foreign = told["lost"], told["foreign"]
    out = (
        [
            f"{lost} answers were acted on beyond those counted: counts were lost, so shares are too high"
        ]
        if lost
        else []
    )
    out += [f"{foreign} events name a recommendation_id that is not ours"] if foreign else []
    return [
        *out,
        *(
            f"{name} cannot be read, and its clicks are not counted: mend or remove it"
            for name in told["broken"]
        ),
    ]
