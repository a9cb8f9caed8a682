"""Runs the batch on tiny, bare or strange data.

It makes right lists, or ends in an error that says why.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.batch import config, dataset_file, job
from shortlist.batch.job import Job, is_done, run_stage
from shortlist.batch.precompute import read_shards
from shortlist.recsys.errors import InvalidData, InvalidInput
from shortlist.recsys.models import bundle
from shortlist.recsys.models.interactions import MISSING
from shortlist.recsys.models.pipeline import recommend
from shortlist.recsys.settings import Settings
from shortlist.recsys.store.records import pack_user, unpack_list, unpack_user

UP_TO_LISTS = list(job.STAGES)[:-1]
TINY = {
    "EMBEDDING_DIM": "8",
    "TOP_K_CANDIDATES": "15",
    "LGBM_N_ESTIMATORS": "5",
    "SHORTLIST_THREADS": "1",
    "SHORTLIST_LIST_LENGTH": "10",
    "SHORTLIST_GATE": "off",
}


@pytest.fixture
def quick(monkeypatch) -> None:
    """Towers that train for a moment: tested is that data goes through, not what is learnt."""
    honest = config.TowerParams
    monkeypatch.setattr(
        config, "TowerParams", lambda **params: honest(hidden=16, round_steps=5, rounds=2, **params)
    )


@pytest.fixture(autouse=True)
def redis_at(valkey_url, namespace, monkeypatch) -> None:
    """A Redis of each test's own, which has the deleted users."""
    monkeypatch.setitem(TINY, "REDIS_URL", valkey_url)
    monkeypatch.setitem(TINY, "SHORTLIST_NAMESPACE", namespace)


def job_of(
    tmp_path: Path,
    reporter,
    columns: dict[str, list],
    users: dict[str, list] | None = None,
    **environ: str,
) -> Job:
    """A job on these interactions, and on a users table where one is given."""
    pl.DataFrame(columns).write_parquet(tmp_path / "interactions.parquet")
    if users is not None:
        pl.DataFrame(users).write_parquet(tmp_path / "users.parquet")
    settings = Settings.from_env(TINY | environ)
    prepared = None if users is None else str(tmp_path / "users.parquet")
    return Job(
        str(tmp_path / "interactions.parquet"),
        None,
        prepared,
        tmp_path / "work",
        settings,
        reporter,
        1.0,
    )


def made(prepared: Job) -> dict[str, tuple[str, ...]]:
    """Runs the job up to its lists, compares each with the live path, and gives the item ids."""
    for name in UP_TO_LISTS:
        run_stage(prepared, name)
    loaded = bundle.load(prepared.work / "bundle")
    out: dict[str, tuple[str, ...]] = {}
    for user in read_shards(prepared.work / "lists", loaded.manifest["version"]):
        stored, record = unpack_list(user.packed), unpack_user(pack_user(user.record))
        state, unknown = bundle.state_of(loaded, record)
        live = recommend(loaded.model, state, prepared.settings.list_length)
        kept = live.items[0] != MISSING
        assert unknown == 0
        assert stored.rows == tuple(live.items[0, kept].tolist())
        assert stored.scores == tuple(live.scores[0, kept].astype(np.float16).tolist())
        out[user.user_id] = tuple(loaded.catalogue.ids[row] for row in stored.rows)
    return out


def columns_of(histories: dict[str, list[int]], times: list[int] | None = None) -> dict[str, list]:
    """Interactions in the order of their users; times are sequence numbers unless given."""
    pairs = [(user, str(item)) for user, items in histories.items() for item in items]
    n = len(pairs)
    return {
        "user_id": [user for user, _ in pairs],
        "item_id": [item for _, item in pairs],
        "timestamp": list(range(n)) if times is None else times,
    }


@pytest.mark.parametrize("protocol", ["last-10pct", "leave-one-out"])
@pytest.mark.usefixtures("quick")
def test_users_with_all_or_no_items(protocol, tmp_path, reporter) -> None:
    """They get an empty list, all but one item, and a full list by their attributes."""
    histories = {f"u{n}": [n % 12, (n + 1) % 12, (n + 2) % 12, (n + 3) % 12] for n in range(20)}
    histories |= {"all": list(range(12)), "one": [4]}
    users = {
        "user_id": [*histories, "new"],
        "gender": ["F", "M"] * 11 + ["F"],
        "age": [20.5 + n for n in range(23)],
    }
    lists = made(
        job_of(tmp_path, reporter, columns_of(histories), users, SHORTLIST_PROTOCOL=protocol)
    )
    assert set(lists) == {*histories, "new"}
    assert lists["all"] == ()
    assert set(lists["one"]) < {str(n) for n in range(12) if n != 4}
    assert [len(lists[u]) for u in ("one", "new", "u0")] == [10, 10, 8]


@pytest.mark.usefixtures("quick")
def test_sequence_numbers_with_ties_get_through(tmp_path, reporter) -> None:
    """Events that share one time get a random order, and none is lost."""
    histories = {f"u{n}": [(n + i * i) % 17 for i in range(6)] for n in range(30)}
    prepared = job_of(tmp_path, reporter, columns_of(histories, [0] * 180))
    lists = made(prepared)
    events = dataset_file.load(prepared.work).events
    ids = dataset_file.load(prepared.work).catalogue.ids
    assert sorted(ids[row] for row in events.item[:6]) == sorted(str(i * i % 17) for i in range(6))
    assert all(len(row) == 10 for row in lists.values())


@pytest.mark.usefixtures("quick")
def test_one_user_with_two_items(tmp_path, reporter) -> None:
    """There is one item to learn from, one to test on, and nothing left to recommend."""
    prepared = job_of(tmp_path, reporter, columns_of({"only": [1, 2]}))
    assert made(prepared) == {"only": ()}
    report = json.loads((prepared.work / "metrics.json").read_text())
    assert report["methods"]["two_stage"]["ndcg@10"]["value"] == 1.0


@pytest.mark.parametrize(
    "histories",
    [
        {"a": [1]},
        {"a": [1], "b": [1], "c": [1]},
        {"a": [1], "b": [2], "c": [3]},
        {"a": [1, 1, 1], "b": [1, 1]},
    ],
    ids=["one event", "one item", "single events", "one item again and again"],
)
@pytest.mark.usefixtures("quick")
def test_data_without_evaluation_is_refused(histories, tmp_path, reporter) -> None:
    """Before any list is made, and with what to do."""
    prepared = job_of(tmp_path, reporter, columns_of(histories))
    with pytest.raises(InvalidData, match="evaluat"):
        made(prepared)
    assert not (prepared.work / "lists").exists()


@pytest.mark.usefixtures("quick")
def test_equal_times_have_no_cut(tmp_path, reporter) -> None:
    """There is no before and no after."""
    prepared = job_of(
        tmp_path,
        reporter,
        columns_of({"a": [1, 2], "b": [2, 3]}, [5] * 4),
        SHORTLIST_PROTOCOL="time",
    )
    with pytest.raises(InvalidData, match="share one time"):
        made(prepared)


def test_no_interactions_at_all_are_refused(tmp_path, reporter) -> None:
    """A table of the right columns and no rows."""
    empty = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})
    prepared = job_of(tmp_path, reporter, empty.to_dict(as_series=False))
    empty.write_parquet(prepared.interactions)
    with pytest.raises(InvalidInput):
        run_stage(prepared, "features")


@pytest.mark.usefixtures("quick")
def test_changed_tables_are_read_again(tmp_path, reporter) -> None:
    """Also when it is one of several that a pattern names, and when one is added."""
    columns = columns_of({"a": [1, 2, 3], "b": [2, 3, 1]})
    prepared = job_of(tmp_path, reporter, columns)
    parts = tmp_path / "parts"
    parts.mkdir()
    pl.DataFrame(columns).write_parquet(parts / "1.parquet")
    prepared = Job(str(parts / "*.parquet"), None, None, prepared.work, prepared.settings, reporter)
    run_stage(prepared, "features")
    assert is_done(prepared, "features")
    os.utime(parts / "1.parquet", ns=(1, 1))
    assert not is_done(prepared, "features")
    run_stage(prepared, "features")
    assert is_done(prepared, "features")
    pl.DataFrame(columns_of({"c": [1, 2]})).write_parquet(parts / "2.parquet")
    assert not is_done(prepared, "features")


def test_lists_want_every_stage_before_them(tmp_path, reporter) -> None:
    """The error names them in their order."""
    prepared = job_of(tmp_path, reporter, columns_of({"a": [1, 2]}))
    with pytest.raises(
        InvalidInput, match="features, train-embeddings, build-index, train-ranker, evaluate first"
    ):
        run_stage(prepared, "precompute")


@pytest.mark.usefixtures("quick")
def test_a_rerun_stage_undoes_later_ones(tmp_path, reporter) -> None:
    """What was made of the old towers is not taken for new."""
    prepared = job_of(
        tmp_path,
        reporter,
        columns_of({f"u{n}": [n % 5, (n + 1) % 5, (n + 2) % 5] for n in range(8)}),
    )
    made(prepared)
    assert all(is_done(prepared, name) for name in UP_TO_LISTS)
    run_stage(prepared, "train-embeddings")
    assert [name for name in UP_TO_LISTS if is_done(prepared, name)] == [
        "features",
        "train-embeddings",
    ]
    with pytest.raises(InvalidInput, match="build-index"):
        run_stage(prepared, "precompute")
