"""Renders the report as one HTML page.

The page has the finding in words, plots as inline SVG, and every figure in a table. It loads
nothing and needs no script, so it can be mailed, archived and opened years later. Equal reports
give equal bytes. A section that the report lacks is left out, and an unknown figure is a dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
)
from shortlist.recsys.evaluation.names import METRICS, PROTOCOLS
from shortlist.recsys.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

N_IMPORTANCES = 20
"""Features with a bar; of the others none has a share that could be seen."""

# Colours that occur nowhere else: matplotlib draws in these, and the page's style sheet says what
# they are in a light and in a dark theme.
INKS = {
    "#010101": "var(--ink)",
    "#020202": "var(--soft)",
    "#030303": "var(--line)",
    "#040404": "var(--c1)",
    "#050505": "var(--c2)",
    "#060606": "var(--c3)",
    "#070707": "var(--c4)",
}
INK, SOFT, LINE, *SERIES = INKS
MARKERS = "osD^"
WIDTH = 6.0
"""Inches of every plot; the page scales it."""

MAX_MARKED_POINTS = 30
"""Most points of a curve that each have a marker; more would run into each other."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": LINE,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
LEGEND: dict[str, Any] = {
    "loc": "outside upper left",
    "ncols": 4,
    "frameon": False,
    "handletextpad": 0.2,
    "columnspacing": 1.2,
    "fontsize": 9,
}

Draw = Callable[["Axes"], None]


class Known(NamedTuple):
    """A figure and the ends of its interval, NaN where they are not known."""

    value: float
    low: float
    high: float


class Dots(NamedTuple):
    """One series of a plot: its name and a figure for each row."""

    name: str
    figures: Sequence[Known]


def write_page(report: Report, path: Path) -> None:
    """Writes the report's page whole or not at all."""
    write_atomically(path, render(report))


def render(report: Report) -> str:
    """The page's text. Names and titles in the report are untrusted and come out escaped."""
    methods, paired = report["methods"], report.get("paired") or {}
    measured = set().union(*methods.values())
    metrics = {metric: each for metric, each in METRICS.items() if metric in measured}
    best = {m: _highest({name: row.get(m) for name, row in methods.items()}) for m in metrics}
    filled = {name: section for name, section in report.items() if section not in (None, {}, [])}
    return _template().render(
        report=filled,
        protocol=PROTOCOLS.get(report.get("protocol", ""), ""),
        headline=headline(report),
        metrics=metrics,
        best=best,
        ours=TWO_STAGE,
        plots=plots(report),
        importances=top_importances(report),
        pair_names=_names([paired, *paired.values()]),
        popularity_methods=_names((report.get("popularity") or {}).values()),
        segment_methods=lambda rows: _names(row["methods"] for row in rows),
        highest=_highest,
        relative=lambda other: _relative(paired[TWO_STAGE][other], methods.get(other, {})),
        verdict=verdict,
    )


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = (number, share, ends, p_value, duration, size, known)
    environment.filters |= {function.__name__: function for function in filters}
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def known(figure: object) -> Known:
    """A figure of the report, which is a number, a value with its interval, or nothing."""
    if isinstance(figure, Mapping):
        return Known(*(_float(figure.get(field)) for field in ("value", "low", "high")))
    return Known(_float(figure), math.nan, math.nan)


def number(value: object, digits: int = 4) -> str:
    """Four decimals below one, where metrics live, and two above."""
    n = _float(value)
    if not math.isfinite(n):
        return DASH
    return f"{n:.{digits if abs(n) < 1 else min(digits, 2)}f}".replace("-", MINUS)


def p_value(value: object) -> str:
    """Four decimals, "< 0.0001" below: resampling knows no smaller one."""
    n = _float(value)
    return "< 0.0001" if n < 1e-4 else number(n)  # noqa: PLR2004 - the fourth decimal


def share(value: object, sign: str = "") -> str:
    """0.123 as 12.3%."""
    n = _float(value)
    return f"{n:{sign}.1%}".replace("-", MINUS) if math.isfinite(n) else DASH


def ends(figure: Known) -> str:
    """The interval, or nothing where neither end is known."""
    if not (math.isfinite(figure.low) or math.isfinite(figure.high)):
        return ""
    return f"{number(figure.low)} to {number(figure.high)}"


def duration(seconds: object) -> str:
    """Seconds for a reader: 0.42 s, 12.3 s, 3 min 20 s, 2 h 5 min."""
    n = _float(seconds)
    if not math.isfinite(n):
        return DASH
    if n < 60:  # noqa: PLR2004 - seconds a minute
        return f"{n:.2f} s" if n < 1 else f"{n:.1f} s"
    minutes, rest = divmod(round(n), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(n_bytes: object) -> str:
    """Bytes as MiB or GiB."""
    n = _float(n_bytes) / 2**20
    if not math.isfinite(n):
        return DASH
    return f"{n:.0f} MiB" if n < 1024 else f"{n / 1024:.2f} GiB"  # noqa: PLR2004 - MiB a GiB


def strongest_baseline(methods: Mapping[str, Any], *, but: Iterable[str] = ()) -> str | None:
    """The baseline with the best NDCG@10, leaving out those named in `but`."""
    excluded = {TWO_STAGE, RETRIEVER, *but}
    values = {name: known(row.get(HEADLINE_METRIC)).value for name, row in methods.items()}
    baselines = [n for n, v in values.items() if n not in excluded and math.isfinite(v)]
    return max(baselines, key=values.__getitem__, default=None)


def shown_methods(methods: Mapping[str, Any]) -> list[str]:
    """The few methods that a crowded plot has room for."""
    wanted = (POPULARITY, strongest_baseline(methods, but=[POPULARITY]), RETRIEVER, TWO_STAGE)
    return [name for name in wanted if name is not None and name in methods]


def headline(report: Report) -> str:
    """The finding in words, or nothing where the two stages were not measured."""
    methods = report["methods"]
    ours = known(methods.get(TWO_STAGE, {}).get(HEADLINE_METRIC))
    if not math.isfinite(ours.value):
        return ""
    interval = f" (95% interval {ends(ours)})" if ends(ours) else ""
    value = f"The two-stage recommender reaches an NDCG@10 of {number(ours.value)}{interval}"
    rival = strongest_baseline(methods)
    if rival is None:
        return f"{value}."
    theirs = known(methods[rival][HEADLINE_METRIC]).value
    comparison = f"{_amount(ours.value, theirs)} than {rival}, the strongest baseline"
    return f"{value}: {comparison}, at {number(theirs)}. {_verdict(report, rival)}".strip()


def _amount(ours: float, theirs: float) -> str:
    """The difference in words: as a share, or in itself where a share of nothing has no meaning."""
    more = "more" if ours >= theirs else "less"
    if not theirs:
        return f"{number(abs(ours - theirs))} {more}"
    return f"{abs(ours / theirs - 1):.1%} {more}"


def verdict(pair: Mapping[str, Any]) -> str:
    """Whether the interval of a difference includes zero, in words."""
    low, high = _float(pair.get("low")), _float(pair.get("high"))
    if not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return "includes zero" if low <= 0 <= high else "excludes zero"


def _verdict(report: Report, rival: str) -> str:
    meanings = {
        "includes zero": "the two cannot be told apart on these users",
        "excludes zero": "more than the draw of users explains",
    }
    pair = (report.get("paired") or {}).get(TWO_STAGE, {}).get(rival) or {}
    meaning = meanings.get(verdict(pair))
    if meaning is None:
        return ""
    interval = f"The 95% interval of the difference user by user, {ends(known(pair))}"
    return f"{interval}, {verdict(pair)}: {meaning}."


def plots(report: Report) -> dict[str, Any]:
    """The page's plots by section, as inline SVG; a plot without a figure is empty."""
    methods = report["methods"]
    shown = shown_methods(methods)
    return {
        "methods": _methods_plot(methods),
        "segments": {
            kind: _segments_plot(kind, rows, shown)
            for kind, rows in (report.get("segments") or {}).items()
        },
        "importances": bars_plot("Share of gain by feature", top_importances(report)),
        "curves": {
            stage: curves_plot(stage, rows)
            for stage, rows in (report.get("learning_curves") or {}).items()
        },
        "fresh_users": _fresh_plot(report.get("fresh_users") or []),
    }


def top_importances(report: Report) -> list[tuple[str, float]]:
    """The features with the largest share of gain, the largest first."""
    pairs = [(name, _float(gain)) for name, gain in (report.get("importances") or {}).items()]
    return sorted((p for p in pairs if math.isfinite(p[1])), key=lambda p: -p[1])[:N_IMPORTANCES]


def dots_plot(label: str, rows: Sequence[str], series: Sequence[Dots], axis: str) -> Markup:
    """A row for each name, in it a dot with its interval for each series."""
    if not any(math.isfinite(f.value) for s in series for f in s.figures):
        return Markup()
    has_legend = len(series) > 1

    def draw(axes: Axes) -> None:
        for place, one in enumerate(series):
            # The dots of a row are spread over 0.8 of it, around its middle.
            shift = (place - (len(series) - 1) / 2) * 0.8 / len(series) if has_legend else 0.0
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            _draw_dots(axes, one, shift, colour, marker)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(METRICS[axis].label if axis in METRICS else axis)
        axes.grid(axis="x")

    step = 0.16 * len(series) + 0.14 if has_legend else 0.3
    height = 0.75 + (0.35 if has_legend else 0) + step * len(rows)
    return _svg(label, height, [draw], legend=has_legend)


def _draw_dots(axes: Axes, series: Dots, shift: float, colour: str, marker: str) -> None:
    """Draws the intervals of a series, then its dots, `shift` rows below the row's middle."""
    for row, figure in enumerate(series.figures):
        if math.isfinite(figure.low) and math.isfinite(figure.high):
            x, y = [figure.low, figure.high], [row + shift] * 2
            axes.plot(x, y, color=colour, linewidth=1.6)
    rows = [row for row, figure in enumerate(series.figures) if math.isfinite(figure.value)]
    if rows:
        values = [series.figures[row].value for row in rows]
        places = [row + shift for row in rows]
        axes.plot(values, places, marker, color=colour, markersize=5, label=series.name)


def bars_plot(label: str, bars: Sequence[tuple[str, float]]) -> Markup:
    """A horizontal bar for each name."""
    if not bars:
        return Markup()

    def draw(axes: Axes) -> None:
        axes.barh(range(len(bars)), [value for _, value in bars], color=SERIES[0], height=0.65)
        axes.set_yticks(range(len(bars)), [name for name, _ in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlabel(label)
        axes.grid(axis="x")

    return _svg(label, 0.7 + 0.24 * len(bars), [draw])


def curves_plot(stage: str, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """A panel for each measure (loss, validation) against the first field, the round or tree."""
    over, *measures = _names(rows) or [""]
    panels = []
    for place, field in enumerate(measures):
        points = [(row[over], row[field]) for row in rows if math.isfinite(_float(row.get(field)))]
        if points:
            panels.append(_line(points, over, field, SERIES[place % len(SERIES)]))
    if not panels:
        return Markup()
    return _svg(f"Learning curves of {stage}: {' and '.join(measures)} by {over}", 2.4, panels)


def _line(points: Sequence[tuple[float, float]], over: str, field: str, colour: str) -> Draw:
    from matplotlib.ticker import MaxNLocator

    marker_size = 3 if len(points) <= MAX_MARKED_POINTS else 0

    def draw(axes: Axes) -> None:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, marker="o", markersize=marker_size)
        axes.set_title(field, loc="left")
        axes.set_xlabel(over)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid()

    return draw


def _methods_plot(methods: Mapping[str, Any]) -> Markup:
    figures = {name: known(row.get(HEADLINE_METRIC)) for name, row in methods.items()}
    names = sorted(figures, key=lambda name: -_nan_last(figures[name].value))
    dots = [Dots("", [figures[name] for name in names])]
    return dots_plot("NDCG@10 by method, with 95% intervals", names, dots, HEADLINE_METRIC)


def _segments_plot(kind: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> Markup:
    series = [Dots(name, [known(row["methods"].get(name)) for row in rows]) for name in shown]
    names = [f"{row['segment']}  (n={row['n_users']})" for row in rows]
    return dots_plot(f"NDCG@10 by {kind}, with 95% intervals", names, series, HEADLINE_METRIC)


def _fresh_plot(rows: Sequence[Mapping[str, Any]]) -> Markup:
    series = [
        Dots(name, [known(row.get(name)) for row in rows])
        for name in (POPULARITY, "fresh", "retrained")
    ]
    names = [f"{row['events']} event{'' if row['events'] == 1 else 's'}" for row in rows]
    return dots_plot(
        "NDCG@10 of fresh users by their number of events, with 95% intervals",
        names,
        series,
        HEADLINE_METRIC,
    )


def _svg(label: str, height: float, panels: Sequence[Draw], *, legend: bool = False) -> Markup:
    """The panels next to each other as an SVG element.

    It scales, takes the page's colours, and has a label for screen readers.
    """
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    out = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": label}):  # ids that no other plot on the page has
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, draw in zip(all_axes, panels, strict=True):
            draw(axes)
        if legend:
            figure.legend(**LEGEND)
        # Without the date: equal reports give equal bytes.
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), label)


def _inline(svg: str, label: str) -> Markup:
    """Matplotlib's SVG as an element of the page."""
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None, "matplotlib gives every SVG a view box"
    body = svg[svg.index(">", box.end()) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # figure_1 is on every plot, and an id is unique
    for drawn, ink in INKS.items():
        body = body.replace(drawn, ink)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return Markup(f'<svg {names} {box[0]} role="img" aria-label="{escape(label)}">{body}')  # noqa: S704 - matplotlib escapes


def _names(rows: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """The keys of all rows, in the order in which they are first seen."""
    return list(dict.fromkeys(name for row in rows for name in row or {}))


def _highest(figures: Mapping[str, Any]) -> float:
    values = (known(figure).value for figure in figures.values())
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _relative(pair: Mapping[str, Any] | None, theirs: Mapping[str, Any]) -> float:
    """The difference as a share of the other method's own figure."""
    base = known(theirs.get(HEADLINE_METRIC)).value
    return _float((pair or {}).get("difference")) / base if base else math.nan


def _float(value: Any) -> float:  # noqa: ANN401 - whatever the report holds
    return math.nan if value is None else float(value)


def _nan_last(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
