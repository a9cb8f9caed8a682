"""Tests the studio's Data page in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

FLAGGED, ALL = re.compile(r"^Flagged \("), re.compile(r"^All \(")


@pytest.fixture
def data(page: Page) -> Page:
    """The page with all its sections."""
    page.goto("/#/data")
    expect(page.get_by_role("region", name="At a glance")).to_be_visible()
    return page


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def choose(part: Locator, name: str | re.Pattern[str]) -> None:
    """Chooses one of a row of choices by its label."""
    part.locator("label").get_by_text(name, exact=True).click()


def as_table(figure: Locator) -> Locator:
    """The rows of a chart's table, which is opened for it."""
    figure.get_by_text("Show as table").click()
    rows = figure.locator("tbody tr")
    expect(rows.first).to_be_visible()
    return rows


def test_sizes_are_told(data) -> None:
    """Events, users, items and the share of rejected rows stand at the top."""
    tiles = section(data, "At a glance").locator(".tile")
    expect(tiles.locator("dt")).to_have_text(["Events", "Users", "Items", "Rejected rows"])
    expect(tiles.nth(1).locator("strong")).to_have_text("240")
    expect(tiles.nth(2).locator("strong")).to_have_text("160")


def test_contents_lead_to_a_section(data) -> None:
    """A button of the table of contents brings its section into view, and the focus to it."""
    nav = data.get_by_role("navigation", name="On this page")
    nav.get_by_role("button", name="Rejected rows").click()
    heading = data.get_by_role("heading", name="Rejected rows")
    expect(heading).to_be_focused()
    expect(heading).to_be_in_viewport()


def test_events_by_grain_and_type(data) -> None:
    """Months are fewer bars than days, and one type has one series."""
    events = section(data, "Events over time")
    choose(events, "Day")
    expect(events.locator("figcaption")).to_contain_text("a bar is a day in UTC")
    by_day = as_table(events).count()
    choose(events, "Month")
    expect(events.locator("figcaption")).to_contain_text("a bar is a month in UTC")
    by_month = as_table(events).count()
    assert 0 < by_month < by_day
    choose(events, "purchase")
    expect(events.locator("figcaption")).to_contain_text("events of type purchase")
    types = as_table(events).locator("td:nth-child(2)")
    assert set(types.all_inner_texts()) == {"purchase"}


def test_types_have_weights_and_roles(data) -> None:
    """Weights as shares of the largest, and roles that explain themselves on focus."""
    rows = section(data, "What events mean").locator("tbody tr")
    expect(rows.filter(has_text="cart").locator("td").nth(3)).to_have_text("0.5")
    role = rows.filter(has_text="negative feedback").get_by_role("button", name="negative")
    role.focus()
    expect(
        section(data, "What events mean").get_by_role("tooltip").filter(visible=True)
    ).to_contain_text("takes an event back")


def test_activity_and_tail_add_up(data) -> None:
    """The histogram has every user, and the long tail ends at all of the events."""
    users = as_table(section(data, "How active users are")).locator("td:nth-child(2)")
    assert sum(int(text.replace(",", "")) for text in users.all_inner_texts()) == 240
    tail = section(data, "The long tail")
    expect(tail).to_contain_text("The most popular tenth of the items has")
    expect(as_table(tail).last.locator("td")).to_have_text(["100.0%", "100.0%"])


def test_repeats_name_their_setting(data) -> None:
    """How much comes again, and whether it is offered."""
    expect(section(data, "Repeats")).to_contain_text("SHORTLIST_REPEATS=allow")


def test_rejects_have_samples(data) -> None:
    """A reason opens to the rows that were rejected for it."""
    row = section(data, "Rejected rows").locator("tr", has_text="unknown item")
    expect(row.locator("td").nth(1)).to_have_text("12")
    row.get_by_text(re.compile("samples?$")).click()
    expect(row.locator("code").first).to_contain_text("9999")


def test_drift_is_filtered(data) -> None:
    """All columns are more than the flagged ones, a search leaves those that match."""
    drift = section(data, "Drift since the last release")
    choose(drift, ALL)
    rows = drift.locator("tbody tr")
    expect(rows.first).to_be_visible()
    everything = rows.count()
    drift.get_by_label("Search a column").fill("popularity")
    expect(rows.first.locator("td").nth(1)).to_contain_text("popularity")
    assert 0 < rows.count() < everything
    drift.get_by_label("Search a column").fill("no such column")
    expect(drift).to_contain_text("No column is so.")
    drift.get_by_label("Search a column").fill("")
    choose(drift, FLAGGED)
    expect(rows.filter(has_not_text="flagged")).to_have_count(0)
    assert drift.locator("label").get_by_text(FLAGGED).inner_text() == f"Flagged ({rows.count()})"
