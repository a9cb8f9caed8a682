"""Tests the readers: formats, globs, and errors.

Each error names the fault.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import polars as pl
import pytest

from shortlist.recsys.data import Loaded, load
from shortlist.recsys.data.input_schema import INTERACTIONS, ITEMS, USERS
from shortlist.recsys.data.readers import check_columns, read
from shortlist.recsys.data.sources import (
    Dialect,
    InteractionsSource,
    ItemsSource,
    ReturnMark,
    UsersSource,
)
from shortlist.recsys.data.staging import file_versions
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
        (".", "the directory '.' has no file that ends in"),
        ("", "there is no file ''"),
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
        ("a.xlsx", b"x", "the name must end in .parquet, .pq, .csv, .tsv, "),
        ("a.csv", b"", "is empty: it needs a header row"),
        ("a.csv", b"user_id,item_id,timestamp\n", "has no rows"),
        ("a.jsonl", b"\n\n", "'.*a.jsonl' is empty: it needs data"),
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
        ("a.parquet", b"user_id,item_id,timestamp\n1,2,3\n", "it is no Parquet; give it the end"),
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


FRAME = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]})


def ids(loaded: Loaded) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return loaded.dataset.user_ids, loaded.dataset.catalogue.ids


def test_directory_is_read_whole(tmp_path: Path) -> None:
    """With what lies below it; what is hidden, a marker or no table is passed over."""
    for place in ("a.parquet", "deep/b.parquet", "_temporary/c.parquet", ".d.parquet"):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        FRAME.with_columns(pl.lit(path.stem).alias("user_id")).write_parquet(path)
    (tmp_path / "in" / "_SUCCESS").touch()
    (tmp_path / "in" / "README.md").write_text("x")
    for source in (tmp_path / "in", f"{tmp_path}/in/", f"{tmp_path}/i*"):
        assert load(str(source)).dataset.user_ids == ("a", "b")


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    """Percent signs and nulls as Spark writes them; a column of the file itself counts more."""
    for user in ("000123", "a%2Fb", "__HIVE_DEFAULT_PARTITION__"):
        path = tmp_path / "in" / f"user_id={user}" / "item_id=no" / "part.parquet"
        path.parent.mkdir(parents=True)
        FRAME.drop("user_id").write_parquet(path)
    loaded = load(str(tmp_path / "in"), max_reject_share=0.5)
    assert ids(loaded) == (("000123", "a/b"), ("a", "b"))
    assert loaded.rejects == {"null user_id": 2}


LINES = '{"user_id": "007", "item_id": 5, "timestamp": 1}\n\n{"timestamp": 2, "user_id": 7}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("a.json", '[{"user_id": "007", "item_id": 5, "timestamp": 1}, {"user_id": 7}]'),
        ("a.tsv", "user_id\titem_id\ttimestamp\n007\t5\t1\n7\t\t2\n"),
        ("a.txt", "user_id\titem_id\ttimestamp\n007\t5\t1\n7\t\t2\n"),
        ("a.csv", "user_id,item_id,timestamp\n007,5,1\n7,,2\n"),
    ],
)
@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
def test_text_formats(tmp_path: Path, name: str, text: str, pack: str) -> None:
    """Plain and compressed; ids keep their spelling, and a missing field costs its row."""
    content = text.encode()
    packed = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[pack](content)
    (tmp_path / (name + pack)).write_bytes(packed)
    loaded = load(str(tmp_path / (name + pack)), max_reject_share=0.5)
    assert (ids(loaded), loaded.rejects) == ((("007",), ("5",)), {"null item_id": 1})


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_lines_that_are_no_json(tmp_path: Path, name: str) -> None:
    """Cost themselves; a file of such lines alone is refused."""
    (tmp_path / name).write_text(LINES + "{oops\n[1]\n")
    loaded = load(str(tmp_path / name), max_reject_share=1)
    assert (ids(loaded), loaded.rejects) == (
        (("007",), ("5",)),
        {"null item_id": 1, "null user_id": 2},
    )
    for few in ("{oops\n", LINES + "{oops\n" * 3):
        (tmp_path / name).write_text(few)
        with pytest.raises(InvalidData, match="JSON must be an object a line, or a list of"):
            load(str(tmp_path / name), max_reject_share=1)


BIG = "9" * 65
ODD = [
    f'{{"user_id": {BIG}, "item_id": 5, "timestamp": 1, "weight": NaN}}',
    '{"user_id": "b", "item_id": 5, "timestamp": 2, "weight": -Infinity}',
    '{"user_id": "c", "item_id": 5, "timestamp": 3, "weight": 1e999}',
    '{"user_id": "d", "item_id": 5, "timestamp": 4, "weight": 2.5}',
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("text", ["\n".join(ODD), f"[{', '.join(ODD)}]"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_odd_json_values(tmp_path: Path, name: str, text: str, mark: str) -> None:
    """Cost their row or nothing: NaN and Infinity are missing, and long ids keep their digits."""
    (tmp_path / name).write_text(mark + text, encoding="utf-8")
    frame = read(str(tmp_path / name), INTERACTIONS).frame
    assert frame["user_id"].to_list() == [BIG, "b", "c", "d"]
    assert frame["weight"].to_list() == [None, None, "1e999", "2.5"]
    assert load(str(tmp_path / name), max_reject_share=0.5).rejects == {"impossible weight": 1}


PLAIN = {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1, 2]}
ROWS = [dict(zip(PLAIN, row, strict=True)) for row in zip(*PLAIN.values(), strict=True)]


@pytest.mark.parametrize(
    "table",
    [
        {name: dict(zip("07", column, strict=True)) for name, column in PLAIN.items()},
        dict(zip("07", ROWS, strict=True)),
        {"columns": list(PLAIN), "index": [0, 7], "data": [list(row.values()) for row in ROWS]},
        {"schema": {"fields": []}, "data": ROWS},
        {"events": ROWS, "count": 2},
    ],
    ids=["columns", "index", "split", "table", "wrapped"],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_tables_in_one_object(tmp_path: Path, table: object, indent: int | None) -> None:
    """The forms of pandas with its default index, and a wrapped list, on one line or many."""
    (tmp_path / "a.json").write_text(json.dumps(table, indent=indent))
    frame = read(str(tmp_path / "a.json"), INTERACTIONS).frame
    assert frame.select(*PLAIN).to_dict(as_series=False) == PLAIN


def test_objects_without_numbers_are_refused(tmp_path: Path) -> None:
    """Nothing tells whether the objects of an object are rows or columns."""
    table = {f"p{n}": row for n, row in enumerate(ROWS * 10)}
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(InvalidData, match=r"one object of objects, 'p0', 'p1'.*lines=True"):
        read(str(tmp_path / "a.json"), INTERACTIONS)


@pytest.mark.parametrize(
    ("event", "item"),
    [
        ({"user_id": "a", "timestamp": 1, "item": {"id": 5}}, "item.id"),
        ({"user_id": {"$oid": "a"}, "item": {"$oid": "5"}, "timestamp": {"$date": 1}}, "item"),
        ({"user_id": "a", "item": "5", "timestamp": 1, "tags": [{"tag": "x"}]}, "item"),
    ],
)
def test_one_event_is_a_row(tmp_path: Path, event: object, item: str) -> None:
    """A file of one line is no table in an object where a field is none."""
    (tmp_path / "a.jsonl").write_text(json.dumps(event))
    source = InteractionsSource((str(tmp_path / "a.jsonl"),), columns={"item_id": item})
    assert ids(load(source)) == (("a",), ("5",))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_one_row_of_objects_alone(tmp_path: Path, name: str) -> None:
    """An event whose fields are all objects is a row, and so is an item with a list of others."""
    event = {"user": {"id": "a"}, "item": {"id": 5}, "at": {"ts": 1}}
    (tmp_path / name).write_text(json.dumps(event))
    columns = {"user_id": "user.id", "item_id": "item.id", "timestamp": "at.ts"}
    assert ids(load(InteractionsSource((str(tmp_path / name),), columns))) == (("a",), ("5",))
    item = {"item_id": 1, "related": [{"item_id": 2}]}
    (tmp_path / name).write_text(json.dumps(item))
    assert read(str(tmp_path / name), ITEMS).frame["item_id"].to_list() == [1]


def zstd(content: bytes) -> bytes:
    """A frame of zstd that holds the content as it is (RFC 8878, a raw block)."""
    header = b"\x28\xb5\x2f\xfd\xa0" + len(content).to_bytes(4, "little")
    return header + (len(content) << 3 | 1).to_bytes(3, "little") + content


def source(tmp_path: Path, text: bytes, dialect: Dialect, **columns: str) -> InteractionsSource:
    (tmp_path / "a.csv").write_bytes(text)
    return InteractionsSource((str(tmp_path / "a.csv"),), columns, dialect)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8", "cp1252", "utf-16-le"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """Text that is not UTF-8 is read as it is said to be."""
    text = "Käufer;SKU;Datum\r\nZoë;'5;6';1\r\n".encode(encoding)
    given = source(
        tmp_path,
        text,
        Dialect(";", "'", encoding),
        user_id="Käufer",
        item_id="SKU",
        timestamp="Datum",
    )
    assert ids(load(given)) == (("Zoë",), ("5;6",))


def test_decimal_commas(tmp_path: Path) -> None:
    """In weights and people's own columns; ids and titles are left alone."""
    text = b"user_id;item_id;timestamp;weight\nu;1,5;1;1.234,5\nu;b;2;,5\nu;c;3;7\n"
    loaded = load(source(tmp_path, text, Dialect(";", decimal=",")))
    assert loaded.dataset.events.weight.tolist() == [1234.5, 0.5, 7.0]
    assert loaded.dataset.catalogue.ids == ("1,5", "b", "c")
    users = tmp_path / "u.csv"
    users.write_text("user_id;size;code\nu;1,5;x,5\nv;2;y\n")
    frame = read(UsersSource((str(users),), {}, Dialect(";", decimal=",")), USERS).frame
    assert frame["size"].to_list() == [1.5, 2.0]
    assert frame["code"].to_list() == ["x,5", "y"]


@pytest.mark.parametrize("decimal", [".", ","])
def test_negative_numbers_of_accounts(tmp_path: Path, decimal: str) -> None:
    """In parentheses, with the sign behind, and with that of mathematics; a rating 2- is none."""
    texts = ["(1.5)", "1.5-", "1.5 -", "\u22121.5", "-1.5", "(x)", "1.5--", "2.5"]
    rows = [f"u;i{n};{n};{text.replace('.', decimal)}" for n, text in enumerate(texts)]
    content = "\n".join(["user_id;item_id;timestamp;weight", *rows]).encode()
    data = load(source(tmp_path, content, Dialect(";", decimal=decimal)), max_reject_share=1)
    assert data.rejects == {"unparsable weight": 2}
    assert data.dataset.events.weight.tolist() == [2.5]
    assert data.dataset.events.negatives.item.tolist() == [0, 1, 2, 3, 4]
    grades = content.replace(b"weight", b"rating")
    data = load(source(tmp_path, grades, Dialect(";", decimal=decimal)), max_reject_share=1)
    assert data.rejects == {"unparsable rating": 4}


def test_lines_before_the_header(tmp_path: Path) -> None:
    """They are passed over, and a file without a header has numbered columns."""
    text = b"Report of May\n\nuser_id,item_id,timestamp\nu,a,1\n"
    assert ids(load(source(tmp_path, text, Dialect(skip=2)))) == (("u",), ("a",))
    bare = {"user_id": "column_2", "item_id": "column_1", "timestamp": "column_3"}
    given = source(tmp_path, b"a,u,1\nb,u,2,9\n", Dialect(header=False), **bare)
    loaded = load(given, max_reject_share=0.5)
    assert (ids(loaded), loaded.rejects) == ((("u",), ("a",)), {"too many fields": 1})


GOLDEN = Path(__file__).parents[1] / "golden" / "tables"


def test_parquet_of_spark() -> None:
    """Times of 96 bits, a dictionary, decimals, and a struct that is not read."""
    loaded = load(str(GOLDEN / "spark-int96.parquet"))
    assert ids(loaded) == (("a", "b"), ("1", "2", "3"))
    assert sorted(loaded.dataset.events.time.tolist()) == [1704067200, 1704153600, 1704240000]
    assert loaded.dataset.events.weight.tolist() == [1.5, 1.5, 1.5]
    assert "columns n, __index_level_0__ not read" in loaded.notes[0]


def test_parquet_of_polars(tmp_path: Path) -> None:
    """Categories, enums, decimals, wide integers and nested columns."""
    frame = FRAME.with_columns(
        pl.col("user_id").cast(pl.Categorical),
        pl.col("item_id").cast(pl.Enum(["b", "a"])),
        pl.col("timestamp").cast(pl.Decimal(18, 2)),
        pl.lit(3).cast(pl.UInt64).alias("weight"),
        pl.Series("context", [{"a": [1]}, None]),
        pl.Series("event_type", ["x", None], dtype=pl.Categorical),
    )
    frame.write_parquet(tmp_path / "a.parquet")
    loaded = load(str(tmp_path / "a.parquet"))
    assert (ids(loaded), loaded.rejects) == ((("u", "v"), ("a", "b")), {})


def test_wide_tables_cost_their_used_columns(tmp_path: Path) -> None:
    """A column that is not used may be broken: it is never read."""
    path = tmp_path / "a.parquet"
    FRAME.with_columns(pl.lit("unused" * 99).alias("wide")).write_parquet(
        path, compression="uncompressed"
    )
    broken = path.read_bytes().replace(b"unusedunused", b"\xff" * 12)
    path.write_bytes(broken)
    assert ids(load(str(path))) == (("u", "v"), ("a", "b"))


@pytest.mark.parametrize(
    ("log", "package"),
    [("_delta_log/0.json", "deltalake"), ("metadata/v1.metadata.json", "pyiceberg")],
)
def test_lakes_name_their_extra(
    tmp_path: Path, log: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the package that reads them is not installed."""
    (tmp_path / "table" / log).parent.mkdir(parents=True)
    (tmp_path / "table" / log).touch()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidData, match=r"pip install 'shortlist-recommender\[lake\]'"):
        check_columns(str(tmp_path / "table"), INTERACTIONS)


def test_delta_table(tmp_path: Path) -> None:
    """Is read by its log; new rows are another version of it."""
    pytest.importorskip("deltalake")
    place = str(tmp_path / "table")
    FRAME.write_delta(place)
    before = file_versions(place, "interactions")
    FRAME.with_columns(pl.lit("w").alias("user_id")).write_delta(place, mode="append")
    assert load(place).dataset.user_ids == ("u", "v", "w")
    assert file_versions(place, "interactions")[:1] == before


def test_iceberg_table(tmp_path: Path) -> None:
    """Is read by its newest metadata; rows that were overwritten are gone."""
    pytest.importorskip("pyiceberg")
    pytest.importorskip("sqlalchemy")  # of the catalogue that writes the table
    from pyiceberg.catalog.sql import SqlCatalog

    catalogue = SqlCatalog("test", uri="sqlite:///:memory:", warehouse=tmp_path.as_uri())
    catalogue.create_namespace("shop")
    rows = FRAME.to_arrow()
    table = catalogue.create_table("shop.orders", schema=rows.schema)
    place = table.location().removeprefix("file://")
    table.append(rows)
    assert load(place).dataset.user_ids == ("u", "v")
    before = file_versions(place, "interactions")
    table.overwrite(FRAME.with_columns(pl.lit("w").alias("user_id")).to_arrow())
    assert load(place).dataset.user_ids == ("w",)
    assert file_versions(place, "interactions") != before


def test_mapped_columns(tmp_path: Path) -> None:
    """Columns have our names, the others are not even read, and an empty name leaves one out."""
    wide = FRAME.rename({"user_id": "uid"}).with_columns(
        pl.lit("x").alias("user_id"), pl.lit(7).alias("weight"), pl.lit(9.0).alias("n")
    )
    wide.write_parquet(tmp_path / "a.parquet")
    given = InteractionsSource((str(tmp_path / "a.parquet"),), {"user_id": "uid", "weight": ""})
    raw = read(given, INTERACTIONS)
    assert [c for c in raw.frame.columns if not c.startswith("_")] == FRAME.columns
    assert raw.frame["user_id"].to_list() == ["u", "v"]
    assert raw.notes == ()


def test_unread_columns_are_told(tmp_path: Path) -> None:
    """Where nobody has said that they are left out on purpose."""
    FRAME.with_columns(a=1, b=2).write_parquet(tmp_path / "a.parquet")
    said = "a mapping file says what they are (`shortlist data check` writes one)"
    notes = read(str(tmp_path / "a.parquet"), INTERACTIONS).notes
    assert notes == (f"interactions: columns a, b not read: {said}",)


def test_items_keep_what_is_asked_for(tmp_path: Path) -> None:
    """All of their own columns, or those that are learnt from, shown or filtered by."""
    path = tmp_path / "items.csv"
    path.write_text("item_id,brand,price,note,title\na,acme,1.5,x,A\n")
    all_read = read(str(path), ITEMS).frame
    assert [c for c in all_read.columns if not c.startswith("_")] == [
        "item_id", "title", "brand", "price", "note",
    ]  # fmt: skip
    assert all_read["price"].to_list() == [1.5]
    some = ItemsSource((str(path),), learn=("brand",), show=("brand", "price"), filter=())
    assert read(some, ITEMS).frame.columns[:4] == ["item_id", "title", "brand", "price"]


def test_marked_rows_are_returns(tmp_path: Path) -> None:
    """Others keep their type, or have none."""
    frame = FRAME.with_columns(pl.Series("Channel", [" return ", None]))
    for own in (frame, frame.with_columns(pl.lit("buy").alias("event_type"))):
        own.write_parquet(tmp_path / "a.parquet")
        mark = ReturnMark("Channel", ("return", "refund"))
        raw = read(InteractionsSource((str(tmp_path / "a.parquet"),), returns=mark), INTERACTIONS)
        other = "buy" if "event_type" in own.columns else None
        assert (raw.frame["event_type"].to_list(), raw.notes) == (["return", other], ())


def test_other_encoding_is_guessed(tmp_path: Path) -> None:
    """Text in UTF-16 is no riddle."""
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,3\n", encoding="utf-16")
    with pytest.raises(InvalidData, match="seems to be written in UTF-16, not in UTF-8"):
        load(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CustomerNo;SKU;OrderDate\n1;2;3\n", "its header seems to be parted by semicolons"),
        ("user_id\titem_id\tday\n1\t2\t3\n", "its header seems to be parted by tabs"),
        (
            "x,CustomerNo,SKU,OrderDate,Qty\n",
            "user_id may be CustomerNo or ",
        ),
        ("user_id,itm_id,ts\n", "item_id may be itm_id or "),
        ("user_id,itm_id,ts\n", "`shortlist data check "),
    ],
)
def test_lacking_columns_are_guessed(tmp_path: Path, text: str, message: str) -> None:
    """The nearest names, or the separator that was probably meant."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InvalidData, match="lacks") as caught:
        check_columns(str(tmp_path / "a.csv"), INTERACTIONS)
    assert message in str(caught.value)


def test_mapping_of_another_file(tmp_path: Path) -> None:
    """A column that the mapping names and the file lacks is named, with the nearest."""
    given = source(tmp_path, b"uid,item_id,timestamp\n", Dialect(), user_id="uidd")
    with pytest.raises(InvalidData, match=r"no column 'uidd', which .*; nearest are 'uid'"):
        check_columns(given, INTERACTIONS)
    given = source(tmp_path, b"uid;item_id;timestamp\n", Dialect(), user_id="uid")
    with pytest.raises(InvalidData, match=r"parted by semicolons as it seems"):
        check_columns(given, INTERACTIONS)
    given = source(tmp_path, b"a,b\n", Dialect(), user_id="a", item_id="a", timestamp="b")
    with pytest.raises(InvalidData, match="has column 'a' as user_id and item_id"):
        check_columns(given, INTERACTIONS)
    given = source(tmp_path, b"uid,item_id,timestamp\n", Dialect(), user="uid")
    with pytest.raises(InvalidData, match="'user' among its columns, known are user_id"):
        check_columns(given, INTERACTIONS)


@pytest.mark.parametrize(
    ("texts", "expected", "note"),
    [
        (["['Action', 'Sci-Fi']", "[]", None], [["Action", "Sci-Fi"], [], []], True),
        (['["Action", "Children\'s"]', '["\u00e9"]'], [["Action", "Children's"], ["\u00e9"]], True),
        (
            ["Action, Drama", "Drama", "Comedy,Drama"],
            [["Action", "Drama"], ["Drama"], ["Comedy", "Drama"]],
            True,
        ),
        (["A;B", "C"], [["A", "B"], ["C"]], True),
        (["A|B, C", "C"], [["A", "B, C"], ["C"]], False),
        (["Home, Garden & Tools", "Toys"], [["Home, Garden & Tools"], ["Toys"]], False),
        (["Home, Garden", "Toys"], [["Home, Garden"], ["Toys"]], False),
    ],
)
@pytest.mark.parametrize("column", ["categories", "genres", "Category", "tags"])
def test_categories_as_text(
    tmp_path: Path, texts: list[str | None], expected: list[list[str]], note: object, column: str
) -> None:
    """Lists of a frame or of JSON, and parts that recur, are parted; names stay whole."""
    n = len(texts)
    items = pl.DataFrame({"item_id": list("abc")[:n], column: texts})
    items.write_parquet(tmp_path / "items.parquet")
    FRAME.with_columns(pl.lit("a").alias("item_id")).write_parquet(tmp_path / "i.parquet")
    loaded = load(str(tmp_path / "i.parquet"), str(tmp_path / "items.parquet"))
    assert [list(c) for c in loaded.dataset.catalogue.categories] == expected
    assert any("are read as" in said for said in loaded.notes) == note
    taken = f"items: column {column} is taken for categories"
    assert (taken in loaded.notes) == (column != "categories")


def test_empty_rows_are_none(tmp_path: Path) -> None:
    """Blank lines, and lines of separators alone, are passed over with a note."""
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n1,2,3\n\n,,\n2,2,\n")
    raw = read(str(path), INTERACTIONS)
    assert raw.frame["user_id"].to_list() == ["1", "2"]
    assert raw.frame["_row"].to_list() == [1, 4]
    assert raw.notes == (f"interactions: 2 rows of {str(path)!r} have nothing in the columns read",)


def test_column_of_some_files(tmp_path: Path) -> None:
    """A mapped column that only some files have is empty in the others; one of none is refused."""
    (tmp_path / "a.csv").write_text(f"{HEADER}\n1,2,3\n")
    (tmp_path / "b.csv").write_text(f"{HEADER},Stars\n1,2,4,5\n")
    given = InteractionsSource((str(tmp_path),), columns={"rating": "Stars"})
    check_columns(given, INTERACTIONS)
    raw = read(given, INTERACTIONS)
    assert raw.frame["rating"].to_list() == [None, "5"]
    assert "a.csv' has no Stars, which other files have: its rows have none" in raw.notes[0]
    (tmp_path / "b.csv").unlink()
    for refused in (check_columns, read):
        with pytest.raises(InvalidData, match=r"a\.csv' has no column 'Stars', which the mapping"):
            refused(given, INTERACTIONS)


def test_place_of_bad_bytes(tmp_path: Path) -> None:
    """A file that is no UTF-8 is refused with the line and the byte that break it."""
    path = tmp_path / "a.csv"
    path.write_bytes(f"{HEADER}\n1,2,3\n".encode() + b"J\xfcrgen,2,3\n")
    with pytest.raises(InvalidData, match="first fc in line 3 at byte 2"):
        read(str(path), INTERACTIONS)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.csv.zst"])
def test_cut_compressed_files(tmp_path: Path, name: str) -> None:
    """A download that broke off is told from text that is written otherwise."""
    path = tmp_path / name
    content = f"{HEADER}\n".encode() + b"".join(b"%d,2,%d\n" % (i, i * 7919) for i in range(9999))
    pack = zstd if name.endswith(".zst") else gzip.compress
    path.write_bytes(pack(content)[:-1000])
    with pytest.raises(InvalidData, match="the compressed file is cut off or damaged; fetch it"):
        read(str(path), INTERACTIONS)


def test_fields_of_objects(tmp_path: Path) -> None:
    """A mapping may name fields of objects, at any depth, for every use; a misspelt one is told."""
    frame = FRAME.with_columns(pl.struct(pl.struct(pl.col("item_id").alias("sku"))).alias("p"))
    path = tmp_path / "a.parquet"
    frame.drop("item_id").write_parquet(path)
    source = InteractionsSource((str(path),), columns={"item_id": "p.sku.sku"})
    check_columns(source, INTERACTIONS)
    assert load(source).dataset.catalogue.ids == load(write_frame(tmp_path)).dataset.catalogue.ids
    wrong = InteractionsSource((str(path),), columns={"item_id": "p.sku.skuu"})
    with pytest.raises(InvalidData, match=r"has no column 'p.sku.skuu'.*'p.sku.sku'"):
        read(wrong, INTERACTIONS)
    items = ItemsSource((str(path),), {"item_id": "user_id"}, None, (), ("p.sku.sku",), ())
    assert "p.sku.sku" in read(items, ITEMS).frame.columns


def write_frame(directory: Path) -> str:
    """The frame of these tests as Parquet."""
    path = directory / "plain.parquet"
    FRAME.write_parquet(path)
    return str(path)
