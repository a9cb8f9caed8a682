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

from shortlist.recsys.evaluation import page
from shortlist.recsys.evaluation.names import METRICS

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Reads a page, holding that every tag is closed in its turn, and keeps what a reader meets."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open it, unless it never holds anything."""
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
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


def figure(value: float | None, around: float = 0.01) -> dict[str, float | None]:
    low, high = (None, None) if value is None else (value - around, value + around)
    return {"value": value, "low": low, "high": high}


NDCG = {
    "popularity": 0.08,
    "item_knn": 0.125,
    "recent_ease": 0.16,
    "retriever": 0.18,
    "two_stage": 0.2,
}


def minimal() -> dict[str, Any]:
    return {"methods": {name: {"ndcg@10": figure(v), "n_users": 943} for name, v in NDCG.items()}}


def full() -> dict[str, Any]:
    """A report with every section."""
    methods = {
        name: {metric: figure(v * (place + 10) / 10) for place, metric in enumerate(METRICS)}
        | {"n_users": 943}
        for name, v in NDCG.items()
    }
    paired = {
        a: {
            b: {"difference": x - y, "low": x - y - 0.01, "high": x - y + 0.01, "p_value": 0.002}
            for b, y in NDCG.items()
            if b != a
        }
        for a, x in NDCG.items()
    }
    segments = {
        "history length": [
            {
                "segment": s,
                "n_users": n,
                "methods": {m: figure(v * (1 + i / 5), 0.03) for m, v in NDCG.items()},
            }
            for i, (s, n) in enumerate([("1-9", 12), ("10-49", 400), ("50+", 531)])
        ],
        "favourite category": [
            {"segment": s, "n_users": 100, "methods": {m: figure(v, 0.02) for m, v in NDCG.items()}}
            for s in ("Action", "Children's", "Film-Noir & $Crime$", "<i>Odd</i>")
        ],
    }
    epochs = [
        {"epoch": e, "loss": 7 - e / 5, "validation": None if e == 1 else 0.1 * e**0.3}
        for e in range(1, 13)
    ]
    example = {
        "user": "17",
        "history": ["Toy Story (1995)", "<b>x</b>"],
        "recommendations": [
            {"title": "<script>alert(1)</script>", "score": 1.234, "held_out": True},
            {"title": "Fargo (1996)", "score": -0.5, "held_out": False},
        ],
        "held_out": ["<script>alert(1)</script>"],
    }
    fresh = [
        {
            "events": n,
            "n_users": 90,
            "popularity": figure(0.07),
            "fresh": figure(0.1 + n / 100),
            "retrained": figure(0.12 + n / 100),
        }
        for n in (1, 3, 10)
    ]
    return {
        "protocol": "last-10pct",
        "k": 100,
        "n_items": 1682,
        "data": {
            "fingerprint": "5c45" * 16,
            "n_users": 943,
            "n_items": 1682,
            "n_events": 100_000,
            "rejects": {"no such item": 3},
        },
        "methods": methods,
        "paired": paired,
        "repeats": {
            "mode": "allow",
            "events": 0.4,
            "held_out": 0.5,
            "parts": {part: {"methods": methods, "paired": paired} for part in ("new", "repeated")},
        },
        "segments": segments,
        "popularity": {
            part: {m: v * scale for m, v in NDCG.items()}
            for part, scale in (("head", 2), ("middle", 1), ("tail", 0.3))
        },
        "candidate_recall": {"retriever": 0.9, "neighbours": 0.02, "trending": 0.01, "all": 0.94},
        "importances": {f"feature_{n}": 0.4 / 2**n for n in range(25)},
        "learning_curves": {
            "towers": epochs,
            "ranker": [{"round": r, "validation": 0.3 + r / 999} for r in range(1, 60)],
        },
        "audit": [
            {
                "check": "No held-out event is older than what is learnt from.",
                "outcome": "held",
                "detail": "943 users",
            },
            {"check": "Nothing seen is recommended.", "outcome": "broken", "detail": "2 of 9430"},
        ],
        "examples": [example, example | {"user": "18"}],
        "fresh_users": fresh,
        "new_items": {
            "n_items": 80,
            "n_users": 400,
            "recall@20": figure(0.2),
            "random": figure(0.012, 0.004),
        },
        "seconds": {"towers": 23.6, "evaluation": 0.42},
        "seconds_total": 3725.0,
        "peak_memory_bytes": {"process": 794_845_184},
    }


SECTIONS = {
    "data": "Data",
    "paired": "Differences, user by user",
    "repeats": "New and repeated items",
    "segments": "For whom it works",
    "popularity": "Popular and rare items",
    "candidate_recall": "Candidates",
    "importances": "What the ranker looks at",
    "learning_curves": "Learning curves",
    "audit": "What was checked",
    "examples": "Examples",
    "fresh_users": "Users that training has not seen",
    "new_items": "Items that training has not seen",
    "seconds": "What it cost",
}


def test_full_report_has_every_section() -> None:
    """Every section has its heading, every table its caption, and every plot its own ids."""
    reader = read(page.render(full()))
    assert reader.texts_in("h2") == ["Methods", *SECTIONS.values()]
    assert reader.tags.count("caption") == reader.tags.count("table") == 14
    assert reader.tags.count("svg") == 7
    assert len(reader.ids) == len(set(reader.ids))


def test_page_tells_what_never_misses() -> None:
    """Where nothing is offered again there are no tables, and the share of what is not measured."""
    never = {"mode": "never", "events": 0.412, "held_out": 0.384}
    page_of_never = page.render(minimal() | {"repeats": never})
    text = " ".join(read(page_of_never).texts_in("p"))
    assert "Of the events 41.2% are of items that their user had before" in text
    assert "38.4% of the held-out items" in text
    assert "never offered again, so these are not among what is measured" in text
    assert page_of_never.count("<table>") == 1


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


def test_the_headline_names_the_strongest_baseline() -> None:
    """The finding, how much it is over whom, and what the paired interval says."""
    assert page.headline(full()) == (
        "The two-stage recommender reaches an NDCG@10 of 0.2000 (95% interval 0.1900 to 0.2100): "
        "25.0% more than recent_ease, the strongest baseline, at 0.1600. "
        "The 95% interval of the difference user by user, 0.0300 to 0.0500, excludes zero: "
        "more than the draw of users explains."
    )


def test_headline_admits_tie_and_loss() -> None:
    """An interval with zero in it is said to include it, and less is not called more."""
    report = minimal()
    report["methods"]["two_stage"]["ndcg@10"] = figure(0.152)
    report["paired"] = {
        "two_stage": {
            "recent_ease": {"difference": -0.008, "low": -0.02, "high": 0.004, "p_value": 0.2}
        }
    }
    assert page.headline(report) == (
        "The two-stage recommender reaches an NDCG@10 of 0.1520 (95% interval 0.1420 to 0.1620): "
        "5.0% less than recent_ease, the strongest baseline, at 0.1600. "
        "The 95% interval of the difference user by user, −0.0200 to 0.0040, includes zero: "  # noqa: RUF001
        "the two cannot be told apart on these users."
    )


def test_missing_sections_are_left_out() -> None:
    """What the report lacks is left out with its heading."""
    reader = read(page.render(minimal()))
    assert reader.texts_in("h2") == ["Methods"]
    assert reader.tags.count("svg") == 1


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("empty", ["absent", "none", "empty"])
def test_any_section_may_be_missing(
    section: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each section but the methods can be absent, None or empty, and the others stay."""
    monkeypatch.setattr(
        page, "_svg", lambda *_, **__: Markup("<svg></svg>")
    )  # drawing takes most of the time
    report = full()
    kind = type(report[section])
    report |= {section: None if empty == "none" else kind()}
    if empty == "absent":
        del report[section]
    if section == "seconds":
        del report["seconds_total"], report["peak_memory_bytes"]
    others = [heading for name, heading in SECTIONS.items() if name != section]
    assert read(page.render(report)).texts_in("h2") == ["Methods", *others]


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
    assert page.headline(report) == ""
    assert reader.tags.count("svg") == 0
    assert not {"nan", "None"} & {text for _, text in reader.texts}
    assert page.DASH in reader.texts_in("td")


def test_methods_without_figures_are_listed() -> None:
    """One unknown value or a metric that one method lacks takes nothing from the rest."""
    report = full()
    report["methods"]["popularity"]["ndcg@10"] = figure(None)
    del report["methods"]["item_knn"]["mrr"]
    report["methods"]["retriever"]["coverage"] = {"value": 0.4, "low": None, "high": float("nan")}
    report["segments"]["history length"][0]["methods"]["two_stage"] = None
    reader = read(page.render(report))
    assert reader.tags.count("svg") == 7
    assert {"0.2000", "0.4000"} <= set(reader.texts_in("strong"))


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    """Two pages of one report are equal, so a page that differs tells of other figures."""
    page.write_page(full(), tmp_path / "a" / "one.html")
    page.write_page(full(), tmp_path / "two.html")
    assert (tmp_path / "a" / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.42, "0.42 s"),
        (12.34, "12.3 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (None, page.DASH),
    ],
)
def test_durations_read_naturally(seconds: float | None, said: str) -> None:
    """Seconds, minutes or hours, whichever a reader would say."""
    assert page.duration(seconds) == said


def test_no_p_value_is_called_zero() -> None:
    """A p-value below what is printed is said to be below it."""
    assert [page.p_value(p) for p in (0.0, 0.00004, 0.0312, None)] == [
        "< 0.0001",
        "< 0.0001",
        "0.0312",
        page.DASH,
    ]
