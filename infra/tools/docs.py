"""Writes the generated tables of README.md and docs/.

Figures come from the JSON files in docs/reports, settings and features from the code that reads
them. A document marks where a table belongs with `<!-- generated: NAME -->`; a test compares what
stands there with what this module makes, so that no figure is typed by hand.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlist.infra.tools import reference
from shortlist.infra.tools.reference import cell, module, table
from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
    strongest_baseline,
)
from shortlist.recsys.evaluation.names import METHODS, METRICS
from shortlist.recsys.models.features import feature_table
from shortlist.recsys.settings import settings_table

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "docs" / "reports"
PROTOCOLS = {
    "leave-one-out": "ml-100k-leave-one-out",
    "last-10pct": "ml-100k-last-10pct",
}
OTHER_METRICS = ("recall@10", "recall@20", "mrr", "coverage")
SUMMARY_METHODS = (POPULARITY, "item_knn", "recent_ease", "bpr_towers", RETRIEVER, TWO_STAGE)
SPEED_SUMMARY = {
    "cached answer, whole handler": "cached answer",
    "live answer, whole handler": "live answer",
    "the same with diversity": "live answer with `diversity`",
    "the same with explain": "live answer with `explain`",
}
"""Rows of the benchmark that the README shows, and what they are called there."""

HIT_RATE = "hit_rate@10"
COST_SIZES = ((10_000, 5_000, 1_000_000), (200_000, 50_000, 20_000_000))
"""Users, items and requests a month of the services whose bill is shown in parts."""

LATENCY_COLUMNS = {"p50_ms": "p50 ms", "p99_ms": "p99 ms", "p99_9_ms": "p99.9 ms"}
CPU = "CPU µs"
FLOORS = {"floor_ratio": "p50 / floor", "p99_floor_ratio": "p99 / floor"}
NOT_MEASURED = "-"

_BLOCK = re.compile(r"<!-- generated: ([\w-]+) -->\n.*?<!-- end of generated -->", re.DOTALL)
_END = "<!-- end of generated -->"


def with_tables(text: str, reports: Path = REPORTS) -> str:
    """The document with every generated block made again."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- generated: {name} -->\n{BLOCKS[name](reports)}\n{_END}"

    return _BLOCK.sub(block, text)


def pages() -> list[Path]:
    """The documents that have a generated block."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path for path in candidates if _BLOCK.search(path.read_text())]


def quality_summary(reports: Path) -> str:
    """NDCG@10 of the main methods under both protocols."""
    both = [_report(reports, name) for name in PROTOCOLS.values()]
    rows = [
        [name, *(_with_interval(report["methods"][name][HEADLINE_METRIC]) for report in both)]
        for name in SUMMARY_METHODS
    ]
    return table(["NDCG@10", *PROTOCOLS], rows)


def quality(reports: Path) -> str:
    """All methods and metrics, fresh users, new items and other data."""
    both = [_report(reports, name) for name in PROTOCOLS.values()]
    parts = [_comparison(report) for report in both]
    for report in both:
        if "fresh_users" in report:
            parts.append(_fresh_users(report["fresh_users"]))
            parts.append(_new_items(report["new_items"]))
    parts.append(_worlds(_report(reports, "worlds")))
    return "\n\n".join(parts)


def speed_summary(reports: Path) -> str:
    """The latencies that a caller sees, and what a process costs."""
    speed = _report(reports, "speed")
    overload = _report(reports, "load")["loads"][-1]
    by_name = {row["what"]: row for row in speed["latencies"]}
    rows = [
        [title, f"{by_name[name]['p50_ms']:.3g} ms", f"{by_name[name]['p99_ms']:.3g} ms"]
        for name, title in SPEED_SUMMARY.items()
    ]
    fastest = max(speed["http"], key=lambda row: row["answers_per_second"])
    cold, memory = speed["cold_start_seconds"], speed["memory_mib"]
    facts = (
        f"From a cold start, the first cached answer takes {cold['cached answer']:.2f} s"
        f" and the first live one {cold['live answer']:.2f} s."
        f" A process holds {memory['cached answer']:.0f} or {memory['live answer']:.0f} MiB."
        f" Over HTTP it gives {fastest['answers_per_second']:.0f} cached answers a second,"
        f" and precompute makes {speed['precompute_users_per_second']:.0f} lists a second on one"
        f" core. At {overload['load']:.0%} of its capacity, goodput stays at"
        f" {overload['goodput']:.0%}."
    )
    return f"{table(['', 'p50', 'p99'], rows)}\n\n{_wrapped(facts)}"


def speed(reports: Path) -> str:
    """Every benchmark: the demo's release, larger worlds where they were measured, and overload."""
    names = ["speed", *sorted(path.stem for path in reports.glob("speed-*.json"))]
    parts = [_benchmark(_report(reports, name)) for name in names]
    parts += [_overload(_report(reports, "load")), _training(_report(reports, "training"))]
    parts.append(_refresh(_report(reports, "refresh")))
    return "\n\n".join(parts)


def settings(_reports: Path) -> str:
    """Each environment variable with its default, what it may be and what it does."""
    rows = [
        [f"`{variable}`", *map(cell, (_code(default), allowed, description))]
        for variable, default, allowed, description in settings_table()
    ]
    return table(["variable", "default", "allowed", "meaning"], rows)


def features(_reports: Path) -> str:
    """Each feature of the ranker, in its order."""
    rows = [[f"`{name}`", default, cell(sentence)] for name, default, sentence in feature_table()]
    return table(["feature", "where unknown", "meaning"], rows)


def metrics(_reports: Path) -> str:
    """Each metric of the API."""
    rows = []
    for name, metric in module("lambda_handler.metrics").METRICS.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append([f"`{name}`", metric.kind, labels, metric.help])
    return table(["metric", "kind", "labels", "meaning"], rows)


def metric_names(_reports: Path) -> str:
    """Each metric of a report in a sentence."""
    return table(["figure", "meaning"], [[m.label, m.sentence] for m in METRICS.values()])


def method_names(_reports: Path) -> str:
    """Each method of a report in a sentence."""
    rows = [[f"`{name}`", sentence] for name, sentence in METHODS.items()]
    return table(["method", "what it offers"], rows)


def evaluation_example(reports: Path) -> str:
    """One evaluation in a sentence for people without statistics."""
    methods = _report(reports, PROTOCOLS["leave-one-out"])["methods"]
    ours, popular = methods[TWO_STAGE][HIT_RATE], methods[POPULARITY][HIT_RATE]
    return _wrapped(
        f"For example: of {methods[TWO_STAGE]['n_users']} users of MovieLens the last films were"
        f" hidden. With Shortlist {ours['value']:.0%} of them find a hidden film among ten"
        f" ({ours['low']:.0%} to {ours['high']:.0%}), where the most popular films alone give"
        f" {popular['value']:.0%} ({popular['low']:.0%} to {popular['high']:.0%})."
    )


def cost(_reports: Path) -> str:
    """The monthly bill of two sizes, by component."""
    priced = module("batch.cost")
    sizes = [priced.Size(*size) for size in COST_SIZES]
    bills = [priced.estimate(size) for size in sizes]
    rows = [
        [parts[0].name, *(f"${part.dollars:.2f}" for part in parts)]
        for parts in zip(*bills, strict=True)
    ]
    totals = [sum(part.dollars for part in bill) for bill in bills]
    rows.append(["**together**", *(f"**${total:.0f}**" for total in totals)])
    each = [f"${1e6 * total / s.requests:.2f}" for total, s in zip(totals, sizes, strict=True)]
    rows.append(["a million requests", *each])
    named = [
        f"{s.users:,} users, {s.items:,} items, {s.requests / 1e6:.0f} million requests"
        for s in sizes
    ]
    return table(["a month", *named], rows)


def commands(_reports: Path) -> str:
    """Each command of the command line."""
    return reference.commands()


def routes(_reports: Path) -> str:
    """Each route of the API, and each shape."""
    return reference.routes()


BLOCKS: dict[str, Callable[[Path], str]] = {
    "commands": commands,
    "cost": cost,
    "evaluation-example": evaluation_example,
    "method-names": method_names,
    "metric-names": metric_names,
    "routes": routes,
    "quality-summary": quality_summary,
    "quality": quality,
    "speed-summary": speed_summary,
    "speed": speed,
    "settings": settings,
    "features": features,
    "metrics": metrics,
}


def _report(reports: Path, name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads((reports / f"{name}.json").read_text())


def _comparison(report: dict[str, Any]) -> str:
    methods = report["methods"]
    n_users = next(iter(methods.values()))["n_users"]
    rows = []
    for name, row in methods.items():
        others = [f"{row[metric]['value']:.4f}" for metric in OTHER_METRICS]
        rows.append([name, _with_interval(row[HEADLINE_METRIC]), *others])
    recall = ", ".join(f"{name} {share:.3f}" for name, share in report["candidate_recall"].items())
    mebibytes = report["peak_memory_bytes"]["process"] / 2**20
    scope = " with fresh users and new items" if "fresh_users" in report else ""
    seconds = report["seconds_total"]
    title = f"**`{report['protocol']}`**, {n_users} users, all {report['n_items']} items ranked:"
    cost = f"in {seconds:.0f} s on two shared cores, with at most {mebibytes:.0f} MiB"
    lines = [
        title,
        "",
        table(["method", HEADLINE_METRIC, *OTHER_METRICS], rows),
        "",
        f"- {_gain(report, strongest_baseline(methods) or '')}, the strongest baseline.",
        f"- {_gain(report, RETRIEVER)}.",
        f"- Candidate recall: {recall}.",
        f"- Fitted and evaluated{scope} {cost}.",
    ]
    return "\n".join(lines)


def _gain(report: dict[str, Any], rival: str) -> str:
    ours = report["methods"][TWO_STAGE][HEADLINE_METRIC]["value"]
    theirs = report["methods"][rival][HEADLINE_METRIC]["value"]
    pair = report["paired"][TWO_STAGE][rival]
    interval = f"95% interval of the difference {pair['low']:.4f} to {pair['high']:.4f}"
    return f"NDCG@10 of `{TWO_STAGE}`: {ours / theirs - 1:+.1%} ({interval}) against `{rival}`"


def _fresh_users(rows: list[dict[str, Any]]) -> str:
    methods = (POPULARITY, "fresh", "retrained")
    cells = [
        [
            str(row["events"]),
            f"{row['mean_events']:.1f}",
            *(_with_interval(row[m]) for m in methods),
        ]
        for row in rows
    ]
    header = ["events known", "mean, with ties", "popularity", "at once", "after a retraining"]
    title = (
        f"**Fresh users**: {rows[0]['n_users']} users kept out of training,"
        " the next ten events after the first few, NDCG@10:"
    )
    return f"{title}\n\n{table(header, cells)}"


def _new_items(new: dict[str, Any]) -> str:
    return _wrapped(
        f"**New items**: {new['n_items']} items were kept out of training and ranked by content"
        f" alone. Of those that a user took, {new['recall@20']['value']:.1%} are among the first"
        f" twenty of these items; chance would give {new['random']:.1%}."
    )


def _worlds(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        value = {name: figure["value"] for name, figure in row[HEADLINE_METRIC].items()}
        rival, pair = row["rival"], row["difference"]
        gain = f"{value[TWO_STAGE] / value[rival] - 1:+.1%}"
        cells.append(
            [
                row["world"],
                str(row["n_events"]),
                f"{value[POPULARITY]:.4f}",
                f"{rival} {value[rival]:.4f}",
                f"{value[RETRIEVER]:.4f}",
                f"{value[TWO_STAGE]:.4f}",
                f"{gain} <sub>{pair['low']:.4f} to {pair['high']:.4f}</sub>",
            ]
        )
    header = "data | events | popularity | strongest baseline | retriever | two_stage | difference"
    title = "**Other data, the same defaults** (`make worlds`; `last-10pct`, NDCG@10):"
    return f"{title}\n\n{table(header.split(' | '), cells)}"


def _benchmark(report: dict[str, Any]) -> str:
    rows = [
        [
            row["what"],
            *(_milliseconds(row.get(key)) for key in LATENCY_COLUMNS),
            f"{row['cpu_us']}",
            *(f"{row[key]:.2f}" for key in FLOORS),
        ]
        for row in report["latencies"]
    ]
    for row in report["http"]:
        name = (
            f"HTTP, {row['connections']} connections: {row['answers_per_second']} answers a second"
        )
        latencies = [_milliseconds(row.get(key)) for key in LATENCY_COLUMNS]
        rows.append([name, *latencies, *[NOT_MEASURED] * (1 + len(FLOORS))])
    cold, memory = report["cold_start_seconds"], report["memory_mib"]
    facts = [
        f"- Precompute: {report['precompute_users_per_second']:.0f} users a second on one core.",
        *(
            f"- A fresh process: {seconds:.2f} s to its first {kind};"
            f" {memory[kind]:.0f} MiB after 400 of them."
            for kind, seconds in cold.items()
        ),
    ]
    measured = table(["measured", *LATENCY_COLUMNS.values(), CPU, *FLOORS.values()], rows)
    return "\n".join([f"**{report['setup']}**", "", measured, "", *facts])


def _overload(report: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['load']:.0%}",
            f"{row['goodput']:.0%}",
            f"{row['p99_ms']:.0f}",
            str(row["lost"]),
            f"{row['recovery_seconds']:.2f}",
        ]
        for row in report["loads"]
    ]
    header = ["load, of capacity", "goodput", "p99 ms", "lost requests", "recovery s"]
    return f"**{report['setup']}**\n\n{table(header, rows)}"


def _training(report: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['items']:,}",
            f"{row['step_ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['round_end_ms']:.0f}",
        ]
        for row in report["steps"]
    ]
    header = ["items", "CPU ms a step", "ratio", "CPU ms at the end of a round"]
    return f"**{report['setup']}**\n\n{table(header, rows)}"


def _refresh(report: dict[str, Any]) -> str:
    header = {
        "users": "users",
        "items": "items",
        "events": "events",
        "seconds": "seconds",
        "cpu_seconds": "of CPU",
        "towers_seconds": "towers",
        "rankers_seconds": "rankers",
        "evaluation_seconds": "evaluation",
        "peak_mib": "MiB of a process",
    }
    rows = [[row["world"], *(f"{row[column]:,}" for column in header)] for row in report["worlds"]]
    return f"**{report['setup']}**\n\n{table(['world', *header.values()], rows)}"


def _with_interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} <sub>{figure['low']:.4f} to {figure['high']:.4f}</sub>"


def _milliseconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3f}"


def _code(text: str) -> str:
    return text if text in ("", "none") or " " in text else f"`{text}`"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    """Writes every page again."""
    for page in pages():
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()
