"""Tests the HTML page of a report.

It is whole, self-contained and escaped, with dashes for unknown figures.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from shortlist.recsys.evaluation import figures, page, plots
from shortlist.recsys.evaluation.headline import headline
from shortlist.recsys.evaluation.names import LEFT_OUT, METHODS, METRICS
from shortlist.recsys.models.features import FEATURES
from tests.reports import NDCG, figure, full, minimal

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Reads a page, holding that every tag is closed in its turn, and keeps what a reader meets."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open it, unless it never holds anything."""
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed where it opens, as in SVG."""
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """It closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text, with the tag it stands in."""
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def texts_in(self, tag: str) -> list[str]:
        """All texts that stand directly in such a tag."""
        return [text for where, text in self.texts if where == tag]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plot is drawn, which takes most of the time."""
    monkeypatch.setattr(plots, "_svg", lambda *_, **__: Markup("<svg></svg>"))


def test_full_report_has_every_section() -> None:
    """Every section has its heading, every table its caption, and every plot its own ids."""
    reader = read(page.render(full()))
    headings = [heading for heading, _ in page.SECTIONS.values()]
    assert reader.texts_in("h2") == ["Methods", *headings, "Names"]
    assert reader.tags.count("caption") == reader.tags.count("table") == 20
    assert reader.tags.count("svg") == 5
    assert len(reader.ids) == len(set(reader.ids))


@pytest.mark.usefixtures("undrawn")
def test_contents_lead_to_every_section() -> None:
    """The table of contents has a link to each heading, in their order, and no other."""
    reader = read(page.render(full()))
    contents = ["methods", *page.SECTIONS, "names"]
    assert [link for link in reader.links if link.startswith("#") and link[1:] in contents] == [
        f"#{anchor}" for anchor in contents
    ]
    assert set(contents) <= set(reader.ids)
    headings = reader.texts_in("h2")
    assert [text for text in reader.texts_in("a") if text in headings] == headings


@pytest.mark.usefixtures("undrawn")
def test_names_are_explained() -> None:
    """Methods, metrics, features and reasons stand beside their sentences."""
    reader = read(page.render(full()))
    sentences = {text for _, text in reader.texts}
    assert {METHODS[name] for name in (*NDCG, "fresh", "retrained")} <= sentences
    assert {metric.sentence for metric in METRICS.values()} <= sentences
    assert FEATURES["next_1_wide"].sentence in sentences
    assert {LEFT_OUT["one event"], LEFT_OUT["nothing new"]} <= sentences
    assert METHODS["tifu_knn"] not in sentences  # which this report does not have


@pytest.mark.usefixtures("undrawn")
def test_small_samples_are_marked() -> None:
    """The warning stands at the top, and the segment of twelve users is marked."""
    reader = read(page.render(full()))
    texts = [text for _, text in reader.texts]
    assert texts.index("Small sample:") < texts.index("Methods")
    assert texts[texts.index("few") - 1] == "12"
    assert texts.count("few") == 1


@pytest.mark.usefixtures("undrawn")
def test_rejected_rows_say_the_rule() -> None:
    """A reason that does not explain itself has its rule beside it."""
    texts = " ".join(text for _, text in read(page.render(full())).texts)
    assert "3: unknown item (the items table lacks it: add it there" in texts


def test_bars_end_at_the_axis() -> None:
    """The greatest end lies at 100%, and the others by their share of it."""
    bars = page._bars({"a": figure(0.09), "b": figure(0.04), "c": {"value": None}}, 0.1)
    assert {name: [round(part) for part in bar] for name, bar in bars.items()} == {
        "a": [80, 90, 100],
        "b": [30, 40, 50],
    }


def test_page_tells_what_never_misses() -> None:
    """Where nothing is offered again there are no tables, and the share of what is not measured."""
    never = {"mode": "never", "events": 0.412, "held_out": 0.384}
    page_of_never = page.render(minimal() | {"repeats": never})
    text = " ".join(read(page_of_never).texts_in("p"))
    assert "Of the events 41.2% are of items that their user had before" in text
    assert "38.4% of the held-out items" in text
    assert "never offered again, so these are not among what is measured" in text
    assert "table of new and repeated items" not in page_of_never


def test_page_loads_nothing_external() -> None:
    """No address but the names of the XML vocabularies, no script, nothing linked or loaded."""
    text = page.render(full())
    assert set(re.findall(r"https?://[^\"'\s<]*", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not {"script", "link", "img", "iframe", "image"} & set(read(text).tags)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_titles_and_names_are_escaped() -> None:
    """A title that is markup is shown as text, and so is a segment's name within a plot."""
    reader = read(page.render(full()))
    assert "<b>x</b>" in reader.texts_in("li")
    assert "b" not in reader.tags
    assert "<i>Odd</i> (n=100)" in reader.texts_in("text")
    assert "Film-Noir & $Crime$ (n=100)" in reader.texts_in("text")


def test_missing_sections_are_left_out() -> None:
    """What the report lacks is left out with its heading."""
    reader = read(page.render(minimal()))
    assert reader.texts_in("h2") == ["Methods", "Names"]
    assert reader.tags.count("svg") == 0


PARTS = {part: heading for heading, parts in page.SECTIONS.values() for part in parts}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("empty", ["absent", "none", "empty"])
def test_any_part_may_be_missing(part: str, empty: str) -> None:
    """A part can be absent, None or empty: its heading stays where another part needs it."""
    report = full()
    kind = type(report[part])
    report |= {part: None if empty == "none" else kind()}
    if empty == "absent":
        del report[part]
    reader = read(page.render(report))
    others = {heading for other, heading in PARTS.items() if other != part}
    expected = [heading for heading, _ in page.SECTIONS.values() if heading in others]
    assert reader.texts_in("h2") == ["Methods", *expected, "Names"]


def unknown(value: Any, nothing: float | None) -> Any:
    """The same report with nothing known: every fraction replaced."""
    if isinstance(value, dict):
        return {k: unknown(v, nothing) for k, v in value.items()}
    if isinstance(value, list):
        return [unknown(v, nothing) for v in value]
    return nothing if isinstance(value, float) else value


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_unknown_figures_are_dashes(nothing: float | None) -> None:
    """With nothing known there is no headline and no plot to draw, and no cell says nan or None."""
    report = unknown(full(), nothing)
    reader = read(page.render(report))
    assert headline(report) == ""
    assert reader.tags.count("svg") == 0
    assert not {"nan", "None"} & {text for _, text in reader.texts}
    assert figures.DASH in reader.texts_in("td")


def test_methods_without_figures_are_listed() -> None:
    """One unknown value or a metric that one method lacks takes nothing from the rest."""
    report = full()
    report["methods"]["popularity"]["ndcg@10"] = figure(None)
    del report["methods"]["item_knn"]["mrr"]
    report["methods"]["retriever"]["coverage"] = {"value": 0.4, "low": None, "high": float("nan")}
    report["segments"]["history length"][0]["methods"]["two_stage"] = None
    reader = read(page.render(report))
    assert reader.tags.count("svg") == 5
    assert {"0.2000", "0.4000"} <= set(reader.texts_in("strong"))


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    """Two pages of one report are equal, so a page that differs tells of other figures."""
    page.write_page(full(), tmp_path / "a" / "one.html")
    page.write_page(full(), tmp_path / "two.html")
    assert (tmp_path / "a" / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_failed_write_keeps_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails leaves the page that was there, and no draft."""

    def fail(_handle: int) -> None:
        raise OSError("disk full")

    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        page.write_page(minimal(), path)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
