"""Fits co-visitation neighbours by counting item-to-item transitions in DuckDB."""

from __future__ import annotations

import duckdb
import numpy as np
from scipy import sparse

from shortlist.recsys.models.interactions import Events, Float32, Int32, Int64
from shortlist.recsys.models.least import least
from shortlist.recsys.models.neighbours import NEIGHBOURS, Neighbours, Relation
from shortlist.recsys.models.regression import (
    BLOCK,
    MAX_REGRESSION_ITEMS,
    interaction_matrix,
    item_regression,
)

HORIZON = 10
"""The longest step, in events, over which one item is counted as following another."""

RIDGE = 300.0
"""L2 penalty of the item-item regression, in users.

The middle of the range that Steck (2019) reports as flat.
"""

_PAIRS = """
with steps as (select unnest(range(1, ? + 1)) as step),
     placed as (
         select "user", item, row_number() over (partition by "user" order by position) as place
         from events
     )
select a.item as source, b.item as target,
       count(*) filter (where step <= 1) as within_1,
       count(*) filter (where step <= 3) as within_3,
       count(*) as within_10
from placed a cross join steps join placed b on b."user" = a."user" and b.place = a.place + step
where a.item <> b.item
group by all
"""


def fit_neighbours(events: Events) -> Neighbours:
    """The strongest neighbours of every item under each relation, from these events alone."""
    n = events.n_items
    has_regression = n <= MAX_REGRESSION_ITEMS
    n_relations = len(Relation) if has_regression else Relation.REGRESSION.value
    source, target, counts = _pair_counts(events)
    times = np.maximum(1, np.bincount(events.item, minlength=n)).astype(np.float64)
    rows = np.full((n_relations, n + 1, NEIGHBOURS), n, np.int32)
    weights = np.zeros((n_relations, n + 1, NEIGHBOURS), np.float32)
    following = (Relation.NEXT_1, Relation.NEXT_3, Relation.NEXT_10)
    for relation, count in zip(following, counts, strict=True):
        # One more, so that an item seen once does not outweigh all others.
        _keep(rows[relation], weights[relation], source, target, count / (times[source] + 1))
    cosines = _cosines(source, target, counts[-1], times)
    _keep(rows[Relation.NEAR], weights[Relation.NEAR], *cosines)
    if has_regression:
        had = interaction_matrix(events.user, events.item, (events.n_users, n))
        regression = item_regression(had, RIDGE)
        _keep_dense(rows[Relation.REGRESSION], weights[Relation.REGRESSION], regression)
    return Neighbours.packed(rows, weights)


def _cosines(
    source: Int64, target: Int64, count: Int64, times: np.ndarray
) -> tuple[Int64, Int64, np.ndarray]:
    """Pairs in both directions, and their counts normalised by the counts of both items."""
    n = len(times)
    counts = sparse.coo_array((count, (source, target)), shape=(n, n)).tocsr()
    both = (counts + counts.T).tocoo()
    return both.row, both.col, both.data / np.sqrt((times[both.row] + 1) * (times[both.col] + 1))


def _pair_counts(events: Events) -> tuple[Int64, Int64, list[Int64]]:
    """Pairs (source, target), sorted, and their counts within 1, 3 and 10 events, all int64[p]."""
    with duckdb.connect() as connection:
        table = {"user": events.user, "item": events.item, "position": np.arange(len(events))}
        connection.register("events", table)
        pairs = connection.execute(_PAIRS, [HORIZON]).fetchnumpy()
    order = np.lexsort((pairs["target"], pairs["source"]))  # DuckDB's own varies with its threads
    columns = ("source", "target", "within_1", "within_3", "within_10")
    source, target, *counts = (pairs[column][order].astype(np.int64) for column in columns)
    return source, target, counts


def _keep(rows: Int32, weights: Float32, source: Int64, target: Int64, weight: np.ndarray) -> None:
    """Writes the strongest targets of each source into `rows` and `weights`."""
    positive = weight > 0
    source, target, weight = source[positive], target[positive], weight[positive]
    order = np.lexsort((target, -weight, source))
    source, target, weight = source[order], target[order], weight[order]
    starts = np.searchsorted(source, np.arange(source.max(initial=-1) + 2))
    place = np.arange(len(source)) - starts[source]
    kept = place < NEIGHBOURS
    rows[source[kept], place[kept]] = target[kept]
    weights[source[kept], place[kept]] = weight[kept]


def _keep_dense(rows: Int32, weights: Float32, dense: Float32) -> None:
    """As `_keep`, from float32[n, n] with sources as rows."""
    n = len(dense)
    k = min(NEIGHBOURS, n)
    for start in range(0, n, BLOCK):
        loss = -dense[start : start + BLOCK]
        best = least(loss, k)
        value = -np.take_along_axis(loss, best, axis=1)
        kept = slice(start, start + len(loss))
        rows[kept, :k] = np.where(value > 0, best, n)
        weights[kept, :k] = np.where(value > 0, value, 0)
