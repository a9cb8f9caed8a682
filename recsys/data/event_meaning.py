"""Reads what events mean: their kinds, and what is negative feedback.

Validation adds three columns to the interactions: `_type`, the text of the event's type; `_kind`,
the position of its kind in the rules; `_negative`, whether it is negative feedback.
"""

from __future__ import annotations

import polars as pl

from shortlist.recsys import values
from shortlist.recsys.data import fields
from shortlist.recsys.data.input_schema import INTERACTIONS
from shortlist.recsys.errors import InvalidData
from shortlist.recsys.event_rules import EventRules
from shortlist.recsys.models.interactions import Events

_NAMED = 5
"""Types that a message names, the commonest; a column of ids would fill a page."""


def refuse_missing_types(types: pl.Schema, rules: EventRules) -> None:
    """Raises InvalidData where the rules speak of types, and the table has none."""
    named = [*rules.weights, *rules.negative]
    if named and "event_type" not in types:
        raise InvalidData(
            f"{INTERACTIONS.name}: the event rules name {', '.join(map(repr, named))}, and the "
            "table has no column event_type: name its column of types in the mapping, or leave "
            "the types out of the rules"
        )


def type_column(types: pl.Schema) -> list[pl.Expr]:
    """_type without outer blanks, null where there is none; nothing for a table without types."""
    if "event_type" not in types:
        return []
    text = fields.text("event_type", types["event_type"], INTERACTIONS.name)
    stripped = text.str.strip_chars(values.BLANKS)
    return [pl.when(stripped != "").then(stripped).alias("_type")]


def type_reasons(frame: pl.DataFrame, rules: EventRules) -> list[tuple[str, pl.Expr]]:
    """Reasons to reject an event whose type has no meaning under the rules.

    frame: with `_type`. The commonest unknown types have a reason each.
    """
    if not rules.weights or "_type" not in frame.columns:
        return []
    known = [*rules.weights, *rules.negative]
    unknown = frame.filter(~pl.col("_type").is_in(known))["_type"]
    remedy = "give it a weight in the event rules, or list it as negative"
    named = [
        (f"event_type {values.shown(name)} has no weight: {remedy}", pl.col("_type") == name)
        for name in _commonest(unknown)
    ]
    others = (f"other event_type without a weight: {remedy}", ~pl.col("_type").is_in(known))
    missing = (
        f"no event_type: give it one of {', '.join(map(repr, known))}",
        pl.col("_type").is_null(),
    )
    return [*named, missing, others]


def _commonest(types: pl.Series) -> list[str]:
    counts = types.rename("type").value_counts().sort(["count", "type"], descending=[True, False])
    return counts["type"].head(_NAMED).to_list()


def meaning_columns(columns: list[str], rules: EventRules) -> list[pl.Expr]:
    """_kind and _negative of rows without a reason to be rejected.

    columns: those of the frame, among them _weight and, where there are types, _type.
    """
    is_negative = (pl.col("_weight") < rules.negative_below).fill_null(value=False)
    kind = pl.lit(0, pl.UInt8)
    if "_type" in columns:
        is_negative |= pl.col("_type").is_in(list(rules.negative)).fill_null(value=False)
    if "_type" in columns and rules.weights:
        names = [each.name for each in rules.kinds]
        positions = list(range(len(names)))
        kind = pl.col("_type").replace_strict(names, positions, default=0, return_dtype=pl.UInt8)
    return [kind.alias("_kind"), is_negative.alias("_negative")]


def refuse_nothing_to_predict(events: Events) -> None:
    """Raises InvalidData where no event is of a kind to predict, or all were taken back."""
    n_negatives = len(events.negatives.user)
    if len(events) == 0:
        raise InvalidData(
            f"{INTERACTIONS.name}: all {n_negatives} events are negative feedback: give positive "
            "ones as well, or correct the negative types and bounds of the event rules"
        )
    names = ", ".join(repr(kind.name) for kind in events.kinds if kind.is_target)
    if not events.is_target.any():
        raise InvalidData(
            f"{INTERACTIONS.name}: none of {len(events)} events is of a target type ({names}): "
            "name types that the table has as targets in the event rules"
        )
    if not events.to_predict.any():
        raise InvalidData(
            f"{INTERACTIONS.name}: {n_negatives} returns, dislikes and the like take back every "
            f"event to predict of {len(events)}: correct the negative types and bounds of the "
            "event rules"
        )


def meaning_notes(frame: pl.DataFrame, events: Events, rules: EventRules) -> tuple[str, ...]:
    """Notes on types that count alike, on negative feedback, and on repeats.

    frame: the valid interactions, with the columns of this module.
    """
    notes = [
        *_type_notes(frame, rules),
        *_negative_notes(frame, events, rules),
        *_repeat_notes(events),
    ]
    return tuple(f"{INTERACTIONS.name}: {note}" for note in notes)


def _type_notes(frame: pl.DataFrame, rules: EventRules) -> list[str]:
    if rules.weights or "_type" not in frame.columns:
        return []
    counts = frame.filter(~pl.col("_negative"))["_type"].drop_nulls().value_counts()
    if counts.height < 2:  # noqa: PLR2004 - one type needs no telling apart
        return []
    ordered = counts.sort(["count", "_type"], descending=[True, False]).rows()
    names = [f"{values.shown(name)} ({n})" for name, n in ordered[:_NAMED]]
    if len(ordered) > _NAMED:
        names.append(f"and {len(ordered) - _NAMED} more")
    note = (
        f"there are event types {', '.join(names)}, and they count alike: "
        "`shortlist data check --write` proposes weights, and which type to predict"
    )
    return [note]


def _negative_notes(frame: pl.DataFrame, events: Events, rules: EventRules) -> list[str]:
    n_rows = frame.height
    n = len(events.negatives.user)
    if n == 0:
        return _zero_notes(frame, rules)
    why = []
    by_type = pl.lit(value=False)
    if "_type" in frame.columns:
        by_type = pl.col("_type").is_in(list(rules.negative)).fill_null(value=False)
    negative = frame.filter(pl.col("_negative"))
    n_by_type = negative.filter(by_type).height
    if n_by_type:
        why.append(f"by type {', '.join(map(repr, rules.negative))}: {n_by_type}")
    if n_by_type < n:
        why.append(f"by a rating or weight below {rules.negative_below:g}: {n - n_by_type}")
    n_taken = len(events) - len(events.standing())
    note = (
        f"{n} of {n_rows} events ({n / n_rows:.1%}) are negative feedback ({'; '.join(why)}): of "
        f"the others they take back {n_taken}, and they keep their items from those users"
    )
    return [note, *_zero_notes(frame, rules)]


def _zero_notes(frame: pl.DataFrame, rules: EventRules) -> list[str]:
    """A note on ratings of 0 that count as liked: false and no are such, too."""
    n = frame.filter(~pl.col("_negative") & (pl.col("_weight") == 0)).height
    if n == 0 or rules.negative_below > 0:
        return []
    note = (
        f"{n} events have a rating or weight of 0, false or no, and count as positive: "
        "negative_below = 0.5 under [events] of a mapping file makes them negative feedback"
    )
    return [note]


def _repeat_notes(events: Events) -> list[str]:
    wanted = events.to_predict
    pairs = events.user[wanted].astype("int64") * events.n_items + events.item[wanted]
    n, n_pairs = len(pairs), pl.Series(pairs).n_unique()
    if n_pairs == n:
        return []
    return [f"{(n - n_pairs) / n:.1%} of {n} events to predict are of an item that the user had"]
