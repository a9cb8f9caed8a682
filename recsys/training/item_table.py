"""Fits the item table: popularity, trend, age, ratings, shares and content."""

from __future__ import annotations

import numpy as np

from shortlist.recsys.models.catalogue import Catalogue, ItemContent, LabelColumn
from shortlist.recsys.models.features import ItemLabels, ItemTable
from shortlist.recsys.models.interactions import MISSING, Events, Float32
from shortlist.recsys.models.neighbours import Neighbours
from shortlist.recsys.models.recent import recent_events
from shortlist.recsys.training.intervals import repeat_rates, usual_intervals

SHRINKAGE = 5.0
"""Average events that every item's mean weight, and its shares, are blended with."""

YEAR_BINS = 16
"""Bins of equally many years of release, as content of the towers."""

MOST_CATEGORIES = 50
"""Categories of an item that the ranker sees: all items take as much room as the one with most."""


def fit_item_table(events: Events, catalogue: Catalogue, neighbours: Neighbours) -> ItemTable:
    """The table from these events and nothing later."""
    n = events.n_items
    targets = events.take(events.is_target)
    count = np.bincount(targets.item, minlength=n).astype(np.float64)
    is_recent = recent_events(targets)
    recent = np.bincount(targets.item[is_recent], minlength=n)
    share = is_recent.mean() if len(targets) else 0.0
    negative = np.bincount(events.negatives.item, minlength=n)
    mean, scale = _weight_moments(events.weight)
    numbers = catalogue.content.numbers
    return ItemTable(
        popularity=_padded(np.log1p(count)),
        recent=_padded(np.log1p(recent)),
        trend=_padded(np.log1p(recent) - np.log1p(count * share)),
        age=_padded(_age(events)),
        weight=_padded(_mean_weight(events, mean, scale)),
        target_share=_padded(_shrunk_share(count, np.bincount(events.item, minlength=n))),
        negative_share=_padded(_shrunk_share(negative, count + negative)),
        year=_padded(catalogue.year),
        interval=_padded(usual_intervals(events, catalogue.membership)),
        repeat_rate=_padded(repeat_rates(events)),
        categories=_categories(catalogue.membership),
        is_target=np.array([kind.is_target for kind in events.kinds], np.float32),
        strength=np.array([kind.strength for kind in events.kinds], np.float32),
        weight_mean=mean,
        weight_scale=scale,
        neighbours=neighbours,
        labels=_labels(catalogue.content),
        numbers=np.pad(numbers, ((0, 1), (0, 0)), constant_values=np.nan),
    )


def _categories(membership: Float32) -> ItemLabels:
    """The columns of float32[n, C] in which each item is not 0, of many the rarest."""
    n, size = membership.shape
    row, column = np.nonzero(membership)
    having = np.bincount(column, minlength=size)
    counts = np.bincount(row, minlength=n)
    if counts.max(initial=0) > MOST_CATEGORIES:
        order = np.lexsort((having[column], row))
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.sort(order[place < MOST_CATEGORIES])
        row, column = row[kept], column[kept]
        counts = np.bincount(row, minlength=n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.full((n + 1, int(counts.max(initial=0))), size, np.int32)
    rows[row, place] = column
    return ItemLabels(rows, np.append(np.ones(size), 0).astype(np.float32))


def _labels(content: ItemContent) -> ItemLabels:
    """The labels of all own columns, in one numbering."""
    sizes = [len(column.labels) for column in content.columns]
    starts, size = np.cumsum([0, *sizes[:-1]]), sum(sizes)
    parts = [
        np.where(column.rows == MISSING, size, column.rows + start)
        for column, start in zip(content.columns, starts, strict=False)
    ]
    rows = np.concatenate(parts, axis=1) if parts else np.zeros((len(content), 0))
    labels = np.pad(rows, ((0, 1), (0, 0)), constant_values=size).astype(np.int32)
    having = np.bincount(labels.ravel(), minlength=size + 1)[:size]
    rarity = np.log(len(content) / np.maximum(having, 1))
    return ItemLabels(labels, np.append(rarity, 0).astype(np.float32))


def content_matrix(catalogue: Catalogue) -> Float32:
    """float32[n, M]: what the towers know of an item without events.

    Categories, bins of years, the labels of each own column, each item's scaled to length 1; then
    the projected embeddings.
    """
    blocks = [_categories_and_years(catalogue)]
    blocks += [_one_hot(column) for column in catalogue.content.columns]
    return np.concatenate((*blocks, catalogue.content.vectors), axis=1).astype(np.float32)


def _one_hot(column: LabelColumn) -> Float32:
    """float32[n, L]: the labels of a column, each item's scaled to length 1."""
    has_label = column.rows != MISSING
    out = np.zeros((len(column.rows), len(column.labels)), np.float32)
    out[np.nonzero(has_label)[0], column.rows[has_label]] = 1
    return out / np.sqrt(np.maximum(1, out.sum(axis=1, keepdims=True)))


def _categories_and_years(catalogue: Catalogue) -> Float32:
    """float32[n, M]: categories, each item's scaled to length 1, then one-hot bins of years."""
    norm = np.sqrt(np.maximum(1, catalogue.membership.sum(axis=1, keepdims=True)))
    categories = catalogue.membership / norm
    known = np.isfinite(catalogue.year)
    if not known.any():
        return categories.astype(np.float32)
    inner = np.linspace(0, 1, YEAR_BINS + 1)[1:-1]
    edges = np.unique(np.quantile(catalogue.year[known], inner))
    bins = np.searchsorted(edges, np.where(known, catalogue.year, edges[0]), side="right")
    years = np.eye(len(edges) + 1)[bins] * known[:, None]
    return np.concatenate((categories, years), axis=1).astype(np.float32)


def _padded(column: np.ndarray) -> Float32:
    """float32[n + 1]: the column, and NaN in the row that MISSING reads."""
    return np.append(column, np.nan).astype(np.float32)


def _weight_moments(weight: Float32) -> tuple[float, float]:
    """Mean and standard deviation of the known weights (1 where all are equal), or NaN."""
    known = weight[np.isfinite(weight)].astype(np.float64)
    if len(known) == 0:
        return float("nan"), float("nan")
    return float(known.mean()), float(known.std()) or 1.0


def _mean_weight(events: Events, mean: float, scale: float) -> np.ndarray:
    """float64[n]: the mean standardised weight of each item, shrunk towards 0."""
    known = np.isfinite(events.weight)
    item = events.item[known]
    weight = (events.weight[known].astype(np.float64) - mean) / scale
    total = np.bincount(item, weight, minlength=events.n_items)
    return total / (np.bincount(item, minlength=events.n_items) + SHRINKAGE)


def _shrunk_share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64[n]: the share of each item's count, shrunk to that of all items; 0 for no events."""
    overall = part.sum() / max(1, whole.sum())
    return (part + SHRINKAGE * overall) / (whole + SHRINKAGE)


def _age(events: Events) -> np.ndarray:
    """float64[n]: time since each item's first event, as a share of all time; NaN for none."""
    first = np.full(events.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, events.item, events.time)
    age = np.full(events.n_items, np.nan)
    if len(events):
        start, stop = events.time.min(), events.time.max()
        known = first <= stop
        age[known] = (stop - first[known]) / max(1, stop - start)
    return age
