"""Renders the report as one HTML page.

The page answers first: tiles at its top, then the comparison, then what it rests on; the rest is
folded. It loads nothing and needs no script, so it can be mailed, archived and opened years later.
Equal reports give equal bytes. A section that the report lacks is left out, and an unknown figure
is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined, Template

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.data.reject_reasons import rule_of
from shortlist.recsys.evaluation import figures
from shortlist.recsys.evaluation.figures import as_float, known
from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
    headline,
    pair_of,
    standing,
    strongest_baseline,
)
from shortlist.recsys.evaluation.names import LEFT_OUT, METHODS, METRICS, PROTOCOLS, SOURCES
from shortlist.recsys.evaluation.plots import curves_plot, fresh_plot, segments_plot
from shortlist.recsys.evaluation.report import Report
from shortlist.recsys.evaluation.small_samples import is_few
from shortlist.recsys.evaluation.tiles import tiles
from shortlist.recsys.models.features import FEATURES

CHIEF_METRICS = ("recall@20", "coverage")
"""Metrics beside NDCG@10 in the first table: of accuracy, and of what it may cost."""

N_IMPORTANCES = 8
"""Features that are not folded; of the others few have a share that could be seen."""

SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "changes": ("What changed", ("serving", "gate", "drift")),
    "measured": ("Who was measured", ("data", "left_out", "ties")),
    "segments": ("For whom it works", ("segments",)),
    "repeats": ("New and repeated items", ("repeats",)),
    "items": ("Candidates and rare items", ("candidate_recall", "popularity")),
    "unseen": ("What training has not seen", ("fresh_users", "new_items")),
    "ranker": ("What the ranker looks at", ("ranker", "importances", "learning_curves")),
    "checks": ("What was checked", ("audit",)),
    "examples": ("Examples", ("examples",)),
    "cost": ("What it cost", ("seconds", "seconds_total", "peak_memory_bytes")),
}
"""Each section's heading, and the parts of the report of which it needs one."""

EMPTY: tuple[object, ...] = (None, {}, [], "")
"""Parts of a report that say nothing."""

VERDICTS = {"better": "better", "worse": "worse", "open": "not told apart"}
"""What a reader is told of a difference."""


class Bar(NamedTuple):
    """An interval and its value, as percent of the axis."""

    low: float
    value: float
    high: float


def write_page(report: Report, path: Path) -> None:
    """Writes the report's page whole or not at all."""
    write_atomically(path, render(report))


def render(report: Report) -> str:
    """The page's text. Names and titles in the report are untrusted and come out escaped."""
    methods = report["methods"]
    filled = {name: part for name, part in report.items() if part not in EMPTY}
    measured = set().union(*methods.values())
    metrics = {metric: each for metric, each in METRICS.items() if metric in measured}
    chief = {name: row.get(HEADLINE_METRIC) for name, row in methods.items()}
    axis_end = _axis_end(chief.values())
    return _template().render(
        report=filled,
        contents=contents(filled),
        protocol=PROTOCOLS.get(report.get("protocol", ""), ""),
        headline=headline(report),
        tiles=tiles(filled),
        metrics=metrics,
        chief_metrics=[metric for metric in CHIEF_METRICS if metric in metrics],
        best={m: _highest({name: row.get(m) for name, row in methods.items()}) for m in metrics},
        ours=TWO_STAGE,
        has_ours=TWO_STAGE in methods,
        ranked=_ranked(methods),
        bars=_bars(chief, axis_end),
        axis_end=axis_end,
        shown=shown_methods(methods),
        plots=_plots(filled),
        importances=_importances(filled),
        n_importances=N_IMPORTANCES,
        names={"methods": METHODS, "sources": SOURCES, "left_out": LEFT_OUT, "features": FEATURES},
    )


def contents(report: Mapping[str, Any]) -> dict[str, str]:
    """The page's headings by their anchors: those sections of which the report has a part."""
    found = {
        anchor: heading
        for anchor, (heading, parts) in SECTIONS.items()
        if any(report.get(part) not in EMPTY for part in parts)
    }
    return {"methods": "Methods", **found, "names": "Names"}


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (
        figures.number,
        figures.share,
        figures.ends,
        figures.p_value,
        figures.duration,
        figures.size,
        figures.day,
        known,
        is_few,
        rule_of,
    )
    environment.filters |= {function.__name__: function for function in filters}
    environment.globals |= {
        "column_names": _column_names,
        "highest": _highest,
        "pair_of": pair_of,
        "relative": _relative,
        "strongest_baseline": strongest_baseline,
        "words_of": words_of,
    }
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def shown_methods(methods: Mapping[str, Any]) -> list[str]:
    """The few methods that a crowded plot has room for."""
    wanted = (POPULARITY, strongest_baseline(methods, but=[POPULARITY]), RETRIEVER, TWO_STAGE)
    return [name for name in wanted if name is not None and name in methods]


def words_of(pair: Mapping[str, Any]) -> str:
    """What the interval of a difference says of the two stages, in words."""
    return VERDICTS.get(standing(pair), figures.DASH)


def _ranked(methods: Mapping[str, Any]) -> list[str]:
    """The methods, the best NDCG@10 first and unknown ones last."""
    values = {name: known(row.get(HEADLINE_METRIC)).value for name, row in methods.items()}
    return sorted(values, key=lambda name: -values[name] if math.isfinite(values[name]) else 1.0)


def _axis_end(of: Iterable[object]) -> float:
    """The greatest end of all figures, or their greatest value where no end is known."""
    ends = (end for figure in of for end in known(figure) if math.isfinite(end))
    return max(ends, default=math.nan)


def _bars(of: Mapping[str, Any], axis_end: float) -> dict[str, Bar]:
    """Each known figure on an axis from 0."""
    bars = {}
    for name, each in ((name, known(figure)) for name, figure in of.items()):
        if math.isfinite(each.value):
            low, high = (each.low, each.high) if each.has_interval else (each.value, each.value)
            parts = (low, each.value, high)
            bars[name] = Bar(*(100 * part / axis_end if axis_end else 0.0 for part in parts))
    return bars


def _plots(report: Mapping[str, Any]) -> dict[str, Any]:
    """The page's plots by section, as inline SVG; a plot without a figure is empty."""
    shown = shown_methods(report["methods"])
    return {
        "segments": {
            kind: segments_plot(kind, rows, shown)
            for kind, rows in report.get("segments", {}).items()
        },
        "curves": {
            stage: curves_plot(stage, rows)
            for stage, rows in report.get("learning_curves", {}).items()
        },
        "fresh_users": fresh_plot(report.get("fresh_users", [])),
    }


def _importances(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The features and their shares of the ranker's gain, the largest first."""
    pairs = [(name, as_float(gain)) for name, gain in report.get("importances", {}).items()]
    return sorted((p for p in pairs if math.isfinite(p[1])), key=lambda p: -p[1])


def _column_names(rows: Iterable[Mapping[str, Any] | None]) -> Sequence[str]:
    """The keys of all rows, in the order in which they are first seen."""
    return list(dict.fromkeys(name for row in rows for name in row or {}))


def _highest(of: Mapping[str, Any]) -> float:
    values = (known(figure).value for figure in of.values())
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _relative(pair: Mapping[str, Any], theirs: object) -> float:
    """The difference as a share of the other method's own figure."""
    base = known(theirs).value
    return as_float(pair.get("difference")) / base if base else math.nan
