"""Tests loading: accepted rows, rejected rows, and the dataset.

Rejected rows have their reasons.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.recsys.data import Loaded, load, loading
from shortlist.recsys.data.sources import ItemsSource
from shortlist.recsys.data.tie_order import draws
from shortlist.recsys.errors import InvalidData, InvalidSettings

Frame = dict[str, list[Any]]

GOOD: Frame = {"user_id": [1, 1, 2], "item_id": [10, 20, 10], "timestamp": [5, 6, 7]}


def written(directory: Path, name: str, data: Frame | pl.DataFrame) -> str:
    path = directory / name
    frame = data if isinstance(data, pl.DataFrame) else pl.DataFrame(data, strict=False)
    frame.write_parquet(path)
    return str(path)


def csv(directory: Path, text: str, name: str = "interactions.csv") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def triples(loaded: Loaded) -> list[tuple[str, str, int]]:
    data = loaded.dataset
    events = data.events
    rows = zip(events.user.tolist(), events.item.tolist(), events.time.tolist(), strict=True)
    return [(data.user_ids[u], data.catalogue.ids[i], t) for u, i, t in rows]


def test_minimal_table(tmp_path: Path) -> None:
    """Three columns are enough: items come from the interactions, everything else is absent."""
    loaded = load(written(tmp_path, "i.parquet", GOOD))
    data = loaded.dataset
    assert triples(loaded) == [("1", "10", 5), ("1", "20", 6), ("2", "10", 7)]
    assert (loaded.rejects, loaded.n_read, loaded.notes) == ({}, 3, ())
    assert data.catalogue.titles == ("10", "20")
    assert data.catalogue.categories == ((), ())
    assert data.catalogue.membership.shape == (2, 0)
    assert np.isnan(data.catalogue.year).all()
    assert np.isnan(data.events.weight).all()
    assert data.attributes.shape == (2, 0)
    assert [a.dtype for a in (data.events.user, data.events.item)] == [np.int32, np.int32]
    assert [a.dtype for a in (data.events.time, data.events.weight)] == [np.int64, np.float32]


@pytest.mark.parametrize(
    "ids", [[42, 7, 42], [42.0, 7.0, 42.0], ["42", "7", "42"], [" 42 ", "7.0", "42.00"]]
)
def test_ids_are_text(tmp_path: Path, ids: list[Any]) -> None:
    """42, 42.0 and "42" are the same id."""
    loaded = load(written(tmp_path, "i.parquet", {**GOOD, "user_id": ids}))
    assert loaded.dataset.user_ids == ("7", "42")


def test_order_of_users(tmp_path: Path) -> None:
    """Users are numbered by number where the id is one, and the others follow as text."""
    ids = ["10", "b", "9", "a", "010"]
    loaded = load(
        written(tmp_path, "i.parquet", {"user_id": ids, "item_id": [1] * 5, "timestamp": [1] * 5})
    )
    assert loaded.dataset.user_ids == ("9", "010", "10", "a", "b")


def test_row_order_does_not_order_ties(tmp_path: Path) -> None:
    """Rows sorted and shuffled, in one file and in two, give the same arrays and fingerprint."""
    rng = np.random.default_rng(3)
    rows = [
        (u, i, t, w)
        for u in range(20)
        for i in range(15)
        for t, w in [(i // 5, 1.0), (i // 5, 2.0)]
    ]

    def loaded(order: list[int], parts: int) -> Loaded:
        directory = tmp_path / f"{order[0]}-{parts}"
        directory.mkdir()
        for part in range(parts):
            own = [rows[n] for n in order[part::parts]]
            columns = zip(
                ("user_id", "item_id", "timestamp", "rating"), zip(*own, strict=True), strict=True
            )
            written(
                directory, f"part-{part}.parquet", {name: list(values) for name, values in columns}
            )
        return load(str(directory / "*.parquet"))

    shuffled = rng.permutation(len(rows)).tolist()
    one = loaded(list(range(len(rows))), 1)
    for other in (loaded(shuffled, 1), loaded(shuffled[::-1], 2)):
        assert other.dataset.fingerprint == one.dataset.fingerprint
        assert triples(other) == triples(one)
        assert other.notes == one.notes
    assert (
        "interactions: 100.0% of the events share their time with another event of their user"
        in one.notes[0]
    )
    items = np.array([int(item) for _, item, _ in triples(one)])
    steps = np.diff(items.reshape(-1, 10), axis=1)  # ten events a tie, each item twice
    assert 0.4 < (steps > 0).sum() / (steps != 0).sum() < 0.6


def test_events_without_ties_follow_time(tmp_path: Path) -> None:
    """Where times are positions nothing is drawn, and nothing is said."""
    rows = {"user_id": [1, 1, 1, 2, 2], "item_id": [3, 1, 2, 9, 8], "timestamp": [2, 0, 1, 0, 1]}
    loaded = load(written(tmp_path, "i.parquet", rows))
    assert [item for _, item, _ in triples(loaded)] == ["1", "2", "3", "9", "8"]
    assert loaded.notes == ()


def test_draw_is_stable_across_versions() -> None:
    """Fingerprints, and so all figures, rest on it."""
    user, item, time = (
        np.array([0, 1], np.int32),
        np.array([1, 0], np.int32),
        np.array([0, 1_700_000_000]),
    )
    drawn = draws(["a", "b"], ["x", "y"], user, item, time, np.array([np.nan, 4.5], np.float32))
    assert drawn.tolist() == [3787525705868846226, 133802136450157911]


@pytest.mark.parametrize(
    "times",
    [
        [0, 86400, 86401],
        [0.0, 86400.9, 86401.0],
        ["0", "86400", "86401.5"],
        ["1970-01-01", "1970-01-02 00:00", "1970-01-02T00:00:01.25Z"],
        ["1970-01-01t00:00:00z", "1970-01-02 00:00:00+00", "1970-01-02 02:00:01.9 +02"],
        ["1970-01-01 00:00 GMT", "1970-01-02T00:00:00 utc", "1970-01-01 19:00:01-05"],
        ["1970-01-01T02:00:00+02:00", "1970-01-01 23:00:00-0100", "1970-01-02 00:00:01 UTC"],
        [
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(1970, 1, 2, tzinfo=UTC),
            datetime(1970, 1, 2, 0, 0, 1, tzinfo=UTC),
        ],
        [
            datetime(1970, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))),
            datetime(1970, 1, 2, tzinfo=UTC),
            datetime(1970, 1, 2, 0, 0, 1, tzinfo=UTC),
        ],
    ],
)
def test_forms_of_time(tmp_path: Path, times: list[Any]) -> None:
    """Numbers, date-times and ISO text all become seconds, fractions cut off."""
    loaded = load(written(tmp_path, "i.parquet", {**GOOD, "timestamp": times}))
    assert loaded.dataset.events.time.tolist() == [0, 86400, 86401]


def test_dates_are_midnights(tmp_path: Path) -> None:
    """A date is its midnight, UTC."""
    loaded = load(
        written(tmp_path, "i.parquet", {**GOOD, "timestamp": [date(1970, 1, d) for d in (1, 2, 3)]})
    )
    assert loaded.dataset.events.time.tolist() == [0, 86400, 172800]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2,3,4", "null user_id"),
        ("1, ,3,4", "null item_id"),
        ("1,2,,4", "null timestamp"),
        ("1,2,soon,4", "unparsable timestamp"),
        ("1,2,2024-02-31,4", "unparsable timestamp"),
        ("1,2,-1,4", "impossible timestamp"),
        ("1,2,1969-12-31,4", "impossible timestamp"),
        ("1,2,inf,4", "impossible timestamp"),
        ("1,2,nan,4", "impossible timestamp"),
        ("1,2,99999999999999999999,4", "impossible timestamp"),
        ("1,2,3,good", "unparsable rating"),
        ("1,2,3,-3.5e38", "impossible rating"),
        ("1,2,3,inf", "impossible rating"),
        ("1,2,3,1e300", "impossible rating"),
        ("1,2,3,3.5e38", "impossible rating"),
        ("1,2,9007199254740993,4", "unparsable timestamp"),
        ("6.35E+17,2,3,4", "user_id: a float beyond 2^53 has lost digits, give text or int64"),
        (
            "1,635284328055690100.0,3,4",
            "item_id: a float beyond 2^53 has lost digits, give text or int64",
        ),
        ("a\x07b,2,3,4", "user_id: control characters and U+FFFD are not allowed, remove them"),
        (
            "1," + "x" * 257 + ",3,4",
            "item_id: at most 256 characters are allowed, use a shorter id",
        ),
        ("\u3000,2,3,4", "null user_id"),
        ("1,2,3,4,5", "too many fields"),
        ("1,2", "null timestamp"),
        ("9,8,7,6", "duplicate row"),
    ],
)
def test_reasons(tmp_path: Path, row: str, reason: str) -> None:
    """Each kind of bad row is rejected for its own reason, and the good rows stay."""
    source = csv(tmp_path, f"user_id,item_id,timestamp,rating\n9,8,7,6\n{row}\n9,8,8,\n")
    rejects = tmp_path / "rejects.parquet"
    loaded = load(source, max_reject_share=0.5, rejects=rejects)
    assert loaded.rejects == {reason: 1}
    assert triples(loaded) == [("9", "8", 7), ("9", "8", 8)]
    np.testing.assert_array_equal(loaded.dataset.events.weight, np.array([6, np.nan], np.float32))
    rejected = pl.read_parquet(rejects).select("table", "source", "row", "reason").rows()
    assert rejected == [("interactions", source, 2, reason)]


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("timestamp", [1.0, float("nan"), 2.0], "impossible timestamp"),
        ("timestamp", [1.0, float("inf"), 2.0], "impossible timestamp"),
        ("timestamp", [1, None, 2], "null timestamp"),
        ("timestamp", [1, -7, 2], "impossible timestamp"),
        ("user_id", [1.0, float("nan"), 2.0], "null user_id"),
        ("item_id", ["a", None, "b"], "null item_id"),
        ("weight", [1.0, float("-inf"), None], "impossible weight"),
        ("weight", [1.0, 1e39, 2.0], "impossible weight"),
        (
            "user_id",
            [1.0, 6.352843280556901e17, 2.0],
            "user_id: a float beyond 2^53 has lost digits, give text or int64",
        ),
        (
            "user_id",
            [1.0, 1.5, 2.0],
            "user_id: a float beyond 2^53 has lost digits, give text or int64",
        ),
        (
            "item_id",
            ["a", "x" * 257, "b"],
            "item_id: at most 256 characters are allowed, use a shorter id",
        ),
    ],
)
def test_reasons_in_typed_columns(
    tmp_path: Path, column: str, values: list[Any], reason: str
) -> None:
    """Typed columns are judged as text ones are."""
    loaded = load(written(tmp_path, "i.parquet", {**GOOD, column: values}), max_reject_share=0.5)
    assert (loaded.rejects, len(loaded.dataset.events)) == ({reason: 1}, 2)


@pytest.mark.parametrize(
    "weights", [[1.0, float("nan"), None], ["1", "NaN", " "], ["1.0", "nan", None]]
)
def test_nan_weights_are_missing(tmp_path: Path, weights: list[Any]) -> None:
    """As null is."""
    loaded = load(written(tmp_path, "i.parquet", {**GOOD, "rating": weights}))
    assert loaded.rejects == {}
    np.testing.assert_array_equal(
        loaded.dataset.events.weight, np.array([1, np.nan, np.nan], np.float32)
    )


@pytest.mark.parametrize("bits", [pl.Float32, pl.Float64])
def test_rounded_floats_are_no_ids(tmp_path: Path, bits: Any) -> None:
    """Neither where the column is a float in one file and text in the next."""
    edge = 2.0 ** (24 if bits == pl.Float32 else 53)
    floats = pl.DataFrame({**GOOD, "user_id": pl.Series([edge - 1, edge, None], dtype=bits)})
    source = written(tmp_path, "a.parquet", floats)
    rule = "user_id: a float beyond 2^53 has lost digits, give text or int64"
    for path in (source, str(tmp_path / "*.parquet")):
        loaded = load(path, max_reject_share=1)
        assert loaded.rejects == {rule: 1, "null user_id": 1}
        assert f"{edge - 1:.0f}" in loaded.dataset.user_ids
        written(tmp_path, "b.parquet", {**GOOD, "user_id": ["x", "y", "z"]})


def test_ids_of_other_scripts_are_text(tmp_path: Path) -> None:
    """Digits that are not ASCII are kept as they are spelt, in every table."""
    wide = "\uff11\uff12\uff13"
    interactions = written(
        tmp_path, "i.parquet", {**GOOD, "user_id": [wide, "7", "b"], "item_id": [wide, "x", "x"]}
    )
    items = written(tmp_path, "items.parquet", {"item_id": ["x", wide]})
    users = written(tmp_path, "users.parquet", {"user_id": [wide, "7"], "group": ["p", "q"]})
    loaded = load(interactions, items, users)
    assert (loaded.dataset.user_ids, loaded.dataset.catalogue.ids, loaded.rejects) == (
        ("7", "b", wide),
        ("x", wide),
        {},
    )


def test_long_or_rounded_ids_are_rejected(tmp_path: Path) -> None:
    """With its rule, whichever table has it."""
    bad = ["x" * 257, "6.35E+17"]
    items = written(tmp_path, "items.parquet", {"item_id": ["10", "20", *bad]})
    users = written(tmp_path, "users.parquet", {"user_id": [1.0, 2.0**60], "group": ["p", "q"]})
    loaded = load(written(tmp_path, "i.parquet", GOOD), items, users, max_reject_share=0.5)
    assert loaded.rejects == {
        "items: item_id: a float beyond 2^53 has lost digits, give text or int64": 1,
        "items: item_id: at most 256 characters are allowed, use a shorter id": 1,
        "users: user_id: a float beyond 2^53 has lost digits, give text or int64": 1,
    }


def test_rejects_of_parquet_are_readable(tmp_path: Path) -> None:
    """The rejects file tells each row's own fields as JSON, also where JSON has no such value."""
    path = tmp_path / "rejects.parquet"
    times = [
        datetime(1960, 1, 1, tzinfo=UTC),
        datetime(1990, 1, 1, tzinfo=UTC),
        datetime(1991, 1, 1, tzinfo=UTC),
    ]
    data: Frame = {**GOOD, "timestamp": times, "rating": [1.0, float("-inf"), 3.0]}
    load(written(tmp_path, "i.parquet", data), max_reject_share=1, rejects=path)
    assert pl.read_parquet(path)["record"].to_list() == [
        '{"user_id":1,"item_id":10,"timestamp":"1960-01-01 00:00:00.000000+00:00","rating":"1.0"}',
        '{"user_id":1,"item_id":20,"timestamp":"1990-01-01 00:00:00.000000+00:00","rating":"-inf"}',
    ]


def test_event_type_tells_rows_apart(tmp_path: Path) -> None:
    """Rows that differ in their event type only are not duplicates."""
    same: Frame = {"user_id": [1, 1, 1], "item_id": [2, 2, 2], "timestamp": [3, 3, 3]}
    assert load(written(tmp_path, "a.parquet", same), max_reject_share=1).rejects == {
        "duplicate row": 2
    }
    typed = {**same, "event_type": ["view", "buy", "view"]}
    assert load(written(tmp_path, "b.parquet", typed), max_reject_share=1).rejects == {
        "duplicate row": 1
    }


def test_too_many_rejects_stop_the_load(tmp_path: Path) -> None:
    """Above the share the load stops with reasons and remedy; the rejects file is written."""
    source = csv(tmp_path, "user_id,item_id,timestamp\n1,2,3\n1,2,x\n1,2,y\n,2,3\n")
    rejects = tmp_path / "deep" / "rejects.parquet"
    with pytest.raises(InvalidData) as caught:
        load(source, max_reject_share=0.5, rejects=rejects)
    assert str(caught.value) == (
        "interactions: 3 of 4 rows (75.0%) break the schema, more than --max-reject-share 0.5 "
        "allows (unparsable timestamp: 2, such as row 2 of interactions.csv "
        '{"user_id":"1","item_id":"2","timestamp":"x"}: a time is unix seconds or ISO 8601, or '
        "what a mapping file says: `shortlist data check` finds out; null user_id: 1, such as "
        'row 4 of interactions.csv {"user_id":null,"item_id":"2","timestamp":"3"}: fill it in): '
        f"they are in {str(rejects)!r}; mend the rows, or raise --max-reject-share"
    )
    assert pl.read_parquet(rejects)["row"].to_list() == [2, 3, 4]
    assert [p.name for p in rejects.parent.iterdir()] == ["rejects.parquet"]


def test_share_is_not_above_itself(tmp_path: Path) -> None:
    """Exactly the allowed share is allowed."""
    source = csv(tmp_path, "user_id,item_id,timestamp\n1,2,3\n1,2,x\n")
    assert load(source, max_reject_share=0.5).rejects == {"unparsable timestamp": 1}


def test_clean_load_writes_empty_rejects(tmp_path: Path) -> None:
    """A clean load leaves an empty rejects file, not the one of the load before."""
    path = tmp_path / "rejects.parquet"
    load(written(tmp_path, "i.parquet", GOOD), rejects=path)
    assert pl.read_parquet(path).height == 0


def test_unwritable_rejects(tmp_path: Path) -> None:
    """A rejects file that cannot be written is an error of this package."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidData, match="give a writable path"):
        load(written(tmp_path, "i.parquet", GOOD), rejects=tmp_path / "file" / "rejects.parquet")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_out_of_range(tmp_path: Path, share: float) -> None:
    """A share outside 0 to 1 is refused."""
    with pytest.raises(InvalidSettings, match="from 0 to 1"):
        load(written(tmp_path, "i.parquet", GOOD), max_reject_share=share)


def test_items_table(tmp_path: Path) -> None:
    """The catalogue is the items table in its order, with cold items; the rest is unknown."""
    items: Frame = {
        "item_id": ["20", "10", "30", "20"],
        "title": ["Twenty", None, " ", "Again"],
        "categories": [["b", "a", "b"], [], None, ["z"]],
        "year": [1995.0, float("nan"), None, 2000.0],
    }
    source: Frame = {"user_id": [1, 1, 2], "item_id": [10, 99, 20], "timestamp": [1, 2, 3]}
    interactions = written(tmp_path, "i.parquet", source)
    loaded = load(interactions, written(tmp_path, "items.parquet", items), max_reject_share=0.5)
    assert loaded.rejects == {"items: duplicate item_id": 1, "unknown item": 1}
    catalogue = loaded.dataset.catalogue
    assert catalogue.ids == ("20", "10", "30")
    assert catalogue.titles == ("Twenty", "10", "30")
    assert catalogue.categories == (("b", "a"), (), ())
    assert catalogue.category_names == ("a", "b")
    assert catalogue.membership.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    np.testing.assert_array_equal(catalogue.year, np.array([1995, np.nan, np.nan], np.float32))
    assert triples(loaded) == [("1", "10", 1), ("2", "20", 3)]
    assert loaded.dataset.events.n_items == 3


def test_commonest_categories_are_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the matrix may hold, of equals the first by name; items keep all of theirs."""
    items: Frame = {"item_id": ["1", "2", "3"], "categories": [["d", "b"], ["c", "d"], ["a", "b"]]}
    source: Frame = {"user_id": [1, 1], "item_id": [1, 2], "timestamp": [1, 2]}
    paths = (written(tmp_path, "i.parquet", source), written(tmp_path, "items.parquet", items))
    whole = load(*paths)
    assert (whole.dataset.catalogue.category_names, whole.notes) == (("a", "b", "c", "d"), ())
    monkeypatch.setattr(loading, "MAX_CELLS", 3 * 3 + 2)
    loaded = load(*paths)
    catalogue = loaded.dataset.catalogue
    assert (catalogue.category_names, catalogue.categories) == (
        ("a", "b", "d"),
        (("d", "b"), ("c", "d"), ("a", "b")),
    )
    assert catalogue.membership.tolist() == [[0, 1, 1], [0, 0, 1], [1, 1, 0]]
    others = "the others are shown and filtered by, but not learnt from"
    assert loaded.notes == (
        f"items: 4 categories of 3 items are too many, the commonest 3 are taken: {others}",
    )
    monkeypatch.setattr(loading, "MAX_CELLS", 2)
    assert load(*paths).dataset.catalogue.membership.shape == (3, 0)


def test_items_as_csv(tmp_path: Path) -> None:
    """Categories may be text joined by bars, and years text."""
    items = csv(
        tmp_path, 'item_id,title,categories,year\n10,"A, B", x | y|,1990\n20,,,\n', "items.csv"
    )
    catalogue = load(written(tmp_path, "i.parquet", GOOD), items).dataset.catalogue
    assert (catalogue.titles, catalogue.categories) == (("A, B", "20"), (("x", "y"), ()))
    np.testing.assert_array_equal(catalogue.year, np.array([1990, np.nan], np.float32))


def test_bad_items(tmp_path: Path) -> None:
    """Items without an id or with an impossible year are rejected with their interactions."""
    items = csv(tmp_path, "item_id,year\n10,1990\n,1990\n20,soon\n30,inf\n", "items.csv")
    loaded = load(written(tmp_path, "i.parquet", GOOD), items, max_reject_share=0.75)
    assert loaded.rejects == {
        "items: impossible year": 1,
        "items: null item_id": 1,
        "items: unparsable year": 1,
        "unknown item": 1,
    }


def test_users_table(tmp_path: Path) -> None:
    """Users of the table who have no events are users too; those it lacks have no attributes."""
    users: Frame = {"user_id": [3, 1, 3, None], "group": ["a", "b", "c", "d"]}
    loaded = load(
        written(tmp_path, "i.parquet", GOOD),
        None,
        written(tmp_path, "u.parquet", users),
        max_reject_share=0.5,
    )
    assert loaded.dataset.user_ids == ("1", "2", "3")
    assert loaded.dataset.attributes.tolist() == [[1], [-1], [0]]
    assert loaded.dataset.events.n_users == 3
    assert loaded.dataset.events.offsets().tolist() == [0, 2, 3, 3]
    assert loaded.rejects == {"users: duplicate user_id": 1, "users: null user_id": 1}


def test_weight_counts_before_rating(tmp_path: Path) -> None:
    """Where a table has a rating and a weight, the weight is used and a note says so."""
    loaded = load(
        written(tmp_path, "i.parquet", {**GOOD, "rating": [1, 2, 3], "weight": [7, 8, 9]})
    )
    assert loaded.dataset.events.weight.tolist() == [7.0, 8.0, 9.0]
    assert loaded.notes == (
        "interactions: there are both a weight and a rating, and only the weight is used",
    )


def test_one_user_one_item(tmp_path: Path) -> None:
    """One event is a dataset."""
    loaded = load(csv(tmp_path, "user_id,item_id,timestamp\nu,i,0\n"))
    assert triples(loaded) == [("u", "i", 0)]


def test_user_with_every_item(tmp_path: Path) -> None:
    """A user may have had the whole catalogue."""
    items = written(tmp_path, "items.parquet", {"item_id": ["a", "b", "c"]})
    interactions: Frame = {"user_id": ["u"] * 3, "item_id": ["c", "a", "b"], "timestamp": [1, 2, 3]}
    events = load(written(tmp_path, "i.parquet", interactions), items).dataset.events
    assert events.item.tolist() == [2, 0, 1]


@pytest.mark.parametrize("table", ["interactions", "items", "users"])
def test_empty_tables(tmp_path: Path, table: str) -> None:
    """A table without rows is named as such."""
    empty: Frame = {"user_id": [], "item_id": [], "timestamp": []}
    sources = {
        name: written(tmp_path, f"{name}.parquet", GOOD)
        for name in ("interactions", "items", "users")
    }
    sources[table] = written(tmp_path, "empty.parquet", empty)
    with pytest.raises(InvalidData, match=rf"{table}: .*empty.parquet' has no rows"):
        load(sources["interactions"], sources["items"], sources["users"], max_reject_share=1)


def test_nothing_valid(tmp_path: Path) -> None:
    """Data of which no row holds is refused whatever the share."""
    source = csv(tmp_path, "user_id,item_id,timestamp\n1,2,x\n")
    with pytest.raises(InvalidData, match=r"none of 1 rows is valid \(unparsable timestamp: 1"):
        load(source, max_reject_share=1.0)


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """The same content has the same fingerprint in any format; any change changes it."""
    a = load(written(tmp_path, "a.parquet", GOOD)).dataset.fingerprint
    text = "timestamp,user_id,item_id\n5,1,10\n6,1,20\n7,2.0,10\n"
    assert load(csv(tmp_path, text)).dataset.fingerprint == a
    assert load(csv(tmp_path, text.replace("7", "8"))).dataset.fingerprint != a
    assert load(csv(tmp_path, text.replace("20", "21"))).dataset.fingerprint != a
    assert a == "14597ef0a0c5e5b2268ce71fc1ff880f7c157d8dc8f1265bd342a3f309e938c0"


def test_mapping_chooses_item_columns(tmp_path) -> None:
    """A mapping names columns as the table does; a renamed one goes by our name."""
    interactions, items = tmp_path / "i.csv", tmp_path / "p.csv"
    interactions.write_text("user_id,item_id,timestamp\n1,1,1\n1,2,2\n")
    items.write_text("SKU,Brand,Price,Launch,Note\n1,acme,1.5,1999,x\n2,bruna,2.5,2001,y\n")
    source = ItemsSource(
        (str(items),),
        {"item_id": "SKU", "year": "Launch"},
        learn=("Brand", "Launch"),
        show=("Price", "Launch"),
        filter=("Brand",),
    )
    catalogue = load(str(interactions), source).dataset.catalogue
    assert {a.name: (a.is_shown, a.is_filtered) for a in catalogue.attributes} == {
        "Brand": (False, True),
        "Price": (True, False),
        "year": (True, False),
    }
    assert [column.name for column in catalogue.content.columns] == ["Brand"]
