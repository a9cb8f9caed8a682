"""Rows that break the schema are set aside with a reason; the rest become numbered users, items, seconds and weights.

A row has one reason, the first that holds in the order of `_INTERACTION_REASONS`. Users, and items where no items table
is given, are numbered by id: ids of digits only by their number, then the others as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl

from recsys.data import fields
from recsys.data.readers import Raw
from recsys.data.schemas import FILE, INTERACTIONS, ITEMS, MALFORMED, MARKS, ROW, USERS, TableSchema
from recsys.data.tie_order import draws
from recsys.errors import InvalidData
from recsys.events import Int32

_UNKNOWN = -1
_KEYS = ("_user", "_item", "_time", "_weight")


@dataclass(frozen=True, slots=True)
class Checked:
    """The rows of a table that hold, with columns of the validation's own, and those that do not, with their reason.

    rejected: columns table, source (file), row (in its file, from 1, a header not counted), reason, record (JSON text).
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    n_read: int
    schema: TableSchema


@dataclass(frozen=True, slots=True)
class Interactions:
    """Validated interactions: `checked.frame` has _user and _item (Int32 positions in the ids), _time and _weight."""

    checked: Checked
    user_ids: pl.Series
    item_ids: pl.Series


def check_items(raw: Raw) -> Checked:
    """The items table with _id, _title, _categories and _year, in its own order; of each id the first row holds."""
    types = raw.frame.schema
    derived = [fields.text_ids("item_id", types["item_id"], ITEMS.name).alias("_id")]
    if "year" in types:
        derived.append(fields.numbers("year", types["year"], ITEMS.name).fill_nan(None).alias("_year"))
    frame = raw.frame.with_columns(derived)
    reasons = [_malformed(), ("null item_id", pl.col("_id").is_null())]
    if "year" in types:
        was_given = ~fields.absent("year", types["year"])
        if types["year"].is_float():
            was_given &= pl.col("year").is_not_nan()
        reasons.append(("unparsable year", was_given & pl.col("_year").is_null()))
        reasons.append(("impossible year", ~pl.col("_year").is_between(0, 9999)))
    reasons.append(("duplicate item_id", pl.col("_id").is_first_distinct().not_()))
    checked = _split(raw, frame, reasons, ITEMS)
    return Checked(_described(checked.frame), checked.rejected, checked.n_read, ITEMS)


def _described(frame: pl.DataFrame) -> pl.DataFrame:
    """_id, _title, _categories and _year, each filled in where its column is not there."""
    types = frame.schema
    title = _title(types["title"]) if "title" in types else pl.col("_id")
    empty = pl.lit([], dtype=pl.List(pl.String))
    names = fields.names("categories", types["categories"], ITEMS.name) if "categories" in types else empty
    year = pl.col("_year") if "_year" in types else pl.lit(None, pl.Float64)
    return frame.select("_id", title.alias("_title"), names.alias("_categories"), year.cast(pl.Float32).alias("_year"))


def _title(dtype: pl.DataType) -> pl.Expr:
    if dtype.is_nested():
        raise InvalidData(f"items: column title has type {dtype}: it must hold text; convert it")
    text = pl.col("title").cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text).otherwise(pl.col("_id"))


def check_users(raw: Raw) -> Checked:
    """The users table with _id beside its own columns; of each id the first row holds."""
    ids = fields.text_ids("user_id", raw.frame.schema["user_id"], USERS.name)
    frame = raw.frame.with_columns(ids.alias("_id"))
    reasons = [
        _malformed(),
        ("null user_id", pl.col("_id").is_null()),
        ("duplicate user_id", pl.col("_id").is_first_distinct().not_()),
    ]
    return _split(raw, frame, reasons, USERS)


def check_interactions(raw: Raw, item_ids: pl.Series | None) -> Interactions:
    """Interactions as positions, seconds and weights; rows keep their order.

    item_ids: the ids of the items table, whose other items are unknown; None derives the items from the interactions.
    """
    types = raw.frame.schema
    frame, users = _coded(raw.frame, "user_id", "_user", None)
    frame, items = _coded(frame, "item_id", "_item", item_ids)
    weight = weight_column(raw.frame)
    number = pl.lit(None, pl.Float32) if weight is None else _number(weight, types[weight])
    time = fields.seconds("timestamp", types["timestamp"], INTERACTIONS.name)
    frame = frame.with_columns(time.alias("_time"), number.alias("_weight"))
    checked = _split(raw, frame, _interaction_reasons(types, weight), INTERACTIONS)
    checked = _without_duplicates(raw, checked)
    frame, users = _dense(checked.frame, "_user", users)
    if item_ids is None:
        frame, items = _dense(frame, "_item", items)
    return Interactions(Checked(frame, checked.rejected, checked.n_read, INTERACTIONS), users, items)


def weight_column(frame: pl.DataFrame) -> str | None:
    """The column that weighs an interaction: weight before rating, None where there is neither."""
    return next((c for c in ("weight", "rating") if c in frame.columns), None)


def _number(column: str, dtype: pl.DataType) -> pl.Expr:
    return fields.numbers(column, dtype, INTERACTIONS.name).cast(pl.Float32) + 0.0  # -0.0 is 0.0


def _interaction_reasons(types: pl.Schema, weight: str | None) -> list[tuple[str, pl.Expr]]:
    time, value = pl.col("_time"), pl.col("_weight")
    reasons = [
        _malformed(),
        ("null user_id", pl.col("_user").is_null()),
        ("null item_id", pl.col("_item").is_null()),
        ("null timestamp", fields.absent("timestamp", types["timestamp"])),
        ("unparsable timestamp", time.is_null()),
        ("impossible timestamp", time < 0),
    ]
    if weight is not None:
        unparsable = value.is_null() & ~fields.absent(weight, types[weight])
        reasons.append((f"unparsable {weight}", unparsable))
        reasons.append((f"impossible {weight}", value.is_not_null() & ~(value.is_finite() & (value >= 0))))
    return [*reasons, ("unknown item", pl.col("_item") == _UNKNOWN)]


def _malformed() -> tuple[str, pl.Expr]:
    return "too many fields", pl.col(MALFORMED).fill_null(value=False)


def _coded(frame: pl.DataFrame, column: str, name: str, known: pl.Series | None) -> tuple[pl.DataFrame, pl.Series]:
    """Adds `name`: the Int32 position of `column`'s id in `known`, or else in its own ids in order; and those ids.

    An id that `known` lacks is _UNKNOWN. Only distinct values are rendered as text, so many rows stay cheap.
    """
    values = frame.select(pl.col(column).unique())
    values = values.with_columns(fields.text_ids(column, values.schema[column], INTERACTIONS.name).alias("_text"))
    ids = in_order(values["_text"]) if known is None else known
    index = pl.DataFrame({"_text": ids}).with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias(name))
    codes = values.join(index, on="_text", how="left")
    unknown = pl.col(name).is_null() & pl.col("_text").is_not_null()
    codes = codes.select(column, pl.when(unknown).then(pl.lit(_UNKNOWN, pl.Int32)).otherwise(name).alias(name))
    return frame.join(codes, on=column, how="left", nulls_equal=True, maintain_order="left"), ids


def in_order(ids: pl.Series) -> pl.Series:
    """The distinct ids: those of digits only by their number, then the others as text."""
    number = pl.col("id").str.extract(r"^(\d{1,18})$").cast(pl.Int64)
    frame = pl.DataFrame({"id": ids.drop_nulls().unique().cast(pl.String)})
    return frame.sort(number, "id", nulls_last=True)["id"]


def _dense(frame: pl.DataFrame, column: str, ids: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """The frame and ids without those ids that no valid row has."""
    codes = frame[column].to_numpy()
    present = np.bincount(codes, minlength=len(ids)) > 0
    positions = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return frame.with_columns(pl.Series(column, positions[codes])), ids.filter(pl.Series(present))


def _split(raw: Raw, frame: pl.DataFrame, reasons: Sequence[tuple[str, pl.Expr]], schema: TableSchema) -> Checked:
    """Parts the rows for which some reason holds from those for which none does."""
    why = pl.coalesce(pl.when(holds).then(pl.lit(i, pl.UInt8)) for i, (_, holds) in enumerate(reasons))
    frame = frame.with_columns(why.alias("_reason"))
    bad = frame.filter(pl.col("_reason").is_not_null())
    texts = pl.col("_reason").replace_strict(list(range(len(reasons))), [r for r, _ in reasons], return_dtype=pl.String)
    rejected = _rejected(raw, bad.with_columns(texts), schema)
    good = frame.filter(pl.col("_reason").is_null()) if bad.height else frame
    return Checked(good.drop("_reason"), rejected, raw.frame.height, schema)


def _without_duplicates(raw: Raw, checked: Checked) -> Checked:
    """Of rows alike in user, item, time, weight and event type, only the first holds."""
    keys = [*_KEYS, *(c for c in ("event_type",) if c in checked.frame.columns)]
    pair = pl.col("_user").cast(pl.Int64) * 2**31 + pl.col("_item")
    again = checked.frame.select(pair.is_duplicated()).to_series().arg_true()  # cheap, and often rules out nearly all
    if again.is_empty():
        return checked
    suspects = checked.frame.select(keys)[again]
    late = again.filter(~suspects.select(pl.struct(keys).is_first_distinct()).to_series())
    if late.is_empty():
        return checked
    first = pl.repeat(value=True, n=checked.frame.height, eager=True).scatter(late, values=False)
    bad = checked.frame.filter(~first).with_columns(pl.lit("duplicate row").alias("_reason"))
    rejected = pl.concat([checked.rejected, _rejected(raw, bad, checked.schema)])
    return Checked(checked.frame.filter(first), rejected, checked.n_read, checked.schema)


def _rejected(raw: Raw, bad: pl.DataFrame, schema: TableSchema) -> pl.DataFrame:
    own = [c for c in raw.frame.columns if c not in MARKS]
    return bad.select(
        pl.lit(schema.name).alias("table"),
        pl.lit(pl.Series(raw.files, dtype=pl.String)).gather(pl.col(FILE)).alias("source"),
        pl.col(ROW).cast(pl.Int64).alias("row"),
        pl.col("_reason").cast(pl.String).alias("reason"),
        pl.struct(_jsonable(c, bad.schema[c]) for c in own).struct.json_encode().alias("record"),
    )


def _jsonable(column: str, dtype: pl.DataType) -> pl.Expr:
    """The field as JSON can say it: infinities, dates and bytes become text."""
    if dtype.is_nested() or dtype.is_integer() or dtype in (pl.String, pl.Boolean, pl.Null):
        return pl.col(column)
    return pl.col(column).cast(pl.String, strict=False)


def counts(checks: Sequence[Checked]) -> dict[str, int]:
    """How many rows each reason rejected, most first; reasons of items and users start with the table's name."""
    rejected = pl.concat([c.rejected for c in checks])
    prefix = pl.when(pl.col("table") != INTERACTIONS.name).then(pl.col("table") + ": ").otherwise(pl.lit(""))
    grouped = rejected.group_by((prefix + pl.col("reason")).alias("reason")).len("n")
    ordered = grouped.sort("n", "reason", descending=[True, False])
    return dict(zip(ordered["reason"].to_list(), ordered["n"].to_list(), strict=True))


def write_rejects(checks: Sequence[Checked], path: Path) -> None:
    """Writes all rejected rows to a Parquet file, which appears whole; it is written also when there are none.

    Raises:
        InvalidData: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.concat([c.rejected for c in checks]).sort("table", "source", "row").write_parquet(part)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InvalidData(f"cannot write the rejected rows to {str(path)!r} ({error}): give a writable path") from error


def refuse_above(share: float, checks: Sequence[Checked], path: Path | None) -> None:
    """Stops the load where a table lost more than `share` of its rows.

    Raises:
        InvalidData: a table did; the message tells the reasons, where the rows are, and how to go on.
    """
    for checked in checks:
        n = checked.rejected.height
        if n > share * checked.n_read:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in counts([checked]).items())
            where = f"they are in {str(path)!r}" if path else "name a rejects file to see them"
            raise InvalidData(
                f"{checked.schema.name}: {n} of {checked.n_read} rows ({n / checked.n_read:.1%}) break the schema, "
                f"more than max_reject_share={share} allows ({reasons}): {where}; "
                "mend the rows, or raise max_reject_share"
            )


def sorted_events(interactions: Interactions) -> pl.DataFrame:
    """_user, _item, _time and _weight in the order (user, time, draw), which does not depend on the order of the rows."""
    frame = interactions.checked.frame.select(_KEYS)
    user, item, time = (frame[name].to_numpy() for name in ("_user", "_item", "_time"))
    weight = frame["_weight"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    draw = draws(interactions.user_ids, interactions.item_ids, user, item, time, weight)
    return frame.with_columns(pl.Series("_draw", draw)).sort("_user", "_time", "_draw").drop("_draw")


def users_union(event_users: pl.Series, table_users: pl.Series | None) -> tuple[pl.Series, Int32]:
    """All user ids in order, and int32[n] the row of each of `event_users` in them; a users table adds users."""
    ids = event_users if table_users is None else in_order(pl.concat([event_users, table_users]))
    index = pl.DataFrame({"id": ids}).with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias("row"))
    rows = pl.DataFrame({"id": event_users}).join(index, on="id", how="left", maintain_order="left")["row"]
    return ids, rows.to_numpy()
