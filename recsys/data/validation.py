"""Validates tables, and numbers users and items.

A rejected row has one reason, the first that holds. Users, and items where no items table is given,
are numbered by id: ids of digits only by their number, then the others as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from shortlist.recsys import values
from shortlist.recsys.atomic_file import replacing
from shortlist.recsys.data import fields
from shortlist.recsys.data.event_meaning import (
    meaning_columns,
    refuse_missing_types,
    type_column,
    type_reasons,
)
from shortlist.recsys.data.input_schema import (
    DRAINED_EVENTS,
    FILE_COLUMN,
    INTERACTIONS,
    ITEMS,
    MALFORMED_COLUMN,
    READER_COLUMNS,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    USERS,
    TableSchema,
)
from shortlist.recsys.data.readers import RawTable
from shortlist.recsys.data.reject_reasons import described
from shortlist.recsys.data.tie_order import drawn_by_kind, draws
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.interactions import Int32

UNKNOWN_ITEM = "unknown item"
"""The reason of events whose item the items table lacks."""

_UNKNOWN_ITEM = -1
_KEYS = ("_user", "_item", "_time", "_weight")


@dataclass(frozen=True, slots=True)
class CheckedTable:
    """The valid rows of a table, with columns that validation adds, and the rejected ones.

    rejected: columns table, source (file), row (in its file, from 1, a header not counted), reason,
    record (JSON text); n_read: rows of the table itself; n_drained: drained events that were read
    with it, whose rejects are of the table `events`.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    n_read: int
    schema: TableSchema
    n_drained: int = 0


@dataclass(frozen=True, slots=True)
class CheckedInteractions:
    """Validated interactions.

    `checked.frame` has _user and _item (Int32 positions in the ids), _time, _weight, and the
    columns of `event_meaning`, as `rules` say.
    """

    checked: CheckedTable
    user_ids: pl.Series
    item_ids: pl.Series
    rules: EventRules


def check_items(raw: RawTable) -> CheckedTable:
    """The items table as _id, _title, _categories, _year and its own columns, in its order.

    Of several rows with one id the first is valid.
    """
    types = raw.frame.schema
    derived = _ids("item_id", types, ITEMS)
    if "year" in types:
        derived.append(
            fields.numbers("year", types["year"], ITEMS.name).fill_nan(None).alias("_year")
        )
    frame = raw.frame.with_columns(derived)
    reasons = [_malformed(), *_id_reasons("item_id", "_id", "_fault")]
    if "year" in types:
        reasons += _year_reasons(types["year"])
    reasons.append(("duplicate item_id", pl.col("_id").is_first_distinct().not_()))
    checked = _split(raw, frame, reasons, ITEMS)
    return replace(checked, frame=_described(checked.frame))


def _year_reasons(dtype: pl.DataType) -> list[tuple[str, pl.Expr]]:
    is_given = ~fields.absent("year", dtype)
    if dtype.is_float():
        is_given &= pl.col("year").is_not_nan()
    return [
        ("unparsable year", is_given & pl.col("_year").is_null()),
        ("impossible year", ~pl.col("_year").is_between(0, 9999)),
    ]


def _described(frame: pl.DataFrame) -> pl.DataFrame:
    """_id, _title, _categories and _year, each filled in where its column is not there.

    The items' own columns follow under their own names.
    """
    types = frame.schema
    title = _title(types["title"]) if "title" in types else pl.col("_id")
    names = pl.lit([], dtype=pl.List(pl.String))
    if "categories" in types:
        names = fields.names("categories", types["categories"], ITEMS.name)
    year = pl.col("_year") if "_year" in types else pl.lit(None, pl.Float64)
    return frame.select(
        "_id",
        title.alias("_title"),
        names.alias("_categories"),
        year.cast(pl.Float32).alias("_year"),
        *(c for c in frame.columns if c not in (*ITEMS.columns, *RESERVED_COLUMNS)),
    )


def _title(dtype: pl.DataType) -> pl.Expr:
    text = fields.text("title", dtype, ITEMS.name).str.strip_chars()
    return pl.when(text != "").then(text).otherwise(pl.col("_id"))


def check_users(raw: RawTable) -> CheckedTable:
    """The users table with _id added; of several rows with one id the first is valid."""
    frame = raw.frame.with_columns(_ids("user_id", raw.frame.schema, USERS))
    reasons = [
        _malformed(),
        *_id_reasons("user_id", "_id", "_fault"),
        ("duplicate user_id", pl.col("_id").is_first_distinct().not_()),
    ]
    checked = _split(raw, frame, reasons, USERS)
    return replace(checked, frame=checked.frame.drop("_fault"))


def _ids(column: str, types: pl.Schema, schema: TableSchema) -> list[pl.Expr]:
    """_id, the text of the column's ids, and _fault, the position of the rule that one breaks."""
    dtype = types[column]
    text = fields.text_ids(column, dtype, schema.name)
    fault = fields.id_faults(column, dtype, schema.name)
    return [text.alias("_id"), fault.alias("_fault")]


def _id_reasons(column: str, code: str, fault: str) -> list[tuple[str, pl.Expr]]:
    """The reasons to reject an id; `code` is null where it cannot be read."""
    faults = [(f"{column}: {rule}", pl.col(fault) == i) for i, rule in enumerate(values.ID_FAULTS)]
    return [*faults, (f"null {column}", pl.col(code).is_null())]


def check_interactions(
    raw: RawTable, item_ids: pl.Series | None, rules: EventRules | None = None
) -> CheckedInteractions:
    """Interactions as positions, seconds, weights and what they mean; rows keep their order.

    item_ids: the ids of the items table, whose other items are unknown; None derives the items from
    the interactions. rules: what the events mean; None takes the default rules.

    Raises:
        InvalidData: a column cannot be read at all, or the rules need a column that is not there.
    """
    types = raw.frame.schema
    rules = EventRules() if rules is None else rules
    refuse_missing_types(types, rules)
    weight = weight_column(raw.frame)
    frame, users = _coded(raw.frame, "user_id", "_user", None)
    frame, items = _coded(frame, "item_id", "_item", item_ids)
    frame = frame.with_columns(_interaction_values(types, weight))
    reasons = [*_interaction_reasons(types, weight), *type_reasons(frame, rules)]
    checked = _split(raw, frame, reasons, INTERACTIONS)
    single = pl.col("_weight").fill_nan(None).cast(pl.Float32) + 0.0  # -0.0 is 0.0
    frame = checked.frame.with_columns(pl.col("_weight").fill_nan(None))
    frame = frame.with_columns(single, *meaning_columns(frame.columns, rules))
    checked = _without_duplicates(raw, replace(checked, frame=frame))
    frame, users = _dense(checked.frame, "_user", users)
    if item_ids is None:
        frame, items = _dense(frame, "_item", items)
    return CheckedInteractions(replace(checked, frame=frame), users, items, rules)


def _interaction_values(types: pl.Schema, weight: str | None) -> list[pl.Expr]:
    """_time, _weight and, where the table has event types, _type."""
    name = INTERACTIONS.name
    time = fields.seconds("timestamp", types["timestamp"], name)
    number = pl.lit(None, pl.Float64)
    if weight is not None:
        number = fields.flags_or_numbers(weight, types[weight], name)
    return [time.alias("_time"), number.alias("_weight"), *type_column(types)]


def weight_column(frame: pl.DataFrame) -> str | None:
    """The column of weights: weight before rating, None where there is neither."""
    return next((c for c in ("weight", "rating") if c in frame.columns), None)


def _interaction_reasons(types: pl.Schema, weight: str | None) -> list[tuple[str, pl.Expr]]:
    time, value = pl.col("_time"), pl.col("_weight")
    reasons = [
        _malformed(),
        *_id_reasons("user_id", "_user", "_user_fault"),
        *_id_reasons("item_id", "_item", "_item_fault"),
        ("null timestamp", fields.absent("timestamp", types["timestamp"])),
        ("unparsable timestamp", time.is_null()),
        ("impossible timestamp", time < 0),
    ]
    if weight is not None:
        unparsable = value.is_null() & ~fields.absent(weight, types[weight])
        in_range = value.is_nan() | value.is_between(
            -values.MAX_WEIGHT, values.MAX_WEIGHT
        )  # NaN: no weight
        reasons.append((f"unparsable {weight}", unparsable))
        reasons.append((f"impossible {weight}", ~in_range))
    return [*reasons, (UNKNOWN_ITEM, pl.col("_item") == _UNKNOWN_ITEM)]


def _malformed() -> tuple[str, pl.Expr]:
    return "too many fields", pl.col(MALFORMED_COLUMN).fill_null(value=False)


def _coded(
    frame: pl.DataFrame, column: str, name: str, known: pl.Series | None
) -> tuple[pl.DataFrame, pl.Series]:
    """Adds `name`, the Int32 position of each id of `column`; also returns the ids.

    The ids are `known`, or else the column's own in order. An id that `known` lacks is
    _UNKNOWN_ITEM, one that breaks a rule null, with the rule in `{name}_fault`. Only distinct
    values are rendered as text, so many rows stay cheap.
    """
    distinct = frame.select(pl.col(column).unique())
    text, fault = _ids(column, distinct.schema, INTERACTIONS)
    distinct = distinct.with_columns(text.alias("_text"), fault.alias(f"{name}_fault"))
    ids = in_order(distinct["_text"]) if known is None else known
    codes = distinct.join(_positions(ids, "_text", name), on="_text", how="left")
    unknown = pl.col(name).is_null() & pl.col("_text").is_not_null()
    code = pl.when(unknown).then(pl.lit(_UNKNOWN_ITEM, pl.Int32)).otherwise(name)
    codes = codes.select(column, code.alias(name), f"{name}_fault")
    return frame.join(codes, on=column, how="left", nulls_equal=True, maintain_order="left"), ids


def _positions(ids: pl.Series, column: str, position: str) -> pl.DataFrame:
    """A frame of `ids` and their Int32 positions, under these names."""
    number = pl.int_range(pl.len(), dtype=pl.Int32)
    return pl.DataFrame({column: ids}).with_columns(number.alias(position))


def in_order(ids: pl.Series) -> pl.Series:
    """The distinct ids: those of digits only by their number, then the others as text."""
    number = pl.col("id").str.extract(r"^([0-9]{1,18})$").cast(pl.Int64)  # more would overflow
    frame = pl.DataFrame({"id": ids.drop_nulls().unique().cast(pl.String)})
    return frame.sort(number, "id", nulls_last=True)["id"]


def _dense(frame: pl.DataFrame, column: str, ids: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """The frame and ids without those ids that no valid row has."""
    codes = frame[column].to_numpy()
    present = np.bincount(codes, minlength=len(ids)) > 0
    positions = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return frame.with_columns(pl.Series(column, positions[codes])), ids.filter(pl.Series(present))


def _split(
    raw: RawTable, frame: pl.DataFrame, reasons: Sequence[tuple[str, pl.Expr]], schema: TableSchema
) -> CheckedTable:
    """Separates the rows for which some reason holds from those for which none does."""
    numbered = (pl.when(holds).then(pl.lit(i, pl.UInt8)) for i, (_, holds) in enumerate(reasons))
    frame = frame.with_columns(pl.coalesce(numbered).alias("_reason"))  # the first that holds
    bad = frame.filter(pl.col("_reason").is_not_null())
    reason_texts = [text for text, _ in reasons]
    texts = pl.col("_reason").replace_strict(
        list(range(len(reasons))), reason_texts, return_dtype=pl.String
    )
    rejected = _rejected(raw, bad.with_columns(texts), schema)
    good = frame.filter(pl.col("_reason").is_null()) if bad.height else frame
    n_drained = 0 if raw.drained is None else int((raw.frame[FILE_COLUMN] >= raw.drained).sum())
    return CheckedTable(
        good.drop("_reason"), rejected, raw.frame.height - n_drained, schema, n_drained
    )


def _without_duplicates(raw: RawTable, checked: CheckedTable) -> CheckedTable:
    """Rejects all but the first of rows equal in user, item, time, weight and event type.

    Drained events also differ by their event id.
    """
    frame = checked.frame
    keys = [*_KEYS, *(c for c in ("_type", "event_id") if c in frame.columns)]
    # Pairs first: they are cheap to compare, and often rule out nearly all rows.
    pair = pl.col("_user").cast(pl.Int64) * 2**31 + pl.col("_item")
    suspects = frame.select(pair.is_duplicated()).to_series().arg_true()
    if suspects.is_empty():
        return checked
    is_first = frame.select(keys)[suspects].select(pl.struct(keys).is_first_distinct()).to_series()
    repeats = suspects.filter(~is_first)
    if repeats.is_empty():
        return checked
    kept = pl.repeat(value=True, n=frame.height, eager=True).scatter(repeats, values=False)
    bad = frame.filter(~kept).with_columns(pl.lit("duplicate row").alias("_reason"))
    rejected = pl.concat([checked.rejected, _rejected(raw, bad, checked.schema)])
    return replace(checked, frame=frame.filter(kept), rejected=rejected)


def _rejected(raw: RawTable, bad: pl.DataFrame, schema: TableSchema) -> pl.DataFrame:
    """The columns of `CheckedTable.rejected` for rows that have a `_reason`."""
    own = [c for c in raw.frame.columns if c not in READER_COLUMNS]
    name = pl.lit(schema.name)
    if raw.drained is not None:
        name = (
            pl.when(pl.col(FILE_COLUMN) >= raw.drained)
            .then(pl.lit(DRAINED_EVENTS.name))
            .otherwise(name)
        )
    return bad.select(
        name.alias("table"),
        pl.lit(pl.Series(raw.files, dtype=pl.String)).gather(pl.col(FILE_COLUMN)).alias("source"),
        pl.col(ROW_COLUMN).cast(pl.Int64).alias("row"),
        pl.col("_reason").cast(pl.String).alias("reason"),
        pl.struct(_jsonable(c, bad.schema[c]) for c in own).struct.json_encode().alias("record"),
    )


def _jsonable(column: str, dtype: pl.DataType) -> pl.Expr:
    """The field as JSON: infinities and dates as text, bytes and nested types as their type."""
    if dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Null):
        return pl.col(column)
    if fields.is_plain_list(dtype):
        return pl.col(column).cast(pl.List(pl.String), strict=False)
    if fields.has_text(dtype):
        return fields.text(column, dtype, "").alias(column)
    return pl.lit(f"({dtype})").alias(column)


def counts(checks: Sequence[CheckedTable]) -> dict[str, int]:
    """Rows that each reason rejected, most first.

    Reasons of tables other than the interactions start with the table's name.
    """
    rejected = pl.concat([c.rejected for c in checks])
    is_other = pl.col("table") != INTERACTIONS.name
    prefix = pl.when(is_other).then(pl.col("table") + ": ").otherwise(pl.lit(""))
    grouped = rejected.group_by((prefix + pl.col("reason")).alias("reason")).len("n")
    ordered = grouped.sort("n", "reason", descending=[True, False])
    return dict(zip(ordered["reason"].to_list(), ordered["n"].to_list(), strict=True))


def write_rejects(checks: Sequence[CheckedTable], path: Path) -> None:
    """Writes all rejected rows to a Parquet file, also where there are none.

    Raises:
        InvalidData: the file cannot be written.
    """
    rejected = pl.concat([c.rejected for c in checks]).sort("table", "source", "row")
    try:
        with replacing(path) as draft:
            rejected.write_parquet(draft)
    except OSError as error:
        raise InvalidData(
            f"cannot write the rejected rows to {str(path)!r} ({error}): give a writable path"
        ) from error


def refuse_above(
    share: float, checks: Sequence[CheckedTable], path: Path | None, hints: Sequence[str] = ()
) -> None:
    """Stops the load where a table lost more than `share` of its rows, drained events apart.

    Raises:
        InvalidData: a table did; the message has the reasons, the file of the rows, and the remedy.
    """
    for checked in checks:
        of_table = checked.rejected.filter(pl.col("table") == checked.schema.name)
        if of_table.height > share * checked.n_read:
            raise _too_many_rejects(replace(checked, rejected=of_table), share, path, hints)


def _too_many_rejects(
    checked: CheckedTable, share: float, path: Path | None, hints: Sequence[str]
) -> InvalidData:
    n, n_read = checked.rejected.height, checked.n_read
    reasons = "; ".join([described(checked.rejected), *hints])
    where = f"they are in {str(path)!r}" if path else "name a rejects file to see them"
    return InvalidData(
        f"{checked.schema.name}: {n} of {n_read} rows ({n / n_read:.1%}) break the schema, "
        f"more than --max-reject-share {share} allows ({reasons}): {where}; "
        "mend the rows, or raise --max-reject-share"
    )


def sorted_events(interactions: CheckedInteractions) -> pl.DataFrame:
    """_user, _item, _time, _weight and _kind of the positive events.

    They are sorted by user, time and draw, whatever the order of the rows.
    """
    frame = interactions.checked.frame.filter(~pl.col("_negative")).select(*_KEYS, "_kind")
    user, item, time = (frame[name].to_numpy() for name in ("_user", "_item", "_time"))
    weight = frame["_weight"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    draw = draws(interactions.user_ids, interactions.item_ids, user, item, time, weight)
    if len(kinds := interactions.rules.kinds) > 1:
        draw = drawn_by_kind(draw, [kind.name for kind in kinds], frame["_kind"].to_numpy())
    return (
        frame.with_columns(pl.Series("_draw", draw)).sort("_user", "_time", "_draw").drop("_draw")
    )


def users_union(event_users: pl.Series, table_users: pl.Series | None) -> tuple[pl.Series, Int32]:
    """All user ids in order, and int32[n] the row of each of `event_users` in them."""
    ids = event_users if table_users is None else in_order(pl.concat([event_users, table_users]))
    rows = pl.DataFrame({"id": event_users}).join(
        _positions(ids, "id", "row"), on="id", how="left", maintain_order="left"
    )
    return ids, rows["row"].to_numpy()
