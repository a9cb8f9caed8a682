"""Writes the README's generated tables from the reports in docs/reports: no figure there is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPORTS = ("ml-100k-leave-one-out", "ml-100k-last-10pct")
METRICS = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage")
START, END = "<!-- generated: quality -->", "<!-- end of generated -->"


def quality(reports: Path) -> str:
    """The tables of all reports, as Markdown."""
    return "\n\n".join(_table(json.loads((reports / f"{name}.json").read_text())) for name in REPORTS)


def with_tables(readme: str, tables: str) -> str:
    """The README with `tables` between its marks."""
    head, _, rest = readme.partition(START)
    _, _, tail = rest.partition(END)
    return f"{head}{START}\n{tables}\n{END}{tail}"


def _table(report: dict[str, Any]) -> str:
    rows = report["methods"]
    users = next(iter(rows.values()))["n_users"]
    recall = ", ".join(f"{name} {value:.3f}" for name, value in report["candidate_recall"].items())
    memory = report["peak_memory_bytes"]["process"] / 2**20
    cost = f"Everything fitted and evaluated in {report['seconds_total']:.0f} s on two cores, {memory:.0f} MiB at most."
    lines = [
        f"**`{report['protocol']}`**, {users} users, all {report['n_items']} items ranked, seen items removed:",
        "",
        f"| method | {' | '.join(METRICS)} |",
        f"|---|{'---|' * len(METRICS)}",
        *(f"| {name} | {' | '.join(_cell(row[m]) for m in METRICS)} |" for name, row in rows.items()),
        "",
        f"Candidate recall: {recall}. {cost}",
    ]
    return "\n".join(lines)


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} <sub>{figure['low']:.4f} to {figure['high']:.4f}</sub>"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(), quality(ROOT / "docs" / "reports")))
