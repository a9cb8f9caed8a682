"""Tests what `shortlist data check` finds out, and proposes."""

from __future__ import annotations

import io
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from rich.console import Console

from shortlist.batch import check_report
from shortlist.batch.cli import main
from shortlist.recsys.data import load
from shortlist.recsys.data.check import Check, Given, Rejected, check
from shortlist.recsys.data.mapping import read_mapping
from shortlist.recsys.data.sources import Dialect, ReturnMark, TimeFormat
from shortlist.recsys.errors import InvalidData, InvalidSettings
from shortlist.recsys.event_rules import EventRules

USERS = [f"{n * 37 % 9973:05d}" for n in range(1, 41)]
ITEMS = [f"00{n}A" for n in range(10, 40)]
RUN = "shortlist batch run --data"
START = 1_690_000_000


def events(n: int = 400) -> list[tuple[str, str, datetime]]:
    """Users, items and times; the seed is fixed."""
    rng = random.Random(5)  # noqa: S311 - no secret
    times = (datetime.fromtimestamp(START + 7_001 * i, UTC) for i in range(n))
    return [(rng.choice(USERS), rng.choice(ITEMS), time) for time in times]


def put(path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return str(path)


def nobody(example: str, column: str) -> None:
    """Answers no question."""


def found(tmp_path: Path, *paths: str, **given: Any) -> Check:
    return check(paths, Given(**given), nobody, tmp_path / "rejects.parquet")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An export with semicolons, other names, returns, and a file of newer orders."""
    folder = tmp_path / "shop"
    rows = [
        f"{u};{i};{t:%Y-%m-%d %H:%M:%S}+02:00;{-1 if n % 20 == 7 else 1 + n % 3};"
        f"{'Rückgabe' if n % 20 == 7 else 'web'}"
        for n, (u, i, t) in enumerate(events())
    ]
    header = "KundenNr;Artikel;Bestelldatum;Menge;Kanal"
    put(folder / "orders.csv", header, [*rows[:300], ";1;2;3;web", "5;6;00.00.0000;1;web"])
    put(folder / "orders_new.csv", header, rows[300:])
    goods = [
        f"{i};Ding {i};{'Küche' if n % 2 else 'Garten'};acme;{n},50" for n, i in enumerate(ITEMS)
    ]
    put(
        folder / "goods.csv",
        "Code;Bezeichnung;Warengruppe;Marke;Preis",
        [*goods, "new;N;Küche;acme;1,00"],
    )
    put(folder / "people.csv", "Kennung;Land", [f"{u};DE" for u in [*USERS, "x"]])
    return folder


def test_export_of_a_shop(shop: Path, tmp_path: Path) -> None:
    """A folder is enough: which file and column is what is found by names and shared ids."""
    result = found(tmp_path, str(shop))
    mapping = result.mapping
    assert [Path(p).name for p in mapping.interactions.paths] == ["orders.csv", "orders_new.csv"]
    assert mapping.interactions.columns == {
        "user_id": "KundenNr", "item_id": "Artikel", "timestamp": "Bestelldatum", "weight": "Menge",
    }  # fmt: skip
    assert mapping.interactions.csv == Dialect(";")
    assert mapping.interactions.returns == ReturnMark("Kanal", ("Rückgabe",))
    assert mapping.events == EventRules(negative=("return",))
    assert mapping.items is not None
    assert mapping.items.csv == Dialect(";", decimal=",")
    assert mapping.items.columns == {
        "item_id": "Code", "title": "Bezeichnung", "categories": "Warengruppe",
    }  # fmt: skip
    assert mapping.items.learn == mapping.items.show == ("Marke", "Preis")
    assert mapping.users is not None
    assert (mapping.users.columns, mapping.users.learn) == ({"user_id": "Kennung"}, ("Land",))
    assert result.tables["items"].reasons["item_id"] == "94% of the ids of Artikel are in it"


def test_numbers_and_rejects(shop: Path, tmp_path: Path) -> None:
    """Counts, shares, and rejected rows with their places."""
    result = found(tmp_path, str(shop))
    numbers = result.numbers
    assert (numbers["rows"], numbers["events"], numbers["negative"]) == (402, 380, 20)
    share = f"interactions: {numbers['repeats']:.1%} of"
    assert any(note.startswith(share) and "item that the user had" in note for note in result.notes)
    assert (numbers["items_without_events"], numbers["users_without_events"]) == (1, 1)
    assert {reason: r.n for reason, r in result.rejects.items()} == {
        "null user_id": 1,
        "unparsable timestamp": 1,
    }
    sample = result.rejects["unparsable timestamp"].samples[0]
    assert (Path(sample["source"]).name, sample["row"]) == ("orders.csv", 302)
    assert any("SHORTLIST_REPEATS=allow" in advice for advice in result.advice)
    json.dumps(result.as_json())


def test_rejects_fit_narrow_terminals() -> None:
    """Eighty columns wrap an example between its values, which are whole or end in an ellipsis."""
    sample = {"source": "shop/orders.csv", "row": 302}
    record = {"user_id": "030686", "item_id": " ", "timestamp": "00.00.0000 00:00", "weight": None}
    title = "a title of a film that goes on and on and on"
    rejected = Rejected(
        2,
        (
            sample | {"record": json.dumps(record)},
            sample | {"record": json.dumps({"item_id": 5, "title": title})},
        ),
    )
    out = io.StringIO()
    Console(file=out, width=80).print(check_report.rejects_table({"null item_id": rejected}))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    shown = " ".join(line.split("│")[3].strip() for line in lines if "│" in line)
    assert shown == (
        "orders.csv row 302: user_id=030686, item_id=(blank), timestamp=00.00.0000 00:00 "
        "orders.csv row 302: item_id=5, title=a title of a film that goes on …"
    )


def test_command_writes_a_mapping(shop: Path, tmp_path: Path) -> None:
    """Which loads what was checked; the check as JSON has the same."""
    toml, report = tmp_path / "data.toml", tmp_path / "check.json"
    arguments = [f"--write={toml}", f"--json={report}", f"--rejects={tmp_path / 'r.parquet'}"]
    done = CliRunner().invoke(
        main, ["data", "check", str(shop), *arguments], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    assert "rows with Kanal = Rückgabe are returns" in done.output
    assert f"next `shortlist redis &`, unless you have a Redis, and `{RUN} {toml}`" in done.output
    mapping = read_mapping(str(toml))
    loaded = load(mapping.interactions, mapping.items, mapping.users, event_rules=mapping.events)
    assert len(loaded.dataset.events) == json.loads(report.read_text())["numbers"]["events"]


def test_corrections_are_not_overwritten(shop: Path, tmp_path: Path) -> None:
    """A mapping file that differs stays without --force; the same again is written."""
    toml = tmp_path / "data.toml"
    arguments = [
        "data",
        "check",
        str(shop),
        f"--write={toml}",
        f"--rejects={tmp_path / 'r.parquet'}",
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    written = toml.read_text()
    assert CliRunner().invoke(main, arguments).exit_code == 0
    toml.write_text(written + "# corrected\n")
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"shortlist: InvalidInput: '{toml}' holds something else")
    assert toml.read_text() == written + "# corrected\n"
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0
    assert toml.read_text() == written


def test_types_get_weights(tmp_path: Path) -> None:
    """A look, an interest and a decision; what takes back is negative; a guess says so."""
    kinds = ["view", "addtocart", "transaction", "Refund", "wave"]
    rows = [f"{t:%s}123,{u},{kinds[n % 5]},{i}" for n, (u, i, t) in enumerate(events())]
    path = put(tmp_path / "events.csv", "timestamp,visitorid,event,itemid", rows)
    result = found(tmp_path, path)
    assert result.mapping.events == EventRules(
        {"view": 1.0, "addtocart": 2.0, "transaction": 4.0, "wave": 1.0}, (), ("Refund",)
    )
    assert result.event_types == dict.fromkeys(sorted(kinds), 80)
    assert result.mapping.interactions.time == TimeFormat(unit="ms")
    assert any("event type wave is a guess" in advice for advice in result.advice)


FORMS = [
    ("%Y-%m-%dT%H:%M:%S.5Z", TimeFormat()),
    ("%d.%m.%Y %H:%M", TimeFormat(format="%d.%m.%Y %H:%M")),
    ("%m/%d/%Y %I:%M %p", TimeFormat(format="%m/%d/%Y %I:%M %p")),
    ("%d/%b/%Y", TimeFormat(format="%d/%b/%Y")),
    ("%Y%m%d%H%M%S", TimeFormat(format="%Y%m%d%H%M%S")),
    ("%Y/%m/%d", TimeFormat(format="%Y/%m/%d")),
    ("%a %b %d %H:%M:%S +0000 %Y", TimeFormat(format="%a %b %d %H:%M:%S %z %Y")),
    ("%s", TimeFormat()),
    ("%s000000000", TimeFormat(unit="ns")),
]


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_forms_of_time(tmp_path: Path, form: str, expected: TimeFormat) -> None:
    """Found by the values of the whole column, and read so."""
    rows = [f"{u};{i};{t.strftime(form)}" for u, i, t in events()]
    result = found(tmp_path, put(tmp_path / "a.csv", "user;item;day", rows))
    assert result.mapping.interactions.time == expected
    assert result.rejects.keys() <= {"duplicate row"}


def test_day_and_month(tmp_path: Path) -> None:
    """Where no value tells them apart a person does, or the check is refused."""
    rows = [f"u{n},i{n % 5},0{1 + n % 9}/0{1 + n % 7}/2024" for n in range(40)]
    path = put(tmp_path / "a.csv", "user_id,item_id,date", rows)
    with pytest.raises(
        InvalidData, match=r"such as '01/01/2024': say --day-first or --month-first"
    ):
        found(tmp_path, path)
    given = found(tmp_path, path, is_day_first=True).mapping
    assert given.interactions.time.format == "%d/%m/%Y"
    asked = check([path], Given(), lambda *_: False, tmp_path / "r.parquet").mapping
    assert asked.interactions.time.format == "%m/%d/%Y"


@pytest.mark.parametrize(
    ("encoding", "separator", "expected"),
    [
        ("utf-8", ",", None),
        ("utf-8-sig", "|", Dialect("|")),
        ("latin-1", ";", Dialect(";", encoding="cp1252")),
        ("utf-16", "\t", Dialect("\t", encoding="utf-16")),
        ("utf-16-le", "\t", Dialect("\t", encoding="utf-16-le")),
    ],
)
def test_dialects(tmp_path: Path, encoding: str, separator: str, expected: Dialect | None) -> None:
    """Encoding, mark and separator are found; ids are spelt as they were."""
    rows = [separator.join((f"Zoë {u}", i, t.isoformat())) for u, i, t in events()]
    path = put(tmp_path / "a.csv", separator.join(("Käufer_id", "SKU", "Date")), rows, encoding)
    result = found(tmp_path, path, columns={"user_id": "Käufer_id"})
    assert result.mapping.interactions.csv == expected
    loaded = load(result.mapping.interactions)
    assert set(loaded.dataset.user_ids) == {f"Zoë {u}" for u, _, _ in events()}


def test_quotes_and_lines_before_the_header(tmp_path: Path) -> None:
    """As exports of reports have them."""
    rows = [f"'{u}','x, {i}',{t.isoformat()}" for u, i, t in events()]
    path = put(tmp_path / "a.csv", "Report of May\r\n\r\nuser_id,item_id,timestamp", rows)
    assert found(tmp_path, path).mapping.interactions.csv == Dialect(quote="'", skip=2)


def test_file_without_a_header(tmp_path: Path) -> None:
    """Its times are found; who and what is a person's to confirm."""
    rows = [f"{u}\t{t.isoformat()}\t{i}\t7" for u, i, t in events()]
    path = put(tmp_path / "a.tsv", rows[0], rows[1:])
    with pytest.raises(InvalidData, match=r"no header.*--column timestamp=column_2: give"):
        found(tmp_path, path)
    columns = {"user_id": "column_1", "item_id": "column_3"}
    interactions = found(tmp_path, path, columns=columns).mapping.interactions
    assert interactions.columns == columns | {"timestamp": "column_2"}


def test_typed_tables(tmp_path: Path) -> None:
    """Parquet and JSON lines; a float column of ids gets a note, nested columns are left out."""
    frame = pl.DataFrame(events(), schema=["user", "asin", "ts"], orient="row")
    number = pl.col("user").cast(pl.Float64)
    first = int(frame["user"][0])
    frame.with_columns(number, stars=pl.lit(4.5)).write_parquet(tmp_path / "reviews.parquet")
    meta = pl.DataFrame(
        {
            "parent_asin": ITEMS,
            "title": [f"T {i}" for i in ITEMS],
            "vector": [[0.5, 1.0]] * len(ITEMS),
            "embedding": [[float(n % 5), 1.0] for n in range(len(ITEMS))],
            "released": [f"2024-01-{n % 28 + 1:02d}" for n in range(len(ITEMS))],
            "details": [{"a": 1}] * len(ITEMS),
            "price": [1.5] * len(ITEMS),
            "features": [["x", "y"]] * len(ITEMS),
        }
    )
    meta.write_ndjson(tmp_path / "meta.jsonl")
    result = found(tmp_path, str(tmp_path / "reviews.parquet"), str(tmp_path / "meta.jsonl"))
    notes = [note.replace(str(first), "37") for note in result.notes]
    assert result.mapping.interactions.columns["rating"] == "stars"
    items = result.mapping.items
    assert items is not None
    assert items.learn == ("embedding", "released", "price", "features")
    assert items.show == items.filter == ("released", "price", "features")
    assert result.tables["items"].unused == ("vector", "details")
    assert any("name it embedding to learn from it" in advice for advice in result.advice)
    assert "interactions: column user: 37.0 and 37 are one id" in notes


def test_leading_zeros_are_told(tmp_path: Path) -> None:
    """With an example of either side, before anybody wonders where the items are."""
    rows = [f"{u},{n % 9 + 1:04d},{n}" for n, u in enumerate(USERS)]
    orders = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    items = put(tmp_path / "i.csv", "item_id,title", [f"{n},T{n}" for n in range(1, 10)])
    with pytest.raises(InvalidData, match=r"9 ids that items lacks .* such as '0001' and '1'"):
        found(tmp_path, orders, items)
    people = put(tmp_path / "u.csv", "user_id,age", [f"{int(u)},7" for u in USERS])
    notes = load(orders, None, people).notes
    assert any("ids that users lacks are there with other leading zeros" in n for n in notes)


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ("SKU-{}", "sku-{}", "'SKU-1' and 'sku-1'"),
        ("Caf\u00e9-{}", "Cafe\u0301-{}", r"'Caf\xe9-1' and 'Cafe\u0301-1'"),
        ("CAF\u00c9-{}", "cafe\u0301-{}", "'CAF\u00c9-1' and 'cafe\u0301-1'"),
    ],
)
def test_other_capitals_are_told(tmp_path: Path, ours: str, theirs: str, shown: str) -> None:
    """Also the two forms of Unicode, which are written out where they look alike."""
    rows = [f"{u},{ours.format(n % 9 + 1)},{n}" for n, u in enumerate(USERS)]
    orders = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    titles = [f"{theirs.format(n)},T{n}" for n in range(1, 10)]
    items = put(tmp_path / "i.csv", "item_id,title", titles)
    with pytest.raises(InvalidData) as error:
        found(tmp_path, orders, items)
    hint = "9 ids that items lacks are there with other capitals or in another Unicode form"
    assert f"{hint}, such as {shown}: write them alike" in str(error.value)


def test_names_are_no_markup(tmp_path: Path) -> None:
    """Brackets in names and values are shown as they are."""
    rows = [f"{u},{i},{n},[/x]" for n, (u, i, _) in enumerate(events(30))]
    path = put(tmp_path / "[red]a.csv", "user_id,item_id,[bold]time,[/y]event", [*rows, "[/z],a,b"])
    arguments = ["--column=timestamp=[bold]time", f"--rejects={tmp_path / 'r.parquet'}"]
    done = CliRunner().invoke(main, ["data", "check", path, *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for text in ("[red]a.csv", "[bold]time", "[/y]event", "[/z]"):
        assert text in done.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": {"user": "a"}}, "no column 'user': known are user_id"),
        ({"zone": "Europe/Berln"}, "no time zone 'Europe/Berln', Europe/Berlin may be meant"),
        ({"columns": {"user_id": "nobody"}}, "no file has a column 'nobody': there are"),
    ],
)
def test_what_is_given_wrongly(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    """Is refused, with what there is."""
    path = put(tmp_path / "a.csv", "user_id,item_id,timestamp", ["1,2,3"])
    with pytest.raises((InvalidData, InvalidSettings), match=message):
        found(tmp_path, path, **given)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    """Are refused in one sentence."""
    rows = [f"{u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    orders = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    other = put(tmp_path / "p.csv", "colour,size", ["red,1", "blue,2"])
    with pytest.raises(InvalidData, match="shares no ids with"):
        found(tmp_path, orders, other)
    twice = [put(tmp_path / f"i{n}.csv", f"item_id,x{n}", ["0010A,1", "0011A,2"]) for n in (1, 2)]
    with pytest.raises(InvalidData, match="both look like items"):
        found(tmp_path, orders, *twice)
    (tmp_path / "b.csv").write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(InvalidData, match=r"is a ZIP archive, as .xlsx is, no text: unpack"):
        found(tmp_path, str(tmp_path / "b.csv"))
    with pytest.raises(InvalidData, match="has no rows"):
        found(tmp_path, put(tmp_path / "d.csv", "user_id,item_id,timestamp", []))
    (tmp_path / "c.csv").write_bytes(b" \n")
    with pytest.raises(InvalidData, match="is empty"):
        found(tmp_path, str(tmp_path / "c.csv"))
    given = found(tmp_path, orders, tables={"items": [twice[0]]})
    assert given.mapping.items is not None


@pytest.mark.parametrize(
    ("header", "user", "item", "time"),
    [
        ("order_id,order_date,customerEmail,product_sku,product_name", 2, 3, 1),
        ("event_date,event_timestamp,user_pseudo_id,item_id,item_name", 2, 3, 1),
        ("Name,Paid at,Email,Lineitem sku,Lineitem name", 2, 3, 1),
        ("x,endTime,username,trackName,msPlayed", 2, 3, 1),
        ("InvoiceNo,InvoiceDate,CustomerID,StockCode,Description", 2, 3, 1),
        ("n,fecha_pedido,id_cliente,código_producto,precio", 2, 3, 1),
    ],
)
def test_names_of_exports(tmp_path: Path, header: str, user: int, item: int, time: int) -> None:
    """Are found by their words, an id before a name, a time before its date."""
    names = header.split(",")
    rows = [f"{t:%Y-%m-%d},{t.isoformat()},{u},{i},N {i}" for u, i, t in events()]
    path = put(tmp_path / "a.csv", header, rows)
    assert found(tmp_path, path).tables["interactions"].columns == {
        "user_id": names[user], "item_id": names[item], "timestamp": names[time],
    }  # fmt: skip


def test_small_numbers_are_shared_by_chance(tmp_path: Path) -> None:
    """Users and items of the same numbers are found by the names of their columns."""
    rows = [f"{n % 20},{n % 13},{n}" for n in range(400)]
    orders = put(tmp_path / "o.csv", "client,produit,date", rows)
    people = put(tmp_path / "a.csv", "row,client,age", [f"{n},{n},7" for n in range(30)])
    goods = put(tmp_path / "b.csv", "row,produit,prix", [f"{n},{n},7" for n in range(30)])
    result = found(tmp_path, orders, goods, people)
    assert {table: report.columns for table, report in result.tables.items()} == {
        "interactions": {"user_id": "client", "item_id": "produit", "timestamp": "date"},
        "items": {"item_id": "produit"},
        "users": {"user_id": "client"},
    }


def test_ratings_of_yes_and_no(tmp_path: Path) -> None:
    """A no is negative feedback; stars are left to the person, with advice."""
    rng = random.Random(2)  # noqa: S311 - no secret
    rows = [(u, i, n, rng.random() < 0.7) for n, (u, i, _) in enumerate(events())]
    frame = pl.DataFrame(rows, schema=["user", "item", "time", "liked"], orient="row")
    frame.write_parquet(tmp_path / "a.parquet")
    result = found(tmp_path, str(tmp_path / "a.parquet"))
    assert result.mapping.events == EventRules(negative_below=0.5)
    assert result.numbers["negative"] == sum(not liked for *_, liked in rows)
    stars = frame.select("user", "item", "time", stars=pl.lit(3))
    stars.write_parquet(tmp_path / "b.parquet")
    result = found(tmp_path, str(tmp_path / "b.parquet"))
    assert result.mapping.events == EventRules()
    assert any("negative_below = 3 for one to five stars" in advice for advice in result.advice)


def test_mixed_times_are_told(tmp_path: Path) -> None:
    """Numbers in another unit, or text of another format, than most."""
    for others, form in (("%s000", "%s"), ("%Y-%m-%d", "%d.%m.%Y")):
        rows = [
            f"{u},{i},{t.strftime(form if n % 4 else others)}"
            for n, (u, i, t) in enumerate(events())
        ]
        result = found(tmp_path, put(tmp_path / "a.csv", "user,item,date", rows))
        assert result.rejects["unparsable timestamp"].n == 100


def test_quote_that_is_an_inch(tmp_path: Path) -> None:
    """A quote that is never closed is a part of the text."""
    rows = [f'{u}\t{i}\t{n}\t"pipe' for n, (u, i, _) in enumerate(events(9))]
    path = put(tmp_path / "a.tsv", "user\titem\ttime\tname", rows)
    result = found(tmp_path, path)
    assert result.mapping.interactions.csv == Dialect("\t", quote="")
    assert result.numbers["events"] == 9


def test_a_zone_is_seen_beside_junk(tmp_path) -> None:
    """One text that is no time does not hide that all the others say their zone."""
    rows = [f"u{n % 4},i{n % 5},2024-01-{n + 1:02d} 10:00:00+02:00" for n in range(25)]
    rows[3] = "u1,i1,00.00.0000"
    path = tmp_path / "orders.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    assert not any("zone" in advice for advice in found(tmp_path, str(path)).advice)


def test_files_of_more_columns(tmp_path: Path) -> None:
    """Orders of this year with a column more are orders; a file without it has none there."""
    rows = [f"{u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    old = put(tmp_path / "o1.csv", "user_id,item_id,timestamp", rows[:200])
    new = put(
        tmp_path / "o2.csv", "user_id,item_id,timestamp,rating", [f"{r},4" for r in rows[200:]]
    )
    result = found(tmp_path, old, new)
    assert set(result.tables) == {"interactions"}
    assert result.mapping.interactions.columns == {}
    assert result.numbers["events"] == 400
    assert result.tables["interactions"].columns["rating"] == "rating"


def test_interactions_of_two_forms(tmp_path: Path) -> None:
    """Two tables of interactions that call their columns otherwise are not guessed at."""
    rows = [f"{u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    orders = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    views = put(tmp_path / "v.csv", "customer,sku,date", rows)
    with pytest.raises(InvalidData, match="both look like interactions, and call their columns"):
        found(tmp_path, orders, views)


def test_files_that_leave_it_open(tmp_path: Path) -> None:
    """Plain letters and whole numbers are read as the other files of the table are."""
    rows = [f"{u};{i};{n};{{}};{{}}" for n, (u, i, _) in enumerate(events())]
    header = "user_id;item_id;timestamp;weight;place"
    folder = tmp_path / "orders"
    put(folder / "a.csv", header, [row.format("1", "Bonn") for row in rows[:200]])
    put(folder / "b.csv", header, [row.format("1,5", "Köln") for row in rows[200:]], "cp1252")
    result = found(tmp_path, str(folder))
    assert result.mapping.interactions.paths == (str(folder),)
    assert result.mapping.interactions.csv == Dialect(";", encoding="cp1252", decimal=",")
    assert result.numbers["events"] == 400


def test_files_written_otherwise(tmp_path: Path) -> None:
    """Files of one table with different separators are refused in one sentence."""
    rows = [f"{u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    folder = tmp_path / "orders"
    put(folder / "a.csv", "user_id,item_id,timestamp", rows)
    put(folder / "b.csv", "user_id;item_id;timestamp", [row.replace(",", ";") for row in rows])
    with pytest.raises(InvalidData, match=r"different ways .separator ','; separator ';'.: write"):
        found(tmp_path, str(folder))


def test_umlauts_far_down(tmp_path: Path) -> None:
    """The encoding is found where the first letter that shows it is beyond the first megabyte."""
    rows = [f"{u},{i},{n},{'x' * 3000}" for n, (u, i, _) in enumerate(events())]
    path = put(
        tmp_path / "o.csv", "user_id,item_id,timestamp,n", [*rows, "Jürgen,0010A,9,"], "cp1252"
    )
    csv = found(tmp_path, path).mapping.interactions.csv
    assert csv is not None
    assert csv.encoding == "cp1252"


@pytest.mark.parametrize("separator", ["\x01", "~", "^", " "])
def test_rare_separators(tmp_path: Path, separator: str) -> None:
    """What parts fields is found where it is none of the usual signs."""
    lines = ["user_id,item_id,timestamp", *(f"{u},{i},{n}" for n, (u, i, _) in enumerate(events()))]
    header, *rows = (line.replace(",", separator) for line in lines)
    csv = found(tmp_path, put(tmp_path / "o.csv", header, rows)).mapping.interactions.csv
    assert csv == Dialect(separator)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-32"])
def test_old_line_ends(tmp_path: Path, encoding: str) -> None:
    """Lines may end in carriage returns alone, whatever the encoding."""
    rows = [f"{u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    path = tmp_path / "o.csv"
    path.write_bytes("\r".join(["user_id,item_id,timestamp", *rows]).encode(encoding))
    assert found(tmp_path, str(path)).numbers["events"] == 400


def test_mixed_line_ends(tmp_path: Path) -> None:
    """Lines of one file may end in CRLF here and in LF there."""
    rows = [f"{u},{i},{n}" + "\r" * (n % 2) for n, (u, i, _) in enumerate(events())]
    path = tmp_path / "o.csv"
    path.write_bytes("\n".join(["user_id,item_id,timestamp\r", *rows]).encode())
    assert found(tmp_path, str(path)).numbers["events"] == 400


@pytest.mark.parametrize("words", ["true false", "Yes No", "1 0", "Ja nein"])
def test_flags_of_returns(tmp_path: Path, words: str) -> None:
    """A column that is named as a return and says yes and no marks returns."""
    yes, no = words.split()
    rows = [f"{u},{i},{n},{yes if n % 20 == 0 else no}" for n, (u, i, _) in enumerate(events())]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp,is_returned", rows)
    result = found(tmp_path, path)
    assert result.mapping.interactions.returns == ReturnMark("is_returned", (yes,))
    assert result.numbers["events"] == 380


def test_flags_of_likes(tmp_path: Path) -> None:
    """A rating of true and false is one of 1 and 0, and false is a dislike."""
    rows = [f"{u},{i},{n},{n % 4 > 0}" for n, (u, i, _) in enumerate(events())]
    result = found(tmp_path, put(tmp_path / "o.csv", "user_id,item_id,timestamp,liked", rows))
    assert result.tables["interactions"].columns["rating"] == "liked"
    assert result.mapping.events.negative_below == 0.5
    assert result.numbers["events"] == 300


def test_types_of_several_words(tmp_path: Path) -> None:
    """Words of a type say what it is, and a refund is never positive."""
    types = ("Product Viewed", "Product Added", "Order Completed", "Order Refunded")
    rows = [f"{u},{i},{n},{types[n % 4]}" for n, (u, i, _) in enumerate(events())]
    result = found(tmp_path, put(tmp_path / "o.csv", "user_id,item_id,timestamp,event", rows))
    assert result.mapping.events == EventRules(
        {"Order Completed": 4, "Product Added": 2, "Product Viewed": 1}, (), ("Order Refunded",)
    )


def test_decimal_ids(tmp_path: Path) -> None:
    """Databases export whole numbers as decimals, which are ids as well."""
    numbers = pl.Series("item_id", [int(i[2:4]) for _, i, _ in events()])
    frame = pl.DataFrame({"user_id": [u for u, _, _ in events()], "timestamp": range(400)})
    path = tmp_path / "o.parquet"
    frame.with_columns(numbers.cast(pl.Decimal(38, 0))).write_parquet(path)
    assert found(tmp_path, str(path)).numbers["items"] == 30


def test_zone_of_a_format(tmp_path: Path) -> None:
    """Another zone changes nothing where the times say theirs."""
    rows = [f'{u},{i},"{t:%a, %d %b %Y %H:%M:%S GMT}"' for u, i, t in events()]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    moments = [found(tmp_path, path, zone=z).numbers["first"] for z in ("UTC", "Asia/Tokyo")]
    assert moments[0] == moments[1] == "2023-07-22 04:26:40 UTC"


def test_columns_that_cannot_be_read(tmp_path: Path) -> None:
    """What is named as a column and is none is named, with its first value or its type."""
    rows = [f"{u},{i},week 7" for u, i, _ in events()]
    path = put(tmp_path / "o.csv", "user_id,item_id,OrderDate", rows)
    with pytest.raises(InvalidData, match="OrderDate holds 'week 7', which is read as no time"):
        found(tmp_path, path)
    frame = pl.DataFrame({"user_id": [b"u"], "item_id": ["i"], "timestamp": [1]})
    frame.write_parquet(tmp_path / "o.parquet")
    with pytest.raises(InvalidData, match="user_id is no user_id, as it is of type Binary"):
        found(tmp_path, str(tmp_path / "o.parquet"))


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        ("%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S GMT"),
        ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%SZ"),
        ("%Y-%m-%d %H:%M:%S,125", "%Y-%m-%d %H:%M:%S,%3f"),
        ("%Y-%m", "%Y-%m"),
    ],
)
def test_more_forms_of_times(tmp_path: Path, pattern: str, form: str) -> None:
    """Times of servers' logs, and months alone."""
    rows = [f'{u},{i},"{t:{pattern}}"' for u, i, t in events()]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    result = found(tmp_path, path)
    assert result.mapping.interactions.time == TimeFormat(format=form)
    assert str(result.numbers["first"])[:7] == "2023-07"


def test_types_with_blanks(tmp_path: Path) -> None:
    """Blanks around a type are none of it, and all of the heaviest types are predicted."""
    types = ("view", " view", "purchase", "Order ")
    rows = [f"{u},{i},{n},{types[n % 4]}" for n, (u, i, _) in enumerate(events())]
    result = found(tmp_path, put(tmp_path / "o.csv", "user_id,item_id,timestamp,event", rows))
    assert result.event_types == {"view": 200, "Order": 100, "purchase": 100}
    assert result.mapping.events == EventRules(
        {"view": 1, "Order": 4, "purchase": 4}, ("Order", "purchase")
    )
    assert result.rejects == {}
    assert any("of type Order, purchase are predicted" in advice for advice in result.advice)


def test_words_for_no_weight(tmp_path: Path) -> None:
    """What statistics and databases write for nothing is no weight, and rejects no row."""
    words = ("NA", "\\N", "null", "None", "2")
    rows = [f"{u},{i},{n},{words[n % 5]}" for n, (u, i, _) in enumerate(events())]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp,qty", rows)
    result = found(tmp_path, path)
    assert result.tables["interactions"].columns["weight"] == "qty"
    assert result.rejects == {}


def test_orders_and_their_lines(tmp_path: Path) -> None:
    """Two files that have users, items and times only together are to be joined, by a column."""
    rows = list(enumerate(events()))
    orders = put(
        tmp_path / "o.csv", "order_id,user_id,date", [f"{n},{u},{t}" for n, (u, _, t) in rows]
    )
    lines = put(tmp_path / "l.csv", "order_id,sku,qty", [f"{n},{i},1" for n, (_, i, _) in rows])
    with pytest.raises(InvalidData, match=r"join .*o.csv' and .*l.csv' by order_id into one file"):
        found(tmp_path, orders, lines)


@pytest.mark.parametrize(
    ("pattern", "form", "hours"),
    [
        ("%Y-%m-%d %H:%M:%S CET", "%Y-%m-%d %H:%M:%S %Z", 1),
        ("%Y-%m-%d %H:%M:%S Asia/Tokyo", "%Y-%m-%d %H:%M:%S %Z", 9),
        ("%a %b %d %H:%M:%S PST %Y", "%a %b %d %H:%M:%S %Z %Y", -8),
        ("%d-%b-%y %I.%M.%S.000 %p ASIA/TOKYO", "%d-%b-%y %I.%M.%S%.f %p %Z", 9),
        ("%Y-%m-%dT%H:%M:%S+02:00[Europe/Berlin]", "%Y-%m-%dT%H:%M:%S%.f %z", 2),
        (
            "%a %b %d %Y %H:%M:%S GMT+0100 (Central European Standard Time)",
            "%a %b %d %Y %H:%M:%S GMT %z",
            1,
        ),
    ],
)
def test_zones_by_name(tmp_path: Path, pattern: str, form: str, hours: int) -> None:
    """Zones that a time names, and remarks in brackets behind it."""
    rows = [f"{u},{i},{t:{pattern}}" for u, i, t in events()]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    result = found(tmp_path, path)
    assert result.mapping.interactions.time == TimeFormat(format=form)
    first = datetime.fromtimestamp(START - 3600 * hours, UTC)
    assert result.numbers["first"] == f"{first:%Y-%m-%d %H:%M:%S} UTC"
    assert not any("do not say their zone" in advice for advice in result.advice)


@pytest.mark.parametrize("header", ["order_date,order_time", "Datum,Uhrzeit", "Date,Time"])
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y"])
def test_date_and_time_apart(tmp_path: Path, header: str, form: str) -> None:
    """A date and a time of day in two columns are one time, in every command."""
    rows = [f"{u},{i},{t:{form}},{t:%H:%M:%S},00:07:{n % 60:02}" for n, (u, i, t) in
            enumerate(events())]  # fmt: skip
    path = put(tmp_path / "o.csv", f"user_id,item_id,{header},duration", rows)
    result = found(tmp_path, path)
    assert result.mapping.interactions.time.clock == header.split(",")[1]
    assert result.numbers["first"] == "2023-07-22 04:26:40 UTC"
    assert result.numbers["duplicates"] == 0
    assert result.tables["interactions"].unused == ("duration",)
    assert not [note for note in result.notes if "is read as no number" in note]


@pytest.mark.parametrize("header", ["year,month,day", "Jahr,Monat,Tag", "o_year,o_month,order_day"])
def test_dates_in_three_columns(tmp_path: Path, header: str) -> None:
    """The day of the month is no time: the columns are to be joined."""
    rows = [f"{u},{i},{t:%Y,%m,%d}" for u, i, t in events(60)]
    path = put(tmp_path / "i.csv", f"user,item,{header}", rows)
    joined = rf"date is in columns {', '.join(header.split(','))}: join them into one"
    with pytest.raises(InvalidData, match=joined):
        found(tmp_path, path)
    with pytest.raises(InvalidData, match=joined):
        found(tmp_path, tables={"interactions": [path]})


def test_a_day_of_the_week_is_none(tmp_path: Path) -> None:
    """It is passed over for the day of the month, and no column is named twice."""
    rows = [f"{u},{i},{t:%u},{t:%d},{t:%Y},{t:%m}" for u, i, t in events(60)]
    path = put(tmp_path / "i.csv", "user,item,day_of_week,day_of_month,year,month", rows)
    with pytest.raises(InvalidData, match="in columns year, month, day_of_month: join"):
        found(tmp_path, path)


def test_days_that_are_numbered(tmp_path: Path) -> None:
    """Days beyond a month's, or without a month and a year, are sequence numbers."""
    for header, n_days in (("month,day", 40), ("channel,day", 31)):
        rows = [f"{u},{i},1,{n % n_days + 1}" for n, (u, i, _) in enumerate(events(80))]
        seen = found(tmp_path, put(tmp_path / "i.csv", f"user,item,{header}", rows))
        assert seen.mapping.interactions.columns["timestamp"] == "day"


def test_spreadsheet_dates(tmp_path: Path) -> None:
    """Numbers such as 45129.185 are days of a spreadsheet, not sequence numbers."""
    rows = [f"{u},{i},{t.timestamp() / 86_400 + 25_569:.7f}" for u, i, t in events()]
    result = found(tmp_path, put(tmp_path / "o.csv", "user_id,item_id,InvoiceDate", rows))
    assert result.mapping.interactions.time == TimeFormat(unit="days")
    assert result.numbers["first"] == "2023-07-22 04:26:40 UTC"


def test_files_of_movielens(tmp_path: Path) -> None:
    """Lines with double colons are ratings, films or users by their number of fields."""
    rows = [f"{u}::{i}::4::{t:%s}" for u, i, t in events()]
    put(tmp_path / "ml" / "ratings.dat", rows[0], rows[1:])
    films = [f"{i}::Film {i} (1995)::Drama|War" for i in ITEMS]
    put(tmp_path / "ml" / "movies.dat", films[0], films[1:])
    people = [f"{u}::F::25::3::02139" for u in USERS]
    put(tmp_path / "ml" / "users.dat", people[0], people[1:])
    result = found(tmp_path, str(tmp_path / "ml"))
    assert set(result.tables) == {"interactions", "items", "users"}
    assert (result.numbers["events"], result.rejects) == (400, {})


def test_ids_that_the_items_have(tmp_path: Path) -> None:
    """Of two id columns that is the item whose ids the table of items has."""
    rows = [f"{u},V{n % 99},{i},{n}" for n, (u, i, _) in enumerate(events())]
    orders = put(tmp_path / "o.csv", "user_id,asin,parent_asin,timestamp", rows)
    items = put(tmp_path / "i.csv", "parent_asin,title", [f"{i},T {i}" for i in ITEMS])
    result = found(tmp_path, orders, items)
    assert result.mapping.interactions.columns == {"item_id": "parent_asin"}
    reasons = result.tables["interactions"].reasons
    assert reasons["item_id"] == "100% of its ids are in parent_asin of the items"
    assert result.rejects == {}


def test_years_of_items_are_attributes(tmp_path: Path) -> None:
    """The mapping shows them and lets them be filtered by, as a table without one does."""
    rows = [f"{user},{item},{when:%Y-%m-%dT%H:%M:%S}" for user, item, when in events()]
    interactions = put(tmp_path / "events.csv", "user_id,item_id,timestamp", rows)
    ids = sorted({item for _, item, _ in events()})
    described = [f"{item},{1990 + at % 30},{at % 7}.5" for at, item in enumerate(ids)]
    items = put(tmp_path / "items.csv", "item_id,Jahr,price", described)
    mapping = found(tmp_path, interactions, items).mapping
    assert mapping.items.columns["year"] == "Jahr"
    assert mapping.items.show == mapping.items.filter == ("Jahr", "price")


def test_columns_of_one_value(tmp_path: Path) -> None:
    """A line's number, always 1, and an empty column are no items where another may be."""
    rows = [f"{u},1,,{i},{n}" for n, (u, i, _) in enumerate(events())]
    path = put(tmp_path / "o.csv", "user_id,Item #,Product ID,SKU,timestamp", rows)
    assert found(tmp_path, path).mapping.interactions.columns == {"item_id": "SKU"}
    path = put(tmp_path / "o.csv", "user_id,timestamp,Product ID", ["u,1,", "v,2,"])
    with pytest.raises(InvalidData, match="Product ID has no values"):
        found(tmp_path, path)


def test_files_without_header(tmp_path: Path) -> None:
    """The first row is shown with the options that say what it may be, and these do."""
    kinds = ("pv", "pv", "cart", "buy")
    rows = [f"{u},{i},40.{n},{kinds[n % 4]},{t:%s}" for n, (u, i, t) in enumerate(events())]
    path = put(tmp_path / "o.csv", rows[0], rows[1:])
    options = {
        "user_id": "column_1",
        "item_id": "column_2",
        "timestamp": "column_5",
        "event_type": "column_4",
    }
    shown = " ".join(f"--column {ours}={theirs}" for ours, theirs in options.items())
    first = f"column_1 '{events()[0][0]}', column_2 "
    with pytest.raises(InvalidData, match=f"its first row is {first}.*, which may be {shown}"):
        found(tmp_path, path)
    result = found(tmp_path, path, columns=options)
    assert result.numbers["events"] == 400
    assert result.event_types == {"pv": 200, "buy": 100, "cart": 100}


def test_orders_without_times(tmp_path: Path) -> None:
    """Users in one file and items in another are to be joined, also where there are no times."""
    rows = list(enumerate(events()))
    put(tmp_path / "b" / "o.csv", "order_id,user_id", [f"{n},{u}" for n, (u, _, _) in rows])
    put(tmp_path / "b" / "l.csv", "order_id,product_id", [f"{n},{i}" for n, (_, i, _) in rows])
    with pytest.raises(InvalidData, match=r"join .*l.csv' and .*o.csv' by order_id.*no times"):
        found(tmp_path, str(tmp_path / "b"))


def test_rejects_that_stop_commands(tmp_path: Path) -> None:
    """The check says what share of rejects to allow, where the other commands would stop."""
    rows = [f"{'' if n % 10 == 0 else u},{i},{n}" for n, (u, i, _) in enumerate(events())]
    result = found(tmp_path, put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows))
    assert result.advice[-1] == (
        "10.0% of the interactions are rejected, and commands stop above 5%: mend the rows, "
        "or give --max-reject-share 0.1"
    )


def test_events_with_nested_fields(tmp_path: Path) -> None:
    """Fields of objects are columns by dotted names; those of items are not spread out."""
    lines = [
        {
            "event": "View Item",
            "properties": {"distinct_id": u, "sku": i, "time": int(t.timestamp())},
            "context": {"page": {"title": "x"}},
        }
        for u, i, t in events()
    ]
    goods = [{"sku": i, "name": f"T {i}", "details": {"brand": "acme", "year": 1}} for i in ITEMS]
    for name, rows in (("e.jsonl", lines), ("i.json", goods)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    result = found(tmp_path, str(tmp_path / "e.jsonl"), str(tmp_path / "i.json"))
    assert result.mapping.interactions.columns == {
        "user_id": "properties.distinct_id",
        "item_id": "properties.sku",
        "timestamp": "properties.time",
        "event_type": "event",
    }
    assert (result.numbers["events"], result.numbers["items"]) == (400, 30)
    assert result.tables["interactions"].unused == ("context",)
    assert result.mapping.items is not None
    assert result.mapping.items.columns == {
        "item_id": "sku", "title": "name", "year": "details.year",
    }  # fmt: skip
    assert result.mapping.items.show == ("details.year",)


def test_exports_of_mongo(tmp_path: Path) -> None:
    """What MongoDB's extended JSON wraps is what it wraps."""
    rows = [
        {
            "_id": {"$oid": f"{n:024x}"},
            "customer": {"id": {"$oid": f"{u}ab"}},
            "product": {"$oid": f"{i}cd"},
            "createdAt": {"$date": {"$numberLong": f"{t:%s}000"}},
            "qty": {"$numberInt": "2"},
        }
        for n, (u, i, t) in enumerate(events())
    ]
    path = tmp_path / "o.json"
    path.write_text(json.dumps(rows))
    result = found(tmp_path, str(path))
    assert result.mapping.interactions.columns == {
        "user_id": "customer.id", "item_id": "product", "timestamp": "createdAt", "weight": "qty",
    }  # fmt: skip
    loaded = load(result.mapping.interactions)
    assert set(loaded.dataset.events.weight.tolist()) == {2.0}
    assert f"{USERS[0]}ab" in loaded.dataset.user_ids


def test_lists_in_events(tmp_path: Path) -> None:
    """Events that list their items are refused, with what to do."""
    rows = [{"user_id": "u", "timestamp": 1, "items": [{"item_id": "i"}]}]
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InvalidData, match="items holds lists, and is to have a row for each"):
        found(tmp_path, str(path))


def test_zones_that_there_are_not(tmp_path: Path) -> None:
    """What looks like a zone and like no time is refused as no time."""
    rows = [f"{u},{i},soon in Asia/Tokyo" for u, i, _ in events()]
    path = put(tmp_path / "o.csv", "user_id,item_id,timestamp", rows)
    with pytest.raises(InvalidData, match="timestamp holds 'soon in Asia/Tokyo'"):
        found(tmp_path, path)


def test_double_colons_in_text(tmp_path: Path) -> None:
    """Ratings in MovieLens' form under another name are told how to be named."""
    rows = [f"{u}::{i}::4::{t:%s}" for u, i, t in events()]
    with pytest.raises(InvalidData, match=r"parted by '::', which a name that ends in .dat says"):
        found(tmp_path, put(tmp_path / "ratings.txt", rows[0], rows[1:]))


def test_short_german_names(tmp_path: Path) -> None:
    """Names of columns as German offices shorten them."""
    rows = [f"{u};{i};{t:%d.%m.%Y}" for u, i, t in events()]
    path = put(tmp_path / "o.csv", "Kd.-Nr.;Art.-Nr.;Belegdatum", rows)
    assert found(tmp_path, path).mapping.interactions.columns == {
        "user_id": "Kd.-Nr.", "item_id": "Art.-Nr.", "timestamp": "Belegdatum",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{}/5", "★★{}", "{} of 5"])
def test_ratings_that_are_no_numbers(tmp_path: Path, text: str) -> None:
    """A column that is named as ratings and cannot be read is told with a value and what to do."""
    lines = [f"{u},{i},{text.format(n % 5)},{START + n}" for n, (u, i, _) in enumerate(events(50))]
    seen = found(tmp_path, put(tmp_path / "i.csv", "user_id,item_id,rating,timestamp", lines))
    (note,) = [note for note in seen.notes if "no number" in note]
    assert f"column rating holds '{text.format(0)}'" in note
    assert seen.tables["interactions"].unused == ("rating",)


def test_used_columns_are_not_unread(tmp_path: Path) -> None:
    """The time of day of a date, and likes of which the dislikes are returns, are no numbers."""
    clocks = [f"{u},{i},{t:%Y-%m-%d,%I:%M %p}" for u, i, t in events(50)]
    seen = found(tmp_path, put(tmp_path / "i.csv", "user_id,item_id,date,time", clocks))
    assert seen.mapping.interactions.time.clock == "time"
    assert not [note for note in seen.notes if "no number" in note]
    likes = [f"{u},{i},{t},{'dis' * (n % 2)}like" for n, (u, i, t) in enumerate(events(50))]
    seen = found(tmp_path, put(tmp_path / "i.csv", "user_id,item_id,date,rating", likes))
    assert seen.mapping.interactions.returns == ReturnMark("rating", ("dislike",))
    assert not [note for note in seen.notes if "no number" in note]


def test_quantities_that_are_no_numbers(tmp_path: Path) -> None:
    """The note gives a quantity for an example."""
    lines = [f"{u},{i},1'200,{START + n}" for n, (u, i, _) in enumerate(events(50))]
    seen = found(tmp_path, put(tmp_path / "i.csv", "user_id,item_id,quantity,timestamp", lines))
    (note,) = [note for note in seen.notes if "no number" in note]
    assert note.endswith("write it as one, such as 1200 for as many pieces")


@pytest.mark.parametrize("separator", ["|", "; ", ","])
def test_baskets_are_told(tmp_path: Path, separator: str) -> None:
    """Texts that list several items are one item each; the colour of a variant lists none."""
    rng = random.Random(5)  # noqa: S311 - no secret
    lists = [separator.join(rng.sample(ITEMS, 1 + n % 3)) for n in range(60)]
    lines = [f'{u}|"{ids}"|{t}' for ids, (u, _, t) in zip(lists, events(60), strict=True)]
    header = "user_id|items|date"
    seen = found(tmp_path, put(tmp_path / "i.csv", header, lines))
    (note,) = [note for note in seen.notes if "several ids a row" in note]
    assert note.endswith(f"such as {lists[1]!r}, which are read as one: give a row for each")
    for second in (["red"], ITEMS):  # a variant's colour, or its parent's id
        parts = [(u, f"{i}{separator}{second[n % len(second)]}", t) for n, (u, i, t) in
                 enumerate(events(60))]  # fmt: skip
        lines = [f'{u}|"{both}"|{t}' for u, both, t in parts]
        seen = found(tmp_path, put(tmp_path / "i.csv", header, lines))
        assert not [note for note in seen.notes if "several ids a row" in note]


@pytest.mark.parametrize("word", ["NULL", "nan", "N/A", "undefined", "\\N", "(not set)", "guest"])
def test_words_for_a_missing_user(tmp_path: Path, word: str) -> None:
    """A user whose id says that there is none is told, with the number of events."""
    lines = [f"{u},{i},{START + n}" for n, (u, i, _) in enumerate(events(60))]
    lines += [f"{word},{i},{START + n}" for n, (_, i, _) in enumerate(events(30))]
    seen = found(tmp_path, put(tmp_path / "i.csv", "user_id,item_id,timestamp", lines))
    (note,) = [note for note in seen.notes if "taken for an id" in note]
    assert note.startswith(f"interactions: 30 events have user_id {word!r}, ")
