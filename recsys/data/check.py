"""Looks at people's tables, and proposes a mapping.

Everything that a load would do is done once, with all rejects allowed, so that what is said
here is what every later command sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data.check_columns import SCHEMAS, FoundTable, found_tables, unread_columns
from shortlist.recsys.data.check_events import unknown_types
from shortlist.recsys.data.check_files import FoundFile, look_at, places_in
from shortlist.recsys.data.check_mapping import Ask, decided_times, proposed
from shortlist.recsys.data.check_times import FoundTimes
from shortlist.recsys.data.item_attributes import EMBEDDING
from shortlist.recsys.data.loading import Loaded, load
from shortlist.recsys.data.mapping import DataMapping
from shortlist.recsys.data.sources import Dialect, InteractionsSource, ReturnMark
from shortlist.recsys.errors import InvalidData, InvalidSettings
from shortlist.recsys.event_rules import EventRules

SAMPLE_REJECTS = 3
"""Rejected rows that are shown for each reason."""

MANY_REPEATS = 0.05
"""From this share on it is worth asking whether what a user had may be recommended again."""


MANY_REJECTS = 0.05
"""What `--max-reject-share` allows where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a person says of the files, whatever they look like.

    tables: table -> its paths; columns: our name -> theirs; is_day_first: of dates such as
    03/04/2024, None where nobody has said; zone: of times that do not say theirs.
    """

    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    is_day_first: bool | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class TableReport:
    """A table: its files, and for each of our columns theirs and how it was found.

    csv: how its text is written, where that is not what its name says; unused: columns that no
    command reads.
    """

    paths: tuple[str, ...]
    n_files: int
    csv: dict[str, Any] | None
    columns: dict[str, str]
    reasons: dict[str, str]
    unused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows rejected for one reason, and the first of them: file, row and record."""

    n: int
    samples: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What was found in the tables, and the mapping that follows from it.

    times: how they are written; event_types: type -> rows, most first; numbers: counts and shares;
    rejects: reason -> rows; notes: what a load says; advice: what to set.
    """

    mapping: DataMapping
    tables: dict[str, TableReport]
    times: str
    event_types: dict[str, int]
    numbers: dict[str, Any]
    rejects: dict[str, Rejected]
    notes: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def columns(self) -> pl.DataFrame:
        """table, column, theirs, reason: which of their columns is what, and how it was found."""
        rows = [
            (name, column, theirs, table.reasons.get(column))
            for name, table in self.tables.items()
            for column, theirs in table.columns.items()
        ]
        names = ("table", "column", "theirs", "reason")
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")

    @property
    def rejected(self) -> pl.DataFrame:
        """reason, rows: how many rows each reason rejects."""
        rows = [(reason, found.n) for reason, found in self.rejects.items()]
        return pl.DataFrame(rows, schema={"reason": pl.String, "rows": pl.Int64}, orient="row")

    def as_json(self) -> dict[str, Any]:
        """The check as plain values."""
        out = {name: getattr(self, name) for name in ("times", "event_types", "numbers")}
        out["tables"] = {name: asdict(table) for name, table in self.tables.items()}
        out["rejects"] = {reason: asdict(found) for reason, found in self.rejects.items()}
        out["mapping"] = asdict(self.mapping)
        return out | {"notes": list(self.notes), "advice": list(self.advice)}


def check(paths: Sequence[str], given: Given, ask: Ask, rejects: Path | None) -> Check:
    """Looks at tables, finds out what they are, and reads them once.

    paths: files, directories, globs or addresses; those that `given` names are looked at as well.
    rejects: the Parquet file for rejected rows; None writes none.

    Raises:
        InvalidData: a file cannot be read, or which table or column something is cannot be found
            out.
        InvalidSettings: `given` names a column or a time zone that there is not.
        ArtefactsUnavailable: S3 did not answer.
    """
    _check_given(given)
    named = [path for places in given.tables.values() for path in places]
    free = [place for path in paths if path not in named for place in places_in(path)]
    files = [look_at(path) for path in dict.fromkeys((*free, *named))]
    if not files:
        raise InvalidData("no files to check: give at least that of the interactions")
    tables = found_tables(files, given.tables, given.columns)
    _check_given_columns(given, tables)
    times = decided_times(tables["interactions"], ask, is_day_first=given.is_day_first)
    mapping, counts = proposed(tables, times, given.zone)
    return _read_once(mapping, tables, times, counts, rejects)


def _check_given(given: Given) -> None:
    known = list(dict.fromkeys(name for schema in SCHEMAS.values() for name in schema.columns))
    unknown = [name for name in given.columns if name not in known]
    if unknown:
        raise InvalidSettings(
            f"there is no column {unknown[0]!r}: known are {', '.join(known)}; "
            "write one of these = the name of your column"
        )
    if given.zone is not None and given.zone not in available_timezones():
        near = get_close_matches(given.zone, sorted(available_timezones()), n=1)
        meant = f", {near[0]} may be meant" if near else ""
        raise InvalidSettings(
            f"there is no time zone {given.zone!r}{meant}: name one such as Europe/Berlin"
        )


def _check_given_columns(given: Given, tables: Mapping[str, FoundTable]) -> None:
    """Refuses columns that a person has named and no file has."""
    names = [name for table in tables.values() for name in table.known]
    absent = [theirs for theirs in given.columns.values() if theirs not in names]
    if absent:
        raise InvalidData(f"no file has a column {absent[0]!r}: there are {', '.join(names)}")


def _read_once(
    mapping: DataMapping,
    tables: Mapping[str, FoundTable],
    times: FoundTimes,
    counts: dict[str, int],
    rejects_file: Path | None,
) -> Check:
    loaded = load(
        mapping.interactions,
        mapping.items,
        mapping.users,
        max_reject_share=1,
        rejects=rejects_file,
        event_rules=mapping.events,
    )
    rejects = _rejects(loaded)
    numbers = _numbers(loaded)
    source = mapping.interactions
    marks = None if source.returns is None else source.returns.column
    unread = unread_columns(tables["interactions"], source.time.clock, marks)
    return Check(
        mapping,
        {name: _report(found, mapping) for name, found in tables.items()},
        _time_words(times, mapping),
        counts,
        numbers,
        rejects,
        (*loaded.notes, *_float_notes(tables), *unread),
        (
            *_advice(mapping, times, numbers, tables["interactions"].columns),
            *_vector_advice(tables),
            *_reject_advice(loaded),
        ),
    )


def _float_notes(tables: Mapping[str, FoundTable]) -> list[str]:
    """Notes on ids that a float column has given a fraction of zeros."""
    notes: list[str] = []
    for table, found in tables.items():
        for ours in ("user_id", "item_id"):
            if ours not in found.columns or ours not in SCHEMAS[table].required:
                continue
            theirs = found.columns[ours]
            column = found.sample[theirs]
            texts = column.cast(pl.String, strict=False).drop_nulls()
            whole = texts.filter(texts.str.contains(f"^{values.WHOLE}$"))
            if column.dtype.is_float() or not whole.is_empty():
                example = str(whole[0]) if not whole.is_empty() else "42.0"
                bare = example.partition(".")[0]
                notes.append(f"{table}: column {theirs}: {example} and {bare} are one id")
    return notes


def _rejects(loaded: Loaded) -> dict[str, Rejected]:
    """The rejected rows by reason, most first, with the first of each."""
    out: dict[str, Rejected] = {}
    for reason, n in loaded.rejects.items():
        table, colon, bare = reason.partition(": ")
        is_other = bool(colon) and table in ("items", "users")
        of_reason = loaded.rejected.filter(
            pl.col("reason") == (bare if is_other else reason),
            pl.col("table") == (table if is_other else "interactions"),
        )
        samples = of_reason.select("source", "row", "record").head(SAMPLE_REJECTS)
        out[reason] = Rejected(n, tuple(samples.to_dicts()))
    return out


def _numbers(loaded: Loaded) -> dict[str, Any]:
    """Counts and shares of a data set."""
    dataset = loaded.dataset
    events = dataset.events
    wanted = events.to_predict
    pairs = events.user[wanted].astype("int64") * events.n_items + events.item[wanted]
    n_repeats = len(pairs) - len(np.unique(pairs))
    return {
        "rows": loaded.n_read,
        "events": len(events),
        "users": len(np.unique(events.user)),
        "items": events.n_items,
        "first": _moment(int(events.time.min())),
        "last": _moment(int(events.time.max())),
        "repeats": round(n_repeats / len(pairs), 6),
        "negative": len(events.negatives.user),
        "duplicates": loaded.rejects.get("duplicate row", 0),
        "items_without_events": events.n_items - len(np.unique(events.item)),
        "users_without_events": events.n_users - len(np.unique(events.user)),
    }


_FIRST_CLOCK = 100_000_000
_LAST_CLOCK = 253_402_300_799
"""The years 1973 and 9999: other times are shown as the numbers that they are."""


def _moment(seconds: int) -> str | int:
    if not _FIRST_CLOCK <= seconds <= _LAST_CLOCK:
        return seconds
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _report(found: FoundTable, mapping: DataMapping) -> TableReport:
    """A table of the check."""
    first: FoundFile = found.files[0]
    source = next(
        s
        for s in (mapping.interactions, mapping.items, mapping.users)
        if s is not None and s.paths[0] == first.path
    )
    used: set[str | None] = {*found.columns.values(), *(source.kept or ())}
    if isinstance(source, InteractionsSource):
        used |= {source.time.clock, None if source.returns is None else source.returns.column}
    # Of a column of objects some fields may be used.
    used |= {name.split(".")[0] for name in used if name is not None}
    return TableReport(
        source.paths,
        sum(file.n_files for file in found.files),
        None if source.csv is None else _peculiar(source.csv),
        dict(found.columns),
        dict(found.reasons),
        tuple(name for name in found.names if name not in used),
    )


def _peculiar(dialect: Dialect) -> dict[str, Any]:
    """What a dialect says that the usual one does not."""
    usual = asdict(Dialect())
    return {name: value for name, value in asdict(dialect).items() if value != usual[name]}


def _time_words(times: FoundTimes, mapping: DataMapping) -> str:
    given = mapping.interactions.time
    words = times.words if given.clock is None else f"{times.words}, the latter from {given.clock}"
    return f"{words}, in {given.zone}" if _is_naive(times) else words


def _advice(
    mapping: DataMapping, times: FoundTimes, numbers: Mapping[str, Any], columns: Mapping[str, str]
) -> list[str]:
    """What to set, or to look at."""
    out: list[str] = []
    if numbers["repeats"] >= MANY_REPEATS:
        out.append(
            f"{numbers['repeats']:.1%} of the events to predict are of an item that the user had: "
            "set SHORTLIST_REPEATS=allow to recommend such items again"
        )
    rules = mapping.events
    guessed = unknown_types(rules)
    if guessed:
        out.append(
            f"the weight of event type {', '.join(guessed)} is a guess: correct it under [events]"
        )
    if "rating" in columns and numbers["negative"] == 0:
        out.append(
            "all ratings count as liked: negative_below under [events] makes lower ones "
            "negative feedback, such as negative_below = 3 for one to five stars"
        )
    if rules.weights:
        targets = ", ".join(kind.name for kind in rules.kinds if kind.is_target)
        out.append(
            f"events of type {targets} are predicted and evaluated: "
            "name others under [events] targets"
        )
    if _is_naive(times) and mapping.interactions.time.zone == "UTC":
        out.append("times do not say their zone, UTC is taken: name it by --zone Europe/Berlin")
    return out


def _reject_advice(loaded: Loaded) -> list[str]:
    """What to do where the other commands will stop, because too many events are rejected."""
    is_event = pl.col("table") == "interactions"
    share = loaded.rejected.filter(is_event).height / loaded.n_read
    if share <= MANY_REJECTS:
        return []
    enough = math.ceil(100 * share) / 100
    advice = (
        f"{share:.1%} of the interactions are rejected, and commands stop above "
        f"{MANY_REJECTS:.0%}: mend the rows, or give --max-reject-share {enough:g}"
    )
    return [advice]


def _vector_advice(tables: Mapping[str, FoundTable]) -> list[str]:
    """What to do with the items' vectors of another name than the one that is learnt from."""
    if "items" not in tables:
        return []
    sample = tables["items"].sample
    vectors = [n for n, t in sample.schema.items() if n != EMBEDDING and _is_vector(t)]
    return [
        f"items: column {name} holds lists of numbers: name it {EMBEDDING} to learn from it"
        for name in vectors
    ]


def _is_vector(dtype: pl.DataType) -> bool:
    return isinstance(dtype, (pl.List, pl.Array)) and dtype.inner.is_float()


def _is_naive(times: FoundTimes) -> bool:
    return not times.says_zone and "since" not in times.words and "sequence" not in times.words


def rule_lines(rules: EventRules, mark: ReturnMark | None) -> list[str]:
    """What the rules of events say, a line a rule."""
    lines = [f"{name} counts {weight:g}" for name, weight in rules.weights.items()]
    if mark is not None:
        lines.append(f"rows with {mark.column} = {' or '.join(mark.values)} are returns")
    if rules.negative_below != EventRules().negative_below:
        lines.append(f"a rating below {rules.negative_below:g} is negative feedback")
    if rules.negative:
        lines.append(f"negative feedback: {', '.join(rules.negative)}")
    return lines
