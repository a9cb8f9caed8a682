"""Tests the readers: formats, globs, and errors.

Each error names the fault.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from shortlist.recsys.data import load
from shortlist.recsys.errors import InvalidData

HEADER = "user_id,item_id,timestamp"


def test_movielens_dat(tmp_path: Path) -> None:
    """MovieLens `.dat` files are read by position, in latin-1, with the year from the title."""
    (tmp_path / "ratings.dat").write_bytes(
        b"1::1193::5::978300760\r\n1::661::3::978302109\n2::1193::4::978300275\n"
    )
    movies = "1193::Star Wars: Misérables, Les (1995)::Drama|Sci-Fi\n661::Ça (1996) (V)::Musical\n"
    (tmp_path / "movies.dat").write_bytes(movies.encode("latin1"))
    (tmp_path / "users.dat").write_bytes(b"1::F::1::10::48067\n2::M::56::16::02139\n")
    loaded = load(*(str(tmp_path / f"{name}.dat") for name in ("ratings", "movies", "users")))
    data = loaded.dataset
    assert data.catalogue.titles == ("Star Wars: Misérables, Les (1995)", "Ça (1996) (V)")
    assert data.catalogue.categories == (("Drama", "Sci-Fi"), ("Musical",))
    assert data.catalogue.year.tolist() == [1995.0, 1996.0]
    assert data.events.item.tolist() == [0, 1, 0]
    assert data.events.weight.tolist() == [5.0, 3.0, 4.0]
    assert data.vocabulary.columns == ("gender", "age", "occupation", "zip_code")
    assert data.vocabulary.tokens[2] == {"10": 4, "16": 5}
    assert loaded.rejects == {}


def test_bad_dat_rows(tmp_path: Path) -> None:
    """Lines with too few or too many fields cost themselves only."""
    path = tmp_path / "ratings.dat"
    path.write_text("1::2::3::4\n1::2::3\n1::2::3::4::5\n", encoding="latin1")
    assert load(str(path), max_reject_share=1).rejects == {
        "null timestamp": 1,
        "too many fields": 1,
    }


def test_glob_of_different_types(tmp_path: Path) -> None:
    """Files of one glob may hold the same columns in different types, and extra columns."""
    pl.DataFrame({"user_id": [1], "item_id": ["a"], "timestamp": [7]}).write_parquet(
        tmp_path / "p0.parquet"
    )
    (tmp_path / "p1.csv").write_text(
        f"{HEADER},weight,other\n1,b,1970-01-01T00:00:08,2,x\n", encoding="utf-8"
    )
    data = load(str(tmp_path / "p*")).dataset
    assert (data.user_ids, data.catalogue.ids, data.events.time.tolist()) == (
        ("1",),
        ("a", "b"),
        [7, 8],
    )


def test_categories_of_different_types(tmp_path: Path) -> None:
    """Lists in one file and text in the next give the same categories."""
    (tmp_path / "i.csv").write_text(f"{HEADER}\n1,1,1\n", encoding="utf-8")
    pl.DataFrame({"item_id": [1], "categories": [["x", "y"]]}).write_parquet(
        tmp_path / "items0.parquet"
    )
    (tmp_path / "items1.csv").write_text("item_id,categories\n2,x|y\n", encoding="utf-8")
    catalogue = load(str(tmp_path / "i.csv"), str(tmp_path / "items*")).dataset.catalogue
    assert catalogue.categories == (("x", "y"), ("x", "y"))


def test_csv_dialects(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blanks in the header and gzip are no obstacle."""
    text = " user_id , item_id,timestamp\r\n1,2,3\r\n".encode("utf-8-sig")
    (tmp_path / "a.csv").write_bytes(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text))
    assert len(load(str(tmp_path / "a.csv")).dataset.events) == 1
    assert len(load(str(tmp_path / "b.csv.gz")).dataset.events) == 1


def test_name_with_brackets(tmp_path: Path) -> None:
    """A file that exists is itself, whatever a glob would make of its name."""
    path = tmp_path / "part[1].csv"
    path.write_text(f"{HEADER}\n1,2,3\n", encoding="utf-8")
    assert len(load(str(path)).dataset.events) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.csv", "there is no file"),
        ("*.csv", "no file matches"),
        (".", "is a directory: give a file, or a glob"),
        ("", "is a directory"),
        ("s3://", "names no object"),
        ("s3://bucket", "names no object"),
    ],
)
def test_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    """What is not there is named."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidData, match=message):
        load(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"x", "the name must end in .parquet, .pq, .csv, .csv.gz, .dat"),
        ("a.csv", b"", "is empty: it needs a header row"),
        ("a.csv", b"user_id,item_id,timestamp\n", "has no rows"),
        ("a.dat", b"", "is empty"),
        (
            "a.csv",
            b"user,item_id,time\n1,2,3\n",
            "lacks user_id, timestamp; it has user, item_id, time; required are",
        ),
        ("a.csv", "user_id,item_id,timestamp\n1,é,3\n".encode("latin1"), "CSV must be UTF-8"),
        ("a.csv", b'user_id,item_id,timestamp\n1,"2,3\n1,2,3\n', "with closed quotes"),
        ("a.csv", b"\x00\x01\xff\xfe\n\x00", "lacks user_id|cannot read"),
        ("a.csv.gz", b"\x1f\x8bnot really", "cannot read"),
        ("a.parquet", b"", "cannot read"),
        ("a.parquet", b"not parquet at all", "cannot read"),
        ("a.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", "cannot read"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A broken file is an error of this package, which says why."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=message):
        load(str(path))


def test_truncated_parquet(tmp_path: Path) -> None:
    """A half-written Parquet file is refused."""
    path = tmp_path / "a.parquet"
    pl.DataFrame(
        {"user_id": range(1000), "item_id": range(1000), "timestamp": range(1000)}
    ).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InvalidData, match="cannot read"):
        load(str(path))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_id", [1], "must hold text or whole numbers"),
        ("item_id", True, "must hold text or whole numbers"),
        ("timestamp", True, "must hold seconds"),
        ("timestamp", [1], "must hold seconds"),
        ("rating", [1], "must hold numbers"),
    ],
)
def test_wrong_types(tmp_path: Path, column: str, value: object, message: str) -> None:
    """A column of a type that cannot mean anything is named with its type."""
    row = {"user_id": 1, "item_id": 2, "timestamp": 3, column: value}
    pl.DataFrame([row]).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InvalidData, match=f"column {column} has type .*{message}"):
        load(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("column", "value"), [("title", ["x"]), ("categories", 3), ("year", ["x"])]
)
def test_wrong_types_of_items(tmp_path: Path, column: str, value: object) -> None:
    """The items table is held to its types too."""
    (tmp_path / "i.csv").write_text(f"{HEADER}\n1,1,1\n", encoding="utf-8")
    pl.DataFrame([{"item_id": 1, column: value}]).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(InvalidData, match=f"column {column} has type"):
        load(str(tmp_path / "i.csv"), str(tmp_path / "items.parquet"))


def test_types_that_cannot_be_reconciled(tmp_path: Path) -> None:
    """A nested column in one file and a plain one in the next is refused by name."""
    pl.DataFrame({"user_id": [{"a": 1}], "item_id": [1], "timestamp": [1]}).write_parquet(
        tmp_path / "0.parquet"
    )
    pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [1]}).write_parquet(
        tmp_path / "1.parquet"
    )
    with pytest.raises(InvalidData, match="column user_id has type"):
        load(str(tmp_path / "*.parquet"))
