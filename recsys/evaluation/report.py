"""Compares methods on one hold-out, as JSON and table.

A report has figures with intervals, the differences between methods, and the figures by segments of
users and items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shortlist.recsys.atomic_file import write_atomically
from shortlist.recsys.errors import InvalidInput
from shortlist.recsys.evaluation.bootstrap import (
    N_RESAMPLES,
    Statistic,
    coverages,
    interval,
    means,
    means_within,
    recentred,
    resampled_together,
    sign_flip_p_values,
)
from shortlist.recsys.evaluation.headline import HEADLINE_METRIC
from shortlist.recsys.evaluation.ranking_metrics import (
    COVERAGE_DEPTH,
    DEPTH,
    PER_USER,
    Float64,
    ItemFacts,
    check_recommendations,
    coverage,
    mean_over_users,
    per_user,
)
from shortlist.recsys.evaluation.segments import (
    THIRDS,
    Segments,
    by_favourite_category,
    by_history_length,
    favourite_categories,
    held_out_by_third,
    hits_by_third,
    popularity_thirds,
)
from shortlist.recsys.evaluation.small_samples import is_few, score_intervals, warnings_of
from shortlist.recsys.evaluation.truth import Truth, pair_keys
from shortlist.recsys.models.interactions import MISSING, Int32, Int64, Recommend

if TYPE_CHECKING:
    from rich.table import Table

METHOD_METRICS = (*PER_USER, "coverage")
"""The metrics of each method."""

TABLE = ("ndcg@10", "recall@10", "recall@20", "mrr", "map@10", "coverage")
"""The metrics of the table: a column takes 16 places, and three more would not fit in 160."""

MIN_DEPTH = 20
"""The deepest rank that a metric needs."""

UNKNOWN = "none"
"""What a table shows for an unknown figure."""

USERS_AT_ONCE = 1024
"""Users whose lists a method makes at a time."""

Report = dict[str, Any]
MethodProgress = Callable[[str, int, int], None]
"""(method, users done, users in all)."""


class Measured(NamedTuple):
    """One method's figures of the counted users, those with a held-out item.

    values: float64[C, 9] (`PER_USER`); top: int32[C, COVERAGE_DEPTH]; hits: int64[3] held-out items
    of each of `THIRDS` that were recommended.
    """

    values: Float64
    top: Int32
    hits: Int64


class Drawn(NamedTuple):
    """Statistics of the same resamples of the counted users.

    methods: float64[resamples, METHOD_METRICS] of each; pairs: float64[resamples, P] of each two;
    segments: float64[resamples, segments * methods] of each kind.
    """

    methods: dict[str, Float64]
    pairs: Float64
    segments: dict[str, Float64]


def evaluate(
    methods: Mapping[str, Recommend],
    truth: Truth,
    facts: ItemFacts,
    rng: np.random.Generator,
    *,
    protocol: str,
    category_names: Sequence[str],
    k: int = DEPTH,
    n_resamples: int = N_RESAMPLES,
    progress: MethodProgress | None = None,
) -> Report:
    """Every method's metrics over the whole catalogue, with 95% bootstrap intervals.

    Returns "protocol", "k", "n_items" (those of `facts`) and

    - "methods": {name: {metric: {"value", "low", "high"}, …, "n_users": int}};
    - "paired": {a: {b: {"difference", "low", "high", "p_value"}}} of ndcg@10, a minus b, for every
      a and every other b;
    - "segments": {"history length" or "favourite category": [{"segment", "n_users", "methods":
      {name: {"value", "low", "high"}}}]} of ndcg@10, without categories (C names) if C is 0;
    - "popularity": {"head", "middle" or "tail": {name: recall@20 over all held-out items of that
      third}};
    - "warnings": sentences on what rests on few users; see `small_samples`.

    All methods are resampled by the same draws of users. Users without a held-out item are not
    counted; where none is left, figures are NaN and a Python warning says so.

    Raises:
        InvalidRecommendations: a method breaks the contract of `Recommend`.
        InvalidInput: k is too small, or facts and names are of different catalogues.
    """
    _assert_usable(k, facts, category_names)
    seed, flip_seed = (int(n) for n in rng.integers(2**63, size=2))
    measured = {}
    for name, method in methods.items():
        advance = None if progress is None else partial(progress, name)
        measured[name] = _measure(name, method, truth, facts, k=k, advance=advance)
    headline = PER_USER.index(HEADLINE_METRIC)
    compared = {name: m.values[:, headline] for name, m in measured.items()}
    segments = _segments(truth, facts, category_names)
    drawn = _drawn(measured, compared, segments, facts, np.random.default_rng(seed), n_resamples)
    report: Report = {
        "protocol": protocol,
        "k": k,
        "n_items": len(facts),
        "methods": _figures(measured, facts, drawn),
        "paired": _paired(compared, drawn, flip_seed),
        "segments": {
            kind: _by_segment(compared, users, drawn and drawn.segments[kind])
            for kind, users in segments.items()
        },
        "popularity": _by_popularity(measured, truth, facts),
    }
    return report | {"warnings": warnings_of(report)}


def candidate_recall(sources: Mapping[str, Int32], truth: Truth, n_items: int) -> dict[str, float]:
    """The share of all held-out items among each source's candidates.

    sources: int32[U, C] by name, MISSING-padded. The share bounds the recall of any ranker of those
    candidates. NaN where nothing is held out.
    """
    return {
        name: _candidate_recall(candidates, truth, n_items) for name, candidates in sources.items()
    }


def table(report: Report) -> Table:
    """The report for a terminal: methods by the metrics of `TABLE`, the best in bold.

    Below each value stand the ends of its interval, and below the table its warnings.
    """
    from rich.table import Table

    out = Table(
        title=f"{report['protocol']} · all {report['n_items']} items ranked · 95% intervals",
        caption="\n".join(f"warning: {sentence}" for sentence in report["warnings"]) or None,
        caption_justify="left",
    )
    for column in ("method", *TABLE, "users"):
        out.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    rows = report["methods"]
    best = {metric: _best(row[metric]["value"] for row in rows.values()) for metric in TABLE}
    for name, row in rows.items():
        cells = (_cell(row[m], bold=row[m]["value"] == best[m]) for m in TABLE)
        out.add_row(name, *cells, str(row["n_users"]))
    return out


def repeats_table(report: Report) -> Table | None:
    """NDCG@10 of all, new and repeated items; None where nothing is offered again.

    Below each value stand the ends of its interval; the best of each column is in bold.
    """
    from rich.table import Table

    parts = report.get("repeats", {}).get("parts")
    if not parts:
        return None
    columns = {"all": report["methods"]} | {name: part["methods"] for name, part in parts.items()}
    out = Table(title=f"{HEADLINE_METRIC} of all, new and repeated items · 95% intervals")
    for column in ("method", *columns):
        out.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    figures = {
        name: {method: row[HEADLINE_METRIC] for method, row in rows.items()}
        for name, rows in columns.items()
    }
    best = {name: _best(f["value"] for f in rows.values()) for name, rows in figures.items()}
    for method in report["methods"]:
        cells = (
            _cell(rows[method], bold=rows[method]["value"] == best[name])
            for name, rows in figures.items()
        )
        out.add_row(method, *cells)
    return out


def _best(values: Iterable[float | None]) -> float | None:
    """The greatest known value, if any."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return max(known, default=None)


def write_json(report: Report, path: Path) -> None:
    """Writes the report whole or not at all; a figure that is not a number becomes null."""
    text = json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def _assert_usable(k: int, facts: ItemFacts, category_names: Sequence[str]) -> None:
    if k < MIN_DEPTH:
        raise InvalidInput(
            f"k {k}: recall@{MIN_DEPTH} needs lists of at least {MIN_DEPTH}; raise k"
        )
    if facts.membership.shape != (len(facts), len(category_names)):
        raise InvalidInput(
            f"membership {facts.membership.shape} for {len(facts)} items and "
            f"{len(category_names)} category names: it must have a row for every item and a column "
            "for every name; pass both from one catalogue",
        )


def _measure(
    name: str,
    method: Recommend,
    truth: Truth,
    facts: ItemFacts,
    *,
    k: int,
    advance: Callable[[int, int], None] | None,
) -> Measured:
    """The figures of one method, whose lists are checked first."""
    thirds = popularity_thirds(facts.users)
    values = [np.empty((0, len(PER_USER)))]
    tops = [np.empty((0, COVERAGE_DEPTH), np.int32)]
    hits = np.zeros(len(THIRDS), np.int64)
    for start in range(0, len(truth), USERS_AT_ONCE):
        part = truth.slice(start, min(start + USERS_AT_ONCE, len(truth)))
        items, scores = method(part.states, k)
        check_recommendations(name, items, scores, part, len(facts))
        counted = part.counts > 0
        values.append(per_user(items, part, facts)[counted])
        tops.append(items[counted, :COVERAGE_DEPTH])
        hits += hits_by_third(items, part, facts, thirds)
        if advance is not None:
            advance(start + len(part), len(truth))
    return Measured(np.concatenate(values), np.concatenate(tops), hits)


def _drawn(
    measured: Mapping[str, Measured],
    compared: Mapping[str, Float64],
    segments: Mapping[str, Segments],
    facts: ItemFacts,
    rng: np.random.Generator,
    n_resamples: int,
) -> Drawn | None:
    """What is drawn for all intervals; None where there are too few users to resample."""
    n_users = max((len(m.values) for m in measured.values()), default=0)
    if is_few(n_users):
        return None
    values = np.stack(list(compared.values()), axis=1)  # [C, M]
    statistics = [
        *(_statistic(m, facts) for m in measured.values()),
        means(_differences(compared)),
        *(means_within(values, of, len(labels)) for labels, of in segments.values()),
    ]
    of_methods = len(measured)
    drawn = resampled_together(statistics, n_users, rng, n_resamples)
    return Drawn(
        dict(zip(measured, drawn[:of_methods], strict=True)),
        drawn[of_methods],
        dict(zip(segments, drawn[of_methods + 1 :], strict=True)),
    )


def _statistic(measured: Measured, facts: ItemFacts) -> Statistic:
    """One method's METHOD_METRICS."""
    parts = means(measured.values), coverages(measured.top, len(facts))
    return lambda counts: np.hstack([part(counts) for part in parts])


def _figures(
    measured: Mapping[str, Measured], facts: ItemFacts, drawn: Drawn | None
) -> dict[str, dict[str, Any]]:
    """The values and intervals of METHOD_METRICS by method, and the number of counted users."""
    if drawn is None:
        return {name: _figures_of_few(m, facts) for name, m in measured.items()}
    return {name: _figures_of(m, facts, drawn.methods[name]) for name, m in measured.items()}


def _figures_of(measured: Measured, facts: ItemFacts, drawn: Float64) -> dict[str, Any]:
    """One method's figures; drawn: float64[resamples, METHOD_METRICS]."""
    values = _values(measured, facts)
    unbiased = recentred(drawn[:, -1:], values[-1:])
    ends = interval(np.hstack([drawn[:, :-1], np.clip(unbiased, 0.0, 1.0)]))
    return _named(METHOD_METRICS, values, *ends) | {"n_users": len(measured.values)}


def _figures_of_few(measured: Measured, facts: ItemFacts) -> dict[str, Any]:
    """One method's figures where there are too few users to resample."""
    values = _values(measured, facts)
    low, high = np.full((2, len(values)), np.nan)
    # Of coverage nothing is known: it is no mean, and grows with the users.
    low[:-1], high[:-1] = score_intervals(measured.values, most=_greatest(facts))
    return _named(METHOD_METRICS, values, low, high) | {"n_users": len(measured.values)}


def _values(measured: Measured, facts: ItemFacts) -> Float64:
    """float64[METHOD_METRICS] of all users."""
    return np.append(mean_over_users(measured.values), coverage(measured.top, len(facts)))


def _greatest(facts: ItemFacts) -> Float64:
    """float64[9]: the greatest value that each of PER_USER can have; the least is 0."""
    greatest = np.ones(len(PER_USER))
    # In bits: an item that one of all users had. Of a single user every novelty is 0.
    greatest[PER_USER.index("novelty@10")] = max(1.0, np.log2(max(1, facts.n_users)))
    return greatest


def _named(names: Sequence[str], values: Float64, low: Float64, high: Float64) -> dict[str, Any]:
    numbers = zip(names, values.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: {"value": v, "low": a, "high": b} for name, v, a, b in numbers}


def _pairs(compared: Mapping[str, Float64]) -> list[tuple[str, str]]:
    return [(a, b) for a in compared for b in compared if a != b]


def _differences(compared: Mapping[str, Float64]) -> Float64:
    """float64[C, P]: a - b of each of `_pairs`."""
    pairs = _pairs(compared)
    if not pairs:
        return np.empty((*next(iter(compared.values())).shape, 0))
    return np.stack([compared[a] - compared[b] for a, b in pairs], axis=1)


def _paired(compared: Mapping[str, Float64], drawn: Drawn | None, flip_seed: int) -> dict[str, Any]:
    """{a: {b: the difference a - b}} of each two methods; compared: float64[C] by method."""
    pairs = _pairs(compared)
    out: dict[str, Any] = {name: {} for name in compared}
    if not pairs:
        return out
    differences = _differences(compared)
    figures = np.full((4, len(pairs)), np.nan)
    if len(differences):
        ends = score_intervals(differences, -1.0, 1.0) if drawn is None else interval(drawn.pairs)
        p_values = sign_flip_p_values(differences, np.random.default_rng(flip_seed))
        figures = np.stack((mean_over_users(differences), *ends, p_values))
    for (a, b), numbers in zip(pairs, figures.T.tolist(), strict=True):
        out[a][b] = dict(zip(("difference", "low", "high", "p_value"), numbers, strict=True))
    return out


def _segments(truth: Truth, facts: ItemFacts, category_names: Sequence[str]) -> dict[str, Segments]:
    """The counted users in segments, by kind."""
    counted = truth.counts > 0
    out = {"history length": by_history_length(truth.states.n_events[counted])}
    if category_names:
        favourites = favourite_categories(truth.states, facts.membership)[counted]
        out["favourite category"] = by_favourite_category(favourites, category_names)
    return out


def _by_segment(
    compared: Mapping[str, Float64], segments: Segments, drawn: Float64 | None
) -> list[dict[str, Any]]:
    """Every method's mean in each segment.

    compared: float64[C] by method; drawn: of this kind, as in `Drawn`, None with too few users.
    """
    labels, of = segments
    if not labels or not compared:
        return []
    values = np.stack(list(compared.values()), axis=1)  # [C, M]
    ends = np.full((2, len(labels), len(compared)), np.nan)
    if drawn is not None:
        ends = np.reshape(interval(drawn), ends.shape)
    rows = []
    for number, label in enumerate(labels):
        inside = values[of == number]
        low, high = score_intervals(inside) if is_few(len(inside)) else ends[:, number]
        methods = _named(tuple(compared), mean_over_users(inside), low, high)
        rows.append({"segment": label, "n_users": len(inside), "methods": methods})
    return rows


def _by_popularity(
    measured: Mapping[str, Measured], truth: Truth, facts: ItemFacts
) -> dict[str, dict[str, float]]:
    """Every method's recall@20 of the held-out items of each third."""
    held_out = held_out_by_third(truth, popularity_thirds(facts.users))
    divisors = np.where(held_out > 0, held_out, np.nan)
    recalls = {name: (m.hits / divisors).tolist() for name, m in measured.items()}
    return {
        third: {name: recall[place] for name, recall in recalls.items()}
        for place, third in enumerate(THIRDS)
    }


def _candidate_recall(candidates: Int32, truth: Truth, n_items: int) -> float:
    if not len(truth.items):
        return float("nan")
    hits = 0
    for start in range(0, len(truth), USERS_AT_ONCE):
        part = truth.slice(start, min(start + USERS_AT_ONCE, len(truth)))
        offered = candidates[start : start + len(part)]
        users, columns = np.nonzero(offered != MISSING)
        keys = users * n_items + offered[users, columns]
        hits += int(np.isin(pair_keys(part.offsets, part.items, n_items), keys).sum())
    return hits / len(truth.items)


def _cell(figure: dict[str, float | None], *, bold: bool) -> str:
    """A value above the ends of its interval, marked up for the terminal."""
    value, low, high = map(_decimals, figure.values())
    shown = f"[bold]{value}[/bold]" if bold else value
    return shown if UNKNOWN in (low, high) else f"{shown}\n[dim]{low} {high}[/dim]"


def _decimals(value: float | None) -> str:
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.4f}"


def _plain(value: object) -> object:
    """The value for JSON: numpy scalars and arrays unwrapped, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
