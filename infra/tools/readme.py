"""Writes the README's generated tables from docs/reports.

No figure in them is typed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shortlist.recsys.evaluation.page import strongest_baseline

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ("ml-100k-leave-one-out", "ml-100k-last-10pct")
METRICS = ("ndcg@10", "recall@10", "recall@20", "mrr", "coverage")
START, END = "<!-- generated: quality -->", "<!-- end of generated -->"


def quality(reports: Path) -> str:
    """The tables of all reports, as Markdown."""
    contents = [json.loads((reports / f"{name}.json").read_text()) for name in REPORTS]
    parts = [_table(report) for report in contents]
    parts += [
        _fresh_users(report["fresh_users"], report["new_items"])
        for report in contents
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
    cost = (
        f"Everything fitted and evaluated{more} in {report['seconds_total']:.0f} s "
        f"on two shared cores, {memory:.0f} MiB at most."
    )
    lines = [
        (
            f"**`{report['protocol']}`**, {users} users, all {report['n_items']} items ranked, "
            "seen items removed:"
        ),
        "",
        f"| method | {' | '.join(METRICS)} |",
        f"|---|{'---|' * len(METRICS)}",
        *(f"| {name} | {_cell(row[METRICS[0]])} | {_values(row)} |" for name, row in rows.items()),
        "",
        f"{_finding(report)} Candidate recall: {recall}. {cost}",
    ]
    return "\n".join(lines)


def _finding(report: dict[str, Any]) -> str:
    rows = report["methods"]
    rival = strongest_baseline(rows)
    assert rival is not None
    comparisons = [
        f"{_more(rows, other)} {_ends(report['paired']['two_stage'][other])}"
        for other in (rival, "retriever")
    ]
    return (
        f"NDCG@10 of `two_stage` against `{rival}`, the strongest baseline: {comparisons[0]}; "
        f"against the retriever: {comparisons[1]}."
    )


def _more(rows: dict[str, Any], other: str) -> str:
    return f"{rows['two_stage']['ndcg@10']['value'] / rows[other]['ndcg@10']['value'] - 1:+.1%}"


def _ends(pair: dict[str, float]) -> str:
    return f"(95% interval of the difference {pair['low']:.4f} to {pair['high']:.4f})"


def _fresh_users(rows: list[dict[str, Any]], new: dict[str, Any]) -> str:
    lines = [
        (
            f"**Fresh users**: {rows[0]['n_users']} users kept out of training, "
            "the next ten events after the first few, NDCG@10:"
        ),
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
    return (
        f"**New items**: of {new['n_items']} items kept out of training, "
        f"{new['recall@20']['value']:.1%} of those that a user took are among the first twenty of "
        f"these items, by content alone; chance: {new['random']:.1%}."
    )


def _worlds(rows: list[dict[str, Any]]) -> str:
    lines = [
        "**Other data, the same defaults** (`make worlds`; `last-10pct`, NDCG@10):",
        "",
        "| data | events | popularity | strongest baseline | retriever | two_stage | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_world_row, rows)])


def _world_row(row: dict[str, Any]) -> str:
    ndcg = {name: figure["value"] for name, figure in row["ndcg@10"].items()}
    best = ndcg[row["rival"]]
    pair = row["difference"]
    gain = f"{ndcg['two_stage'] / best - 1:+.1%}"
    cells = [
        row["world"],
        row["n_events"],
        f"{ndcg['popularity']:.4f}",
        f"{row['rival']} {best:.4f}",
        f"{ndcg['retriever']:.4f}",
        f"{ndcg['two_stage']:.4f}",
        f"{gain} <sub>{pair['low']:.4f} to {pair['high']:.4f}</sub>",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _values(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[metric]['value']:.4f}" for metric in METRICS[1:])


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} <sub>{figure['low']:.4f} to {figure['high']:.4f}</sub>"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(), quality(ROOT / "docs" / "reports")))
