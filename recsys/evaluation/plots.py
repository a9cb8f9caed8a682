"""Draws the plots of a report as inline SVG.

They take the colours of the page that they stand on, in a light and in a dark theme, and equal
reports give equal bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from shortlist.recsys.evaluation.figures import Known, as_float, known
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC, POPULARITY
from shortlist.recsys.evaluation.names import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    "figure.facecolor": "none",
    "axes.facecolor": "none",
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

_METRIC = METRICS[HEADLINE_METRIC].label
Draw = Callable[["Axes"], None]


class Dots(NamedTuple):
    """One series of a plot: its name and a figure for each row."""

    name: str
    figures: Sequence[Known]


def segments_plot(kind: str, rows: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> Markup:
    """NDCG@10 of the methods in `shown` by segment of users."""
    series = [Dots(name, [known(row["methods"].get(name)) for row in rows]) for name in shown]
    names = [f"{row['segment']}  (n={row['n_users']})" for row in rows]
    return _dots_plot(f"{_METRIC} by {kind}, with 95% intervals", names, series)


def fresh_plot(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """NDCG@10 of fresh users by the number of events that are known of them."""
    series = [
        Dots(name, [known(row.get(name)) for row in rows])
        for name in (POPULARITY, "fresh", "retrained")
    ]
    names = [f"{row['events']} event{'' if row['events'] == 1 else 's'}" for row in rows]
    label = f"{_METRIC} of fresh users by their number of events, with 95% intervals"
    return _dots_plot(label, names, series)


def _dots_plot(label: str, rows: Sequence[str], series: Sequence[Dots]) -> Markup:
    """A row for each name, in it a dot with its interval for each series; empty without a dot."""
    if not any(math.isfinite(f.value) for s in series for f in s.figures):
        return Markup()

    def draw(axes: Axes) -> None:
        for place, one in enumerate(series):
            # The dots of a row are spread over 0.8 of it, around its middle.
            shift = (place - (len(series) - 1) / 2) * 0.8 / len(series)
            _draw_dots(axes, one, shift, SERIES[place], MARKERS[place])
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(_METRIC)
        axes.grid(axis="x")

    height = 1.1 + (0.13 * len(series) + 0.1) * len(rows)
    return _svg(label, height, [draw], legend=True)


def _draw_dots(axes: Axes, series: Dots, shift: float, colour: str, marker: str) -> None:
    """Draws the intervals of a series, then its dots, `shift` rows below the row's middle."""
    for row, figure in enumerate(series.figures):
        if figure.has_interval:
            x, y = [figure.low, figure.high], [row + shift] * 2
            axes.plot(x, y, color=colour, linewidth=1.6)
    rows = [row for row, figure in enumerate(series.figures) if math.isfinite(figure.value)]
    if rows:
        values = [series.figures[row].value for row in rows]
        places = [row + shift for row in rows]
        axes.plot(values, places, marker, color=colour, markersize=5, label=series.name)


def curves_plot(stage: str, rows: Sequence[Mapping[str, Any]]) -> Markup:
    """A panel for each measure (loss, validation) against the first field, the round or tree."""
    if not rows:
        return Markup()
    over, *measures = dict.fromkeys(name for row in rows for name in row)
    panels = []
    for place, field in enumerate(measures):
        points = [
            (row[over], row[field]) for row in rows if math.isfinite(as_float(row.get(field)))
        ]
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


def _svg(label: str, height: float, panels: Sequence[Draw], *, legend: bool = False) -> Markup:
    """The panels next to each other as an SVG element.

    It scales, takes the page's colours, and has a label for screen readers.
    """
    import io

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": label}):  # ids that no other plot on the page has
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, draw in zip(all_axes, panels, strict=True):
            draw(axes)
        if legend:
            figure.legend(**LEGEND)
        # Without the date: equal reports give equal bytes. `savefig` would draw everything twice.
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})  # type: ignore[no-untyped-call]
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
