"""Proposes which table a file is, and which column is what.

Names speak first, in the languages of common exports; then the values: how many of them are times,
numbers or few enough, and which columns of two tables share their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.data.categories import separator_of
from shortlist.recsys.data.check_events import are_known_types
from shortlist.recsys.data.check_files import FoundFile
from shortlist.recsys.data.check_times import find_times
from shortlist.recsys.data.column_names import DATE_PARTS, closeness, nearest, words
from shortlist.recsys.data.input_schema import INTERACTIONS, ITEMS, USERS, TableSchema
from shortlist.recsys.data.readers import with_equal_types
from shortlist.recsys.errors import InvalidData

SCHEMAS = {"interactions": INTERACTIONS, "items": ITEMS, "users": USERS}

KNOWN = 0.9
"""From here on a name is one that is known, see `closeness`."""

_LIKE = 0.65
"""From here on a name is like a known one: CustNr, itm_id. Less is chance."""

_MOSTLY = 0.5
_NEARLY = 0.95
_MAX_TYPES = 50
"""Most distinct event types: a column of more values is something else."""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """Files that are one table: their columns, as our name -> theirs, with how each was found."""

    files: tuple[FoundFile, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of all its files."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.columns))

    @property
    def known(self) -> tuple[str, ...]:
        """The columns of all its files, and the fields within them."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.known))

    @property
    def sample(self) -> pl.DataFrame:
        """The first rows of a file of each header."""
        firsts = {file.columns: file for file in reversed(self.files)}
        samples = [file.sample for file in self.files if firsts[file.columns] is file]
        if len(samples) == 1:
            return samples[0]
        return pl.concat(with_equal_types(samples), how="diagonal")

    def values(self, column: str) -> pl.Series:
        """All values of one column, as text."""
        return pl.concat([file.values(column) for file in self.files if column in file.known])


def found_tables(
    files: Sequence[FoundFile], given: Mapping[str, Sequence[str]], columns: Mapping[str, str]
) -> dict[str, FoundTable]:
    """The tables that files are.

    given: table -> paths that are it, whatever they look like; columns: our name -> theirs, where a
    person says so.

    Raises:
        InvalidData: no file has the columns of interactions, or a file fits no table.
    """
    groups = _groups(files)
    placed = {table: _given_group(groups, paths) for table, paths in given.items() if paths}
    taken = [file for group in placed.values() for file in group]
    rest = [left for group in groups if (left := tuple(f for f in group if f not in taken))]
    if "interactions" not in placed:
        placed["interactions"] = rest.pop(_likeliest(rest, columns))
    events = _with_columns(placed["interactions"], INTERACTIONS, columns)
    more = [group for group in rest if _are_more(group, events, columns)]
    if more:
        files_of_events = (*events.files, *(file for group in more for file in group))
        events = _with_columns(files_of_events, INTERACTIONS, columns)
    tables = {"interactions": events}
    for group in rest:
        if group in more:
            continue
        table = _table_of(group, events, columns)
        if table in placed:
            raise InvalidData(
                f"{group[0].path!r} and {placed[table][0].path!r} both look like {table}: "
                f"say which is what by --interactions, --items and --users"
            )
        placed[table] = group
    for table in ("items", "users"):
        if table in placed:
            tables[table] = _with_columns(placed[table], SCHEMAS[table], columns)
    return _with_shared_ids(tables, columns)


def _are_more(group: tuple[FoundFile, ...], events: FoundTable, columns: Mapping[str, str]) -> bool:
    """Whether files are more interactions, with other columns besides.

    Raises:
        InvalidData: they are, by other names.
    """
    names = [events.columns[ours] for ours in INTERACTIONS.required]
    if set(names) <= set(group[0].known):
        return True
    if _event_score(group, columns) == 0:
        return False
    found, _ = _assigned(group[0].known, group[0].sample, INTERACTIONS, columns)
    ids = (found["user_id"], found["item_id"])
    if set(ids) & set(_keys(group[0])):  # an item or a user stands once in its table
        return False
    raise InvalidData(
        f"{events.files[0].path!r} and {group[0].path!r} both look like interactions, and call "
        f"their columns {', '.join(names)} and "
        f"{', '.join(found[ours] for ours in INTERACTIONS.required)}: bring them to the same "
        "names, or say which is what by --interactions, --items and --users"
    )


def _groups(files: Sequence[FoundFile]) -> list[tuple[FoundFile, ...]]:
    """Files of the same columns."""
    by_columns: dict[tuple[str, ...], list[FoundFile]] = {}
    for file in files:
        by_columns.setdefault(tuple(sorted(file.columns)), []).append(file)
    return [tuple(group) for group in by_columns.values()]


def _given_group(
    groups: Sequence[tuple[FoundFile, ...]], paths: Sequence[str]
) -> tuple[FoundFile, ...]:
    return tuple(file for group in groups for file in group if file.path in paths)


def _likeliest(groups: Sequence[tuple[FoundFile, ...]], columns: Mapping[str, str]) -> int:
    """The group that looks most like interactions.

    Raises:
        InvalidData: none has users, items and times.
    """
    scores = [_event_score(group, columns) for group in groups]
    best = max(range(len(groups)), key=lambda i: scores[i])
    if scores[best] == 0:
        raise InvalidData(
            "no file has a column of users, one of items and one of times: "
            f"{'; '.join(_described(group[0], columns) for group in groups)}: "
            f"{_to_be_joined(groups, columns)}"
            "give the file of the interactions by --interactions PATH, and columns by "
            "--column user_id=NAME; where there are no times, add a column that numbers the rows "
            "in their order"
        )
    return best


def _to_be_joined(groups: Sequence[tuple[FoundFile, ...]], columns: Mapping[str, str]) -> str:
    """The remedy where two files together have what one lacks: orders, and their lines."""
    for one, other in combinations((group[0] for group in groups), 2):
        found = [
            set(_assigned(file.known, file.sample, INTERACTIONS, columns)[0])
            for file in (one, other)
        ]
        shared = [name for name in one.columns if name in other.columns]
        ids = {"user_id", "item_id"}  # of the times another message says what to do
        if shared and ids <= found[0] | found[1] and not any(ids <= each for each in found):
            return f"join {one.path!r} and {other.path!r} by {shared[0]} into one file, or "
    return ""


def _described(file: FoundFile, columns: Mapping[str, str]) -> str:
    if file.csv is not None and not file.csv.header:
        return _without_header(file)
    if len(file.columns) == 1 and "::" in file.columns[0]:
        return f"{file.path!r} has fields parted by '::', which a name that ends in .dat says"
    assigned, _ = _assigned(file.known, file.sample, INTERACTIONS, columns)
    found = [f"{theirs} may be {ours}" for ours, theirs in assigned.items()]
    found += filter(
        None, (_why_not(file, ours) for ours in INTERACTIONS.required if ours not in assigned)
    )
    return f"{file.path!r} has {', '.join(file.columns)}" + (
        f" ({', '.join(found)})" if found else ""
    )


def _without_header(file: FoundFile) -> str:
    """The first row of a file without a header, and what its columns may be."""
    first = file.sample.row(0, named=True)
    shown = [f"{name} {values.shown(value)}" for name, value in first.items()]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    said = f"{file.path!r} has no header, its first row is {', '.join(shown[:_SHOWN])}{more}"
    guess = _guessed(file.sample)
    if not set(INTERACTIONS.required) <= set(guess):
        return said
    options = " ".join(f"--column {ours}={theirs}" for ours, theirs in guess.items())
    return f"{said}, which may be {options}"


_SHOWN = 8
"""Columns of a first row in a message."""

_MOST_STARS = 10


def _guessed(sample: pl.DataFrame) -> dict[str, str]:
    """What nameless columns may be: times, types and ratings by their values, then the ids."""
    free = list(sample.columns)
    tests: dict[str, Callable[[pl.Series], bool]] = {
        "timestamp": _are_clock_times,
        "event_type": are_known_types,
        "rating": _are_stars,
        "user_id": _are_whole,
        "item_id": _are_whole,
    }
    out: dict[str, str] = {}
    for ours, is_such in tests.items():
        chosen = next((name for name in free if is_such(sample[name])), None)
        if chosen is not None:
            out[ours] = chosen
            free.remove(chosen)
    return {ours: out[ours] for ours in INTERACTIONS.columns if ours in out}


def _are_stars(column: pl.Series) -> bool:
    """Whether a column has a few small numbers."""
    number = column.cast(pl.Float64, strict=False)
    is_small = bool(number.is_between(0, _MOST_STARS).all()) and number.null_count() == 0
    return is_small and 1 < number.n_unique() <= 2 * _MOST_STARS + 1  # halves of stars


def _are_whole(column: pl.Series) -> bool:
    """Whether a column has texts or whole numbers, and several of them."""
    number = column.cast(pl.Float64, strict=False).drop_nulls()
    return column.n_unique() > 1 and bool((number == number.floor()).all())


def _why_not(file: FoundFile, ours: str) -> str:
    """Why the column that is named most like one of ours is not taken for it."""
    parts = _date_parts(file.sample) if ours == "timestamp" else ()
    if parts:
        return _joined_date(parts)
    name = nearest(ours, file.known, 1)[0]
    column = file.sample[name]
    if closeness(name, ours) < _LIKE or _may_be(column, ours):
        return ""
    if column.null_count() == len(column):
        return f"{name} has no values"
    if isinstance(column.dtype, (pl.List, pl.Array)):
        return f"{name} holds lists, and is to have a row for each of their values"
    if not (fields.is_text(column.dtype) or column.dtype.is_numeric()):
        return f"{name} is no {ours}, as it is of type {column.dtype}"
    example = values.shown(column.drop_nulls()[0])
    return f"{name} holds {example}, which is read as no time: say how by a mapping file's format"


_LONGEST_MONTH = 31
_OF_WEEKS = frozenset({"dow", "week", "weekday", "woche", "wochentag", "semaine", "semana"})


def _date_parts(sample: pl.DataFrame) -> tuple[str, ...]:
    """The columns of the year, the month and the day; none where no day stands by a month."""
    found: dict[str, str] = {}
    for part, known in reversed(DATE_PARTS.items()):  # the day of a month first, then its month
        for name in sample.columns:
            is_free = name not in found.values() and not words(name) & _OF_WEEKS
            if part not in found and is_free and words(name) & known:
                found[part] = name
    parts = tuple(found[part] for part in DATE_PARTS if part in found)
    day = found.get("day")
    if day is None or "month" not in found or not _can_be_ids(sample.schema[day]):
        return ()
    number = sample[day].drop_nulls().cast(pl.Float64, strict=False)
    is_day = (number == number.floor()) & number.is_between(1, _LONGEST_MONTH)
    return parts if not number.is_empty() and is_day.fill_null(value=False).all() else ()


def _joined_date(parts: Sequence[str]) -> str:
    """The remedy for a date in several columns."""
    return (
        f"the date is in columns {', '.join(parts)}: join them into one, such as "
        "2024-03-01, or name another column by --column timestamp=NAME"
    )


def unread_columns(found: FoundTable, clock: str | None, marks: str | None) -> list[str]:
    """A sentence for each column that is not read as it was meant.

    These are ratings and weights whose texts are no numbers, and items that are baskets. clock: the
    column of times of day; marks: that of returns.
    """
    notes: dict[str, str] = {}
    for ours, example in _EXAMPLES.items():
        name = nearest(ours, found.known, 1)[0]
        known = found.sample[name].drop_nulls()
        is_free = ours not in found.columns and name not in found.columns.values()
        if not is_free or closeness(name, ours) < _LIKE or known.is_empty() or _may_be(known, ours):
            continue
        if name == clock or (name == marks and are_known_types(known)):
            continue
        note = (
            f"interactions: column {name} holds {values.shown(known[0])}, which is read as no "
            f"number, so it is not used: write it as one, such as {example}"
        )
        notes.setdefault(name, note)
    return [*notes.values(), *_baskets(found.columns["item_id"], found.sample)]


_PAIR = 2


def _baskets(name: str, sample: pl.DataFrame) -> list[str]:
    """A sentence where texts of items list several: what is last here is first there."""
    if not fields.is_text(sample.schema[name]):
        return []
    texts = sample[name].cast(pl.String).drop_nulls()
    separator = separator_of(texts)
    if separator is None:
        return []
    listing = texts.filter(texts.str.contains(separator, literal=True))
    parts = listing.str.split(separator).list.eval(pl.element().str.strip_chars())
    recurring = parts.list.last().is_in(parts.list.first().unique().implode())
    # Ids of two parts, a parent and a variant say, are pairs throughout; other whole ids recur.
    are_pairs = bool((parts.list.len() == _PAIR).all())
    if are_pairs or recurring.mean() <= texts.is_duplicated().mean():  # type: ignore[operator]
        return []
    note = f"column {name} holds several ids a row, such as {values.shown(listing[0])}"
    return [f"interactions: {note}, which are read as one: give a row for each"]


_EXAMPLES = {"rating": "4 for four stars of five", "weight": "1200 for as many pieces"}


def _event_score(group: tuple[FoundFile, ...], columns: Mapping[str, str]) -> float:
    """How much files look like interactions; 0 where a required column is missing."""
    assigned, _ = _assigned(group[0].known, group[0].sample, INTERACTIONS, columns)
    if not set(INTERACTIONS.required) <= set(assigned):
        return 0.0
    rows = group[0].sample.select(assigned["user_id"], assigned["item_id"])
    # Users come again in interactions, and not in a table of users.
    repeated = 1 - rows[assigned["user_id"]].n_unique() / max(1, rows.height)
    names = (closeness(assigned[ours], ours) for ours in INTERACTIONS.required)
    return sum(names) + repeated


def _table_of(group: tuple[FoundFile, ...], events: FoundTable, columns: Mapping[str, str]) -> str:
    """Whether files are the items or the users, by the ids that they share with the events.

    Raises:
        InvalidData: they share none, and no name says it.
    """
    file = group[0]
    scores = {table: _best_key(file, events, table, columns)[0] for table in ("items", "users")}
    best = max(scores, key=lambda table: scores[table])
    if scores[best] == 0:
        names = {t: max(closeness(n, f"{t[:-1]}_id") for n in file.columns) for t in scores}
        best = max(names, key=lambda table: names[table])
        if names[best] < _LIKE:
            raise InvalidData(
                f"{file.path!r} shares no ids with {events.files[0].path!r}, so it "
                f"looks neither like items nor like users (columns {', '.join(file.columns)}): "
                "say what it is by --items or --users, or leave it out"
            )
    return best


def _best_key(
    file: FoundFile, events: FoundTable, table: str, columns: Mapping[str, str]
) -> tuple[float, str, float]:
    """How well the best id column of a file fits a table, its name, and the share of ids it has.

    The share and the name count alike: small numbers are shared by chance.
    """
    ours = f"{table[:-1]}_id"
    theirs = events.columns.get(ours)
    if theirs is None:
        return 0.0, "", 0.0
    ids = _canonical(events.sample[theirs]).drop_nulls().unique()
    keys = [columns[ours]] if columns.get(ours) in file.known else _keys(file)
    shares = {key: _shared(ids, _canonical(file.values(key))) for key in keys}
    scores = [
        (share + closeness(key, ours), key, share) for key, share in shares.items() if share > 0
    ]
    return max(scores, key=lambda score: score[0], default=(0.0, "", 0.0))


def _shared(ids: pl.Series, keys: pl.Series) -> float:
    return float(ids.is_in(keys.drop_nulls().unique().implode()).mean() or 0)  # type: ignore[arg-type]


def _keys(file: FoundFile) -> list[str]:
    """The columns of a file of which nearly every value is there, and another."""
    out: list[str] = []
    for name in file.columns:
        column = file.sample[name]
        dtype = column.dtype
        is_id = fields.is_text(dtype) or dtype.is_integer() or dtype.is_decimal()
        distinct = column.n_unique() / max(1, len(column))
        if is_id and distinct >= _NEARLY and column.null_count() <= (1 - _NEARLY) * len(column):
            out.append(name)
    return out


def _canonical(column: pl.Series) -> pl.Series:
    """Ids as text, as they are compared; null where a column holds none."""
    dtype = column.dtype
    if not _can_be_ids(dtype):
        return pl.Series(column.name, [None] * len(column), dtype=pl.String)
    return column.to_frame("id").select(fields.text_ids("id", dtype, "file")).to_series()


def _with_columns(
    group: tuple[FoundFile, ...], schema: TableSchema, columns: Mapping[str, str]
) -> FoundTable:
    table = FoundTable(group)
    assigned, reasons = _assigned(table.known, table.sample, schema, columns)
    return FoundTable(group, assigned, reasons)


def _with_shared_ids(
    tables: dict[str, FoundTable], columns: Mapping[str, str]
) -> dict[str, FoundTable]:
    """The tables with the id columns of items and users by the ids that they share with events.

    Raises:
        InvalidData: a table has no column of ids.
    """
    events = tables["interactions"]
    out = dict(tables)
    for table in ("items", "users"):
        if table not in tables:
            continue
        found = tables[table]
        if columns.get(f"{table[:-1]}_id") not in found.known:
            found = _by_overlap(found, events, table)
        out[table] = found
        if f"{table[:-1]}_id" not in columns:
            out["interactions"] = _with_ids_of(found, out["interactions"], table)
    for table, found in out.items():
        missing = [ours for ours in SCHEMAS[table].required if ours not in found.columns]
        if missing:
            raise InvalidData(
                f"{table}: which column of {found.files[0].path!r} is {missing[0]} cannot be "
                f"found out; {_remedy(found, missing[0])}"
            )
    return out


def _remedy(found: FoundTable, ours: str) -> str:
    parts = _date_parts(found.sample) if ours == "timestamp" else ()
    if parts:
        return _joined_date(parts)
    return f"nearest are {', '.join(nearest(ours, found.names))}: say so by --column {ours}=NAME"


def _by_overlap(found: FoundTable, events: FoundTable, table: str) -> FoundTable:
    """The table with the id column that fits best, where it shares most ids with the events."""
    ours = f"{table[:-1]}_id"
    _, best, share = _best_key(found.files[0], events, table, {})
    if share < _MOSTLY or found.columns.get(ours) == best:
        return found
    reason = f"{share:.0%} of the ids of {events.columns[ours]} are in it"
    # What was taken for something else is the id.
    others = {name: value for name, value in found.columns.items() if value != best}
    reasons = {name: found.reasons[name] for name in others}
    return replace(found, columns={**others, ours: best}, reasons={**reasons, ours: reason})


def _with_ids_of(found: FoundTable, events: FoundTable, table: str) -> FoundTable:
    """The events with the id column whose ids a table has, where theirs are mostly others.

    A review may name the variant before the product that the table of products has.
    """
    ours = f"{table[:-1]}_id"
    theirs = found.columns.get(ours)
    if theirs is None:
        return events
    keys = _canonical(found.values(theirs))
    free = [n for n in events.known if n not in events.columns.values() and _is_id_name(n, ours)]
    shares = {
        name: _shared(_canonical(events.sample[name]).drop_nulls().unique(), keys)
        for name in (events.columns[ours], *free)
    }
    best = max(shares, key=lambda name: shares[name])
    if shares[events.columns[ours]] >= _MOSTLY or shares[best] < _MOSTLY:
        return events
    reason = f"{shares[best]:.0%} of its ids are in {theirs} of the {table}"
    return replace(
        events,
        columns={**events.columns, ours: best},
        reasons={**events.reasons, ours: reason},
    )


def _is_id_name(name: str, ours: str) -> bool:
    return closeness(name, ours) >= _LIKE


def _assigned(
    names: Sequence[str], sample: pl.DataFrame, schema: TableSchema, columns: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Our name -> theirs, and why: required columns first, the closest names first."""
    out = {o: t for o, t in columns.items() if o in schema.columns and t in names}
    reasons = dict.fromkeys(out, "as given")
    for ours in schema.columns:
        if ours in out or (ours == "rating" and "weight" in out):
            continue
        least = _LIKE if ours in schema.required else KNOWN
        free = [name for name in names if name not in out.values()]
        scored = [(closeness(name, ours), name) for name in free]
        ranked = sorted((s for s in scored if s[0] >= least), key=lambda s: -s[0])
        if ours == "timestamp":
            parts = _date_parts(sample)
            ranked = [score for score in _finest_first(ranked, sample) if score[1] not in parts]
        if ours == "item_id":  # a column of one value, such as a line's number, tells no items
            ranked.sort(key=lambda score: sample[score[1]].n_unique() == 1)
        chosen = next((name for _, name in ranked if _may_be(sample[name], ours)), None)
        if chosen is None and ours == "timestamp":
            chosen = _only_times(sample, free)
        if chosen is not None:
            out[ours] = chosen
            reasons[ours] = "by its name" if closeness(chosen, ours) >= KNOWN else "nearest name"
            if not ranked:
                reasons[ours] = "by its values"
    if "rating" in out and "weight" in out:  # a rating is the stronger word
        other = "rating" if reasons["weight"] == "as given" else "weight"
        del out[other], reasons[other]
    return out, reasons


def _finest_first(
    ranked: Sequence[tuple[float, str]], sample: pl.DataFrame
) -> list[tuple[float, str]]:
    """Known names of times by how many they tell apart: a time of day before its date."""
    known = [score for score in ranked if score[0] >= KNOWN]
    finest = sorted(known, key=lambda score: -sample[score[1]].n_unique())
    return [*finest, *ranked[len(known) :]]


def _only_times(sample: pl.DataFrame, names: Iterable[str]) -> str | None:
    """The one column of texts or moments that are times; None where there are several.

    Digits may be many things, so a written date goes before them.
    """
    texts = [name for name in names if not sample[name].dtype.is_numeric()]
    times = [name for name in texts if _are_clock_times(sample[name])]
    written = [
        name
        for name in times
        if _share_of_numbers(sample[name].drop_nulls(), "timestamp") < _MOSTLY
    ]
    best = written or times
    return best[0] if len(best) == 1 else None


def _are_clock_times(column: pl.Series) -> bool:
    found = find_times(column)
    return found.share >= _MOSTLY and found.is_clock


def _may_be(column: pl.Series, ours: str) -> bool:
    """Whether the values of a column can be what its name says."""
    known = column.drop_nulls()
    if ours in ("user_id", "item_id"):
        return _can_be_ids(column.dtype) and not known.is_empty()
    if ours == "timestamp":
        return find_times(column).share >= _MOSTLY
    if ours in ("rating", "weight", "year"):
        return _share_of_numbers(known, ours) >= _NEARLY
    if ours == "event_type":
        return fields.is_text(column.dtype) and 0 < known.n_unique() <= _MAX_TYPES
    if ours == "title":
        return fields.has_text(column.dtype)
    return fields.is_text(column.dtype) or fields.is_plain_list(column.dtype)


def _can_be_ids(dtype: pl.DataType) -> bool:
    return fields.is_text(dtype) or dtype.is_numeric()


def _share_of_numbers(known: pl.Series, ours: str) -> float:
    if known.dtype.is_numeric() or known.dtype == pl.Boolean:
        return 1.0
    if not fields.is_text(known.dtype) or known.is_empty():
        return 0.0
    texts = fields.with_decimal_point(known.cast(pl.String)).str.strip_chars()
    texts = texts.filter(texts != "").alias(ours)
    read = fields.numbers if ours == "year" else fields.flags_or_numbers
    number = read(ours, pl.String(), "file")
    return float(texts.to_frame().select(number.is_not_null().mean()).item() or 0)
