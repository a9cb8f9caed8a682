"""Names the tables that a command reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shortlist.recsys.data.input_schema import INTERACTIONS, ITEMS, USERS
from shortlist.recsys.data.mapping import read_mapping
from shortlist.recsys.data.readers import check_columns
from shortlist.recsys.data.reject_reasons import with_rule
from shortlist.recsys.data.sources import TableSource
from shortlist.recsys.event_rules import EventRules


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables, by path or as a mapping file describes them, and what their events mean."""

    interactions: str | TableSource
    items: str | TableSource | None = None
    users: str | TableSource | None = None
    event_rules: EventRules = field(default_factory=EventRules)


def named(interactions: str, items: str | None, users: str | None) -> Tables:
    """The tables at these paths. Raises InvalidData where a file or a column is not there."""
    return checked(Tables(interactions, items, users))


def of_mapping(path: str) -> Tables:
    """The tables of a mapping file.

    Raises:
        InvalidData: the file breaks a rule, or a table's file or column is not there.
        ArtefactsUnavailable: S3 did not answer for the mapping file.
    """
    mapping = read_mapping(path)
    return checked(Tables(mapping.interactions, mapping.items, mapping.users, mapping.events))


def checked(tables: Tables) -> Tables:
    """The tables. Raises InvalidData where a file or a column is not there."""
    sources = (tables.interactions, tables.items, tables.users)
    for source, schema in zip(sources, (INTERACTIONS, ITEMS, USERS), strict=True):
        if source is not None:
            check_columns(source, schema)
    return tables


def reject_lines(rejects: Mapping[str, int], path: Path) -> list[str]:
    """What was rejected and why, a line a reason; nothing where nothing was."""
    if not rejects:
        return []
    lines = [f"rejected: {count} rows: {with_rule(reason)}" for reason, count in rejects.items()]
    return [*lines, f"the rejected rows are in {path}"]
