"""Says why rows were rejected: the reason, its rule, and the first such row."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from shortlist.recsys import values

_RULES = {
    "null ": "fill it in",
    "too many fields": "a row has as many fields as the header: quote what holds the separator",
    "unparsable timestamp": (
        "a time is unix seconds or ISO 8601, or what a mapping file says: "
        "`shortlist data check` finds out"
    ),
    "impossible timestamp": f"{values.TIME_RULE}, or a date from 1970",
    "impossible year": "a year must be from 0 to 9999",
    "unparsable ": "it must be a number",
    "impossible ": values.WEIGHT_RULE,
    "unknown item": "the items table lacks it: add it there, or leave that table out",
    "duplicate row": "rows equal in user, item, time, weight and type count once",
    "duplicate ": "an id stands once in a table: the first row counts",
}
"""Of how a reason begins its rule, the longer first; other reasons say theirs themselves."""

_SHOWN_RECORD = 160
"""Characters of a rejected row that a message shows."""


def rule_of(reason: str) -> str:
    """The rule that rows rejected for a reason break; nothing where the reason says it.

    reason: also with the name of a table before it.
    """
    bare = reason.removeprefix("items: ").removeprefix("users: ").removeprefix("events: ")
    return next((rule for start, rule in _RULES.items() if bare.startswith(start)), "")


def with_rule(reason: str) -> str:
    """A reason, and its rule in brackets where it does not say it."""
    rule = rule_of(reason)
    return f"{reason} ({rule})" if rule else reason


def described(rejected: pl.DataFrame) -> str:
    """The reasons of the rejected rows of one table, most first, each with its first row.

    rejected: columns source, row, reason and record.
    """
    firsts = rejected.unique("reason", keep="first", maintain_order=True)
    counted = rejected.group_by("reason").len("n")
    ordered = firsts.join(counted, on="reason").sort("n", "reason", descending=[True, False])
    rows = ordered.select("n", "reason", "source", "row", "record").rows()
    return "; ".join(
        f"{reason}: {n}, such as row {row} of {Path(source).name} {_shortened(record)}"
        + (f": {rule_of(reason)}" if rule_of(reason) else "")
        for n, reason, source, row, record in rows
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_RECORD else f"{text[:_SHOWN_RECORD]}…"
