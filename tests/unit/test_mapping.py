"""Tests mapping files: written, read, and refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from shortlist.recsys.data.loading import load
from shortlist.recsys.data.mapping import DataMapping, read_mapping, write_mapping
from shortlist.recsys.data.sources import (
    Dialect,
    InteractionsSource,
    ItemsSource,
    ReturnMark,
    TimeFormat,
    UsersSource,
)
from shortlist.recsys.errors import InvalidData, InvalidInput, InvalidSettings
from shortlist.recsys.event_rules import EventRules


def mapping_at(directory: Path) -> DataMapping:
    """A mapping that says something in every place."""
    return DataMapping(
        InteractionsSource(
            (str(directory / "in" / "orders.csv"), "s3://bucket/new/"),
            {"user_id": "Customer No", "item_id": "SKU", "timestamp": 'a "date"', "weight": ""},
            Dialect(";", "'", "latin-1", ",", skip=2, header=False),
            TimeFormat(unit="ms", format="%d.%m.%Y", zone="Europe/Berlin"),
            ReturnMark("Channel", ("return", "Rückgabe")),
        ),
        ItemsSource(
            (str(directory / "items.parquet"),), learn=("brand",), show=(), filter=("a\\b",)
        ),
        UsersSource((str(directory.parent / "users.csv"),), learn=("age", "\x7f")),
        EventRules({"view": 1.0, "purchase": 3.5}, ("purchase",), ("return",), 0.5),
    )


def test_file_holds_the_whole_mapping(tmp_path: Path) -> None:
    """What is written is read back, wherever the process stands."""
    path = tmp_path / "conf" / "data.toml"
    mapping = mapping_at(tmp_path)
    write_mapping(path, mapping, "made for a test")
    read = read_mapping(str(path))
    assert read.events == mapping.events
    resolved = [str(Path(p).resolve()) for p in read.interactions.paths[:1]]
    assert resolved == [str(tmp_path / "in" / "orders.csv")]
    assert read.interactions.paths[1] == "s3://bucket/new/"
    again = tmp_path / "conf" / "again.toml"
    write_mapping(again, read, "made for a test")
    assert again.read_text() == path.read_text()


def test_file_is_short_and_relative(tmp_path: Path) -> None:
    """Defaults are left out, and local paths start at the file."""
    source = InteractionsSource((str(tmp_path / "a.csv"),), {"user_id": "uid"})
    write_mapping(tmp_path / "data.toml", DataMapping(source))
    assert (tmp_path / "data.toml").read_text() == (
        '[interactions]\npaths = ["a.csv"]\ncolumns = { user_id = "uid" }\n'
    )


def test_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is named by a relative path."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "data.toml").write_text('[interactions]\npaths = ["a.csv", "/b.csv"]\n')
    monkeypatch.chdir(tmp_path)
    assert read_mapping("conf/data.toml").interactions.paths == ("conf/a.csv", "/b.csv")


def test_documented_mapping_is_read(tmp_path: Path) -> None:
    """The example of docs/data.md, which names every section."""
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (tmp_path / "data.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    mapping = read_mapping(str(tmp_path / "data.toml"))
    assert mapping.interactions.returns == ReturnMark("Channel", ("return",))
    assert mapping.items is not None
    assert mapping.items.kept == ("Brand", "Price", "Picture", "InStock")
    assert mapping.events.kinds[0].name == "purchase"


GOOD = '[interactions]\npaths = ["a.csv"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[interactions", "is no TOML"),
        ("", "[interactions] is missing"),
        ("[interactions]\npath = ['a']", "[interactions] path is not known, paths may be meant"),
        ("[interactions]\npaths = []", "paths must name at least one file"),
        ("[interactions]\npaths = 'a'", '[interactions] paths is "a": input should be a list'),
        (GOOD + "csv = { seperator = ';' }", "csv.seperator is not known, separator may be meant"),
        (GOOD + "csv = { separator = ';;' }", "separator must be one character"),
        (GOOD + "csv = { encoding = 'klingon' }", "encoding must be a codec of Python"),
        (GOOD + "time = { unit = 'min' }", "time.unit is \"min\": input should be 's', 'ms'"),
        (GOOD + "time = { zone = 'Mars/Utopia' }", "zone must be one of the IANA list"),
        (GOOD + "time = { format = 'DD.MM.YYYY' }", "must name the year as strptime does"),
        (GOOD + "[item]\npaths = ['b']", "[item] is not known, items may be meant"),
        (GOOD + "[events]\nweight = { view = 1 }", "[events] weight is not known, weights may be"),
        (GOOD + "[events]\nweights = { view = 'x' }", '[events] weights.view is "x"'),
    ],
)
def test_faults_are_told(tmp_path: Path, text: str, message: str) -> None:
    """With their place, the value and the rule."""
    path = tmp_path / "data.toml"
    path.write_text(text)
    with pytest.raises(InvalidData) as caught:
        read_mapping(str(path))
    assert message in str(caught.value)
    assert "`shortlist data check`" in str(caught.value)


def test_meaningful_columns_are_mapped(tmp_path: Path) -> None:
    """The items' own vectors and availability may have other names in their file."""
    items = {"item_id": ["a", "b"], "vec": [[0.5] * 9, [1.5] * 9], "on_sale": [1, 0]}
    pl.DataFrame(items).write_parquet(tmp_path / "items.parquet")
    events = {"user_id": [1, 1], "item_id": ["a", "b"], "timestamp": [1, 2]}
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    columns = {"embedding": "vec", "available": "on_sale"}
    for chosen in (None, ("vec", "on_sale")):
        source = ItemsSource(
            (str(tmp_path / "items.parquet"),), columns, learn=chosen, show=chosen, filter=chosen
        )
        loaded = load(str(tmp_path / "events.parquet"), source)
        (own,) = loaded.dataset.catalogue.attributes
        assert (own.name, own.values) == ("available", (True, False))
        assert loaded.dataset.catalogue.content.vectors.shape == (2, 1)


def test_rules_of_events_are_held(tmp_path: Path) -> None:
    """A type cannot be both a positive and negative feedback."""
    path = tmp_path / "data.toml"
    path.write_text(GOOD + "[events]\nweights = { buy = 1 }\nnegative = ['buy']\n")
    with pytest.raises(InvalidSettings, match="has a weight and is negative"):
        read_mapping(str(path))


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    """A name that is nearly right is suggested."""
    (tmp_path / "data.toml").touch()
    with pytest.raises(InvalidData, match=r"no file .*dada.toml'; there is 'data.toml'"):
        read_mapping(str(tmp_path / "dada.toml"))
    with pytest.raises(InvalidInput, match="give a writable path"):
        write_mapping(tmp_path / "data.toml" / "x.toml", mapping_at(tmp_path))
