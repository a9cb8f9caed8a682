"""Loads the three tables into a validated `Dataset`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.data import id_spelling
from shortlist.recsys.data.attributes import tokenised
from shortlist.recsys.data.drained import IsForgotten, with_drained, without_users
from shortlist.recsys.data.event_meaning import meaning_notes, refuse_nothing_to_predict
from shortlist.recsys.data.input_schema import (
    DRAINED_EVENTS,
    INTERACTIONS,
    ITEMS,
    READER_COLUMNS,
    USERS,
)
from shortlist.recsys.data.item_attributes import MAX_CELLS, ItemUse, item_columns
from shortlist.recsys.data.readers import RawTable, read
from shortlist.recsys.data.reject_reasons import described
from shortlist.recsys.data.sources import ItemsSource, TableSource
from shortlist.recsys.data.validation import (
    UNKNOWN_ITEM,
    CheckedInteractions,
    CheckedTable,
    check_interactions,
    check_items,
    check_users,
    counts,
    refuse_above,
    sorted_events,
    users_union,
    write_rejects,
)
from shortlist.recsys.errors import InvalidData, InvalidSettings
from shortlist.recsys.event_rules import ONE_KIND, EventRules
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, Dataset
from shortlist.recsys.models.feedback import with_feedback
from shortlist.recsys.models.interactions import Events, Float32, Int32
from shortlist.recsys.models.ties import tied_share

_OWN = ("_id", "_title", "_categories", "_year")
"""Columns of the checked items table that are none of its own attributes."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A data set and the record of its loading.

    rejects: reason -> rows rejected, over all tables, with those of drained events under
    `events: `; n_read: rows of the interactions table read, rejected ones too; notes: sentences on
    what was left out; n_drained: drained events read with the table, rejected ones too.
    """

    dataset: Dataset
    rejects: dict[str, int]
    n_read: int
    notes: tuple[str, ...] = ()
    n_drained: int = 0
    rejected: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Rejected rows of all tables: table, source, row, reason, record."""


def load(
    interactions: str | TableSource,
    items: str | TableSource | None = None,
    users: str | TableSource | None = None,
    *,
    max_reject_share: float = 0.05,
    rejects: Path | None = None,
    positive_rating: float | None = None,
    events: str | None = None,
    is_forgotten: IsForgotten | None = None,
    event_rules: EventRules | None = None,
) -> Loaded:
    """Loads and validates tables; see `input_schema`.

    A table is a path (a file, a directory, a glob, an s3:// address), or a source that says more.

    Without an items table the items are those of the interactions. A users table may add users who
    have no events.

    rejects: the Parquet file for rejected rows, written before a load is refused.
    positive_rating: interactions whose rating (or weight, where there is one) is lower, or missing,
    are left out, and not counted as rejected; negative feedback stays.
    events: the address of drained events (see `event_files`), which count as interactions, but
    whose rejects never stop a load.
    is_forgotten: whether the rows of a user, whose id is text, are left out.
    event_rules: what the types and weights of events mean; None takes the default rules.

    Raises:
        InvalidData: a table cannot be read, breaks the schema, has no valid row, or lost too many
            rows; or no interaction reaches positive_rating, or none is left to predict.
        InvalidSettings: max_reject_share is not a share.
        ArtefactsUnavailable: S3 did not answer.
    """
    if not 0 <= max_reject_share <= 1:
        raise InvalidSettings(
            f"max_reject_share is {max_reject_share}: it must be from 0 to 1; 0.05 is the default"
        )
    tables = _read(interactions, items, users, events, is_forgotten)
    items_checked = None if tables.items is None else check_items(tables.items)
    users_checked = None if tables.users is None else check_users(tables.users)
    known_items = None if items_checked is None else items_checked.frame["_id"]
    checked = check_interactions(tables.interactions, known_items, event_rules)
    checks = [each for each in (items_checked, users_checked, checked.checked) if each is not None]
    hints = _spelling_hints(checked, items_checked, users_checked)
    _refuse_bad_tables(checks, max_reject_share, rejects, hints)
    rated, rating_notes = _rated_at_least(checked, positive_rating)
    dataset, dataset_notes = _dataset(rated, items_checked, users_checked, _item_use(items))
    drained_notes = _drained_notes(checked.checked, rejects)
    notes = (*tables.notes, *hints, *drained_notes, *rating_notes, *dataset_notes)
    table = checked.checked
    rejected = pl.concat([each.rejected for each in checks])
    return Loaded(dataset, counts(checks), table.n_read, notes, table.n_drained, rejected)


class _Tables(NamedTuple):
    """The tables as read, without deleted users."""

    interactions: RawTable
    items: RawTable | None
    users: RawTable | None

    @property
    def notes(self) -> list[str]:
        """What reading said of them."""
        return [note for raw in self if raw is not None for note in raw.notes]


def _read(
    interactions: str | TableSource,
    items: str | TableSource | None,
    users: str | TableSource | None,
    events: str | None,
    is_forgotten: IsForgotten | None,
) -> _Tables:
    raw_items = None if items is None else read(items, ITEMS)
    raw_events = read(interactions, INTERACTIONS)
    if events is not None:
        raw_events = with_drained(raw_events, events)
    raw_users = None if users is None else read(users, USERS)
    if is_forgotten is not None:
        raw_events = without_users(raw_events, INTERACTIONS, is_forgotten)
        if raw_users is not None:
            raw_users = without_users(raw_users, USERS, is_forgotten)
    return _Tables(raw_events, raw_items, raw_users)


def _item_use(items: str | TableSource | None) -> ItemUse:
    """Which of the items' own columns to learn from, to show and to filter by, by our names."""
    if not isinstance(items, ItemsSource):
        return ItemUse()
    ours = {theirs: name for name, theirs in items.columns.items()}

    def named(chosen: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if chosen is None:
            return None
        names = (ours.get(name, name) for name in chosen)
        # Ids, titles and categories have their uses anyway.
        return tuple(name for name in names if name == "year" or name not in ITEMS.columns)

    return ItemUse(named(items.learn), named(items.show), named(items.filter))


def _spelling_hints(
    events: CheckedInteractions, items: CheckedTable | None, users: CheckedTable | None
) -> list[str]:
    """Hints at ids that are spelt otherwise in the other table."""
    found: list[str | None] = []
    if items is not None:
        rejected = events.checked.rejected.filter(pl.col("reason") == UNKNOWN_ITEM)
        unknown = rejected["record"].str.json_path_match("$.item_id")
        found.append(id_spelling.hint(unknown, items.frame["_id"], ITEMS.name))
    if users is not None:
        ids = users.frame["_id"]
        unknown = events.user_ids.filter(~events.user_ids.is_in(ids.implode()))
        found.append(id_spelling.hint(unknown, ids, USERS.name))
    return [f"interactions: {hint}" for hint in found if hint is not None]


def _drained_notes(checked: CheckedTable, rejects: Path | None) -> tuple[str, ...]:
    """A note on rejected drained events: they never stop a load, so nobody else says it."""
    bad = checked.rejected.filter(pl.col("table") == DRAINED_EVENTS.name)
    if bad.is_empty():
        return ()
    by_reason = bad["reason"].value_counts(sort=True).sort("reason").rows()
    reasons = ", ".join(f"{reason}: {n}" for reason, n in by_reason)
    where = "name a rejects file to see them"
    if rejects is not None:
        where = f"they are in {str(rejects)!r}"
    n = f"{bad.height} of {checked.n_drained}"
    return (f"events: {n} drained events are left out ({reasons}): {where}",)


def _rated_at_least(
    interactions: CheckedInteractions, least: float | None
) -> tuple[CheckedInteractions, tuple[str, ...]]:
    """The interactions of at least this rating, and a note on the others."""
    if least is None:
        return interactions, ()
    frame = interactions.checked.frame
    is_positive = ~pl.col("_negative")
    n_positive = frame.select(is_positive.sum()).item()
    kept = frame.filter(~is_positive | (pl.col("_weight").fill_nan(None) >= least))
    if n_positive and kept.select(is_positive.sum()).item() == 0:
        best = frame["_weight"].max()
        reason = "there is no rating at all" if best is None else f"the best is {best!r}"
        raise InvalidData(
            f"interactions: none of {n_positive} is rated {least} or better ({reason}): "
            "lower the least positive rating"
        )
    n_dropped = frame.height - kept.height
    note = f"interactions: {n_dropped} of {n_positive} are rated below {least}, and left out"
    return replace(interactions, checked=replace(interactions.checked, frame=kept)), (note,)


def _refuse_bad_tables(
    checks: Sequence[CheckedTable],
    max_reject_share: float,
    rejects: Path | None,
    hints: Sequence[str],
) -> None:
    """Writes the rejected rows, and raises InvalidData where a table has too many of them."""
    if rejects is not None:  # first, so that a refused load leaves something to look at
        write_rejects(checks, rejects)
    refuse_above(max_reject_share, checks, rejects, hints)
    for checked in checks:
        _refuse_empty(checked, rejects, hints)


def _refuse_empty(checked: CheckedTable, rejects: Path | None, hints: Sequence[str]) -> None:
    if checked.frame.is_empty():
        where = f"; they are in {str(rejects)!r}" if rejects is not None else ""
        raise InvalidData(
            f"{checked.schema.name}: none of {checked.n_read} rows is valid "
            f"({'; '.join([described(checked.rejected), *hints])}): mend the table{where}"
        )


def _dataset(
    interactions: CheckedInteractions,
    items: CheckedTable | None,
    users: CheckedTable | None,
    item_use: ItemUse,
) -> tuple[Dataset, tuple[str, ...]]:
    """The data set, and notes on what it leaves out."""
    notes: tuple[str, ...] = ()
    vectors_digest = b""
    catalogue = _bare_catalogue(interactions.item_ids)
    if items is not None:
        catalogue, notes, vectors_digest = _catalogue(items.frame, item_use)
    user_table = None
    if users is not None:
        user_table = users.frame.drop(*READER_COLUMNS, "user_id", strict=False)
    table_ids = user_table["_id"] if user_table is not None else None
    user_ids, rows = users_union(interactions.user_ids, table_ids)
    events = _events(interactions, rows, len(user_ids), len(catalogue))
    refuse_nothing_to_predict(events)
    attributes = pl.DataFrame({"_id": user_ids})
    if user_table is not None:
        attributes = attributes.join(user_table, on="_id", how="left", maintain_order="left")
    vocabulary, tokens, attribute_notes = tokenised(attributes.drop("_id"))
    meaning = meaning_notes(interactions.checked.frame, events, interactions.rules)
    words = id_spelling.words_for_missing(user_ids, events.user, "user_id")
    words += id_spelling.words_for_missing(pl.Series(catalogue.ids), events.item, "item_id")
    notes = (*notes, *words, *_tie_notes(events), *meaning)
    if {"weight", "rating"} <= set(interactions.checked.frame.columns):
        note = "interactions: there are both a weight and a rating, and only the weight is used"
        notes = (*notes, note)
    ids = tuple(user_ids.to_list())
    rules = interactions.rules
    fingerprint = _fingerprint(events, catalogue, ids, tokens, vocabulary, rules, vectors_digest)
    dataset = Dataset(events, catalogue, ids, tokens, vocabulary, fingerprint)
    return dataset, (*notes, *attribute_notes)


def _tie_notes(events: Events) -> tuple[str, ...]:
    """A note where events of a user share a time."""
    share = tied_share(events)
    if share == 0:
        return ()
    note = (
        f"interactions: {share:.1%} of the events share their time with another event of their "
        "user: among these there is no order, so it is drawn, and no hold-out or label window "
        "parts them"
    )
    return (note,)


def _events(interactions: CheckedInteractions, rows: Int32, n_users: int, n_items: int) -> Events:
    """The interactions as arrays; `rows` maps their users to user rows in the same order."""
    frame = sorted_events(interactions)
    events = Events(
        rows[frame["_user"].to_numpy()].astype(np.int32),
        frame["_item"].cast(pl.Int32).to_numpy(writable=True),
        frame["_time"].to_numpy(writable=True),
        _nan_filled(frame["_weight"]),
        n_users,
        n_items,
        frame["_kind"].to_numpy(writable=True),
        kinds=interactions.rules.kinds,
    )
    negative = interactions.checked.frame.filter(pl.col("_negative"))
    if negative.is_empty():
        return events
    user = rows[negative["_user"].to_numpy()].astype(np.int32)
    item = negative["_item"].cast(pl.Int32).to_numpy()
    return with_feedback(events, user, item, negative["_time"].to_numpy())


def _nan_filled(column: pl.Series) -> Float32:
    """float32[n]: numbers with NaN in place of nulls."""
    filled = column.cast(pl.Float32).fill_null(float("nan"))
    values: Float32 = filled.to_numpy(writable=True).astype(np.float32, copy=False)
    values[np.isnan(values)] = np.float32(np.nan)  # one NaN, because the fingerprint reads bits
    return values


def _catalogue(frame: pl.DataFrame, use: ItemUse) -> tuple[Catalogue, tuple[str, ...], bytes]:
    """The items table as a catalogue, notes on what is left out, and a digest of the vectors."""
    lists = frame["_categories"]
    names, notes = _learnt_categories(lists)
    own = item_columns(frame.drop(_OWN), frame["_year"], use, len(names))
    catalogue = Catalogue(
        tuple(frame["_id"].to_list()),
        tuple(frame["_title"].to_list()),
        tuple(tuple(c) for c in lists.to_list()),
        tuple(names),
        _membership(lists, names),
        _nan_filled(frame["_year"]),
        own.attributes,
        own.content,
    )
    return catalogue, (*notes, *own.notes), own.vectors_digest


def _membership(lists: pl.Series, names: list[str]) -> Float32:
    """float32[n_items, C]: 1 where an item has a category."""
    membership = np.zeros((len(lists), len(names)), np.float32)
    if not names:
        return membership
    rows = pl.DataFrame({"row": np.arange(len(lists)), "name": lists})
    pairs = rows.explode("name").drop_nulls().filter(pl.col("name").is_in(names))
    columns = pairs["name"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int64)
    membership[pairs["row"].to_numpy(), columns.to_numpy()] = 1.0
    return membership


def _learnt_categories(lists: pl.Series) -> tuple[list[str], tuple[str, ...]]:
    """The commonest categories, sorted, as MAX_CELLS allows, and a note on the others."""
    names = lists.explode(empty_as_null=True, keep_nulls=True).drop_nulls().rename("name")
    frequency = names.value_counts().sort(["count", "name"], descending=[True, False])
    most = MAX_CELLS // max(1, len(lists))
    kept = frequency["name"].head(most).sort().to_list()
    if len(kept) == frequency.height:
        return kept, ()
    note = (
        f"items: {frequency.height} categories of {len(lists)} items are too many, "
        f"the commonest {most} are taken: "
        "the others are shown and filtered by, but not learnt from"
    )
    return kept, (note,)


def _bare_catalogue(ids: pl.Series) -> Catalogue:
    """A catalogue without titles, categories and years."""
    texts, n = tuple(ids.to_list()), len(ids)
    return Catalogue(
        texts, texts, ((),) * n, (), np.zeros((n, 0), np.float32), np.full(n, np.nan, np.float32)
    )


def _fingerprint(
    events: Events,
    catalogue: Catalogue,
    user_ids: Sequence[str],
    attributes: Int32,
    vocabulary: AttributeVocabulary,
    rules: EventRules,
    vectors_digest: bytes,
) -> str:
    """Hex sha256 of the validated content, whatever machine, files and types it came from."""
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [events.user, events.item, events.time, events.weight]
    arrays += [catalogue.year, attributes]
    # Data without any of it keeps the fingerprint that it had before there were kinds and feedback.
    has_meaning = events.kinds != ONE_KIND or len(events.negatives.user) > 0
    if has_meaning:
        negatives = events.negatives
        arrays += [events.kind, negatives.user, negatives.item, negatives.time]
    for array in arrays:
        digest.update(f"{array.dtype.kind}{array.dtype.itemsize}{array.shape}".encode())
        digest.update(_little_endian(array).data)
    for texts in (user_ids, catalogue.ids, catalogue.titles, catalogue.categories):
        digest.update(json.dumps(texts).encode())
    digest.update(_of_own_columns(catalogue, vectors_digest))
    digest.update(json.dumps([vocabulary.columns, vocabulary.tokens, vocabulary.edges]).encode())
    if rules != EventRules():
        digest.update(json.dumps(asdict(rules), sort_keys=True).encode())
    return digest.hexdigest()


def _of_own_columns(catalogue: Catalogue, vectors_digest: bytes) -> bytes:
    """What the fingerprint covers of the items' own columns; nothing where there are none."""
    own = [a for a in catalogue.attributes if a.name != "year"]  # whose values are covered
    parts = [json.dumps([a.name, a.kind.value, a.values]).encode() for a in own]
    parts += [
        json.dumps([c.name, c.labels, c.rows.tolist()]).encode() for c in catalogue.content.columns
    ]
    return b"".join((*parts, vectors_digest))


def _little_endian(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
