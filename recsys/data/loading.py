"""From the three tables to a `Dataset`: read, validate, set rejected rows aside, number, sort and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shortlist.recsys.data.attributes import tokenised
from shortlist.recsys.data.drained import Forgotten, joined, without
from shortlist.recsys.data.input_schema import EVENTS, INTERACTIONS, ITEMS, MARKS, USERS
from shortlist.recsys.data.readers import read
from shortlist.recsys.data.validation import (
    Checked,
    Interactions,
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
from shortlist.recsys.models.catalogue import AttributeVocabulary, Catalogue, Dataset
from shortlist.recsys.models.interactions import Events, Float32, Int32
from shortlist.recsys.models.ties import tied_share

MAX_CELLS = 1 << 28
"""Items times categories that models learn from: a GiB for each copy of the matrix. Of more, the commonest are taken."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load gave.

    rejects: reason -> rows rejected, over all tables, with those of drained events under `events:
    `; n_read: rows of the interactions table read, rejected ones too; notes: sentences on what was
    left out; n_drained: drained events read beside the table, rejected ones too.
    """

    dataset: Dataset
    rejects: dict[str, int]
    n_read: int
    notes: tuple[str, ...] = ()
    n_drained: int = 0


def load(
    interactions: str,
    items: str | None = None,
    users: str | None = None,
    *,
    max_reject_share: float = 0.05,
    rejects: Path | None = None,
    positive_rating: float | None = None,
    events: str | None = None,
    is_forgotten: Forgotten | None = None,
) -> Loaded:
    """Load and validate tables from paths, globs or s3:// addresses; see `schemas` for what they hold.

    Without an items table the items are those of the interactions. A users table may add users who
    have no events.
    rejects: the Parquet file for rejected rows, written before a load is refused; positive_rating:
    interactions whose rating (or weight, where there is one) is lower, or missing, are left out,
    and not counted as rejected; events: where drained events are (see `event_files`), which count
    as interactions, but whose rejects never stop a load; is_forgotten: whether a user id, as text,
    is one whose rows are to be left out.

    Raises:
        InvalidData: a table cannot be read, breaks the schema, has no valid row, or lost too many
            rows; or no interaction reaches positive_rating.
        InvalidSettings: max_reject_share is not a share.
        ArtefactsUnavailable: S3 did not answer.
    """
    if not 0 <= max_reject_share <= 1:
        raise InvalidSettings(
            f"max_reject_share is {max_reject_share}: it must be from 0 to 1; 0.05 is the default"
        )
    checked_items = check_items(read(items, ITEMS)) if items is not None else None
    told = read(interactions, INTERACTIONS)
    told = told if events is None else joined(told, events)
    people = read(users, USERS) if users is not None else None
    if is_forgotten is not None:
        told = without(told, INTERACTIONS, is_forgotten)
        people = None if people is None else without(people, USERS, is_forgotten)
    checked_users = check_users(people) if people is not None else None
    known = checked_items.frame["_id"] if checked_items is not None else None
    found = check_interactions(told, known)
    checks = [c for c in (checked_items, checked_users, found.checked) if c is not None]
    if rejects is not None:
        write_rejects(checks, rejects)
    refuse_above(max_reject_share, checks, rejects)
    for checked in checks:
        _refuse_empty(checked, rejects)
    read_notes = [note for raw in (told, people) if raw is not None for note in raw.notes]
    left_out = (*read_notes, *_drained_note(found.checked, rejects))
    found, liked = _positive(found, positive_rating)
    dataset, notes = _dataset(found, checked_items, checked_users)
    read_ = found.checked
    return Loaded(
        dataset, counts(checks), read_.n_read, (*left_out, *liked, *notes), read_.n_drained
    )


def _drained_note(checked: Checked, rejects: Path | None) -> tuple[str, ...]:
    """A note on drained events that were rejected: they never stop a load, so they must be told."""
    bad = checked.rejected.filter(pl.col("table") == EVENTS.name)
    if bad.is_empty():
        return ()
    reasons = ", ".join(
        f"{reason}: {n}"
        for reason, n in bad["reason"].value_counts(sort=True).sort("reason").rows()
    )
    where = (
        f"they are in {str(rejects)!r}"
        if rejects is not None
        else "name a rejects file to see them"
    )
    return (
        f"events: {bad.height} of {checked.n_drained} drained events are left out ({reasons}): {where}",
    )


def _positive(found: Interactions, least: float | None) -> tuple[Interactions, tuple[str, ...]]:
    """The interactions of at least this rating, and a note on the others."""
    if least is None:
        return found, ()
    frame = found.checked.frame
    kept = frame.filter(pl.col("_weight").fill_nan(None) >= least)
    if kept.is_empty():
        best = frame["_weight"].max()
        told = "there is no rating at all" if best is None else f"the best is {best!r}"
        raise InvalidData(
            f"interactions: none of {frame.height} is rated {least} or better ({told}): lower --positive-rating"
        )
    note = f"interactions: {frame.height - kept.height} of {frame.height} are rated below {least}, and left out"
    return replace(found, checked=replace(found.checked, frame=kept)), (note,)


def _refuse_empty(checked: Checked, rejects: Path | None) -> None:
    if checked.frame.is_empty():
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts([checked]).items())
        where = f"; they are in {str(rejects)!r}" if rejects is not None else ""
        raise InvalidData(
            f"{checked.schema.name}: none of {checked.n_read} rows is valid ({reasons}): mend the table{where}"
        )


def _dataset(
    found: Interactions, items: Checked | None, users: Checked | None
) -> tuple[Dataset, tuple[str, ...]]:
    table = users.frame.drop(*MARKS, "user_id", strict=False) if users is not None else None
    user_ids, rows = users_union(found.user_ids, table["_id"] if table is not None else None)
    catalogue, left = (
        _catalogue(items.frame) if items is not None else (_bare_catalogue(found.item_ids), ())
    )
    events = _events(sorted_events(found), rows, len(user_ids), len(catalogue))
    attributes = pl.DataFrame({"_id": user_ids})
    if table is not None:
        attributes = attributes.join(table, on="_id", how="left", maintain_order="left")
    vocabulary, tokens, notes = tokenised(attributes.drop("_id"))
    if {"weight", "rating"} <= set(found.checked.frame.columns):
        notes = (
            "interactions: there is a weight beside the rating, and only the weight is used",
            *notes,
        )
    notes = (*left, *_on_ties(events), *notes)
    ids = tuple(user_ids.to_list())
    print_ = _fingerprint(events, catalogue, ids, tokens, vocabulary)
    return Dataset(events, catalogue, ids, tokens, vocabulary, print_), notes


def _on_ties(events: Events) -> tuple[str, ...]:
    """A note where events of a user share a time."""
    share = tied_share(events)
    if share == 0:
        return ()
    tied = (
        f"interactions: {share:.1%} of the events share their time with another event of their user"
    )
    return (
        f"{tied}: among these there is no order, so it is drawn, and no hold-out or label window parts them",
    )


def _events(frame: pl.DataFrame, rows: Int32, n_users: int, n_items: int) -> Events:
    """The sorted frame as arrays; `rows` maps its users to user rows without changing their order."""
    return Events(
        rows[frame["_user"].to_numpy()].astype(np.int32),
        frame["_item"].cast(pl.Int32).to_numpy(writable=True),
        frame["_time"].to_numpy(writable=True),
        _nan_filled(frame["_weight"]),
        n_users,
        n_items,
    )


def _nan_filled(column: pl.Series) -> Float32:
    """Numbers with the one NaN in place of nulls."""
    values = (
        column.cast(pl.Float32)
        .fill_null(float("nan"))
        .to_numpy(writable=True)
        .astype(np.float32, copy=False)
    )
    values[np.isnan(values)] = np.float32(np.nan)
    return values


def _catalogue(frame: pl.DataFrame) -> tuple[Catalogue, tuple[str, ...]]:
    """The items table as a catalogue, and a note where some of its categories are not learnt from."""
    lists = frame["_categories"]
    names, notes = _learnt_categories(lists)
    membership = np.zeros((frame.height, len(names)), np.float32)
    pairs = (
        frame.select(pl.int_range(pl.len()).alias("row"), "_categories")
        .explode("_categories")
        .drop_nulls()
    )
    pairs = pairs.filter(pl.col("_categories").is_in(names))
    if names:
        columns = pairs["_categories"].replace_strict(
            names, list(range(len(names))), return_dtype=pl.Int64
        )
        membership[pairs["row"].to_numpy(), columns.to_numpy()] = 1.0
    catalogue = Catalogue(
        tuple(frame["_id"].to_list()),
        tuple(frame["_title"].to_list()),
        tuple(tuple(c) for c in lists.to_list()),
        tuple(names),
        membership,
        _nan_filled(frame["_year"]),
    )
    return catalogue, notes


def _learnt_categories(lists: pl.Series) -> tuple[list[str], tuple[str, ...]]:
    """The names of the commonest categories, sorted, as many as MOST_CELLS allows, and a note on the others."""
    found = (
        lists.explode(empty_as_null=True, keep_nulls=True)
        .drop_nulls()
        .rename("name")
        .value_counts()
    )
    most = MAX_CELLS // max(1, len(lists))
    names = (
        found.sort(["count", "name"], descending=[True, False])["name"].head(most).sort().to_list()
    )
    if len(names) == found.height:
        return names, ()
    told = f"items: {found.height} categories of {len(lists)} items are too many, the commonest {most} are taken"
    return names, (f"{told}: the others are shown and filtered by, but not learnt from",)


def _bare_catalogue(ids: pl.Series) -> Catalogue:
    """A catalogue of which nothing is known but the ids."""
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
) -> str:
    """Hex sha256 of the validated content: the same on every machine, whatever files and types it came from."""
    digest = hashlib.sha256()
    arrays = (events.user, events.item, events.time, events.weight, catalogue.year, attributes)
    for array in arrays:
        digest.update(f"{array.dtype.kind}{array.dtype.itemsize}{array.shape}".encode())
        digest.update(_little_endian(array).data)
    for texts in (user_ids, catalogue.ids, catalogue.titles, catalogue.categories):
        digest.update(json.dumps(texts).encode())
    digest.update(json.dumps([vocabulary.columns, vocabulary.tokens, vocabulary.edges]).encode())
    return digest.hexdigest()


def _little_endian(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
