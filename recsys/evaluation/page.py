"""The report as one HTML page for a person: the finding in words, plots as inline SVG, every figure in a table.

The page asks for nothing from elsewhere and needs no script, so it can be mailed, archived and
opened years later. Equal reports give equal bytes. A section that the report lacks is left out, and
a figure that is not known is a dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.evaluation.headline import (
    HEADLINE_METRIC,
    POPULARITY,
    RETRIEVER,
    TWO_STAGE,
)
from shortlist.recsys.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
PROTOCOL_WORDS = {
    "last-10pct": "The last tenth of each user's events, at least one, is held out with what shares their time; "
    "everything before them is learnt from.",
    "leave-one-out": "The last event of each user is held out with what shares its time; everything before is learnt from.",
    "time": "All events of the last tenth of the time are held out; everything older is learnt from.",
}

METRIC_WORDS = {
    "ndcg@10": ("NDCG@10", "held-out items among the first ten, the earlier the better"),
    "recall@10": ("Recall@10", "share of a user's held-out items among the first ten"),
    "recall@20": ("Recall@20", "share of a user's held-out items among the first twenty"),
    "mrr": ("MRR", "one over the rank of the first held-out item"),
    "map@10": ("MAP@10", "precision at each held-out item among the first ten, averaged"),
    "hit_rate@10": (
        "Hit rate@10",
        "share of users with at least one held-out item among the first ten",
    ),
    "stratified_recall@20": ("Stratified recall@20", "recall in which rare items weigh more"),
    "novelty@10": ("Novelty@10", "how little known the first ten are"),
    "diversity@10": ("Diversity@10", "how unlike each other the first ten are"),
    "coverage": ("Coverage", "share of the catalogue that anybody is offered"),
}
"""Each metric's name and meaning, in the order of the table."""

N_IMPORTANCES = 20

INKS = {  # matplotlib draws in these; the page's style sheet decides, by light and dark, what they are
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

Draw = Callable[["Axes"], None]


class Known(NamedTuple):
    """A figure and the ends of its interval; NaN is what is not known."""

    value: float
    low: float
    high: float


class Dots(NamedTuple):
    """One series of a plot: its name and a figure for each row."""

    name: str
    figures: Sequence[Known]


def write_page(report: Report, path: Path) -> None:
    """Write the report's page whole or not at all."""
    write_atomically(path, render(report))


def render(report: Report) -> str:
    """The page's text. Names and titles in the report are untrusted and come out escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "share": share,
        "ends": ends,
        "p_value": p_value,
        "duration": duration,
        "size": size,
        "known": known,
    }
    template = environment.from_string(
        Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    )
    methods, paired = report["methods"], report.get("paired") or {}
    metrics = {
        m: words for m, words in METRIC_WORDS.items() if any(m in row for row in methods.values())
    }
    return template.render(
        report={name: section for name, section in report.items() if section not in (None, {}, [])},
        protocol=PROTOCOL_WORDS.get(report.get("protocol", ""), ""),
        headline=headline(report),
        metrics=metrics,
        best={m: _highest({name: row.get(m) for name, row in methods.items()}) for m in metrics},
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


def known(figure: object) -> Known:
    """What the report says of a figure: a number, a value with its interval, or nothing."""
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
    """Four decimals; resampling cannot tell a smaller one from zero."""
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
    """The best of the methods that are not ours by NDCG@10, leaving out those named."""
    left = {
        name: known(row.get(HEADLINE_METRIC)).value
        for name, row in methods.items()
        if name not in {TWO_STAGE, RETRIEVER, *but}
    }
    left = {name: value for name, value in left.items() if math.isfinite(value)}
    return max(left, key=left.__getitem__, default=None)


def shown_methods(methods: Mapping[str, Any]) -> list[str]:
    """The few methods that a crowded plot has room for."""
    wanted = (POPULARITY, strongest_baseline(methods, but=[POPULARITY]), RETRIEVER, TWO_STAGE)
    return [name for name in wanted if name is not None and name in methods]


def headline(report: Report) -> str:
    """The finding in words, or nothing where our method was not measured."""
    methods = report["methods"]
    ours = known(methods.get(TWO_STAGE, {}).get(HEADLINE_METRIC))
    if not math.isfinite(ours.value):
        return ""
    interval = f" (95% interval {ends(ours)})" if ends(ours) else ""
    said = f"The two-stage recommender reaches an NDCG@10 of {number(ours.value)}{interval}"
    rival = strongest_baseline(methods)
    if rival is None:
        return said + "."
    theirs = known(methods[rival][HEADLINE_METRIC]).value
    more = "more" if ours.value >= theirs else "less"
    amount = f"{abs(ours.value / theirs - 1):.1%}" if theirs else number(abs(ours.value - theirs))
    against = f"{said}: {amount} {more} than {rival}, the strongest baseline, at {number(theirs)}."
    return f"{against} {_verdict(report, rival)}".strip()


def verdict(pair: Mapping[str, Any]) -> str:
    """What the interval of a difference says."""
    low, high = _float(pair.get("low")), _float(pair.get("high"))
    if not (math.isfinite(low) and math.isfinite(high)):
        return DASH
    return "includes zero" if low <= 0 <= high else "excludes zero"


def _verdict(report: Report, rival: str) -> str:
    pair = (report.get("paired") or {}).get(TWO_STAGE, {}).get(rival) or {}
    said = f"The 95% interval of the difference user by user, {ends(known(pair))}, {verdict(pair)}"
    meaning = {
        "includes zero": "the two cannot be told apart on these users",
        "excludes zero": "more than the draw of users explains",
    }
    return f"{said}: {meaning[verdict(pair)]}." if verdict(pair) in meaning else ""


def plots(report: Report) -> dict[str, Any]:
    """The page's plots by section, as inline SVG; one with nothing known to draw is the empty string."""
    methods = report["methods"]
    shown = shown_methods(methods)
    by_value = sorted(
        methods, key=lambda name: -_nan_last(known(methods[name].get(HEADLINE_METRIC)).value)
    )
    return {
        "methods": dots_plot(
            "NDCG@10 by method, with 95% intervals",
            by_value,
            [Dots("", [known(methods[n].get(HEADLINE_METRIC)) for n in by_value])],
            HEADLINE_METRIC,
        ),
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
    step = 0.3 if len(series) == 1 else 0.16 * len(series) + 0.14

    def draw(axes: Axes) -> None:
        for number_, one in enumerate(series):
            colour, marker = SERIES[number_ % len(SERIES)], MARKERS[number_ % len(MARKERS)]
            shift = (
                (number_ - (len(series) - 1) / 2) * 0.8 / len(series) if len(series) > 1 else 0.0
            )
            for row, figure in enumerate(one.figures):
                if math.isfinite(figure.low) and math.isfinite(figure.high):
                    axes.plot(
                        [figure.low, figure.high], [row + shift] * 2, color=colour, linewidth=1.6
                    )
            places = [
                (f.value, row + shift)
                for row, f in enumerate(one.figures)
                if math.isfinite(f.value)
            ]
            if places:
                axes.plot(
                    *zip(*places, strict=True), marker, color=colour, markersize=5, label=one.name
                )
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(METRIC_WORDS.get(axis, (axis,))[0])
        axes.grid(axis="x")

    return _svg(
        label,
        0.75 + (0.35 if len(series) > 1 else 0) + step * len(rows),
        [draw],
        legend=len(series) > 1,
    )


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
    """A panel for each thing measured (loss, validation) against the first field, the epoch or round."""
    over, *measured = dict.fromkeys(field for row in rows for field in row) or [""]
    panels = []
    for place, field in enumerate(measured):
        points = [(row[over], row[field]) for row in rows if math.isfinite(_float(row.get(field)))]
        if points:
            panels.append(_line(points, over, field, SERIES[place % len(SERIES)]))
    return (
        _svg(f"Learning curves of {stage}: {' and '.join(measured)} by {over}", 2.4, panels)
        if panels
        else Markup()
    )


def _line(points: Sequence[tuple[float, float]], over: str, field: str, colour: str) -> Draw:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker="o",
            markersize=3 if len(points) <= 30 else 0,  # noqa: PLR2004 - fits
        )
        axes.set_title(field, loc="left")
        axes.set_xlabel(over)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid()

    return draw


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
    """The panels side by side as an SVG element that scales, takes the page's colours and names itself to a screen reader."""
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.hashsalt": label,  # other plots on the page have other ids
        "svg.fonttype": "none",
        "text.parse_math": False,  # a name with dollar signs is a name
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 10,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK
        ),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
        "grid.color": LINE,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    out = io.StringIO()
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        for axes, draw in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            draw(axes)
        if legend:
            figure.legend(
                loc="outside upper left",
                ncols=4,
                frameon=False,
                handletextpad=0.2,
                columnspacing=1.2,
                fontsize=9,
            )
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue(), label)


def _inline(svg: str, label: str) -> Markup:
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
