"""Writes the README's generated tables from the reports in docs/reports: no figure there is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
)
from shortlist.recsys.evaluation.page import strongest_baseline

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ("ml-100k-leave-one-out", "ml-100k-last-10pct")
TABLE_METRICS = (HEADLINE_METRIC, "recall@10", "recall@20", "mrr", "coverage")
START, END = "<!-- generated: quality -->", "<!-- end of generated -->"


def quality(reports: Path) -> str:
    """The tables of all reports, as Markdown."""
    found = [json.loads((reports / f"{name}.json").read_text()) for name in REPORTS]
    parts = [_table(report) for report in found]
    parts += [
        _fresh_users(report["fresh_users"], report["new_items"])
        for report in found
        if "fresh_users" in report
    ]
    return "\n\n".join([*parts, _worlds(json.loads((reports / "worlds.json").read_text()))])


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
    more = ", the fresh users and new items below too" if "fresh_users" in report else ""
    cost = f"Everything fitted and evaluated{more} in {report['seconds_total']:.0f} s on two shared cores, {memory:.0f} MiB at most."
    lines = [
        f"**`{report['protocol']}`**, {users} users, all {report['n_items']} items ranked, seen items removed:",
        "",
        f"| method | {' | '.join(TABLE_METRICS)} |",
        f"|---|{'---|' * len(TABLE_METRICS)}",
        *(
            f"| {name} | {_cell(row[TABLE_METRICS[0]])} | {_values(row)} |"
            for name, row in rows.items()
        ),
        "",
        f"{_finding(report)} Candidate recall: {recall}. {cost}",
    ]
    return "\n".join(lines)


def _finding(report: dict[str, Any]) -> str:
    rows = report["methods"]
    rival = strongest_baseline(rows)
    assert rival is not None
    told = [
        f"{_more(rows, other)} {_ends(report['paired'][TWO_STAGE][other])}"
        for other in (rival, RETRIEVER)
    ]
    return f"NDCG@10 of `{TWO_STAGE}` against `{rival}`, the strongest baseline: {told[0]}; against the retriever: {told[1]}."


def _more(rows: dict[str, Any], other: str) -> str:
    return f"{rows[TWO_STAGE][HEADLINE_METRIC]['value'] / rows[other][HEADLINE_METRIC]['value'] - 1:+.1%}"


def _ends(pair: dict[str, float]) -> str:
    return f"(95% interval of the difference {pair['low']:.4f} to {pair['high']:.4f})"


def _fresh_users(rows: list[dict[str, Any]], new: dict[str, Any]) -> str:
    lines = [
        f"**Fresh users**: {rows[0]['n_users']} users kept out of training, the next ten events after the first few, NDCG@10:",
        "",
        "| events known | mean, with ties | popularity | served at once | after a retraining |",
        "|---|---|---|---|---|",
        *(_fresh_row(row) for row in rows),
        "",
        _new_items(new),
    ]
    return "\n".join(lines)


def _fresh_row(row: dict[str, Any]) -> str:
    figures = " | ".join(_cell(row[method]) for method in ("popularity", "fresh", "retrained"))
    return f"| {row['events']} | {row['mean_events']:.1f} | {figures} |"


def _new_items(new: dict[str, Any]) -> str:
    found = f"{new['recall@20']['value']:.1%} of those that a user took are among the first twenty of these items"
    return f"**New items**: of {new['n_items']} items kept out of training, {found}, by content alone; chance: {new['random']:.1%}."


def _worlds(rows: list[dict[str, Any]]) -> str:
    lines = [
        "**Other data, the same defaults** (`make worlds`; `last-10pct`, NDCG@10):",
        "",
        "| data | events | popularity | strongest baseline | retriever | two_stage | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        value = {name: figure["value"] for name, figure in row[HEADLINE_METRIC].items()}
        pair = row["difference"]
        lines.append(
            f"| {row['world']} | {row['n_events']} | {value[POPULARITY]:.4f} | {row['rival']} {value[row['rival']]:.4f}"
            f" | {value[RETRIEVER]:.4f} | {value[TWO_STAGE]:.4f} | {value[TWO_STAGE] / value[row['rival']] - 1:+.1%}"
            f" <sub>{pair['low']:.4f} to {pair['high']:.4f}</sub> |"
        )
    return "\n".join(lines)


def _values(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[metric]['value']:.4f}" for metric in TABLE_METRICS[1:])


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} <sub>{figure['low']:.4f} to {figure['high']:.4f}</sub>"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(), quality(ROOT / "docs" / "reports")))
