"""The comparison of methods on one hold-out: figures with intervals, as JSON and as a table."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsys.errors import InvalidInput
from recsys.evaluation.bootstrap import N_RESAMPLES, coverages, interval, means, recentred, resampled
from recsys.evaluation.metrics import (
    COVERAGE_DEPTH,
    DEPTH,
    PER_USER,
    Float64,
    assert_honest_lists,
    coverage,
    mean_over_users,
    per_user,
)
from recsys.evaluation.truth import Truth, pair_keys
from recsys.events import MISSING, Int32, Recommend

if TYPE_CHECKING:
    from rich.table import Table

METRICS = (*PER_USER, "coverage")
"""Everything a method is told by, in the order of the table."""

MIN_DEPTH = 20
"""The deepest rank that a metric needs."""

USERS_AT_ONCE = 1024
"""How many users a method is asked for at a time."""

Report = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""(method, users done, users in all)."""


class Measured(NamedTuple):
    """One method's figures of the counted users: values float64[C, 4] (`PER_USER`), top int32[C, COVERAGE_DEPTH]."""

    values: Float64
    top: Int32


def evaluate(
    methods: Mapping[str, Recommend],
    truth: Truth,
    n_items: int,
    rng: np.random.Generator,
    *,
    protocol: str,
    k: int = DEPTH,
    n_resamples: int = N_RESAMPLES,
    progress: Progress | None = None,
) -> Report:
    """Every method's metrics over the whole catalogue, with 95% bootstrap intervals.

    Returns {"protocol", "k", "n_items", "methods": {name: {metric: {"value", "low", "high"}, …, "n_users": int}}}.
    All methods are resampled by the same draws of users. Users without a held-out item are not counted; where none is
    left, figures are NaN and a warning says so. Raises `BrokenMethod` where a method breaks its promises.
    """
    if k < MIN_DEPTH:
        raise InvalidInput(f"k {k}: recall@{MIN_DEPTH} needs lists of at least {MIN_DEPTH}; raise k")
    seed = int(rng.integers(2**63))
    figures = {}
    for name, method in methods.items():
        advance = None if progress is None else partial(progress, name)
        measured = _measure(name, method, truth, n_items, k=k, advance=advance)
        figures[name] = _figures(measured, n_items, np.random.default_rng(seed), n_resamples)
    return {"protocol": protocol, "k": k, "n_items": n_items, "methods": figures}


def candidate_recall(sources: Mapping[str, Int32], truth: Truth, n_items: int) -> dict[str, float]:
    """The share of all held-out items that are among each source's candidates (int32[U, C], MISSING-padded).

    It bounds what any ranker of those candidates can reach. NaN where nothing is held out.
    """
    return {name: _candidate_recall(candidates, truth, n_items) for name, candidates in sources.items()}


def table(report: Report) -> Table:
    """The report for a terminal: a row per method, each metric above the ends of its interval, the best value bold."""
    from rich.table import Table

    out = Table(title=f"{report['protocol']} · all {report['n_items']} items ranked · 95% intervals")
    for column in ("method", *METRICS, "users"):
        out.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    rows = report["methods"]
    best = {m: max((r[m]["value"] for r in rows.values() if _known(r[m]["value"])), default=None) for m in METRICS}
    for name, row in rows.items():
        cells = (_cell(row[m], bold=row[m]["value"] == best[m]) for m in METRICS)
        out.add_row(name, *cells, str(row["n_users"]))
    return out


def write_json(report: Report, path: Path) -> None:
    """Write the report whole or not at all; a figure that is not a number is written as null."""
    text = json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _measure(
    name: str,
    method: Recommend,
    truth: Truth,
    n_items: int,
    *,
    k: int,
    advance: Callable[[int, int], None] | None,
) -> Measured:
    values = [np.empty((0, len(PER_USER)))]
    tops = [np.empty((0, COVERAGE_DEPTH), np.int32)]
    for start in range(0, len(truth), USERS_AT_ONCE):
        part = truth.slice(start, min(start + USERS_AT_ONCE, len(truth)))
        items, scores = method(part.states, k)
        assert_honest_lists(name, items, scores, part, n_items)
        counted = part.counts > 0
        values.append(per_user(items, part, n_items)[counted])
        tops.append(items[counted, :COVERAGE_DEPTH])
        if advance is not None:
            advance(start + len(part), len(truth))
    return Measured(np.concatenate(values), np.concatenate(tops))


def _figures(measured: Measured, n_items: int, rng: np.random.Generator, n_resamples: int) -> dict[str, Any]:
    n_users = len(measured.values)
    values = np.append(mean_over_users(measured.values), coverage(measured.top, n_items))
    low, high = np.full((2, len(values)), np.nan)
    if n_users:
        statistics = (means(measured.values), coverages(measured.top, n_items))
        drawn = resampled(lambda counts: np.hstack([s(counts) for s in statistics]), n_users, rng, n_resamples)
        drawn[:, -1] = np.clip(recentred(drawn[:, -1:], values[-1:])[:, 0], 0.0, 1.0)
        low, high = interval(drawn)
    numbers = zip(METRICS, values.tolist(), low.tolist(), high.tolist(), strict=True)
    return {m: {"value": v, "low": a, "high": b} for m, v, a, b in numbers} | {"n_users": n_users}


def _candidate_recall(candidates: Int32, truth: Truth, n_items: int) -> float:
    if not len(truth.items):
        return float("nan")
    found = 0
    for start in range(0, len(truth), USERS_AT_ONCE):
        part = truth.slice(start, min(start + USERS_AT_ONCE, len(truth)))
        offered = candidates[start : start + len(part)]
        users, columns = np.nonzero(offered != MISSING)
        keys = users * n_items + offered[users, columns]
        found += int(np.isin(pair_keys(part.offsets, part.items, n_items), keys).sum())
    return found / len(truth.items)


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _cell(figure: dict[str, float | None], *, bold: bool) -> str:
    value, low, high = (f"{n:.4f}" if n is not None and _known(n) else "none" for n in figure.values())
    return f"{f'[bold]{value}[/bold]' if bold else value}\n[dim]{low} {high}[/dim]"


def _plain(value: object) -> object:
    """The value as JSON can carry it: numpy scalars and arrays unwrapped, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
