"""Collects the studio's facts from small data with known answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.batch.offline_evaluation import truth_after
from shortlist.batch.studio import collect
from shortlist.batch.studio.facts import digest_of, unpack
from shortlist.recsys import data
from shortlist.recsys.models.catalogue import Dataset

DAY = 86_400
START = 1_700_006_400  # midnight of 2023-11-15, UTC
REJECTED = {
    "table": ["interactions", "interactions", "users"],
    "source": ["a.csv", "a.csv", "u.csv"],
    "row": [3, 4, 5],
    "reason": ["null item_id", "null item_id", "duplicate user_id"],
    "record": [
        '{"user_id":"secret","item_id":null,"timestamp":"1","weight":null}',
        '{"user_id":null,"item_id":null,"timestamp":"2","weight":3.5}',
        '{"user_id":"secret","age":42}',
    ],
}


@pytest.fixture
def rejects(tmp_path: Path) -> Path:
    """A file of rejected rows."""
    path = tmp_path / "rejects.parquet"
    pl.DataFrame(REJECTED).write_parquet(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Users a, b and c with 3, 2 and 1 events on items x, y and z."""
    rows = [
        ("a", "x", 0),
        ("a", "y", DAY),
        ("a", "z", 40 * DAY),
        ("b", "x", 1),
        ("b", "y", 2),
        ("c", "x", DAY),
    ]
    users, items, times = zip(*rows, strict=True)
    path = tmp_path / "interactions.parquet"
    columns = {"user_id": users, "item_id": items, "timestamp": [START + t for t in times]}
    pl.DataFrame(columns).write_parquet(path)
    return data.load(str(path), None, None).dataset


def of(dataset: Dataset, rejects: Path, lists: list[list[int]]) -> collect.StudioFacts:
    """The facts, with the lists of the users a and b."""
    truth = truth_after(dataset, np.array([2, 4, 6]))  # the last events of a and b
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    picks = collect.drawn(dataset)
    return collect.collected(dataset, picks, truth, np.array(lists, np.int32), vectors, rejects)


@pytest.fixture
def facts(dataset: Dataset, rejects: Path) -> collect.StudioFacts:
    """Facts where a is offered z at rank 2, and b is not offered y."""
    return of(dataset, rejects, [[1, 2, -1], [2, 0, -1]])


def test_events_by_day(facts) -> None:
    """Three days, of one type."""
    days = dict(zip(facts.arrays["day"].tolist(), facts.arrays["day_n"].tolist(), strict=True))
    assert days == {START: 3, START + DAY: 2, START + 40 * DAY: 1}
    assert (facts.plain["types"], facts.plain["unit"]) == (["event"], "day")


def test_many_days_become_months(dataset, rejects, monkeypatch) -> None:
    """November has five events, December one."""
    monkeypatch.setattr(collect, "MOST_DAYS", 2)
    facts = of(dataset, rejects, [[1, 2], [2, 0]])
    assert facts.plain["unit"] == "month"
    assert facts.arrays["day_n"].tolist() == [5, 1]
    assert facts.arrays["day"].tolist() == [1_698_796_800, 1_701_388_800]


def test_sequence_numbers_are_no_days(dataset, rejects) -> None:
    """All events are of one period, and no item has a first day or a curve."""
    events = replace(dataset.events, time=dataset.events.time - START)
    facts = of(replace(dataset, events=events), rejects, [[1, 2], [2, 0]])
    assert (facts.plain["unit"], facts.arrays["day"].tolist()) == (None, [0])
    assert facts.arrays["item_first"].tolist() == [-1, -1, -1]
    assert facts.curve(0) == []


def test_items_over_time(facts) -> None:
    """X was taken on two days of one month, z in another."""
    first, last = facts.arrays["item_first"], facts.arrays["item_last"]
    day = START // DAY
    assert first.tolist() == [day, day, day + 40]
    assert last.tolist() == [day + 1, day + 1, day + 40]
    assert facts.curve(0) == [(1_698_796_800, 3)]
    assert facts.curve(2) == [(1_701_388_800, 1)]


def test_rare_items_lose_their_curves(dataset, rejects, monkeypatch) -> None:
    """Where there is no room for all."""
    monkeypatch.setattr(collect, "MOST_CURVE", 1)
    facts = of(dataset, rejects, [[1, 2], [2, 0]])
    assert [len(facts.curve(row)) for row in range(3)] == [1, 0, 0]


def test_activity_and_tail(facts) -> None:
    """One user of one event, two of two or three; the events of x, y and z are 3, 2 and 1."""
    assert facts.plain["activity"] == [[1, 1, 1], [2, 3, 2]]
    assert facts.plain["tail"] == [[0.0, 0.0], [1 / 3, 0.5], [2 / 3, 5 / 6], [1.0, 1.0]]
    assert facts.plain["gini"] == pytest.approx(2 / 9)


def test_figures_of_users(facts) -> None:
    """Of a one item was held out and listed second, of b one and not at all, of c nothing."""
    place = {facts.digest(at): at for at in range(facts.n_picks)}
    a, b, c = (place[digest_of(user)] for user in "abc")
    assert [facts.held_out(at) for at in (a, b, c)] == [[(2, 2)], [(1, 0)], []]
    assert [facts.listed(at) for at in (a, b, c)] == [[1, 2], [2, 0], []]
    ndcg = facts.arrays["pick_ndcg"]
    assert ndcg[a] == pytest.approx(1 / np.log2(3))
    assert (ndcg[b], np.isnan(ndcg[c])) == (0, True)
    assert facts.arrays["pick_n"][[a, b, c]].tolist() == [3, 2, 1]
    assert facts.arrays["pick_first"][a] == START


def test_many_users_are_drawn(dataset, monkeypatch) -> None:
    """The same ones each time, by their digests."""
    monkeypatch.setattr(collect, "PICKS", 2)
    picks = collect.drawn(dataset)
    smallest = sorted(digest_of(user) for user in "abc")[:2]
    assert (picks.digests, picks.sampled) == (smallest, True)


def test_no_id_of_a_user_is_kept(facts) -> None:
    """Neither in figures nor in the samples of rejected rows."""
    assert facts.plain["rejects"] == {
        "null item_id": [
            {
                "source": "a.csv",
                "row": 3,
                "values": {"item_id": None, "timestamp": "1", "weight": None},
            },
            {
                "source": "a.csv",
                "row": 4,
                "values": {"item_id": None, "timestamp": "2", "weight": 3.5},
            },
        ],
        "users: duplicate user_id": [{"source": "u.csv", "row": 5, "values": {}}],
    }


def test_facts_fit_their_bound(facts, monkeypatch) -> None:
    """Curves go first, then users; what is left can be read."""
    whole = len(collect.packed(facts))
    monkeypatch.setattr(collect, "MOST_BYTES", whole - 1)
    without_curves = unpack(collect.packed(facts))
    assert (without_curves.n_picks, len(without_curves.arrays["month"])) == (3, 0)
    monkeypatch.setattr(collect, "MOST_BYTES", 10)
    without_users = unpack(collect.packed(facts))
    assert (without_users.n_picks, without_users.arrays["item_n"].tolist()) == (0, [3, 2, 1])


def test_a_plane_through_vectors() -> None:
    """Points on a line keep their order and distances, and one direction explains all."""
    line = np.array([[3, 4], [0, 0], [-3, -4]], np.float32)
    xy, explained = collect.on_a_plane(line)
    assert xy[:, 0].tolist() == pytest.approx([5, 0, -5])
    assert xy[:, 1].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert explained == pytest.approx([1, 0])
