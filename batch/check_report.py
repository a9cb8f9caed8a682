"""Shows a check of tables on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from shortlist.recsys.data.check import Check, Rejected, TableReport, rule_lines

MOST_SHOWN = 32
"""Characters of a value in the example of a rejected row: a time with its zone fits."""


def show(found: Check, console: Console) -> None:
    """Prints what was found: tables, columns, counts, rejects, notes and advice."""
    for name, report in found.tables.items():
        files = f"{report.n_files} file{'s' if report.n_files > 1 else ''}"
        _say(console, f"{name}: {', '.join(report.paths)} ({files})")
        console.print(_columns(report))
    console.print(_numbers(found))
    if found.event_types:
        console.print(_types(found))
    if found.rejects:
        _say(console, "rejected rows")
        console.print(rejects_table(found.rejects))
    for title, lines in _lists(found).items():
        for line in lines:
            _say(console, f"{title}: {line}")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column)
    return table


def _add(table: Table, *cells: str) -> None:
    """Adds a row of texts as they are: brackets in them are no markup."""
    table.add_row(*map(Text, cells))


def _columns(report: TableReport) -> Table:
    table = _table("ours", "yours", "found")
    for ours, theirs in report.columns.items():
        _add(table, ours, theirs, report.reasons[ours])
    if report.csv is not None:
        written = ", ".join(f"{key} {value!r}" for key, value in report.csv.items())
        table.caption = Text(f"written with {written}")
    return table


def _numbers(found: Check) -> Table:
    table = _table("what", "value")
    _add(table, "times", found.times)
    for name, value in found.numbers.items():
        shown = f"{value:.1%}" if isinstance(value, float) else str(value)
        _add(table, name.replace("_", " "), shown)
    return table


def _types(found: Check) -> Table:
    table = _table("event type", "rows")
    for name, count in found.event_types.items():
        _add(table, name, str(count))
    return table


def rejects_table(rejects: Mapping[str, Rejected]) -> Table:
    """How many rows each reason has rejected, and examples of them."""
    table = _table("reason", "rows", "for example")
    for reason, rejected in rejects.items():
        for i, sample in enumerate(rejected.samples):
            first = (reason, str(rejected.n)) if i == 0 else ("", "")
            place = f"{Path(sample['source']).name} row {sample['row']}"
            _add(table, *first, f"{place}: {_record(sample['record'])}")
    return table


def _record(text: str) -> str:
    """A row's filled columns, as words between which a narrow terminal wraps."""
    values = {name: value for name, value in json.loads(text).items() if value is not None}
    return ", ".join(f"{name}={_shortened(str(value))}" for name, value in values.items())


def _shortened(value: str) -> str:
    if not value.strip():
        return "(blank)"
    return value if len(value) <= MOST_SHOWN else f"{value[: MOST_SHOWN - 1]}…"


def _lists(found: Check) -> dict[str, list[str]]:
    unused = [
        f"{name}: {', '.join(report.unused)}"
        for name, report in found.tables.items()
        if report.unused
    ]
    return {
        "not used": unused,
        "events": rule_lines(found.mapping.events, found.mapping.interactions.returns),
        "note": list(found.notes),
        "advice": list(found.advice),
    }
