"""Tests what `import shortlist` gives, as a data scientist would use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import shortlist
from shortlist.batch import offline_evaluation
from shortlist.recsys.data.synthetic import World, WorldSize, world
from shortlist.recsys.errors import InvalidInput, UnknownItem
from tests.smallest import PARAMS

SIZE = WorldSize(n_users=120, n_items=60, events_per_user=20, seed=3)


@pytest.fixture(scope="module")
def tables() -> World:
    """A small world."""
    return world(SIZE)


@pytest.fixture(scope="module")
def data(tables) -> shortlist.Data:
    """Its tables, read from frames."""
    return shortlist.read(tables.interactions, items=tables.items, users=tables.users)


@pytest.fixture(scope="module")
def release(data) -> shortlist.Release:
    """A release of it."""
    return shortlist.fit(data, params=PARAMS)


def test_frames_and_files_are_one(tables, data, tmp_path) -> None:
    """Frames of Polars, pandas and Arrow, an Arrow stream and a file give the same data."""
    tables.interactions.write_csv(tmp_path / "interactions.csv")
    tables.items.write_parquet(tmp_path / "items.parquet")

    class Stream:
        """A frame of another library, as Arrow's protocol hands it over."""

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return tables.items.__arrow_c_stream__(requested_schema)

    for interactions, items in (
        (tmp_path / "interactions.csv", str(tmp_path / "items.parquet")),
        (tables.interactions.lazy(), Stream()),
        (tables.interactions.to_pandas(), tables.items.to_arrow()),
    ):
        other = shortlist.read(interactions, items=items, users=tables.users)
        assert other.loaded.dataset.fingerprint == data.loaded.dataset.fingerprint


def test_data_shows_what_was_read(tables, data) -> None:
    """The events, items and users come back as frames."""
    assert data.interactions.height == tables.interactions.height
    assert data.interactions.columns == ["user_id", "item_id", "timestamp", "weight"]
    assert data.items["events"].sum() == tables.interactions.height
    assert data.users.height == tables.users.height
    assert data.rejects.is_empty()


def test_rejects_are_counted(tables) -> None:
    """Each reason with its rows."""
    bad = tables.interactions.with_columns(
        pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("item_id").alias("item_id")
    )
    rejects = shortlist.read(bad, items=tables.items).rejects
    assert rejects["rows"].to_list() == [1]
    assert "item_id" in rejects["reason"][0]


def test_files_are_checked_and_mapped(tables, data, tmp_path) -> None:
    """An export with other names: what each column is, and a mapping that reads it."""
    events = tables.interactions.rename({"user_id": "CustomerNo", "item_id": "SKU"})
    events.write_csv(tmp_path / "orders.csv", separator=";")
    tables.items.rename({"item_id": "SKU"}).drop("categories").write_csv(tmp_path / "products.csv")
    found = shortlist.check(
        tmp_path / "orders.csv", tmp_path / "products.csv", write=tmp_path / "data.toml"
    )
    theirs = dict(found.columns.filter(table="interactions").select("column", "theirs").rows())
    assert theirs["user_id"] == "CustomerNo"
    assert theirs["item_id"] == "SKU"
    assert found.rejected.is_empty()
    read = shortlist.read(mapping=tmp_path / "data.toml")
    assert read.interactions.drop("weight").equals(data.interactions.drop("weight"))


def test_evaluation_gives_frames(data, tmp_path, monkeypatch) -> None:
    """Methods, pairs and segments; the report as JSON and page; by the workers asked for."""
    asked, lists = [], offline_evaluation.stage_lists

    def noting(*args: object) -> object:
        asked.append(args[-1])
        return lists(*args)

    monkeypatch.setattr(offline_evaluation, "stage_lists", noting)
    evaluation = shortlist.evaluate(data, params=PARAMS, workers=1)
    assert asked == [1]
    headline = evaluation.methods.filter(metric="ndcg@10", part="all")
    assert {"two_stage", "retriever", "popularity"} <= set(headline["method"])
    assert (headline["low"] <= headline["value"]).all()
    pair = evaluation.paired.filter(method="two_stage", other="popularity")
    assert pair["difference"][0] > 0
    assert set(evaluation.segments["kind"]) == {"history length", "favourite category"}
    evaluation.write_json(tmp_path / "report.json")
    evaluation.write_page(tmp_path / "report.html")
    assert "two_stage" in (tmp_path / "report.json").read_text()
    assert "<html" in (tmp_path / "report.html").read_text()


def test_lists_have_unseen_items(data, release) -> None:
    """Ranked from 1, without what the user had."""
    lists = release.recommend(data, users=["1", "2"], k=5)
    assert lists["user_id"].to_list() == ["1"] * 5 + ["2"] * 5
    assert lists["rank"].to_list() == [1, 2, 3, 4, 5] * 2
    seen = data.interactions.select("user_id", "item_id")
    assert lists.join(seen, on=["user_id", "item_id"], how="inner").is_empty()
    assert release.recommend(data, k=1).height == data.users.height


def test_given_histories_are_answered(data, release) -> None:
    """A user whom training never saw, by the same code as a known one."""
    own = data.interactions.filter(user_id="1")["item_id"].to_list()
    lists = release.recommend({"new": own}, k=5, exclude=["7"])
    assert set(lists["user_id"]) == {"new"}
    assert not set(own) & set(lists["item_id"])
    assert "7" not in lists["item_id"]
    one = release.items.explode("categories")["categories"].drop_nulls()[0]
    narrow = release.recommend({"new": own}, k=5, categories=[one])
    wanted = release.items.filter(pl.col("categories").list.contains(one))["item_id"]
    assert narrow["item_id"].is_in(wanted.implode()).all()


def test_lists_are_filtered_by_attributes(tables) -> None:
    """A column of the items is kept, and conditions on it hold; unknown ones are refused."""
    number = pl.col("item_id").cast(pl.Int64)
    priced = tables.items.with_columns(
        (number % 10).alias("price"), (number % 5 > 0).alias("available")
    )
    data = shortlist.read(tables.interactions, items=priced, users=tables.users)
    release = shortlist.fit(data, params=PARAMS)
    lists = release.recommend(data, users=["1", "2"], k=5, where={"price": {"lte": 3}})
    assert lists.height == 10
    shown = lists.join(release.items, on="item_id")
    assert shown["price"].max() <= 3
    assert shown["available"].all()
    assert release.similar("1", 60).join(release.items, on="item_id")["available"].all()
    day = release.recommend(data, users=["1"], k=5, where={"price": {3, 2}})
    assert day.join(release.items, on="item_id")["price"].is_in([2, 3]).all()
    with pytest.raises(InvalidInput, match="no attribute 'prize' to filter by: known are"):
        release.recommend(data, users=["1"], where={"prize": 3})


def test_similar_items_and_reasons(data, release) -> None:
    """Other items, best first; the history's shares are at most one in all."""
    similar = release.similar("1", k=4)
    assert similar["rank"].to_list() == [1, 2, 3, 4]
    assert similar["similarity"].is_sorted(descending=True)
    assert "1" not in similar["item_id"]
    reasons = release.explain(data, "1", k=2)
    shares = reasons.filter(kind="history").group_by("rank").agg(pl.col("value").sum())
    assert (shares["value"] <= 1.001).all()
    assert reasons["rank"].unique().sort().to_list() == [1, 2]


def test_ids_are_read_alike(data, release) -> None:
    """Whole numbers are the ids that text spells, as at every other entry."""
    expected = release.recommend(data, users=["1"], k=3, exclude=["7"])
    assert release.recommend(data, users=[1], k=3, exclude=[7.0]).equals(expected)
    assert release.similar(1, k=3).equals(release.similar("1", k=3))
    given = release.recommend({5: [1, 2]}, k=2)
    assert given.equals(release.recommend({"5": ["1", "2"]}, k=2))


def test_vain_wishes_are_warned_of(release) -> None:
    """A misspelt category and an unknown item are not passed over silently."""
    with pytest.warns(UserWarning, match="no item has categories 'nowhere'"):
        assert release.recommend({"new": ["1"]}, categories=["nowhere"]).is_empty()
    with pytest.warns(UserWarning, match="1 of the histories' items are not in the release"):
        release.recommend({"new": ["1", "none"]})


def test_values_have_short_names(data, release) -> None:
    """What a notebook shows of them fits into a line."""
    n, users, items = data.interactions.height, data.users.height, data.items.height
    assert repr(data) == f"Data({n} events of {users} users with {items} items, 0 rows rejected)"
    assert repr(release) == f"Release({release.version}, {items} items)"


def test_release_is_loaded_again(data, tmp_path) -> None:
    """From the directory of the fit; what does not change is not trained again."""
    first = shortlist.fit(data, params=PARAMS, directory=tmp_path)
    loaded = shortlist.Release.load(tmp_path / "bundle")
    assert loaded.version == first.version
    assert shortlist.fit(data, params=PARAMS, directory=tmp_path).version == first.version
    expected = first.recommend(data, users=["3"])
    assert loaded.recommend(data, users=["3"]).equals(expected)


def test_wrong_arguments_are_explained(data, release, tmp_path) -> None:
    """The value, the rule and the remedy."""
    with pytest.raises(InvalidInput, match="either interactions"):
        shortlist.read()
    with pytest.raises(InvalidInput, match="give a path, or a frame"):
        shortlist.read(7)
    with pytest.raises(InvalidInput, match="'nobody' has no history"):
        release.recommend(data, users=["nobody"])
    for k in (0, -1, 2.5, True):
        with pytest.raises(InvalidInput, match="must be a whole number of at least 1"):
            release.recommend(data, k=k)
    with pytest.raises(InvalidInput, match="users is '42': give a list"):
        release.recommend(data, users="42")
    with pytest.raises(InvalidInput, match="categories is 'a': give a list"):
        release.recommend(data, categories="a")
    with pytest.raises(InvalidInput, match="histories are of type list: give what"):
        release.recommend(["1"])
    with pytest.raises(InvalidInput, match="has not learnt when items are due again"):
        release.recommend(data, users=["1"], allow_repeats=True)
    for call in (shortlist.evaluate, shortlist.fit):
        with pytest.raises(InvalidInput, match="data is of type str: give what"):
            call("data.toml")
        with pytest.raises(InvalidInput, match="repeats is 'yes': it must be one of never, allow"):
            call(data, repeats="yes")
        with pytest.raises(InvalidInput, match="params is"):
            call(data, params={"rounds": 3})
    with pytest.raises(UnknownItem, match="'x' is not in the catalogue"):
        release.similar("x")
    with pytest.raises(InvalidInput, match="no release at"):
        shortlist.Release.load(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        shortlist.recomend  # noqa: B018 - misspelt on purpose


def test_importing_is_light() -> None:
    """A Lambda imports the package, and nothing heavy with it."""
    code = "import shortlist, sys; print('polars' in sys.modules, 'shortlist.batch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert done.stdout.split() == ["False", "False"]
