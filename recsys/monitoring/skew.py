"""Detects training/serving skew per feature, from histograms.

No training rows are kept. A random quarter of them decides the cells (quantile bins, or the values
themselves where there are few); the other three quarters are counted in them. Were both done on the
same rows, rare values and the extremes would seem to grow in every fresh sample, and identical
distributions would be flagged. Nulls are a cell of their own, and so is everything that the first
quarter did not hold: unseen values, numbers outside its range, infinities, text among numbers.

A feature is flagged when two things hold: a G-test finds the counts incompatible, under
Bonferroni's correction over the features and with any single row left out; and the difference is
large enough to matter. Rows must be independent: of a ranker's rows, take one for each user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
from numpy.typing import NDArray

from shortlist.recsys.errors import CorruptArtefact, InvalidData
from shortlist.recsys.models.interactions import Int64

Float64 = NDArray[np.float64]

THRESHOLD = 0.02
"""The least KL divergence, in nats, that is flagged: a normal variable moved by 0.2 deviations."""

ALPHA = 0.002
"""The share of comparisons of identical distributions that may be flagged, over all features."""

MAX_CELLS = 20
"""Cells of a feature, without those of unseen values and of nulls."""

MIN_EXPECTED = 5
"""Rows that a cell must expect on either side; with fewer, G is not distributed as chi-squared."""

MIN_ROWS = 20
"""The least training rows that make a histogram."""

SMOOTHING = 0.5
"""Added to each cell's count before shares are compared (Jeffreys): no logarithm of zero."""

DESIGN_SHARE = 4
"""One training row in so many decides the cells."""

SEED = 20260801
"""Draws the rows that decide the cells."""

HISTOGRAM_LAYOUT = 1
"""Changes when older code could no longer read packed histograms."""

FILE = "skew.msgpack"
"""The training histograms' file in a bundle, by table."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """One feature's training counts.

    bounds: the upper bounds of the bins, ascending, the first being the smallest value; where
    `ordered` is false, the values themselves, most frequent first.
    design: the rows that decided the cells, by cell; counts: the other rows. Both have one entry
    for each bound, then one for the unseen and one for the nulls.
    """

    bounds: tuple[float, ...] | tuple[str, ...]
    ordered: bool
    design: tuple[int, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histograms:
    """All features' histograms; rows: the number of training rows."""

    rows: int
    features: dict[str, Histogram]


@dataclass(frozen=True, slots=True)
class Skew:
    """The result of a comparison, by feature.

    feature_kl: KL(serving ‖ training) in nats.
    psi: the population stability index: KL in both directions added up.
    ks: the largest difference of the cumulated shares over the cells.
    p_value: how likely identical distributions are to differ as much.
    """

    feature_kl: dict[str, float]
    psi: dict[str, float]
    ks: dict[str, float]
    p_value: dict[str, float]
    flagged_features: tuple[str, ...]
    n_train: int
    n_serving: int

    @property
    def skew_detected(self) -> bool:
        """Whether any feature is flagged."""
        return bool(self.flagged_features)


def detect_training_serving_skew(train: Any, serving: Any, threshold: float = THRESHOLD) -> Skew:  # noqa: ANN401 - any frame
    """Compares two tables.

    train, serving: frames with column names, mappings of name to column, or arrays [rows] or
    [rows, features]; threshold: the least KL divergence, in nats, that is flagged.

    Raises:
        InvalidData: a table is too short, or the two have not the same columns.
    """
    return compare(histograms(train), serving, threshold)


def histograms(train: Any, seed: int = SEED) -> Histograms:  # noqa: ANN401 - any frame
    """The training histograms of a table as `detect_training_serving_skew` takes it.

    seed: draws the rows that decide the cells.

    Raises:
        InvalidData: the table has fewer than MIN_ROWS rows, or columns of different lengths.
    """
    columns = _columns(train)
    rows = _rows(columns)
    if rows < MIN_ROWS:
        raise InvalidData(
            f"{rows} training rows: a histogram takes {MIN_ROWS} or more; give it more"
        )
    chosen = np.random.default_rng(seed).permutation(rows)[: rows // DESIGN_SHARE]
    designs = np.zeros(rows, np.bool_)
    designs[chosen] = True
    return Histograms(rows, {name: _histogram(column, designs) for name, column in columns.items()})


def compare(trained: Histograms, serving: Any, threshold: float = THRESHOLD) -> Skew:  # noqa: ANN401 - any frame
    """Compares served rows with training histograms; see `detect_training_serving_skew`."""
    return judge(trained, tally(trained, serving), threshold)


def tally(trained: Histograms, serving: Any) -> dict[str, Int64]:  # noqa: ANN401 - any frame
    """int64[cells] by feature: the served rows in each training cell.

    Tallies of several processes may be added up.

    Raises:
        InvalidData: the columns are not those of the training.
    """
    columns = _columns(serving)
    _rows(columns)
    if columns.keys() != trained.features.keys():
        lacking = sorted(trained.features.keys() - columns.keys())
        extra = sorted(columns.keys() - trained.features.keys())
        raise InvalidData(
            f"served rows lack the columns {lacking} and have {extra} in addition: "
            "give those of the training"
        )
    return {
        name: _counted(columns[name], known.bounds, ordered=known.ordered)
        for name, known in trained.features.items()
    }


def judge(trained: Histograms, served: Mapping[str, Int64], threshold: float = THRESHOLD) -> Skew:
    """Compares tallies of served rows with training histograms; see `detect_training_serving_skew`.

    Raises:
        InvalidData: nothing was served.
    """
    return judge_strata([(trained, served)], threshold)


def judge_strata(
    strata: Sequence[tuple[Histograms, Mapping[str, Int64]]], threshold: float = THRESHOLD
) -> Skew:
    """Compares tallies with the training histograms of their own stratum.

    Figures are means by served rows. The p-value is of the strata's G statistics and degrees of
    freedom, added up.

    Raises:
        InvalidData: nothing was served.
    """
    served_strata = [(trained, served) for trained, served in strata if _rows_of(served)]
    if not served_strata:
        raise InvalidData("no served rows to compare with the training: wait for some")
    rows = [_rows_of(served) for _, served in served_strata]
    n_serving = sum(rows)
    shares = [each / n_serving for each in rows]
    pairs: dict[str, list[tuple[Int64, Int64]]] = {}
    for name in served_strata[0][0].features:
        pairs[name] = [
            _merged(trained.features[name], served[name]) for trained, served in served_strata
        ]

    def mean(figure: Callable[[Int64, Int64], float]) -> dict[str, float]:
        means = {}
        for name, counts in pairs.items():
            weighted = zip(shares, counts, strict=True)
            means[name] = sum(share * figure(*pair) for share, pair in weighted)
        return means

    kl = mean(lambda training, serving: divergence(serving, training))
    reverse_kl = mean(divergence)
    p_value = {name: homogeneity_within(counts) for name, counts in pairs.items()}
    # Bonferroni's correction: any of the features may be flagged by chance.
    limit = ALPHA / len(pairs)
    flagged = [name for name in kl if p_value[name] < limit and kl[name] >= threshold]
    return Skew(
        feature_kl=kl,
        psi={name: kl[name] + reverse_kl[name] for name in kl},
        ks=mean(_ks),
        p_value=p_value,
        flagged_features=tuple(flagged),
        n_train=sum(trained.rows for trained, _ in strata),
        n_serving=n_serving,
    )


def _rows_of(served: Mapping[str, Int64]) -> int:
    return max((int(counts.sum()) for counts in served.values()), default=0)


def pack(trained: Histograms) -> bytes:
    """The histograms as msgpack."""
    features = [
        [name, each.bounds, each.ordered, each.design, each.counts]
        for name, each in trained.features.items()
    ]
    return cast("bytes", msgpack.packb([HISTOGRAM_LAYOUT, trained.rows, features]))


def unpack(packed: bytes) -> Histograms:
    """Reads what `pack` wrote.

    Raises:
        CorruptArtefact: the bytes are not such histograms.
    """
    try:
        layout, rows, features = msgpack.unpackb(packed, use_list=False)
        if layout == HISTOGRAM_LAYOUT:
            trained = Histograms(rows, {name: Histogram(*parts) for name, *parts in features})
            if _is_sound(trained):
                return trained
            raise CorruptArtefact(
                "the training histograms have cells that none can have: publish the release again"
            )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise CorruptArtefact(
            f"the training histograms cannot be read ({error}): publish the release again"
        ) from error
    raise CorruptArtefact(
        f"the training histograms have layout {layout!r}, not {HISTOGRAM_LAYOUT}: "
        "publish a release with this code"
    )


def _is_sound(trained: Histograms) -> bool:
    """Whether these can be histograms."""
    if not _are_counts((trained.rows,)) or not _all_of(str, trained.features):
        return False
    return all(_is_histogram(each) for each in trained.features.values())


def _is_histogram(histogram: Histogram) -> bool:
    bounds, design, counts = histogram.bounds, histogram.design, histogram.counts
    if not _all_of(tuple, (bounds, design, counts)) or len(bounds) > MAX_CELLS + 1:
        return False
    cells = len(bounds) + 2  # the unseen and the nulls
    if len(design) != cells or len(counts) != cells or not _are_counts(design + counts):
        return False
    are_numbers = all(isinstance(bound, (int, float)) and math.isfinite(bound) for bound in bounds)
    if histogram.ordered is True:
        return are_numbers and len(bounds) > 0 and sorted(bounds) == list(bounds)
    return histogram.ordered is False and (are_numbers or _all_of(str, bounds))


def _all_of(kind: type, values: Iterable[object]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _are_counts(values: Sequence[object]) -> bool:
    """Whole numbers whose sums stay within int64."""
    return all(type(value) is int and 0 <= value < 2**50 for value in values)


_UNPACK_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    msgpack.UnpackException,
)
"""msgpack, and code that expects another shape, raise these on bytes that nobody here packed."""


def load(directory: Path) -> dict[str, Histograms] | None:
    """A bundle's histograms, by table; None in a bundle that has none.

    Raises:
        CorruptArtefact: the file is not a msgpack map of what `pack` wrote.
    """
    path = directory / FILE
    if not path.exists():
        return None
    try:
        tables = msgpack.unpackb(path.read_bytes())
        return {str(name): unpack(packed) for name, packed in tables.items()}
    except _UNPACK_ERRORS as error:
        raise CorruptArtefact(
            f"{path} cannot be read ({error}): publish the release again"
        ) from error


def homogeneity(x: Int64, y: Int64) -> float:
    """The p-value of x and y, int64[cells], counting rows of one distribution.

    It is computed without the row that speaks most against that. A two-sample G-test (Sokal &
    Rohlf, Biometry, ch. 17): G = 2 Σ O ln(O / E) is chi-squared with (non-empty cells - 1) degrees
    of freedom.
    """
    return homogeneity_within([(x, y)])


def homogeneity_within(strata: Sequence[tuple[Int64, Int64]]) -> float:
    """As `homogeneity`, of pairs each of which may have a distribution of its own.

    Independent chi-squared statistics add up. Each stratum goes without its own worst row: without
    only one of all, small strata would seem to differ by chance too often.
    """
    tests = [_g_test(x, y) for x, y in strata]
    statistic, freedom = sum(least for least, _ in tests), sum(free for _, free in tests)
    return chi_squared_tail(statistic, freedom)


def _g_test(x: Int64, y: Int64) -> tuple[float, int]:
    """The least G without any one row, and the degrees of freedom."""
    table = np.stack([x, y]).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    side, cell = np.nonzero(table)
    variants = np.repeat(table[None], len(side), axis=0)  # [variants, 2, cells]
    variants[np.arange(len(side)), side, cell] -= 1
    return float(_g_statistic(variants).min(initial=np.inf)), table.shape[1] - 1


def chi_squared_tail(statistic: float, freedom: int) -> float:
    """The chance that chi-squared with `freedom` degrees exceeds `statistic`.

    The formulas are 26.4.4 and 26.4.5 of Abramowitz & Stegun.
    """
    if freedom < 1 or statistic <= 0:
        return 1.0
    half, odd = statistic / 2, freedom % 2
    start = 0.5 if odd else 0.0
    powers = start + np.arange(freedom // 2)
    terms = [math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers]
    return min(1.0, math.fsum(terms) + (math.erfc(math.sqrt(half)) if odd else 0.0))


def _g_statistic(tables: Float64) -> Float64:
    """float64[variants]: the G statistics of tables [variants, 2, cells]."""
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    of_cells = _plogp(tables).sum(axis=(1, 2))
    of_rows, of_columns = _plogp(rows).sum(axis=1), _plogp(columns).sum(axis=1)
    of_all = _plogp(rows.sum(axis=1))
    return 2 * (of_cells - of_rows - of_columns + of_all)


def _plogp(counts: Float64) -> Float64:
    return counts * np.log(np.where(counts > 0, counts, 1))


def _merged(known: Histogram, served: Int64) -> tuple[Int64, Int64]:
    """Training and serving counts, with neighbouring cells joined.

    They are joined until each may expect MIN_EXPECTED rows on either side. What to join is read
    from the rows that decided the cells, never from the counts that are compared.
    """
    counts, design = np.array(known.counts, np.int64), np.array(known.design, np.float64)
    least = MIN_EXPECTED * design.sum() / max(1, min(counts.sum(), served.sum()))
    starts, held = [0], 0.0
    for cell, weight in enumerate(design[:-2]):
        if held >= least:
            starts.append(cell)
            held = 0.0
        held += weight
    if held < least and len(starts) > 1:
        starts.pop()  # the last few join those before
    unseen, null = len(design) - 2, len(design) - 1
    starts += [unseen, null] if unseen > 0 else [null]
    return np.add.reduceat(counts, starts), np.add.reduceat(served, starts)


def _shares(counts: Int64) -> Float64:
    return (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))


def divergence(of: Int64, from_: Int64) -> float:
    """KL(of ‖ from_) in nats, of smoothed shares of counts int64[cells]."""
    p, q = _shares(of), _shares(from_)
    return max(0.0, float((p * np.log(p / q)).sum()))


def _ks(x: Int64, y: Int64) -> float:
    difference = np.cumsum(x) / max(1, x.sum()) - np.cumsum(y) / max(1, y.sum())
    return float(np.abs(difference).max())


def _histogram(column: Column, designs: NDArray[np.bool_]) -> Histogram:
    bounds, ordered = _cells(column.take(designs))
    design = _counted(column.take(designs), bounds, ordered=ordered)
    counts = _counted(column.take(~designs), bounds, ordered=ordered)
    return Histogram(bounds, ordered, tuple(design.tolist()), tuple(counts.tolist()))


def _cells(column: Column) -> tuple[tuple[float, ...] | tuple[str, ...], bool]:
    """The bounds, and whether they are the bounds of bins rather than values."""
    most = max(1, min(MAX_CELLS, len(column) // MIN_EXPECTED))
    values, counts = np.unique(column.known, return_counts=True)
    if column.text or len(values) <= most:
        frequent = np.lexsort((np.arange(len(values)), -counts))[:most]
        kept = frequent[counts[frequent] >= min(MIN_EXPECTED, int(counts.max(initial=0)))]
        return tuple(values[kept].tolist()), False
    at = np.maximum(np.arange(most + 1) * len(column.known) // most - 1, 0)
    return tuple(np.unique(np.sort(column.known)[at]).tolist()), True


def _counted(column: Column, bounds: Sequence[float] | Sequence[str], *, ordered: bool) -> Int64:
    """int64[cells]: the rows in each cell; the last two hold the unseen and the nulls."""
    if ordered and not column.text:
        # A value equal to a bound is in that bound's bin; one below all of them is unseen.
        cell = np.searchsorted(np.asarray(bounds), column.known, side="left")
        cell[column.known < bounds[0]] = len(bounds)
    else:
        cell = _value_cells(column, bounds)
    counts = np.bincount(cell, minlength=len(bounds) + 2)
    counts[-2] += len(column) - column.nulls - len(column.known)
    counts[-1] += column.nulls
    return counts.astype(np.int64)


def _value_cells(column: Column, bounds: Sequence[float] | Sequence[str]) -> NDArray[np.intp]:
    """intp[known]: each value's position in `bounds`; one past the last for none."""
    if len(bounds) == 0 or isinstance(bounds[0], str) != column.text:
        return np.full(len(column.known), len(bounds), np.intp)
    values = np.asarray(bounds)
    order = np.argsort(values)
    place = np.searchsorted(values, column.known, sorter=order)
    cell = order[np.minimum(place, len(values) - 1)]
    return np.where(values[cell] == column.known, cell, len(values))


@dataclass(frozen=True, slots=True)
class Column:
    """A feature's values as one kind, numbers or text.

    null: bool[rows]; strange: bool[rows], infinite numbers.
    """

    values: NDArray[Any]
    null: NDArray[np.bool_]
    strange: NDArray[np.bool_]
    text: bool

    def __len__(self) -> int:
        return len(self.values)

    @property
    def known(self) -> NDArray[Any]:
        """The values that are neither null nor infinite."""
        return self.values[~(self.null | self.strange)]

    @property
    def nulls(self) -> int:
        """The number of null rows."""
        return int(self.null.sum())

    def take(self, mask: NDArray[np.bool_]) -> Column:
        """The rows where `mask` holds."""
        return Column(self.values[mask], self.null[mask], self.strange[mask], self.text)


def _columns(table: Any) -> dict[str, Column]:  # noqa: ANN401 - any frame
    if isinstance(table, Mapping):
        given = {str(name): np.asarray(column) for name, column in table.items()}
    elif hasattr(table, "columns"):
        given = {str(name): np.asarray(table[name].to_numpy()) for name in table.columns}
    else:
        matrix = np.asarray(table)
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
        if matrix.ndim != 2:  # noqa: PLR2004 - a matrix
            raise InvalidData(f"an array of shape {matrix.shape}: give [rows] or [rows, features]")
        given = {str(f): matrix[:, f] for f in range(matrix.shape[1])}
    return {name: _column(name, values) for name, values in given.items()}


def _column(name: str, values: NDArray[Any]) -> Column:
    if values.ndim != 1:
        raise InvalidData(
            f"column {name!r} has shape {values.shape}: a column has one value in a row"
        )
    if values.dtype.kind in "mM":
        micro = values.astype(f"{values.dtype.kind}8[us]")
        values = np.where(np.isnat(values), np.nan, micro.astype(np.int64) / 1e6)
    elif values.dtype.kind not in "fiub":
        return _objects(values)
    numbers = values.astype(np.float64)
    return Column(numbers, np.isnan(numbers), np.isinf(numbers), text=False)


def _objects(values: NDArray[Any]) -> Column:
    """A column of Python objects: numbers where all of them are, text otherwise."""
    null = np.array([value is None or value != value for value in values], np.bool_)  # noqa: PLR0124 - NaN is not itself
    if all(isinstance(value, (int, float, np.number, np.bool_)) for value in values[~null]):
        numbers = np.where(null, np.nan, values).astype(np.float64)
        return Column(numbers, null, np.isinf(numbers), text=False)
    text = np.array([str(value) for value in np.where(null, "", values)])
    return Column(text, null, np.zeros(len(values), np.bool_), text=True)


def _rows(columns: Mapping[str, Column]) -> int:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InvalidData(
            f"columns of lengths {lengths}: a table has one or more columns, all of one length"
        )
    return next(iter(lengths.values()))
