"""Tests properties of skew that hold for all columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shortlist.recsys.monitoring import skew
from shortlist.recsys.monitoring.skew import compare, histograms, pack, tally, unpack

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-3, 3))
TEXT = st.one_of(st.none(), st.text(max_size=3))
COLUMNS = st.one_of(
    st.lists(NUMBERS, min_size=20, max_size=120), st.lists(TEXT, min_size=20, max_size=120)
)
COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=22)


def column(values: list[object]) -> dict[str, np.ndarray]:
    """A table of one column."""
    out = np.empty(len(values), object)
    out[:] = values
    return {"f": out}


@given(COLUMNS, COLUMNS)
def test_every_row_is_in_one_cell(train: list[object], serving: list[object]) -> None:
    """No row is lost or counted twice, in training or serving, whatever its values."""
    made = histograms(column(train))
    known = made.features["f"]
    assert sum(known.design) + sum(known.counts) == len(train)
    assert int(tally(made, column(serving))["f"].sum()) == len(serving)


@given(COLUMNS, COLUMNS)
def test_figures_are_in_their_ranges(train: list[object], serving: list[object]) -> None:
    """KL and PSI are finite and not negative, PSI at least KL, KS and p between 0 and 1."""
    result = compare(histograms(column(train)), column(serving))
    assert 0 <= result.feature_kl["f"] <= result.psi["f"] < np.inf
    assert 0 <= result.ks["f"] <= 1 + 1e-12
    assert 0 <= result.p_value["f"] <= 1


@given(COLUMNS)
def test_table_with_itself_is_unflagged(values: list[object]) -> None:
    """The rows that decided the cells are no reason for a flag either."""
    assert compare(histograms(column(values)), column(values)).flagged_features == ()


@given(COLUMNS)
def test_packing_loses_nothing(values: list[object]) -> None:
    """Any histogram can be packed and comes back."""
    made = histograms(column(values))
    assert unpack(pack(made)) == made


@given(
    st.lists(st.integers(-1000, 1000), min_size=40, max_size=120),
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=60),
)
def test_units_do_not_matter(train: list[int], serving: list[int]) -> None:
    """Doubled numbers on both sides give the same figures: bins are quantiles."""
    one = compare(histograms(np.array(train)), np.array(serving))
    doubled = compare(histograms(np.array(train) * 2), np.array(serving) * 2)
    assert one == doubled


@given(st.lists(NUMBERS, min_size=20, max_size=80), st.randoms(use_true_random=False))
def test_order_of_rows_is_ignored(values: list[object], random) -> None:
    """A shuffled serving table is the same table."""
    made = histograms(column(values))
    shuffled = list(values)
    random.shuffle(shuffled)
    assert compare(made, column(shuffled)) == compare(made, column(values))


@given(COUNTS)
def test_homogeneity_is_symmetric(counts: list[tuple[int, int]]) -> None:
    """Which side is the training does not matter to the test."""
    x, y = (np.array(side) for side in zip(*counts, strict=True))
    assert np.isclose(skew.homogeneity(x, y), skew.homogeneity(y, x), rtol=1e-9)


@given(st.integers(1, 22), st.floats(0.01, 200), st.floats(0.01, 50))
def test_the_tail_falls(freedom: int, statistic: float, more: float) -> None:
    """A larger statistic is never more likely."""
    assert skew.chi_squared_tail(statistic + more, freedom) <= skew.chi_squared_tail(
        statistic, freedom
    )
