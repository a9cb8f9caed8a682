"""Tests the report: its shape, unknown figures, and files."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from shortlist.recsys.errors import InvalidInput, InvalidRecommendations
from shortlist.recsys.evaluation import bootstrap, report, resources, small_samples
from shortlist.recsys.evaluation.proportions import wilson
from shortlist.recsys.evaluation.ranking_metrics import ItemFacts
from shortlist.recsys.evaluation.small_samples import FEW_USERS
from shortlist.recsys.evaluation.truth import Truth
from shortlist.recsys.models.interactions import (
    MISSING,
    Events,
    Float32,
    Int32,
    Recommend,
    UserStates,
    states_at,
)

N_ITEMS = 40


FACTS = ItemFacts(np.full(N_ITEMS, 2), 8, np.eye(2, dtype=np.float32)[np.arange(N_ITEMS) % 2])
"""Every item has two of eight users; categories alternate; the only seen item is "odd"."""


def truth_with(held: list[list[int]]) -> Truth:
    """Users whose only seen item is the last one."""
    n = len(held)
    users = np.arange(n, dtype=np.int32)
    items, times = np.full(n, N_ITEMS - 1, np.int32), np.zeros(n, np.int64)
    events = Events(users, items, times, np.full(n, np.nan, np.float32), n, N_ITEMS)
    states = states_at(events, events.offsets()[:-1], events.offsets()[1:])
    offsets = np.concatenate(([0], np.cumsum([len(h) for h in held]))).astype(np.int64)
    return Truth(users, states, offsets, np.array([i for h in held for i in h], np.int32))


def always(*items: int) -> Recommend:
    """A method that offers everybody the same items."""

    def recommend(states: UserStates, k: int) -> tuple[Int32, Float32]:
        rows = np.full((len(states), k), MISSING, np.int32)
        rows[:, : len(items)] = items
        scores = np.where(rows == MISSING, -np.inf, -np.arange(k, dtype=np.float32)).astype(
            np.float32
        )
        return rows, scores

    return recommend


def evaluated(methods: dict[str, Recommend], truth: Truth, **options: object) -> report.Report:
    given = {
        "protocol": "leave-one-out",
        "facts": FACTS,
        "category_names": ("even", "odd"),
        "n_resamples": 200,
    } | options
    return report.evaluate(methods, truth, rng=np.random.default_rng(0), **given)  # type: ignore[arg-type]


def test_the_report_has_the_documented_shape() -> None:
    """A method that always hits second: every figure is known and does not vary."""
    actual = evaluated({"second": always(0, 1)}, truth_with([[1]] * FEW_USERS))

    def sure(value: float) -> dict[str, object]:
        return dict.fromkeys(("value", "low", "high"), pytest.approx(value))

    assert report._plain(actual) == {
        "protocol": "leave-one-out",
        "k": 100,
        "n_items": N_ITEMS,
        "methods": {
            "second": {
                "ndcg@10": sure(1 / np.log2(3)),
                "recall@10": sure(1.0),
                "recall@20": sure(1.0),
                "mrr": sure(0.5),
                "map@10": sure(0.5),
                "hit_rate@10": sure(1.0),
                "stratified_recall@20": sure(1.0),
                "novelty@10": sure(2.0),
                "diversity@10": sure(1.0),
                "coverage": sure(0.05),
                "n_users": 30,
            },
        },
        "paired": {"second": {}},
        "segments": {
            "history length": [
                {"segment": "1-1", "n_users": 30, "methods": {"second": sure(1 / np.log2(3))}}
            ],
            "favourite category": [
                {"segment": "odd", "n_users": 30, "methods": {"second": sure(1 / np.log2(3))}}
            ],
        },
        "popularity": {
            "head": {"second": 1.0},
            "middle": {"second": None},
            "tail": {"second": None},
        },
        "warnings": [],
    }


def test_three_perfect_lists_prove_little() -> None:
    """Three users, all hit: the interval of a mean is Wilson's of 3 of 3, and a warning says so."""
    actual = evaluated({"first": always(0), "never": always(1)}, truth_with([[0]] * 3))
    low, _ = wilson(3, 3)
    ours = actual["methods"]["first"]
    assert low == pytest.approx(0.4385, abs=5e-5)
    for metric in ("ndcg@10", "recall@10", "mrr", "hit_rate@10"):
        assert ours[metric] == {"value": 1.0, "low": pytest.approx(low), "high": 1.0}
    # Each of eight users' items has two: two bits of the three that are possible.
    assert ours["novelty@10"]["value"] == 2.0
    assert ours["novelty@10"]["low"] == pytest.approx(3 * wilson(2, 3)[0])
    assert report._plain(ours["coverage"]) == {"value": 1 / N_ITEMS, "low": None, "high": None}
    pair = actual["paired"]["first"]["never"]
    assert pair["low"] == pytest.approx(2 * low - 1)
    assert pair["low"] < 0 < pair["difference"] == pair["high"] == 1.0
    assert actual["segments"]["history length"][0]["methods"]["first"] == ours["ndcg@10"]
    assert actual["warnings"] == [f"only 3 users are measured: {small_samples.CONSEQUENCE}"]


def test_enough_users_keep_the_bootstrap() -> None:
    """From thirty users on the ends are the bootstrap's, and there is nothing to warn of."""
    held = [[i % 3] for i in range(FEW_USERS)]
    actual = evaluated({"m": always(0, 1)}, truth_with(held))
    values = np.resize([1.0, 1 / np.log2(3), 0.0], FEW_USERS)[:, None]
    seed = int(np.random.default_rng(0).integers(2**63, size=2)[0])
    drawn = bootstrap.resampled(bootstrap.means(values), 30, np.random.default_rng(seed), 200)
    low, high = bootstrap.interval(drawn)
    ours = actual["methods"]["m"]["ndcg@10"]
    assert (ours["low"], ours["high"]) == pytest.approx((low[0], high[0]), abs=1e-12)
    assert actual["warnings"] == []


def test_few_users_of_a_segment_warn() -> None:
    """Of forty users ten have a long history: their segment alone is named, and has wide ends."""
    truth = truth_with([[0]] * 40)
    n_events = np.where(np.arange(40) < 10, 9, 1).astype(np.int32)
    actual = evaluated(
        {"m": always(0)}, replace(truth, states=replace(truth.states, n_events=n_events))
    )
    short, long = actual["segments"]["history length"]
    assert short["methods"]["m"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert long["methods"]["m"] == {"value": 1.0, "low": wilson(10, 10)[0], "high": 1.0}
    (warning,) = actual["warnings"]
    assert warning.startswith("few users by history length, in 2-9 (10): below 30")


def test_methods_are_compared_user_by_user() -> None:
    """One method hits every first item, the other none: the difference and its ends are 1."""
    actual = evaluated({"good": always(0, 1), "bad": always(2, 3)}, truth_with([[0]] * 40))[
        "paired"
    ]
    assert actual == {
        "good": {"bad": {"difference": 1.0, "low": 1.0, "high": 1.0, "p_value": 1 / 2001}},
        "bad": {"good": {"difference": -1.0, "low": -1.0, "high": -1.0, "p_value": 1 / 2001}},
    }


def test_same_lists_do_not_differ() -> None:
    """The difference is 0 in every resample and its p-value is 1, though the figures vary."""
    truth = truth_with([[0], [1], [5]] * 10)
    both = evaluated({"a": always(0, 1), "b": always(0, 1)}, truth)
    assert both["paired"]["a"]["b"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}
    assert both["methods"]["a"]["ndcg@10"]["low"] < both["methods"]["a"]["ndcg@10"]["high"]


def test_segments_add_up_to_the_whole() -> None:
    """The segments' means, weighed by their users, are the mean of all users."""
    truth = truth_with([[0], [1], [], [5]])
    states = replace(truth.states, n_events=np.array([1, 7, 3, 9], np.int32))
    actual = evaluated({"m": always(0, 1)}, replace(truth, states=states))
    bins = actual["segments"]["history length"]
    assert [(b["segment"], b["n_users"]) for b in bins] == [("1-1", 1), ("2-7", 1), ("8-9", 1)]
    assert [b["methods"]["m"]["value"] for b in bins] == [1.0, pytest.approx(1 / np.log2(3)), 0.0]
    assert np.mean([b["methods"]["m"]["value"] for b in bins]) == pytest.approx(
        actual["methods"]["m"]["ndcg@10"]["value"]
    )


def test_no_categories_no_such_segment(tmp_path: Path) -> None:
    """Favourite categories are absent and diversity is null."""
    facts = replace(FACTS, membership=np.empty((N_ITEMS, 0), np.float32))
    actual = evaluated({"m": always(0, 1)}, truth_with([[0], [1]]), facts=facts, category_names=())
    report.write_json(actual, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert list(written["segments"]) == ["history length"]
    assert written["methods"]["m"]["diversity@10"] == {"value": None, "low": None, "high": None}


def test_recall_is_told_by_popularity() -> None:
    """Each of three items holds a third of the pairs: two are always hit, the third never."""
    facts = replace(FACTS, users=np.array([4, 4, 4, *[0] * (N_ITEMS - 3)]))
    actual = evaluated(
        {"m": always(0, 1), "n": always(1)}, truth_with([[0, 1], [0], [2, 30]]), facts=facts
    )
    expected = {
        "head": {"m": 1.0, "n": 0.0},
        "middle": {"m": 1.0, "n": 1.0},
        "tail": {"m": 0.0, "n": 0.0},
    }
    assert actual["popularity"] == expected


def test_facts_of_another_catalogue_are_refused() -> None:
    """Two columns of membership need two names."""
    with pytest.raises(InvalidInput, match="1 category names"):
        evaluated({"m": always(0)}, truth_with([[1]]), category_names=("even",))


def test_users_without_truth_are_uncounted() -> None:
    """Two of three users have something to predict, and the third changes nothing."""
    with_third = evaluated({"m": always(0)}, truth_with([[0], [], [5]]))
    without = evaluated({"m": always(0)}, truth_with([[0], [5]]))
    assert report._plain(with_third) == report._plain(without)
    assert with_third["methods"]["m"]["n_users"] == 2
    assert with_third["methods"]["m"]["recall@10"]["value"] == 0.5


def test_intervals_surround_their_values() -> None:
    """Every value lies within its interval, coverage too."""
    rng = np.random.default_rng(2)
    held = [[int(i)] for i in rng.integers(0, 20, 60)]

    def shuffled(states: UserStates, k: int) -> tuple[Int32, Float32]:
        rows = np.full((len(states), k), MISSING, np.int32)
        rows[:, :30] = [np.random.default_rng(u).permutation(30) for u in range(len(states))]
        return rows, np.where(rows == MISSING, np.float32(-np.inf), np.float32(0))

    figures = evaluated({"m": shuffled}, truth_with(held))["methods"]["m"]
    for metric in report.METHOD_METRICS:
        ends = figures[metric]["low"], figures[metric]["high"]
        slack = 1e-12  # means of equal numbers differ in the last place
        assert 0 <= ends[0] <= figures[metric]["value"] + slack
        assert (
            figures[metric]["value"]
            <= ends[1] + slack
            <= (3 if metric == "novelty@10" else 1) + 2 * slack
        )


def test_methods_are_resampled_alike() -> None:
    """Two methods with the same lists get the same intervals, whatever the other methods."""
    truth = truth_with([[0], [3], [0], [9]] * 8)
    both = evaluated({"a": always(0, 1), "b": always(0, 1)}, truth)["methods"]
    assert both["a"] == both["b"] == evaluated({"b": always(0, 1)}, truth)["methods"]["b"]


def test_no_users_give_null_and_warning(tmp_path: Path) -> None:
    """Where nobody has a held-out item the report says null, the table none, and a warning why."""
    with pytest.warns(RuntimeWarning, match="no user has a held-out item"):
        empty = evaluated({"m": always(0), "n": always(1)}, truth_with([[], []]))
    report.write_json(empty, tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    nothing = {"value": None, "low": None, "high": None}
    assert written["methods"]["m"] == {
        **dict.fromkeys(report.METHOD_METRICS, nothing),
        "n_users": 0,
    }
    assert written["paired"]["m"]["n"] == {
        "difference": None,
        "low": None,
        "high": None,
        "p_value": None,
    }
    assert written["segments"] == {"history length": [], "favourite category": []}
    assert written["popularity"]["head"] == {"m": None, "n": None}
    assert "none" in rendered(empty)


def test_seen_items_stop_the_evaluation() -> None:
    """The figures of such a method would be lies."""
    with pytest.raises(
        InvalidRecommendations,
        match="method 'm' gave user row 0 an item that the user has already seen",
    ):
        evaluated({"m": always(0, N_ITEMS - 1)}, truth_with([[1]]))


def test_too_short_lists_are_refused() -> None:
    """recall@20 needs twenty ranks."""
    with pytest.raises(InvalidInput, match="k 10"):
        evaluated({"m": always(0)}, truth_with([[1]]), k=10)


def test_progress_is_told_per_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users come in chunks and each chunk is announced; the figures do not depend on it."""
    truth = truth_with([[0], [1], [2]])
    whole = evaluated({"m": always(0, 1)}, truth)
    monkeypatch.setattr(report, "USERS_AT_ONCE", 2)
    steps: list[tuple[str, int, int]] = []
    parts = evaluated({"m": always(0, 1)}, truth, progress=lambda *step: steps.append(step))
    assert steps == [("m", 2, 3), ("m", 3, 3)]
    assert report._plain(parts) == report._plain(whole)


def test_candidate_recall_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four held-out items are among the first source's candidates, none of the other."""
    monkeypatch.setattr(report, "USERS_AT_ONCE", 1)
    truth = truth_with([[1, 2], [3, 4]])
    sources = {
        "near": np.array([[1, 2, 3], [4, 4, MISSING]], np.int32),
        "nothing": np.full((2, 1), MISSING, np.int32),
    }
    assert report.candidate_recall(sources, truth, N_ITEMS) == {"near": 0.75, "nothing": 0.0}


def test_candidate_recall_without_truth_is_unknown() -> None:
    """No items to find is no recall."""
    recall = report.candidate_recall({"s": np.zeros((1, 1), np.int32)}, truth_with([[]]), N_ITEMS)
    assert np.isnan(recall["s"])


def test_json_is_strict(tmp_path: Path) -> None:
    """NaN and infinities become null, and numpy's numbers plain ones, at any depth."""
    path = tmp_path / "new" / "report.json"
    report.write_json(
        {"a": [np.float32(0.5), float("nan")], "b": {"c": np.int64(3), "d": np.array([np.inf, 1])}},
        path,
    )
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": [0.5, None],
        "b": {"c": 3, "d": [None, 1]},
    }


def test_failed_write_keeps_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old report stays whole and no draft is left."""
    path = tmp_path / "report.json"
    report.write_json({"old": 1}, path)

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        report.write_json({"new": 2}, path)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def rendered(figures: report.Report) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(report.table(figures))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_lists_methods_and_metrics() -> None:
    """The chief figures of the JSON can be read in the terminal."""
    text = rendered(evaluated({"second": always(0, 1), "never": always(2)}, truth_with([[1], [1]])))
    for word in ("second", "never", *report.TABLE, "users", "0.6309", "leave-one-out"):
        assert word in text


def test_table_warns_of_few_users() -> None:
    """Two users: the warning of the JSON stands below the table, and no end where none is known."""
    figures = evaluated({"second": always(0, 1)}, truth_with([[1], [1]]))
    text = " ".join(rendered(figures).split())
    assert f"warning: only 2 users are measured: {small_samples.CONSEQUENCE}" in text
    assert "none" not in text
    many = evaluated({"second": always(0, 1)}, truth_with([[1]] * FEW_USERS))
    assert "warning" not in rendered(many)


def test_stages_add_up_their_seconds() -> None:
    """A stage used twice has the sum, a failed one is recorded, and the order is kept."""
    stages = resources.Stages(clock=iter([0.0, 1.5, 2.0, 3.0, 10.0, 11.0]).__next__)
    with stages.stage("fit"):
        pass
    with pytest.raises(ValueError, match="no"), stages.stage("rank"):
        raise ValueError("no")
    with stages.stage("fit"):
        pass
    assert stages.seconds == {"fit": 2.5, "rank": 1.0}
    summary = stages.summary()
    assert summary["seconds"] == {"fit": 2.5, "rank": 1.0}
    assert summary["seconds_total"] == 3.5


def test_peak_memory_is_in_bytes() -> None:
    """A Python process with numpy takes between ten and a hundred thousand megabytes."""
    assert 10 * 2**20 < resources.peak_memory()["process"] < 100_000 * 2**20
