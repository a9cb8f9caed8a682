"""Tests skew between training and serving.

It is flagged or not, and its arithmetic is checked against SciPy.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from scipy import stats

from shortlist.recsys.errors import CorruptArtefact, InvalidData
from shortlist.recsys.monitoring import skew
from shortlist.recsys.monitoring.skew import (
    compare,
    detect_training_serving_skew,
    histograms,
    judge,
    pack,
    tally,
    unpack,
)


def table(rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Features of many shapes: bell, heavy tails, zeros, counts, text, ids, nulls, constant."""
    nulls = np.where(rng.random(rows) < 0.02, np.nan, rng.normal(size=rows))
    return {
        "bell": rng.normal(size=rows),
        "heavy": rng.standard_t(1.5, rows),
        "mostly_zero": np.where(rng.random(rows) < 0.95, 0, rng.exponential(size=rows)),
        "counts": rng.poisson(3, rows),
        "text": np.array(["drama", "comedy", "western"], object)[
            rng.choice(3, rows, p=(0.6, 0.3, 0.1))
        ],
        "ids": rng.integers(0, 100_000, rows),
        "nulls": nulls,
        "rare": rng.random(rows) < 0.003,
        "constant": np.ones(rows),
    }


def pair(rows: int = 1000) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two tables of one distribution."""
    rng = np.random.default_rng(7)
    return table(rng, rows), table(rng, rows)


@pytest.mark.parametrize(
    ("train", "serving", "runs"),
    [
        (100, 100, 300),
        (1000, 1000, 150),
        (100, 10_000, 100),
        (10_000, 100, 100),
        (20_000, 20_000, 10),
    ],
)
def test_identical_distributions_are_not_flagged(train: int, serving: int, runs: int) -> None:
    """At most one run in a hundred flags anything, whatever the sizes of the two sides."""
    rng = np.random.default_rng(11)
    flagged = [
        detect_training_serving_skew(table(rng, train), table(rng, serving)).skew_detected
        for _ in range(runs)
    ]
    assert sum(flagged) <= runs // 100


def test_trifling_shift_in_a_million_rows() -> None:
    """A fiftieth of a deviation is certain at a million rows, and still not worth a flag."""
    rng = np.random.default_rng(3)
    result = detect_training_serving_skew(
        rng.normal(size=1_000_000), rng.normal(0.02, size=1_000_000)
    )
    assert result.p_value["0"] < 1e-6
    assert not result.skew_detected
    assert result.feature_kl["0"] < 0.001


@pytest.mark.parametrize("rows", [100, 1000, 100_000])
def test_three_standard_deviations_are_flagged(rows: int) -> None:
    """Only the feature that moved is flagged."""
    train, serving = pair(rows)
    serving["bell"] = serving["bell"] + 3
    result = detect_training_serving_skew(train, serving)
    assert result.flagged_features == ("bell",)
    assert result.skew_detected
    assert result.psi["bell"] > 1
    assert result.ks["bell"] > 0.8


def test_a_flood_of_nulls_is_flagged() -> None:
    """A tenth of a column's values become null, where the training had none."""
    train, serving = pair()
    serving["bell"][::10] = np.nan
    assert detect_training_serving_skew(train, serving).flagged_features == ("bell",)


@pytest.mark.parametrize(
    ("feature", "new"), [("text", "musical"), ("counts", 99), ("rare", None), ("heavy", np.inf)]
)
def test_a_new_value_is_flagged(feature: str, new: object) -> None:
    """One row in ten has a value that the training never had."""
    train, serving = pair()
    values = serving[feature].astype(object) if new is None else serving[feature]
    values[::10] = new
    assert detect_training_serving_skew(train, serving | {feature: values}).flagged_features == (
        feature,
    )


@pytest.mark.parametrize("rows", [100, 5000])
def test_constant_column_is_flagged(rows: int) -> None:
    """Every row has the training's median."""
    train, serving = pair(rows)
    serving["bell"] = np.full(rows, np.median(train["bell"]))
    assert detect_training_serving_skew(train, serving).flagged_features == ("bell",)


def test_a_constant_that_changed_is_flagged() -> None:
    """A column of ones becomes a column of twos."""
    train, serving = pair()
    serving["constant"] = np.full(1000, 2.0)
    assert detect_training_serving_skew(train, serving).flagged_features == ("constant",)


def test_swapped_columns_are_flagged() -> None:
    """Both of two columns that changed places are named."""
    train, serving = pair()
    serving["bell"], serving["counts"] = serving["counts"], serving["bell"]
    assert detect_training_serving_skew(train, serving).flagged_features == ("bell", "counts")


@pytest.mark.parametrize("rows", [100, 100_000])
@pytest.mark.parametrize("side", ["train", "serving"])
@pytest.mark.parametrize("feature", ["bell", "constant", "counts"])
def test_one_outlier_is_not_flagged(rows: int, side: str, feature: str) -> None:
    """A single row of 1e12 is no evidence, not even among constants."""
    tables = dict(zip(("train", "serving"), pair(rows), strict=True))
    tables[side][feature] = tables[side][feature].astype(np.float64)
    tables[side][feature][0] = 1e12
    for seed in range(4):  # whether or not the outlier decides the cells
        result = compare(histograms(tables["train"], seed), tables["serving"])
        assert feature not in result.flagged_features


def test_one_outlier_hides_no_shift() -> None:
    """The bins are quantiles: a training row of 1e12 leaves them where they were."""
    rng = np.random.default_rng(5)
    train = rng.normal(size=1000)
    train[0] = 1e12
    assert detect_training_serving_skew(train, rng.normal(0.6, size=1000)).skew_detected


def test_threshold_is_least_flagged_difference() -> None:
    """Half a standard deviation is flagged by default, and not where a whole nat is asked for."""
    rng = np.random.default_rng(9)
    train, serving = rng.normal(size=5000), rng.normal(0.5, size=5000)
    assert detect_training_serving_skew(train, serving).skew_detected
    assert not detect_training_serving_skew(train, serving, threshold=1.0).skew_detected


def test_kl_and_psi_of_normal_distributions() -> None:
    """Half a deviation apart: KL is near 1/8 either way, PSI their sum, KS by its formula."""
    rng = np.random.default_rng(13)
    result = detect_training_serving_skew(rng.normal(size=400_000), rng.normal(0.5, size=400_000))
    assert result.feature_kl["0"] == pytest.approx(0.125, rel=0.05)  # bins lose a little
    assert result.psi["0"] == pytest.approx(0.25, rel=0.05)
    assert result.ks["0"] == pytest.approx(2 * stats.norm.cdf(0.25) - 1, abs=0.005)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 20, 21])
def test_chi_squared_tail_is_scipys(freedom: int) -> None:
    """From certain to one in 1e30."""
    for statistic in (0.0, 0.1, 1.0, 3.84, 20.0, 150.0):
        expected = stats.chi2.sf(statistic, freedom)
        assert skew.chi_squared_tail(statistic, freedom) == pytest.approx(expected, rel=1e-9)


def test_g_test_is_scipys_without_worst() -> None:
    """Of all tables with one row fewer, the one that speaks least against equality decides."""
    x, y = np.array([30, 20, 10]), np.array([10, 20, 31])
    expected = []
    for side in (0, 1):
        for cell in range(3):
            counts = np.stack([x, y])
            counts[side, cell] -= 1
            expected.append(
                stats.chi2_contingency(counts, correction=False, lambda_="log-likelihood").pvalue
            )
    assert skew.homogeneity(x, y) == pytest.approx(max(expected), rel=1e-9)


def test_kl_of_known_counts() -> None:
    """Smoothed by a half in each cell: KL of (1/4, 3/4) from (3/4, 1/4) is ln(3) / 2."""
    one, other = np.array([2, 7]), np.array([7, 2])  # with a half each: a quarter and three
    assert skew.divergence(one, other) == pytest.approx(np.log(3) / 2)


def test_frames_arrays_and_mappings_agree() -> None:
    """A polars frame, a mapping and a matrix of the same numbers give the same figures."""
    rng = np.random.default_rng(1)
    train, serving = rng.normal(size=(500, 2)), rng.normal(0.4, 1, size=(300, 2))
    matrix = detect_training_serving_skew(train, serving)
    mapping = detect_training_serving_skew(
        {"0": train[:, 0], "1": train[:, 1]}, {"1": serving[:, 1], "0": serving[:, 0]}
    )
    frame = detect_training_serving_skew(
        pl.DataFrame(train, ["0", "1"]), pl.DataFrame(serving, ["0", "1"])
    )
    assert matrix == mapping == frame


def test_polars_nulls_of_every_type() -> None:
    """Integers, floats, booleans, text and moments with nulls: their last cell counts them."""
    moment = dt.datetime(2026, 8, 1, tzinfo=dt.UTC)
    columns = {
        "int": [1, None],
        "float": [0.5, None],
        "bool": [True, None],
        "text": ["a", None],
        "time": [moment, None],
    }
    made = histograms(pl.DataFrame({name: values * 20 for name, values in columns.items()}))
    assert {
        name: h.design[-1] + h.counts[-1] for name, h in made.features.items()
    } == dict.fromkeys(columns, 20)


def test_moments_are_compared_in_seconds() -> None:
    """Nanoseconds in training and milliseconds in serving are the same moments."""
    seconds = np.random.default_rng(2).integers(0, 10**9, 2000)
    train = (seconds[:1000] * 10**9).astype("datetime64[ns]")
    result = detect_training_serving_skew(train, (seconds[1000:] * 1000).astype("datetime64[ms]"))
    assert not result.skew_detected


def test_text_where_numbers_were_is_unseen() -> None:
    """A feature that turned from numbers into text, or the reverse, is flagged, not refused."""
    numbers, text = (
        np.random.default_rng(4).normal(size=300),
        np.array(["a", "b", "c"] * 100, object),
    )
    assert detect_training_serving_skew(numbers, text).skew_detected
    assert detect_training_serving_skew(text, numbers).skew_detected


def test_integers_equal_floats() -> None:
    """A column that lost its nulls, and with them its float type, is the same column."""
    values = np.random.default_rng(6).integers(0, 5, 2000)
    assert not detect_training_serving_skew(
        values[:1000].astype(float), values[1000:]
    ).skew_detected


def test_few_values_have_own_cells() -> None:
    """Every row is counted once, in the cell of its value."""
    made = histograms(np.array([1, 2] * 200 + [3], np.int64)).features["0"]
    assert sorted(made.bounds) == [1.0, 2.0]
    assert made.ordered is False
    assert sum(made.design) == 100
    assert sum(made.counts) == 301
    assert made.design[-2] + made.counts[-2] == 1
    assert made.counts[-1] == 0


def test_bins_hold_equal_design_shares() -> None:
    """Of 800 distinct values 200 decide: twenty bins of ten, the smallest is the first bound."""
    made = histograms(np.random.default_rng(8).normal(size=800)).features["0"]
    assert made.ordered is True
    assert made.design == (1, 9, *[10] * 19, 0, 0)


def test_histograms_survive_packing() -> None:
    """What was packed is what is unpacked, and says the same of served rows."""
    train, serving = pair(300)
    made = histograms(train)
    again = unpack(pack(made))
    assert again == made
    assert compare(again, serving) == detect_training_serving_skew(train, serving)


def test_packed_histograms_are_small() -> None:
    """27 features take less than 16 kB, however many rows there were."""
    rows = np.random.default_rng(0).normal(size=(20_000, 27))
    assert len(pack(histograms(rows))) < 16_000


def test_tallies_add_up() -> None:
    """Two processes' tallies together are one process's."""
    train, serving = pair(400)
    made = histograms(train)
    first = tally(made, {name: column[:150] for name, column in serving.items()})
    second = tally(made, {name: column[150:] for name, column in serving.items()})
    assert judge(made, {name: first[name] + second[name] for name in first}) == compare(
        made, serving
    )


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", pack(histograms(np.arange(30.0)))[:-1], b"\x93\x01\x02\x91\x01"]
)
def test_corrupt_histograms_are_refused(packed: bytes) -> None:
    """What is cut short or something else is not read."""
    with pytest.raises(CorruptArtefact, match="publish the release again"):
        unpack(packed)


def test_histograms_of_another_layout_are_refused() -> None:
    """The layout is named."""
    with pytest.raises(CorruptArtefact, match="layout 2, not 1"):
        unpack(b"\x93\x02\x00\x90")


@pytest.mark.parametrize(
    ("train", "serving", "message"),
    [
        (np.zeros(19), np.zeros(9), "19 training rows"),
        (np.zeros(20), np.zeros(0), "no served rows"),
        (np.zeros((20, 2)), np.zeros((20, 1)), r"lack the columns \['1'\]"),
        (np.zeros((20, 1)), np.zeros((20, 2)), r"have \['1'\] in addition"),
        ({"a": np.zeros(20), "b": np.zeros(21)}, {}, "lengths {'a': 20, 'b': 21}"),
        ({}, {}, "lengths {}"),
        (np.zeros((2, 2, 2)), np.zeros(3), r"shape \(2, 2, 2\)"),
        ({"a": np.zeros((20, 2))}, {}, r"column 'a' has shape \(20, 2\)"),
    ],
)
def test_incomparable_tables_are_refused(train: object, serving: object, message: str) -> None:
    """The error names the value."""
    with pytest.raises(InvalidData, match=message):
        detect_training_serving_skew(train, serving)


def test_column_of_nulls_is_compared() -> None:
    """Nothing known in training: nulls in serving are the same, values are not."""
    nulls = np.full(100, np.nan)
    assert not detect_training_serving_skew(nulls, nulls).skew_detected
    assert detect_training_serving_skew(nulls, np.zeros(100)).skew_detected
